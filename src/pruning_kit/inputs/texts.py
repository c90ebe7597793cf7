"""Texts ready to be scored: tokens cut into windows, windows into groups of equal shape."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pruning_kit.errors import ModelError, WindowError
from pruning_kit.inputs.corpora import Corpus, bytes_covered, tokenise
from pruning_kit.inputs.models import LoadedModel
from pruning_kit.inputs.windows import Window, sliding_windows, window_groups


@dataclass(frozen=True)
class PreparedText:
    """A tokenised text and the windows of it that are scored."""

    corpus: Corpus
    ids: np.ndarray
    """Token ids of the whole text, int64."""
    windows: list[Window]
    n_windows_in_all: int
    n_bytes: int
    """UTF-8 bytes of the text that the windows cover."""

    @cached_property
    def ids_sha256(self) -> str:
        """Hash of the token ids of the whole text, as little-endian int64."""
        return hashlib.sha256(self.ids.astype("<i8").tobytes()).hexdigest()

    def groups(self, batch_size: int) -> list[tuple[int, int]]:
        """Window groups, as (first, end) indices."""
        return window_groups(self.windows, batch_size)

    def tensors(self, first: int, end: int) -> tuple[Tensor, Tensor, int]:
        """Tokens (B, T), targets (B, S) and the first scoring output of windows first … end-1."""
        windows = self.windows[first:end]
        tokens = [self.ids[window.start : window.start + window.n_inputs] for window in windows]
        targets = [self.ids[window.first_target : window.stop] for window in windows]
        return (
            torch.from_numpy(np.stack(tokens)),
            torch.from_numpy(np.stack(targets)),
            windows[0].first_output,
        )

    def typical_window(self) -> tuple[Tensor, Tensor, int]:
        """One window of the shape that most have, as `tensors` gives it."""
        middle = len(self.windows) // 2
        return self.tensors(middle, middle + 1)


def prepare_text(
    corpus: Corpus,
    loaded: LoadedModel,
    context: int | None = None,
    stride: int | None = None,
    max_windows: int | None = None,
) -> PreparedText:
    """Tokenise a text with the model's tokenizer and cut it into windows.

    Args:
        corpus: the text.
        loaded: the model that will read it.
        context: tokens per window; by default the model's own context, at most 2,048.
        stride: tokens by which windows advance; by default half the context.
        max_windows: keep only the first windows.

    Raises:
        WindowError: if the context is longer than the model's, or gives no windows.
        CorpusError: if the text is too short.
        ModelError: if the tokenizer does not belong to the model.
    """
    tokens = tokenise(corpus, loaded.tokenizer)
    context, stride = window_sizes(loaded, context, stride)
    vocabulary = loaded.model.config.vocab_size
    if int(tokens.ids.max()) >= vocabulary:
        raise ModelError(
            f"cannot score text {corpus.name!r}: the tokenizer gives token {tokens.ids.max()}, "
            f"the model knows {vocabulary}. Give the model its own tokenizer."
        )
    every = sliding_windows(len(tokens.ids), context, stride)
    if max_windows is not None and max_windows < 1:
        raise WindowError(f"cannot score {max_windows} windows: give --max-windows 1 or more.")
    windows = every[:max_windows]
    n_bytes = bytes_covered(corpus, tokens, windows[-1].stop)
    return PreparedText(corpus, tokens.ids, windows, len(every), n_bytes)


def window_sizes(loaded: LoadedModel, context: int | None, stride: int | None) -> tuple[int, int]:
    """Context and stride in tokens: what was asked for, or the model's own.

    Raises:
        WindowError: if the context is longer than the model's positions allow.
    """
    limit = loaded.context_limit
    if context is not None and limit is not None and context > limit:
        raise WindowError(
            f"cannot use context {context}: the model {loaded.source.name!r} reads at most "
            f"{limit} tokens. Choose --context {limit} or less."
        )
    context = context or loaded.default_context
    return context, stride or max(1, context // 2)
