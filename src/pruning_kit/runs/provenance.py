"""Provenance: what a result was made from and with, as the facts of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pruning_kit.inputs.models import LoadedModel
from pruning_kit.inputs.texts import PreparedText
from pruning_kit.machine.versions import versions
from pruning_kit.runs.facts import ModelFacts, Role, TextFacts, WindowFacts


def identity(
    loaded: LoadedModel, texts: Mapping[Role, PreparedText], proposal: str
) -> dict[str, Any]:
    """What is measured: the facts in which two runs must agree for their sums to be mixed.

    Args:
        loaded: the model.
        texts: those that are scored.
        proposal: the proposer's text form.
    """
    return {
        "weights_sha256": loaded.weights_sha256,
        "texts_sha256": {role: text.corpus.sha256 for role, text in texts.items()},
        "windows": {role: len(text.windows) for role, text in texts.items()},
        "tokens_sha256": {role: text.ids_sha256 for role, text in texts.items()},
        "proposal": proposal,
        "attention": str(loaded.model.config._attn_implementation),
        "versions": versions(),
    }


def describe_model(loaded: LoadedModel, n_blocks: int) -> ModelFacts:
    """The model, for `run.json`."""
    return ModelFacts(
        name=loaded.source.name,
        revision=loaded.source.revision,
        weights_sha256=loaded.weights_sha256,
        model_type=loaded.model.config.model_type,
        n_blocks=n_blocks,
        stored_dtype=loaded.stored_dtype,
        context_limit=loaded.context_limit,
        note=loaded.source.note,
    )


def describe_text(text: PreparedText) -> TextFacts:
    """A text, for `run.json`."""
    whole = len(text.windows) == text.n_windows_in_all
    of_all = f" of {text.n_windows_in_all}" if text.n_windows_in_all is not None else ""
    count = len(text.windows)
    part = f"{count}{of_all} window{'s' * (count != 1 or bool(of_all))}"
    part = f"{part}, spread over it" if text.is_spread else f"first {part}"
    return TextFacts(
        name=text.corpus.name,
        title=text.corpus.title,
        sha256=text.corpus.sha256,
        n_tokens=text.n_tokens_in_all,
        n_bytes=text.n_bytes,
        n_windows_in_all=text.n_windows_in_all,
        part=None if whole else part,
        note=text.corpus.note,
    )


def describe_windows(text: PreparedText, batch_size: int) -> WindowFacts:
    """Groups and scored tokens, for `run.json`."""
    return WindowFacts(
        groups=tuple((first, end) for first, end in text.groups(batch_size)),
        targets=tuple(window.n_targets for window in text.windows),
    )
