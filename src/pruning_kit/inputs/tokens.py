"""Tokens: a text tokenised in pieces, with the very tokens that it has as a whole.

Tokenising takes some 150 bytes of memory for each byte of text; so only a piece at a time is. Each
piece overlaps the one before it, and the two are joined in the middle of the overlap if they give
the same tokens all over its inner half: there neither the end of the one nor the beginning of the
other is felt. The joint is

- at the beginning of a word (a *pre-token*), since a pre-tokenizer goes from word to word and
  knows nothing of those before, and each word is tokenised by itself; or
- at any common token, where words are never parted (Llama, Gemma) and merges make the tokens: two
  byte-pair encodings that share a token are together the encoding of all of it.

Where there is no such joint, as within 100,000 letters without a space, the piece is made longer,
if need be until it is the whole text.

Source: byte-pair encodings joined at a token, https://github.com/github/rust-gems (crate bpe).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tokenizers.models import BPE

PIECE = 1 << 17
OVERLAP = 1 << 12
PROBE = "Ab cD\n\n  12 x-y, it's\té 中文あア_😀\r\n."
"""Characters of many kinds: whatever parts words parts these."""
COLUMNS = ("ids", "starts", "ends", "opens")


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a stretch of a text, with positions in characters of the whole text."""

    ids: np.ndarray
    """Token ids, int32, shape (N,)."""
    starts: np.ndarray
    ends: np.ndarray
    opens: np.ndarray
    """Whether a token is the first of a word, shape (N,)."""
    start: int
    stop: int
    """Where the stretch begins and ends."""

    def part(self, first: int, end: int | None = None) -> Tokens:
        """Tokens number `first` to `end - 1`."""
        part = slice(first, end)
        columns = {name: getattr(self, name)[part] for name in COLUMNS}
        return replace(self, **columns)

    def agrees(self, other: Tokens) -> bool:
        """Whether these are the same tokens in the same places."""
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in COLUMNS)


class NoJointError(Exception):
    """Longer pieces of a text give other tokens than shorter ones; caught by `tokenise`."""


def tokens_in_pieces(
    pieces: Iterable[str], tokenizer: Any, size: int = PIECE, overlap: int = OVERLAP
) -> Iterator[Tokens]:
    """Yield the tokens of a text from its start, without special tokens around them.

    Args:
        pieces: the text, in pieces of any size; no more is read than what is yielded needs.
        tokenizer: a fast tokenizer of Hugging Face.
        size: characters that are tokenised at once where that is enough.
        overlap: characters that neighbours have in common, at most half of `size`.

    Raises:
        NoJointError: if the tokens of a piece depend on what is far behind them.
    """
    assert 4 <= 2 * overlap <= size, "a piece holds two overlaps"
    text = _Text(pieces)
    anywhere = _joins_anywhere(tokenizer.backend_tokenizer)
    left, first = encode(tokenizer, text.between(0, size)), 0
    while text.goes_on_after(left.stop):
        begin = left.stop - overlap
        right = encode(tokenizer, text.between(begin, begin + size), begin)
        joint = _joint(left, right, anywhere)
        if joint is None:
            left = _grown(tokenizer, text, left, first)
            continue
        yield left.part(first, joint[0])
        left, first = right, joint[1]
        text.forget_before(left.start)
    yield left.part(first)


def encode(tokenizer: Any, text: str, start: int = 0) -> Tokens:
    """Tokenise a stretch at once; it begins at character `start` of the whole text."""
    [encoding] = tokenizer(text, add_special_tokens=False, verbose=False).encodings
    ids = np.asarray(encoding.ids, dtype=np.int32)
    offsets = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2) + start
    words = np.asarray(encoding.word_ids, dtype=np.int64)
    opens = np.diff(words, prepend=-1) != 0
    return Tokens(ids, offsets[:, 0], offsets[:, 1], opens, start, start + len(text))


def _joint(left: Tokens, right: Tokens, anywhere: bool) -> tuple[int, int] | None:
    """Which token of the left and of the right stretch are the one where they may be joined."""
    margin = (left.stop - right.start) // 4
    inner = (right.start + margin, left.stop - margin)
    (first, end), (first_right, end_right) = (
        np.searchsorted(tokens.starts, inner) for tokens in (left, right)
    )
    common = left.part(first, end)
    if not common.agrees(right.part(first_right, end_right)):
        return None
    places = np.arange(len(common.ids)) if anywhere else np.flatnonzero(common.opens)
    if not len(places):
        return None
    place = int(places[len(places) // 2])
    return int(first) + place, int(first_right) + place


def _grown(tokenizer: Any, text: _Text, tokens: Tokens, first: int) -> Tokens:
    """The stretch twice as long, if what lies before token number `first` stays what it was."""
    length = 2 * (tokens.stop - tokens.start)
    longer = encode(tokenizer, text.between(tokens.start, tokens.start + length), tokens.start)
    if not tokens.part(0, first).agrees(longer.part(0, first)):
        raise NoJointError
    return longer


def _joins_anywhere(backend: Any) -> bool:
    """Whether the tokens come from merges alone, in words that are never parted."""
    if not isinstance(backend.model, BPE):
        return False
    text = backend.normalizer.normalize_str(PROBE) if backend.normalizer else PROBE
    splitter = backend.pre_tokenizer
    return splitter is None or len(splitter.pre_tokenize_str(text)) == 1


class _Text:
    """A text that is read as far as it is needed, and forgotten as far as it is done with."""

    def __init__(self, pieces: Iterable[str]) -> None:
        self._pieces = iter(pieces)
        self._held = ""
        self._start = 0

    def between(self, start: int, stop: int) -> str:
        """The characters from `start` to before `stop`, or to the end of the text."""
        self._read_to(stop)
        return self._held[start - self._start : stop - self._start]

    def goes_on_after(self, stop: int) -> bool:
        """Whether there is a character at `stop`."""
        self._read_to(stop + 1)
        return len(self._held) > stop - self._start

    def forget_before(self, start: int) -> None:
        """Let go of the characters before `start`, once they are most of what is held."""
        done = start - self._start
        if 2 * done > len(self._held):
            self._held = self._held[done:]
            self._start = start

    def _read_to(self, stop: int) -> None:
        parts, length = [self._held], self._start + len(self._held)
        while length < stop and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            length += len(piece)
        self._held = "".join(parts)


@dataclass(frozen=True, slots=True)
class TokenisedText:
    """The beginning of a text as the model sees it, or all of it."""

    ids: np.ndarray
    """Token ids, int32, shape (N,)."""
    end: int
    """Position in the text, in characters, behind the last of them."""
    n_in_all: int | None
    """Tokens of the whole text; None if they were not counted."""
    longest: int
    """Characters that had to be tokenised at once."""


def tokenise(
    read: Callable[[], Iterable[str]], tokenizer: Any, at_most: int | None, count: bool
) -> TokenisedText:
    """Tokenise a text without special tokens, in pieces.

    Args:
        read: gives the text from its start.
        tokenizer: a fast tokenizer of Hugging Face.
        at_most: keep only so many tokens; None keeps all.
        count: whether to tokenise the rest too, to know how many tokens there are in all.
    """
    try:
        return _collect(tokens_in_pieces(read(), tokenizer), at_most, count)
    except NoJointError:
        return _collect([encode(tokenizer, "".join(read()))], at_most, count)


def _collect(stretches: Iterable[Tokens], at_most: int | None, count: bool) -> TokenisedText:
    """Keep what is wanted of the tokens, as they come."""
    kept = [np.empty(0, dtype=np.int32)]
    end = n_tokens = longest = 0
    for tokens in stretches:
        room = None if at_most is None else max(0, at_most - n_tokens)
        wanted = tokens.part(0, room)
        if len(wanted.ids):
            kept.append(wanted.ids)
            end = int(wanted.ends[-1])
        n_tokens += len(tokens.ids)
        longest = max(longest, tokens.stop - tokens.start)
        if at_most is not None and n_tokens > at_most and not count:
            return TokenisedText(np.concatenate(kept), end, None, longest)
    return TokenisedText(np.concatenate(kept), end, n_tokens, longest)
