"""Provenance: what a result was made from and with, as plain JSON values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from pruning_kit.inputs.models import LoadedModel
from pruning_kit.inputs.texts import PreparedText
from pruning_kit.machine.versions import versions
from pruning_kit.plans.plan import Plan


def identity(
    loaded: LoadedModel, texts: Mapping[str, PreparedText], plans: Sequence[Plan]
) -> dict[str, Any]:
    """What is measured: the facts in which two runs must agree for their sums to be mixed."""
    return {
        "weights_sha256": loaded.weights_sha256,
        "texts_sha256": {split: text.corpus.sha256 for split, text in texts.items()},
        "windows": {split: len(text.windows) for split, text in texts.items()},
        "tokens_sha256": {split: text.ids_sha256 for split, text in texts.items()},
        "plans_sha256": hash_plans(plans),
        "attention": str(loaded.model.config._attn_implementation),
        "versions": versions(),
    }


def hash_plans(plans: Sequence[Plan]) -> str:
    """SHA-256 of the list of plans, in order."""
    return hashlib.sha256(" ".join(map(str, plans)).encode()).hexdigest()


def describe_model(loaded: LoadedModel, n_blocks: int) -> dict[str, Any]:
    """The model, for `run.json`."""
    return {
        "name": loaded.source.name,
        "revision": loaded.source.revision,
        "weights_sha256": loaded.weights_sha256,
        "model_type": loaded.model.config.model_type,
        "n_blocks": n_blocks,
        "stored_dtype": loaded.stored_dtype,
        "context_limit": loaded.context_limit,
        "note": loaded.source.note,
    }


def describe_text(text: PreparedText) -> dict[str, Any]:
    """A text, for `run.json`."""
    whole = len(text.windows) == text.n_windows_in_all
    of_all = f" of {text.n_windows_in_all}" if text.n_windows_in_all is not None else ""
    count = len(text.windows)
    part = f"first {count}{of_all} window{'s' * (count != 1 or bool(of_all))}"
    return {
        "name": text.corpus.name,
        "title": text.corpus.title,
        "sha256": text.corpus.sha256,
        "n_tokens": text.n_tokens_in_all,
        "n_bytes": text.n_bytes,
        "n_windows_in_all": text.n_windows_in_all,
        "part": None if whole else part,
        "note": text.corpus.note,
    }


def describe_windows(text: PreparedText, batch_size: int) -> dict[str, Any]:
    """Groups and scored tokens, for `run.json`."""
    return {
        "groups": [list(group) for group in text.groups(batch_size)],
        "targets": [window.n_targets for window in text.windows],
    }
