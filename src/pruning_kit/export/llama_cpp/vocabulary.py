"""Vocabulary: a tokenizer as llama.cpp is told of it, if it is one that llama.cpp has.

llama.cpp has the rules of each tokenizer in its own code, under a name. A byte-level BPE is one of
these if its text is parted in the same way, whatever its words and merges are; so the demo model's
own is GPT-2's by its rules.

Source: llama.cpp, src/llama-vocab.cpp, and `get_vocab_base_pre` of convert_hf_to_gguf.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pruning_kit.errors import ExportError

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Kinds of tokens, as GGUF numbers them."""

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _bytes(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "use_regex": use_regex}


def _parted_by(regex: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _bytes(False)]}


RULES: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt-2": (None, _bytes(True)),
    "smollm": (
        None,
        {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, _bytes(True)],
        },
    ),
    "llama-bpe": (None, _parted_by(rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}")),
    "qwen2": ({"type": "NFC"}, _parted_by(rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}")),
}
"""Of llama.cpp's names: normalizer and pre-tokenizer in tokenizer.json."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a GGUF holds of a byte-level BPE."""

    rules: str
    """Llama.cpp's name for how text is parted."""
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...]
    special: Mapping[str, int]
    """Token numbers by their role: `bos`, `eos`, `unknown`, `padding`."""
    adds_bos: bool
    chat_template: str | None


def vocabulary_of(tokenizer: Any, config: Any) -> Vocabulary:
    """A tokenizer as llama.cpp has it.

    Args:
        tokenizer: a fast tokenizer of Hugging Face.
        config: of the model, which may have rows for more tokens than there are.

    Raises:
        ExportError: if llama.cpp has no such tokenizer, as far as the kit knows.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    rules = _rules_of(content)
    names = {number: token for token, number in content["model"]["vocab"].items()}
    kinds = dict.fromkeys(names, NORMAL)
    for added in content["added_tokens"]:
        names[added["id"]] = added["content"]
        kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    everything = range(config.vocab_size)
    special = _special(tokenizer, config)
    return Vocabulary(
        rules=rules,
        tokens=tuple(names.get(number, f"[PAD{number}]") for number in everything),
        kinds=tuple(kinds.get(number, UNUSED) for number in everything),
        merges=tuple(
            merge if isinstance(merge, str) else " ".join(merge)
            for merge in content["model"]["merges"]
        ),
        special=special,
        adds_bos="bos" in special and tokenizer("a")["input_ids"][:1] == [special["bos"]],
        chat_template=tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
    )


def _rules_of(content: Mapping[str, Any]) -> str:
    model, splitter = content["model"], _essentials(content["pre_tokenizer"])
    if model["type"] == "BPE" and not (model.get("byte_fallback") or model.get("dropout")):
        for name, rules in RULES.items():
            if (_essentials(content["normalizer"]), splitter) == rules:
                return name
    kind = (splitter or {}).get("type", "no")
    raise ExportError(
        f"cannot write a GGUF: the tokenizer is a {model['type']} with {kind} pre-tokenizer, by "
        f"rules that the kit does not find among those of llama.cpp that it knows "
        f"({', '.join(RULES)}). Leave out `gguf`, or use llama.cpp's own converter on the folder."
    )


def _essentials(part: Any) -> Any:
    """A part of tokenizer.json without what does not change which tokens there are."""
    if isinstance(part, Mapping):
        return {key: _essentials(one) for key, one in part.items() if key != "trim_offsets"}
    return [_essentials(one) for one in part] if isinstance(part, list) else part


def _special(tokenizer: Any, config: Any) -> dict[str, int]:
    """Token numbers by role; where none ends a text, llama.cpp would take one of its own."""
    numbers = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unknown": tokenizer.unk_token_id,
        "padding": tokenizer.pad_token_id,
    }
    if numbers["eos"] is None and isinstance(config.eos_token_id, int):
        numbers["eos"] = config.eos_token_id
    if numbers["eos"] is None:
        raise ExportError(
            "cannot write a GGUF: neither tokenizer nor config names a token that ends a text, and "
            "llama.cpp would take token 11. Set eos_token in the base model's tokenizer."
        )
    return {role: number for role, number in numbers.items() if number is not None}
