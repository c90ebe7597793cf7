"""Families of checkpoints: what differs between them, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pruning_kit.errors import ArchitectureError


@dataclass(frozen=True, slots=True)
class Family:
    """Where a family of checkpoints keeps its parts, as dotted module paths.

    A checkpoint may lack the final norm (OPT 350m does); the stack it must have.
    """

    stack: str
    norm: str
    projection: str | None
    """Inside a block: the linear layer that ends its MLP; None where there are several."""
    attention: str
    """Inside a block: the linear layer that ends its attention."""


_GPT2_STYLE = Family("transformer.h", "transformer.ln_f", "mlp.c_proj", "attn.c_proj")
_BLOOM_STYLE = replace(
    _GPT2_STYLE, projection="mlp.dense_4h_to_h", attention="self_attention.dense"
)
_LLAMA_STYLE = Family("model.layers", "model.norm", "mlp.down_proj", "self_attn.o_proj")

FAMILIES: dict[str, Family] = {
    "bloom": _BLOOM_STYLE,
    "cohere": _LLAMA_STYLE,
    "cohere2": _LLAMA_STYLE,
    "falcon": _BLOOM_STYLE,
    "gemma": _LLAMA_STYLE,
    "gemma2": _LLAMA_STYLE,
    "gemma3_text": _LLAMA_STYLE,
    "gpt2": _GPT2_STYLE,
    "gpt_bigcode": _GPT2_STYLE,
    "gpt_neo": replace(_GPT2_STYLE, attention="attn.attention.out_proj"),
    "gpt_neox": Family(
        "gpt_neox.layers", "gpt_neox.final_layer_norm", "mlp.dense_4h_to_h", "attention.dense"
    ),
    "gptj": replace(_GPT2_STYLE, projection="mlp.fc_out", attention="attn.out_proj"),
    "granite": _LLAMA_STYLE,
    "llama": _LLAMA_STYLE,
    "mistral": _LLAMA_STYLE,
    "mixtral": replace(_LLAMA_STYLE, projection=None),
    "mpt": Family("transformer.blocks", "transformer.norm_f", "ffn.down_proj", "attn.out_proj"),
    "olmo": _LLAMA_STYLE,
    "olmo2": _LLAMA_STYLE,
    "olmo3": _LLAMA_STYLE,
    "opt": Family(
        "model.decoder.layers", "model.decoder.final_layer_norm", "fc2", "self_attn.out_proj"
    ),
    "phi": Family("model.layers", "model.final_layernorm", "mlp.fc2", "self_attn.dense"),
    "phi3": _LLAMA_STYLE,
    "qwen2": _LLAMA_STYLE,
    "qwen2_moe": _LLAMA_STYLE,
    "qwen3": _LLAMA_STYLE,
    "qwen3_moe": _LLAMA_STYLE,
    "smollm3": _LLAMA_STYLE,
    "stablelm": _LLAMA_STYLE,
    "starcoder2": replace(_LLAMA_STYLE, projection="mlp.c_proj"),
}


def family_of(model_type: str) -> Family:
    """Look up a family by `config.model_type`.

    Raises:
        ArchitectureError: if the kit has no entry for it.
    """
    if model_type not in FAMILIES:
        raise ArchitectureError(
            f"no adapter for model type {model_type!r}: pruning_kit knows {', '.join(FAMILIES)}. "
            "See docs/architectures.md to add one."
        )
    return FAMILIES[model_type]
