"""The walk: many paths from one state, each beginning that they share computed once.

The paths form a tree of their beginnings: all 2**L subsets of L blocks cost 2**L - 1 block calls,
not L * 2**(L - 1).

Shapes: P paths, B windows, T tokens read, S of them scored, D hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter

from torch import Tensor

from pruning_kit.plans.paths import Call, Path, walk_order

ApplyCall = Callable[[Call, Tensor, bool], Tensor]
"""Apply a call to a state; True: only the head will read the result."""
Branch = tuple[int, Tensor, list[Path]]
"""Calls made, the state after them, and paths that begin with these and go on alike."""


def walk(
    hidden_BTD: Tensor, apply: ApplyCall, paths: Iterable[Path]
) -> Iterator[tuple[Path, Tensor]]:
    """Yield each path with the state after its last call, sharing equal beginnings.

    What skips most is walked first, so a state is freed as soon as the last call that reads it was
    made: at most (most blocks skipped) + 2 states live at once.
    """
    ordered = sorted(set(paths), key=walk_order)
    if ordered and not ordered[0]:
        yield ordered.pop(0), hidden_BTD
    pending = _branches(0, hidden_BTD, ordered)
    del hidden_BTD
    while pending:
        depth, state, group = pending.pop()
        ends = len(group[0]) == depth + 1
        state = apply(group[0][depth], state, ends and len(group) == 1)
        if ends:
            yield group[0], state
        pending += _branches(depth + 1, state, group[1:] if ends else group)
        del state


def _branches(depth: int, state: Tensor, group: list[Path]) -> list[Branch]:
    """The ways to go on, the one to walk first at the end."""
    ways = groupby(group, key=itemgetter(depth))
    return [(depth, state, list(paths)) for _, paths in ways][::-1]
