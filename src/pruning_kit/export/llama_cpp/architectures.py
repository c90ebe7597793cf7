"""Architectures: which models llama.cpp computes as Hugging Face does, and what it is told of them.

Source: llama.cpp, convert_hf_to_gguf.py, and docs/gguf.md of ggml for the names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from pruning_kit.errors import ExportError

Facts = dict[str, int | float]

CONV1D = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")
"""GPT-2's linear layers hold their weights the other way round."""
ROTATED = re.compile(r"\.(q|k)_proj\.(weight|bias)$")


@dataclass(frozen=True, slots=True)
class Architecture:
    """A kind of model that llama.cpp computes."""

    name: str
    """As gguf and llama.cpp have it."""
    facts: Callable[[Any], Facts]
    """What a GGUF says of the config, by GGUF's names."""
    demands: Mapping[str, tuple[Any, ...]]
    """Values that the config must have, since llama.cpp has no others."""
    pairs_neighbours: bool = False
    """Whether llama.cpp turns neighbouring dimensions of queries and keys, not those of halves."""


def _gpt2_facts(config: Any) -> Facts:
    return {
        "context_length": config.n_positions,
        "embedding_length": config.n_embd,
        "block_count": config.n_layer,
        "feed_forward_length": config.n_inner or 4 * config.n_embd,
        "attention.head_count": config.n_head,
        "attention.layer_norm_epsilon": config.layer_norm_epsilon,
    }


def _llama_facts(config: Any) -> Facts:
    head_dim = head_size(config)
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.dimension_count": head_dim,
        "rope.freq_base": float(config.rope_parameters["rope_theta"]),
    }


def head_size(config: Any) -> int:
    """Dimensions of an attention head."""
    own = getattr(config, "head_dim", None)
    return own or config.hidden_size // config.num_attention_heads


_LLAMA = {"hidden_act": ("silu",), "mlp_bias": (False,)}
ARCHITECTURES = {
    "gpt2": Architecture(
        "gpt2",
        _gpt2_facts,
        {
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
        },
    ),
    "llama": Architecture(
        "llama",
        _llama_facts,
        {**_LLAMA, "rope_type": ("default", "linear", "llama3")},
        pairs_neighbours=True,
    ),
    "mistral": Architecture(
        "llama",
        _llama_facts,
        {**_LLAMA, "rope_type": ("default",), "sliding_window": (None,)},
        pairs_neighbours=True,
    ),
    "qwen2": Architecture(
        "qwen2",
        _llama_facts,
        {**_LLAMA, "rope_type": ("default",), "use_sliding_window": (False,)},
    ),
    "qwen3": Architecture(
        "qwen3",
        _llama_facts,
        {**_LLAMA, "rope_type": ("default",), "use_sliding_window": (False,)},
    ),
}
"""By the model types of Hugging Face."""


def architecture_of(config: Any) -> Architecture:
    """What llama.cpp has for a model.

    Raises:
        ExportError: if it has nothing that computes the same, as far as the kit knows.
    """
    found = ARCHITECTURES.get(config.model_type)
    if found is None:
        raise ExportError(
            f"cannot write a GGUF of a {config.model_type} model: the kit writes "
            f"{', '.join(ARCHITECTURES)}. Leave out `gguf`, or use llama.cpp's own converter on "
            "the folder."
        )
    for name, allowed in found.demands.items():
        value = _value(config, name, allowed[0])
        if value not in allowed:
            raise ExportError(
                f"cannot write a GGUF: the config has {name}={value!r:.60}, with which llama.cpp "
                f"would not compute the same ({found.name} there has "
                f"{' or '.join(map(repr, allowed))}). Leave out `gguf`."
            )
    return found


def _value(config: Any, name: str, default: Any) -> Any:
    if name == "rope_type":
        return (config.rope_parameters or {}).get(name, default)
    return getattr(config, name, default)


def arranged(tensor: Tensor, name: str, architecture: Architecture, config: Any) -> Tensor:
    """A tensor of a Hugging Face file as llama.cpp wants it, float32.

    Where rotations pair neighbours, the rows of a head's two halves are interleaved: the same
    products, in another order.
    """
    tensor = tensor.float()
    if architecture.name == "gpt2" and CONV1D.search(name):
        return tensor.t()
    found = ROTATED.search(name) if architecture.pairs_neighbours else None
    if not found:
        return tensor
    queries = found[1] == "q"
    n_heads = config.num_attention_heads if queries else config.num_key_value_heads
    halves = tensor.reshape(n_heads, 2, -1, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def slowed_rotations(config: Any) -> Tensor | None:
    """By what llama.cpp is to divide the frequencies of its rotations; None if by nothing."""
    kind = _value(config, "rope_type", "default") if hasattr(config, "rope_parameters") else None
    if kind in (None, "default"):
        return None
    scaled, _ = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    exponents = torch.arange(0, head_size(config), 2, dtype=torch.float32) / head_size(config)
    return config.rope_parameters["rope_theta"] ** -exponents / scaled
