"""Texts ready to be scored: tokens cut into windows, windows into groups of equal shape.

The model reads a sequence: the text's tokens, with a BOS token before them where the model knows
texts that way. The windows are those of this sequence, whose first token is never scored. With BOS
each window reads it in place of its own first token.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pruning_kit.errors import CorpusError, ModelError, WindowError
from pruning_kit.inputs.corpora import Corpus
from pruning_kit.inputs.models import ModelInputs
from pruning_kit.inputs.tokens import PIECE, TokenisedText, tokenise
from pruning_kit.inputs.windows import (
    Window,
    check_sizes,
    count_windows,
    sliding_windows,
    tokens_read,
    window_groups,
)

ALWAYS_COUNTED_BYTES = 1 << 22
"""Texts up to this size are tokenised to their end, to know how many windows they have in all."""
LONG_PIECE = 8 * PIECE


@dataclass(frozen=True)
class PreparedText:
    """A tokenised text and the windows of it that are scored."""

    corpus: Corpus
    ids: np.ndarray
    """Token ids of the sequence up to the end of the last window, int32."""
    bos: int | None
    """The token that each window begins with; None if it begins with the text's own."""
    windows: list[Window]
    n_tokens_in_all: int | None
    """Tokens of the whole text without BOS; None if a long text was read only as far as needed."""
    n_windows_in_all: int | None
    n_bytes: int
    """UTF-8 bytes of the text that the windows cover; their share by tokens, if they are spread."""
    at_once: bool
    """Whether much of the text had to be tokenised at once, which takes much memory."""
    is_spread: bool = False
    """Whether the windows are not neighbours, but some of many."""

    @cached_property
    def ids_sha256(self) -> str:
        """Hash of the token ids up to the end of the last window, as little-endian int64."""
        return hashlib.sha256(self.ids.astype("<i8").tobytes()).hexdigest()

    def part(self, windows: range) -> PreparedText:
        """The same text with some neighbouring windows alone."""
        return replace(self, windows=self.windows[windows.start : windows.stop])

    def spread(self, n_windows: int) -> PreparedText:
        """The same text with so many windows alone, at equal distances."""
        n_in_all = len(self.windows)
        if n_windows >= n_in_all:
            return self
        kept = [self.windows[(2 * at + 1) * n_in_all // (2 * n_windows)] for at in range(n_windows)]
        share = sum(w.n_targets for w in kept) / sum(w.n_targets for w in self.windows)
        return replace(self, windows=kept, n_bytes=round(share * self.n_bytes), is_spread=True)

    def groups(self, batch_size: int) -> list[tuple[int, int]]:
        """Window groups, as (first, end) indices."""
        return window_groups(self.windows, batch_size)

    def tensors(self, first: int, end: int) -> tuple[Tensor, Tensor, int]:
        """Tokens (B, T), targets (B, S) and the first scoring output of windows first … end-1."""
        windows = self.windows[first:end]
        tokens_BT, targets_BS = (
            torch.from_numpy(np.stack([self.ids[part] for part in parts]).astype(np.int64))
            for parts in (
                [slice(window.start, window.start + window.n_inputs) for window in windows],
                [slice(window.first_target, window.stop) for window in windows],
            )
        )
        if self.bos is not None:
            tokens_BT[:, 0] = self.bos
        return tokens_BT, targets_BS, windows[0].first_output

    def typical_window(self) -> tuple[Tensor, Tensor, int]:
        """One window of the shape that most have, as `tensors` gives it."""
        middle = len(self.windows) // 2
        return self.tensors(middle, middle + 1)


def prepare_text(
    corpus: Corpus,
    inputs: ModelInputs,
    context: int | None = None,
    stride: int | None = None,
    max_windows: int | None = None,
    bos: bool | None = None,
) -> PreparedText:
    """Tokenise a text with the model's tokenizer and cut it into windows.

    Args:
        corpus: the text; no more of it is tokenised than the windows need, unless it is short.
        inputs: the model that will read it.
        context: tokens per window; by default the model's own context, at most 2,048.
        stride: tokens by which windows advance; by default half the context.
        max_windows: keep only the first windows.
        bos: whether each window begins with the BOS token; by default as `choose_bos` says.

    Raises:
        WindowError: if the context is longer than the model's, or gives no windows.
        CorpusError: if the text is too short.
        ModelError: if the tokenizer does not belong to the model, or has no BOS token.
    """
    context, stride = window_sizes(inputs, context, stride)
    if max_windows is not None and max_windows < 1:
        raise WindowError(f"cannot score {max_windows} windows: give `max_windows` 1 or more.")
    at_most = None if max_windows is None else tokens_read(max_windows, context, stride)
    first = choose_bos(inputs, bos)
    n_before = 0 if first is None else 1
    tokens = tokenise(
        corpus.read,
        inputs.tokenizer,
        at_most=None if at_most is None else at_most - n_before,
        count=corpus.n_bytes <= ALWAYS_COUNTED_BYTES,
    )
    ids = tokens.ids if first is None else np.insert(tokens.ids, 0, first)
    _check_ids(ids, corpus, inputs)
    n_in_all = tokens.n_in_all
    n_windows_in_all = (
        None if n_in_all is None else count_windows(n_in_all + n_before, context, stride)
    )
    return PreparedText(
        corpus,
        ids,
        first,
        windows=sliding_windows(len(ids), context, stride),
        n_tokens_in_all=n_in_all,
        n_windows_in_all=n_windows_in_all,
        n_bytes=_bytes_covered(corpus, tokens),
        at_once=tokens.longest > LONG_PIECE,
    )


def choose_bos(inputs: ModelInputs, asked: bool | None) -> int | None:
    """The token that each window begins with, if any.

    Args:
        inputs: the model and its tokenizer.
        asked: whether windows are to begin with it; None: where the tokenizer puts it before texts.

    Raises:
        ModelError: if it is asked for and the tokenizer has none.
    """
    tokenizer = inputs.tokenizer
    bos: int | None = tokenizer.bos_token_id
    if bos is None and asked:
        raise ModelError(
            f"cannot begin windows with BOS: the tokenizer of {inputs.source.name!r} has no such "
            "token. Leave out `bos`."
        )
    if asked is None:
        asked = tokenizer("a", verbose=False)["input_ids"][:1] == [bos]
    return bos if asked else None


def _check_ids(ids: np.ndarray, corpus: Corpus, inputs: ModelInputs) -> None:
    """Refuse too few tokens, and tokens that the model does not know."""
    if len(ids) < 2:
        raise CorpusError(
            f"cannot score text {corpus.name!r}: it has {len(ids)} token{'s' * (len(ids) != 1)}, "
            "and at least 2 are needed, one to read and one to predict. Give a longer text."
        )
    vocabulary = inputs.config.vocab_size
    if int(ids.max()) >= vocabulary:
        raise ModelError(
            f"cannot score text {corpus.name!r}: the tokenizer gives token {ids.max()}, "
            f"the model knows {vocabulary}. Give the model its own tokenizer."
        )


def _bytes_covered(corpus: Corpus, tokens: TokenisedText) -> int:
    """UTF-8 bytes of the text up to the end of the tokens that were kept."""
    return corpus.n_bytes if tokens.n_in_all == len(tokens.ids) else corpus.bytes_to(tokens.end)


def window_sizes(inputs: ModelInputs, context: int | None, stride: int | None) -> tuple[int, int]:
    """Context and stride in tokens: what was asked for, or the model's own.

    Raises:
        WindowError: if the context is longer than the model's positions allow, or the two do not
            fit together.
    """
    limit = inputs.context_limit
    if context is not None and limit is not None and context > limit:
        raise WindowError(
            f"cannot use context {context}: the model {inputs.source.name!r} reads at most "
            f"{limit} tokens. Choose `context` {limit} or less."
        )
    context = context or inputs.default_context
    stride = stride or max(1, context // 2)
    check_sizes(context, stride)
    return context, stride
