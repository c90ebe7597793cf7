"""Sets of plans: each block, every set of some sizes, named strategies, shares of a model."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations

from pruning_kit.errors import PlanError
from pruning_kit.plans.plan import Plan


def singles(n_blocks: int) -> list[Plan]:
    """Each block removed alone."""
    return [Plan((block,)) for block in range(n_blocks)]


def subsets(n_blocks: int, sizes: Iterable[int]) -> Iterator[Plan]:
    """Every set of each of the given sizes, smaller sets first."""
    for size in sorted(set(sizes)):
        yield from (Plan(blocks) for blocks in combinations(range(n_blocks), size))


def remove_first(n_blocks: int, count: int) -> Plan:
    """The first `count` blocks."""
    return Plan(tuple(range(count)))


def remove_last(n_blocks: int, count: int) -> Plan:
    """The last `count` blocks."""
    return Plan(tuple(range(n_blocks - count, n_blocks)))


def remove_alternate(n_blocks: int, count: int) -> Plan:
    """`count` blocks spread evenly: every second one (1, 3, 5, …) when half are removed."""
    return Plan(tuple((2 * i + 1) * n_blocks // (2 * count) for i in range(count)))


def remove_contiguous(n_blocks: int, count: int) -> Plan:
    """`count` neighbouring blocks in the middle of the model."""
    start = (n_blocks - count + 1) // 2
    return Plan(tuple(range(start, start + count)))


def remove_random(n_blocks: int, count: int, seed: int = 0) -> Plan:
    """`count` blocks drawn without replacement; the same seed gives the same plan."""
    return Plan(tuple(random.Random(f"{seed}:{n_blocks}:{count}").sample(range(n_blocks), count)))


STRATEGIES: dict[str, Callable[[int, int], Plan]] = {
    "first": remove_first,
    "last": remove_last,
    "alternate": remove_alternate,
    "contiguous": remove_contiguous,
    "random": remove_random,
}


def check_strategy(name: str) -> None:
    """Refuse a strategy that there is not.

    Raises:
        PlanError: naming those that there are.
    """
    if name not in STRATEGIES:
        raise PlanError(
            f"cannot use strategy {name!r}: the strategies are {', '.join(STRATEGIES)}."
        )


def strategy_plan(name: str, n_blocks: int, count: int, seed: int = 0) -> Plan:
    """The plan of a named strategy for `count` removed blocks (`seed` matters for `random`).

    Raises:
        PlanError: if the strategy is unknown or `count` is not between 1 and `n_blocks` - 1.
    """
    check_strategy(name)
    if not 1 <= count < n_blocks:
        raise PlanError(
            f"cannot remove {count} of {n_blocks} blocks by strategy {name!r}: "
            f"choose 1 to {n_blocks - 1}."
        )
    if name == "random":
        return remove_random(n_blocks, count, seed)
    return STRATEGIES[name](n_blocks, count)


def check_ratio(ratio: float) -> None:
    """Refuse a share of a model that is none of it, or all.

    Raises:
        PlanError: if `ratio` is not strictly between 0 and 1.
    """
    if not 0 < ratio < 1:
        raise PlanError(
            f"cannot remove a share of {ratio:g} of the blocks: give a ratio between 0 and 1, "
            "such as 0.25."
        )


def count_for_ratio(ratio: float, n_blocks: int) -> int:
    """Blocks to remove for a share `ratio` of the model, rounded to the nearest, at least one.

    Raises:
        PlanError: if `ratio` is not strictly between 0 and 1.
    """
    check_ratio(ratio)
    return min(max(1, math.floor(ratio * n_blocks + 0.5)), n_blocks - 1)


def largest_size(max_removed: int | None, n_blocks: int) -> int:
    """Blocks that a plan may lack at most: one stays, if nothing else is asked for."""
    return max(1, n_blocks - 1) if max_removed is None else max_removed


def sizes_or_half(sizes: Sequence[int], n_blocks: int) -> list[int]:
    """Those numbers of removed blocks, ascending; where none is named, each up to half of them.

    Raises:
        PlanError: if a size is impossible for the model, or no block can go.
    """
    Plan((0,)).check(n_blocks)
    return sizes_within(sizes or range(1, n_blocks // 2 + 1), None, n_blocks)


def sizes_within(
    sizes: Sequence[int], max_removed: int | None, n_blocks: int, asked: str = "sizes"
) -> list[int]:
    """Those numbers of removed blocks that are not above `max_removed`, ascending.

    Args:
        sizes: what was asked for; may be empty.
        max_removed: upper bound; None: all blocks but one.
        n_blocks: of the model.
        asked: how it was asked for, `sizes` or `ratios`, to be said.

    Raises:
        PlanError: if a size or the bound is impossible for the model, or no size is left.
    """
    if n_blocks == 1 and (sizes or max_removed is not None):
        Plan((0,)).check(n_blocks)  # which refuses it
    top = largest_size(max_removed, n_blocks)
    for size in (*sizes, top):
        if not 1 <= size <= max(1, n_blocks - 1):
            raise PlanError(
                f"cannot remove {size} of {n_blocks} blocks: choose 1 to {n_blocks - 1}."
            )
    kept = sorted({size for size in sizes if size <= top})
    if sizes and not kept:
        raise PlanError(
            f"cannot remove {min(sizes)} blocks or more: {top} are allowed at most. Raise max or "
            f"choose smaller {asked}."
        )
    return kept
