"""Small random models with the demo's tokenizer, of the kinds that llama.cpp computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from pruning_kit.inputs.models import DEMO_FOLDER

_LLAMA = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_GPT2 = {"n_embd": 64, "n_head": 2, "n_layer": 3, "n_positions": 64}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", _GPT2),
    "gpt2-untied": ("gpt2", {**_GPT2, "tie_word_embeddings": False, "n_inner": 160}),
    "llama": ("llama", _LLAMA),
    "llama-tied-biased": (
        "llama",
        {**_LLAMA, "tie_word_embeddings": True, "attention_bias": True, "head_dim": 32},
    ),
    "llama3": ("llama", {**_LLAMA, "rope_parameters": _LLAMA3}),
    "mistral": ("mistral", {**_LLAMA, "sliding_window": None}),
    "qwen2": ("qwen2", _LLAMA),
    "qwen3": ("qwen3", {**_LLAMA, "head_dim": 32}),
}


def save_small(folder: Path, kind: str, **settings: Any) -> Path:
    """Save a model of a kind, with further settings of its config; the same weights every time."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_FOLDER)
    model_type, own = KINDS[kind]
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    words = {"vocab_size": len(tokenizer) + 2, "initializer_range": 0.2, **ends}
    config = AutoConfig.for_model(model_type, **{**own, **words, **settings})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
