"""Windows: which tokens the model reads, and which of them are scored. Integers only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pruning_kit.errors import WindowError


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens `start … stop-1` of the text, of which `first_target … stop-1` are scored.

    The model reads `tokens[start : start + n_inputs]`; the output at position p predicts the
    token p + 1, so a window scores from its output `first_output` on.
    """

    start: int
    stop: int
    first_target: int
    context: int

    @property
    def n_inputs(self) -> int:
        """Tokens the model reads: never more than the context."""
        return min(self.stop - self.start, self.context)

    @property
    def first_output(self) -> int:
        """Position, inside the window, of the output that predicts the first scored token."""
        return self.first_target - 1 - self.start

    @property
    def n_targets(self) -> int:
        """Tokens scored in this window."""
        return self.stop - self.first_target

    @property
    def shape(self) -> tuple[int, int, int]:
        """Windows of equal shape can be computed in one batch."""
        return self.n_inputs, self.first_output, self.n_targets


def check_sizes(context: int, stride: int) -> None:
    """Refuse sizes that do not fit together.

    Raises:
        WindowError: naming them.
    """
    if context < 2:
        raise WindowError(f"cannot use a context of {context}: it needs at least 2 tokens.")
    if stride < 1:
        raise WindowError(f"cannot use a stride of {stride}: it needs to be at least 1.")
    if stride > context:
        raise WindowError(
            f"cannot use stride {stride} with context {context}: tokens between the windows would "
            f"never be scored. Choose a stride of at most {context}."
        )


def tokens_read(n_windows: int, context: int, stride: int) -> int:
    """Tokens that the first `n_windows` windows of a long text read or score."""
    return context + (n_windows - 1) * stride


def count_windows(n_tokens: int, context: int, stride: int) -> int:
    """How many windows `sliding_windows` cuts."""
    return 1 + max(0, -((context - n_tokens) // stride))


def sliding_windows(n_tokens: int, context: int, stride: int) -> list[Window]:
    """Cover a text so that every token but the first is scored exactly once.

    The first window scores all its tokens but the first; each further one moves on by `stride`
    and scores its last `stride` tokens; the last may be shorter. This is the sliding window of
    the Hugging Face guide on perplexity, with exact counting. With `stride` equal to `context`
    a window also reads the token before it, so that its first token is predicted from something.

    Raises:
        WindowError: if the text has fewer than two tokens or the sizes do not fit together.

    Source: https://huggingface.co/docs/transformers/perplexity
    """
    check_sizes(context, stride)
    if n_tokens < 2:
        raise WindowError(
            f"cannot score a text of {n_tokens} token{'s' * (n_tokens != 1)}: at least 2 are "
            "needed, one to read and one to predict. Give a longer text."
        )
    windows: list[Window] = []
    stop = min(context, n_tokens)
    first_target = 1
    while True:
        full_stop = context + len(windows) * stride
        start = min(full_stop - context, first_target - 1)
        windows.append(Window(start, stop, first_target, context))
        if stop == n_tokens:
            return windows
        first_target, stop = stop, min(stop + stride, n_tokens)


def window_groups(windows: Sequence[Window], batch_size: int) -> list[tuple[int, int]]:
    """Split into runs of at most `batch_size` neighbours of one shape, as (first, end) indices."""
    groups: list[tuple[int, int]] = []
    first = 0
    for index in range(1, len(windows) + 1):
        same = index < len(windows) and windows[index].shape == windows[first].shape
        if not same or index - first == batch_size:
            groups.append((first, index))
            first = index
    return groups


def places_of(groups: Iterable[tuple[int, int]]) -> np.ndarray:
    """The windows of some groups, one after the other: (N,)."""
    return np.concatenate([np.arange(*group) for group in groups])


def spread(groups: Sequence[tuple[int, int]], n_pieces: int) -> list[tuple[int, int]]:
    """Pieces of window groups, in an order whose every beginning is spread over the text.

    So that few windows stand for all, and more windows of the same order hold the fewer.

    Args:
        groups: windows of one shape each, as `window_groups` gives them.
        n_pieces: so many at least, where the text has so many windows.

    Source: van der Corput (1935) for the order.
    """
    largest = max(1, groups[-1][1] // n_pieces)
    pieces = [
        (start, min(start + largest, end))
        for first, end in groups
        for start in range(first, end, largest)
    ]
    bits = (len(pieces) - 1).bit_length()
    reversed_bits = (int(f"{number:0{bits}b}"[::-1], 2) for number in range(2**bits))
    places = dict.fromkeys((place * len(pieces)) >> bits for place in reversed_bits)
    return [pieces[place] for place in places]


def even_batch_size(n_windows: int, largest: int, n_processes: int) -> int:
    """A batch of at most `largest` windows, such that several processes get as many batches each.

    One process alone takes the largest: its last batch may be smaller.

    Args:
        n_windows: windows of the shape that most have, which alone share batches.
        largest: what memory allows.
        n_processes: how many take part.
    """
    if n_processes == 1:
        return largest
    batches_each = -(-n_windows // (largest * n_processes))
    return -(-n_windows // (batches_each * n_processes))


def neighbouring(windows: range | None, n_windows: int) -> range:
    """The windows asked for, out of so many; None: all.

    Raises:
        WindowError: if they are not neighbours, or there are none such.
    """
    within = range(n_windows) if windows is None else windows
    if within.step != 1 or not 0 <= within.start < within.stop <= n_windows:
        raise WindowError(
            f"cannot measure windows {within}: the text has {n_windows}. Give neighbouring ones, "
            f"at most range(0, {n_windows})."
        )
    return within
