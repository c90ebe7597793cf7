"""Tiny random models, one for each family that the kit knows: four blocks, alternating kinds."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

N_BLOCKS = 4
VOCABULARY = 97
CONTEXT = 64

_GPT2 = {
    "n_embd": 16,
    "n_head": 2,
    "n_layer": N_BLOCKS,
    "n_positions": CONTEXT,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "num_hidden_layers": N_BLOCKS,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_NEOX = {name: value for name, value in _LLAMA.items() if name != "num_key_value_heads"}
_BLOOM = {"hidden_size": 16, "num_attention_heads": 2, "n_layer": N_BLOCKS, "pad_token_id": 0}
_FALCON = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": N_BLOCKS,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_ALTERNATING = ["sliding_attention", "full_attention"] * (N_BLOCKS // 2)
_SLIDING = {"sliding_window": 8, "layer_types": _ALTERNATING}
_EXPERTS = {**_LLAMA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_SHARED = {**_EXPERTS, "shared_expert_intermediate_size": 24}

SETTINGS: dict[str, dict[str, Any]] = {
    "bloom": _BLOOM,
    "cohere": {**_LLAMA, "logit_scale": 0.25},
    "cohere2": {**_LLAMA, **_SLIDING, "head_dim": 8, "logit_scale": 0.25},
    "falcon": {**_FALCON, "alibi": False},
    "gemma": {**_LLAMA, "head_dim": 8},
    "gemma2": {
        **_LLAMA,
        **_SLIDING,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "final_logit_softcapping": 2.0,
    },
    "gemma3_text": {**_LLAMA, **_SLIDING, "head_dim": 8, "query_pre_attn_scalar": 8},
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neo": {
        "hidden_size": 16,
        "num_heads": 2,
        "num_layers": N_BLOCKS,
        "attention_types": [[["global", "local"], N_BLOCKS // 2]],
        "window_size": 8,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
    "gpt_neox": _NEOX,
    "gptj": {**_GPT2, "rotary_dim": 4},
    "granite": {
        **_LLAMA,
        "logits_scaling": 4.0,
        "residual_multiplier": 0.5,
        "embedding_multiplier": 2.0,
    },
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "sliding_window": 8},
    "mixtral": {**_LLAMA, "sliding_window": 8, "num_local_experts": 4},
    "mpt": {
        "d_model": 16,
        "n_heads": 2,
        "n_layers": N_BLOCKS,
        "max_seq_len": CONTEXT,
        "expansion_ratio": 2,
    },
    "olmo": _LLAMA,
    "olmo2": _LLAMA,
    "olmo3": {**_LLAMA, **_SLIDING},
    "opt": {
        "hidden_size": 16,
        "ffn_dim": 24,
        "num_attention_heads": 2,
        "num_hidden_layers": N_BLOCKS,
        "max_position_embeddings": CONTEXT,
        "word_embed_proj_dim": 16,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    },
    "phi": {**_LLAMA, "num_key_value_heads": 2},
    "phi3": {**_LLAMA, "sliding_window": 8},
    "qwen2": {**_LLAMA, **_SLIDING, "use_sliding_window": True},
    "qwen2_moe": {**_SHARED, **_SLIDING, "use_sliding_window": True, "mlp_only_layers": [1]},
    "qwen3": {**_LLAMA, **_SLIDING, "use_sliding_window": True, "head_dim": 8},
    "qwen3_moe": {**_EXPERTS, "head_dim": 8, "mlp_only_layers": [1, 2]},
    "smollm3": {
        **_LLAMA,
        **_SLIDING,
        "use_sliding_window": True,
        "no_rope_layers": [1, 0, 1, 0],
    },
    "stablelm": _LLAMA,
    "starcoder2": {**_LLAMA, "sliding_window": 8},
}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "falcon-alibi": ("falcon", {**_FALCON, "alibi": True}),
    "falcon-new": ("falcon", {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 1}),
    "gpt2-crossattention": ("gpt2", {**_GPT2, "add_cross_attention": True}),
    "gpt2-inverse": ("gpt2", {**_GPT2, "scale_attn_by_inverse_layer_idx": True}),
    "gpt2-untied": ("gpt2", {**_GPT2, "tie_word_embeddings": False}),
    "gpt_bigcode-multihead": ("gpt_bigcode", {**_GPT2, "multi_query": False}),
    "llama-tied": ("llama", {**_LLAMA, "tie_word_embeddings": True}),
    "mixtral-routers": (
        "mixtral",
        {**_LLAMA, "num_local_experts": 4, "output_router_logits": True},
    ),
    "opt-projected": (
        "opt",
        {**SETTINGS["opt"], "do_layer_norm_before": False, "word_embed_proj_dim": 8},
    ),
    "qwen2_moe-step": ("qwen2_moe", {**_SHARED, "decoder_sparse_step": 2}),
    "qwen3_moe-step": (
        "qwen3_moe",
        {**_EXPERTS, "decoder_sparse_step": 2, "mlp_only_layers": [3]},
    ),
    "stablelm-parallel": ("stablelm", {**_LLAMA, "use_parallel_residual": True}),
}

NAMES = [*SETTINGS, *VARIANTS]

WIDTHS = (
    "n_embd",
    "hidden_size",
    "d_model",
    "intermediate_size",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "ffn_dim",
    "word_embed_proj_dim",
    "head_dim",
)


def widened(name: str) -> dict[str, int]:
    """Changes that make a tiny model four times as wide: multiples of 32."""
    _, settings = VARIANTS.get(name, (name, SETTINGS.get(name, {})))
    return {key: 4 * value for key, value in settings.items() if key in WIDTHS}


def tiny_config(name: str, **changes: Any) -> Any:
    """The config of a tiny model: a family of `SETTINGS` or a variant of one."""
    model_type, settings = VARIANTS.get(name, (name, SETTINGS.get(name, {})))
    return AutoConfig.for_model(model_type, **{"vocab_size": VOCABULARY, **settings, **changes})


def tiny_model(name: str, attention: str = "eager", seed: int = 0, **changes: Any) -> Any:
    """A tiny random model in eval mode; weights large enough that every block matters."""
    config = tiny_config(name, **changes)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
        for parameter in model.parameters():  # norms and biases too get values of their own
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def attentions(name: str) -> list[str]:
    """The attention back-ends that the family says it has."""
    with warnings.catch_warnings():
        # gpt_bigcode of transformers 5.17 uses a decorator that torch 2.13 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        architecture = AutoModelForCausalLM._model_mapping[type(tiny_config(name))]
    return ["eager", "sdpa"] if architecture._supports_sdpa else ["eager"]


def random_tokens(batch: int = 2, length: int = 20, seed: int = 1) -> torch.Tensor:
    """Token ids (batch, length), none of them the padding token 0."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCABULARY, (batch, length), generator=generator)
