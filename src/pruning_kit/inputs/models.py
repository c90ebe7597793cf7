"""Models: which one to use, loading it, and what identifies it in a result."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel

from pruning_kit.errors import ModelError, first_line
from pruning_kit.inputs import hub
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.checkpoints import check_agreement, load_checkpoint, read_config
from pruning_kit.inputs.weights import find_weights, refuse_other_formats

DEFAULT_MODEL = "distilgpt2"
DEFAULT_MODEL_ALIASES = (DEFAULT_MODEL, "distilbert/distilgpt2")
DEMO_FOLDER = Path(__file__).parents[1] / "demo"
MAX_DEFAULT_CONTEXT = 2048
PROBE_TOKENS = 16
"""Tokens that tell whether a model sees the future."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from, decided before anything is loaded."""

    name: str
    folder: Path
    revision: str | None = None
    note: str | None = None
    """What was substituted and why; None if the model is the one asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInputs:
    """What texts and plans are made ready by: all of a model but its weights."""

    source: ModelSource
    config: Any
    tokenizer: Any

    @property
    def context_limit(self) -> int | None:
        """Longest sequence the model's positions allow; None if they set no limit."""
        return context_limit(self.config)

    @property
    def default_context(self) -> int:
        """The model's own context, at most 2,048 tokens."""
        return min(self.context_limit or 1024, MAX_DEFAULT_CONTEXT)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel(ModelInputs):
    """A model ready to run, and the facts that identify it."""

    model: PreTrainedModel
    stored_dtype: str
    weights_sha256: str

    @property
    def saved_dtype(self) -> torch.dtype:
        """The format that a pruned model is saved in: the stored one."""
        return getattr(torch, self.stored_dtype)


def context_limit(config: Any) -> int | None:
    """Longest sequence that a config's positions allow; None if it sets no limit."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        limit = getattr(config, name, None)
        if isinstance(limit, int):
            return limit
    return None


def find_model(name: str | None) -> ModelSource:
    """Decide what `model` means: `demo`, a local folder, a Hub id, or nothing (the default).

    Only the default falls back to the embedded demo model; a model asked for never does.

    Raises:
        ModelError: if the model is neither here nor on the Hub, or the Hub does not answer.
    """
    if name is None:
        return _default_model()
    if name == "demo":
        return ModelSource("demo", DEMO_FOLDER)
    if name and os.path.isdir(name):  # noqa: PTH112 - Path.is_dir raises for very long names
        return ModelSource(name, Path(name))
    if os.path.isfile(name):  # noqa: PTH113
        if name.lower().endswith(".gguf"):
            refuse_other_formats(name, [os.path.basename(name)])  # noqa: PTH119
        raise ModelError(
            f"cannot load model {name!r}: it is a file. "
            "Give the folder that holds config.json, weights and tokenizer."
        )
    if not hub.is_repo_id(name):
        remedy = _near_miss(name) or "Give a folder, a Hugging Face Hub id, or demo."
        raise ModelError(
            f"cannot load model {name!r}: there is no such folder, and no model on the Hub can "
            f"have that name. {remedy}"
        )
    return _hub_model(name)


def _default_model() -> ModelSource:
    for alias in DEFAULT_MODEL_ALIASES:
        folder = hub.cached_model(alias)
        if folder:
            return ModelSource(DEFAULT_MODEL, folder, folder.name)
    reason = hub.refusal(DEFAULT_MODEL)
    if reason is None:
        try:
            folder = hub.download_model(DEFAULT_MODEL)
            return ModelSource(DEFAULT_MODEL, folder, folder.name)
        except OSError as error:
            reason = f"the download failed ({first_line(error)})"
    return ModelSource(
        "demo", DEMO_FOLDER, note=f"distilgpt2 is not in the local cache and {reason}"
    )


def _near_miss(name: str) -> str:
    """A question, if a name is nearly one that the kit itself knows; else empty."""
    if name in DEFAULT_MODEL_ALIASES:
        return ""
    near = difflib.get_close_matches(name.lower(), ("demo", DEFAULT_MODEL), n=1, cutoff=0.7)
    return f"Did you mean `model` {near[0]}?" if near else ""


def _hub_model(name: str) -> ModelSource:
    folder = hub.cached_model(name)
    if folder is None:
        reason = hub.refusal(name)
        if reason:
            _say_why_cached_copy_is_useless(name)
            remedy = _near_miss(name) or "Check the name or the network, or use `model` demo."
            raise ModelError(
                f"cannot load model {name!r}: there is no folder of that name, it is not in the "
                f"local cache, and {reason}. {remedy}"
            )
        try:
            folder = hub.download_model(name)
        except OSError as error:
            raise ModelError(
                f"cannot download model {name!r}: {first_line(error)}. "
                "Check the network and the disk, or use `model` demo."
            ) from error
    return ModelSource(name, folder, folder.name)


def _say_why_cached_copy_is_useless(name: str) -> None:
    """Raise what is wrong with the weights in the local cache, if it has the model's config."""
    folder = hub.cached_folder(name)
    if folder is not None:
        find_weights(name, folder)


def load_inputs(source: ModelSource) -> ModelInputs:
    """Read a model's config and tokenizer; no weight is read.

    Raises:
        ModelError: if either cannot be used, or the config asks for no block.
    """
    config = read_config(source.name, source.folder)
    return ModelInputs(source=source, config=config, tokenizer=_load_tokenizer(source))


def load_model(
    source: ModelSource,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
    inputs: ModelInputs | None = None,
) -> LoadedModel:
    """Load a model and its tokenizer from a folder: safetensors only, no remote code.

    Args:
        source: from `find_model`.
        device: where the weights go.
        dtype: the format the model computes in, whatever its weights are stored in.
        attention: `eager`, `sdpa`, or None for the family's default.
        inputs: config and tokenizer, where they are at hand.

    Raises:
        ModelError: if the folder holds no usable causal language model.
    """
    checkpoint = load_checkpoint(source.name, source.folder, device, dtype, attention)
    check_agreement(source.name, checkpoint)
    _check_causal(source, checkpoint.model)
    return LoadedModel(
        source=source,
        config=checkpoint.model.config,
        tokenizer=_load_tokenizer(source) if inputs is None else inputs.tokenizer,
        model=checkpoint.model,
        stored_dtype=checkpoint.stored_dtype,
        weights_sha256=checkpoint.files.sha256(),
    )


def _check_causal(source: ModelSource, model: PreTrainedModel) -> None:
    """Refuse a model whose perplexity would mean nothing, since it sees the tokens it predicts."""
    length = min(PROBE_TOKENS, context_limit(model.config) or PROBE_TOKENS)
    if Decoder(model).sees_the_future(length):
        raise ModelError(
            f"cannot measure model {source.name!r}: its predictions change with later tokens, so "
            "it sees what it is to predict (its attention is bidirectional). Use a causal "
            "language model."
        )


def _load_tokenizer(source: ModelSource) -> Any:
    """The tokenizer of a model folder, one that can tell where in the text its tokens lie."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False)
    except Exception as error:  # the libraries raise many kinds, also a bare Exception
        raise ModelError(
            f"cannot load model {source.name!r}: its tokenizer cannot be used "
            f"({first_line(error)}). Save the model's own there, as tokenizer.json."
        ) from error
    # Where files are missing, the library makes a tokenizer that knows only its special tokens.
    if set(tokenizer.get_vocab()) <= set(tokenizer.get_added_vocab()):
        raise ModelError(
            f"cannot load model {source.name!r}: its folder holds no tokenizer. "
            "Save the model's own there, as tokenizer.json."
        )
    if not tokenizer.is_fast:
        raise ModelError(
            f"cannot load model {source.name!r}: {type(tokenizer).__name__} cannot tell where in "
            "the text its tokens lie. Save a fast tokenizer there, as tokenizer.json."
        )
    tokenizer.init_kwargs.pop("auto_map", None)  # code that a saved copy would not have
    return tokenizer
