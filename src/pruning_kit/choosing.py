"""Which plans a sweep measures: modes, sizes, named strategies. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pruning_kit.errors import PlanError
from pruning_kit.permutations import shapley_plans
from pruning_kit.plan import (
    Plan,
    count_for_ratio,
    count_subsets,
    singles,
    strategy_plan,
    subsets,
)

MAX_PLANS = 5000


class Mode(StrEnum):
    """The three modes of the kit."""

    BASELINE = "baseline"
    SEQUENTIAL = "sequential"
    COMBINATORIAL = "combinatorial"


@dataclass(frozen=True, slots=True)
class PlanChoice:
    """What to measure; the whole model is always measured too.

    With neither mode, plans nor strategies the choice is the baseline.
    """

    mode: Mode | None = None
    plans: tuple[Plan, ...] = ()
    """Chosen plans, besides those of the mode."""
    sizes: tuple[int, ...] = ()
    """Numbers of removed blocks for the combinatorial mode and the strategies; empty: all."""
    max_removed: int | None = None
    """Upper bound of `sizes`."""
    shapley_permutations: int = 0
    """Sampled orders of the blocks whose plans estimate Shapley values; 0: none."""
    strategies: tuple[str, ...] = ()
    ratios: tuple[float, ...] = ()
    """Shares of the blocks that strategies remove, as an alternative to `sizes`."""
    seed: int = 0
    """For the strategy `random`."""
    max_plans: int = MAX_PLANS
    """More sets than this are measured only when asked for by raising it."""

    def sizes_for(self, n_blocks: int) -> list[int]:
        """Numbers of removed blocks that the combinatorial mode measures, ascending.

        Raises:
            PlanError: if a size is impossible for the model.
        """
        top = n_blocks - 1 if self.max_removed is None else self.max_removed
        for size in (*self.sizes, *([] if self.max_removed is None else [top])):
            if not 1 <= size < n_blocks:
                raise PlanError(
                    f"cannot remove {size} of {n_blocks} blocks: choose 1 to {n_blocks - 1}."
                )
        sizes = sorted(set(self.sizes)) or list(range(2, n_blocks))
        return [size for size in sizes if size <= top]

    def is_power_set(self, n_blocks: int) -> bool:
        """Whether every set of blocks is measured, so that the empty stack completes them."""
        return (
            self.mode is Mode.COMBINATORIAL
            and not self.sizes
            and (self.max_removed in (None, n_blocks - 1))
        )

    def count(self, n_blocks: int) -> int:
        """Number of plans of the mode, without listing them."""
        if self.mode is Mode.COMBINATORIAL:
            return count_subsets(n_blocks, {0, 1, *self.sizes_for(n_blocks)})
        return 1 + n_blocks * (self.mode is Mode.SEQUENTIAL)

    def resolve(self, n_blocks: int) -> list[Plan]:
        """The plans to measure, sorted: by number of removed blocks, then by the blocks.

        The combinatorial mode includes what its walk passes anyway: the whole model, the single
        blocks and, if every set is measured, the stack without any block.

        Raises:
            PlanError: if a plan does not fit the model.
        """
        plans: set[Plan] = {Plan()}
        plans.update(plan.check(n_blocks) for plan in self.plans)
        if self.mode is Mode.SEQUENTIAL:
            plans.update(self._checked(singles(n_blocks), n_blocks))
        if self.mode is Mode.COMBINATORIAL:
            plans.update(self._checked(singles(n_blocks), n_blocks))
            plans.update(subsets(n_blocks, self.sizes_for(n_blocks)))
        if self.is_power_set(n_blocks):
            plans.add(Plan(tuple(range(n_blocks))))
        if self.shapley_permutations:
            plans.update(shapley_plans(n_blocks, self.shapley_permutations))
        plans.update(self._by_strategy(n_blocks))
        return sorted(plans)

    @staticmethod
    def _checked(plans: Iterable[Plan], n_blocks: int) -> list[Plan]:
        return [plan.check(n_blocks) for plan in plans]

    def _by_strategy(self, n_blocks: int) -> Iterator[Plan]:
        counts: Sequence[int] = self.sizes or [count_for_ratio(r, n_blocks) for r in self.ratios]
        for count in counts or range(1, n_blocks):
            for name in self.strategies:
                yield strategy_plan(name, n_blocks, count, self.seed)


def count_subset_block_calls(n_blocks: int, sizes: Iterable[int]) -> int:
    """Block calls of the shared walk over every set of these sizes, by counting, not listing.

    A call at block i belongs to a set R of removed blocks before i that some plan of an allowed
    size continues without removing i.
    """
    allowed = set(sizes)
    calls = 0
    for block in range(n_blocks):
        behind = n_blocks - 1 - block
        for removed in range(block + 1):
            if any(0 <= size - removed <= behind for size in allowed):
                calls += math.comb(block, removed)
    return calls
