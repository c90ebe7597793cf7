"""Which plans a sweep measures: modes, sizes, named strategies. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

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
    """Upper bound of `sizes` and of what `ratios` come to."""
    shapley_permutations: int = 0
    """Sampled orders of the blocks whose plans estimate Shapley values; 0: none."""
    strategies: tuple[str, ...] = ()
    ratios: tuple[float, ...] = ()
    """Shares of the blocks that strategies remove, as an alternative to `sizes`."""
    seed: int = 0
    """For the strategy `random`."""
    max_plans: int = MAX_PLANS
    """More sets than this are measured only when asked for by raising it."""

    def __post_init__(self) -> None:
        """Refuse an unknown mode, and modifiers that nothing would use.

        Raises:
            PlanError: naming the option.
        """
        if self.mode is not None and self.mode not in tuple(Mode):
            raise PlanError(
                f"cannot measure in mode {self.mode!r}: the modes are {', '.join(Mode)}."
            )
        sized = self.mode == Mode.COMBINATORIAL or bool(self.strategies)
        if (self.sizes or self.max_removed is not None) and not sized:
            option = "--sizes" if self.sizes else "--max-removed"
            raise PlanError(
                f"cannot use {option} here: only --mode combinatorial and --strategies choose by "
                "size. Add one of them."
            )
        if self.ratios and not self.strategies:
            raise PlanError(
                "cannot use --ratios here: only --strategies choose by ratio. Add for example "
                "--strategies first,last, or choose by --sizes."
            )
        if self.ratios and self.sizes:
            raise PlanError(
                "cannot use --ratios together with --sizes: both say how many blocks the "
                "strategies remove. Leave one out."
            )

    def describe(self) -> dict[str, Any]:
        """The choice as plain JSON values."""
        return {
            "mode": self.mode,
            "strategies": list(self.strategies),
            "sizes": list(self.sizes),
            "ratios": list(self.ratios),
            "max_removed": self.max_removed,
            "shapley_permutations": self.shapley_permutations,
            "seed": self.seed,
        }

    def sizes_for(self, n_blocks: int) -> list[int]:
        """Numbers of removed blocks that the combinatorial mode measures, ascending.

        Raises:
            PlanError: if a size is impossible for the model, or none is left.
        """
        sizes = self._within_bounds(self.sizes, n_blocks)
        return sizes or [size for size in range(2, n_blocks) if size <= self._top(n_blocks)]

    def _within_bounds(self, sizes: Sequence[int], n_blocks: int) -> list[int]:
        """The sizes asked for that are not above `max_removed`, ascending."""
        top = self._top(n_blocks)
        for size in (*sizes, top):
            if not 1 <= size <= max(1, n_blocks - 1):
                raise PlanError(
                    f"cannot remove {size} of {n_blocks} blocks: choose 1 to {n_blocks - 1}."
                )
        kept = sorted({size for size in sizes if size <= top})
        if sizes and not kept:
            raise PlanError(
                f"cannot remove {min(sizes)} blocks or more: --max-removed allows {top}. "
                "Raise it or choose smaller sizes."
            )
        return kept

    def _top(self, n_blocks: int) -> int:
        return max(1, n_blocks - 1) if self.max_removed is None else self.max_removed

    def is_power_set(self, n_blocks: int) -> bool:
        """Whether every set of blocks is measured, so that the empty stack completes them."""
        return (
            self.mode == Mode.COMBINATORIAL
            and not self.sizes
            and (self.max_removed in (None, n_blocks - 1))
        )

    def count(self, n_blocks: int) -> int:
        """Number of plans at most, without listing them: exact for the modes alone."""
        chosen = len(self.plans)
        if self.shapley_permutations:  # they come in pairs, and share both ends
            chosen += (self.shapley_permutations + 1) * max(1, n_blocks - 1) + 1
        chosen += len(self.strategies) * len(self._strategy_sizes(n_blocks))
        return min(2**n_blocks, self._count_of_mode(n_blocks) + chosen)

    def _count_of_mode(self, n_blocks: int) -> int:
        if self.mode == Mode.COMBINATORIAL:
            sizes = {0, 1, *self.sizes_for(n_blocks)}
            return count_subsets(n_blocks, sizes) + self.is_power_set(n_blocks)
        return 1 + n_blocks * (self.mode == Mode.SEQUENTIAL)

    def resolve(self, n_blocks: int) -> list[Plan]:
        """The plans to measure, sorted: by number of removed blocks, then by the blocks.

        The combinatorial mode includes what its walk passes anyway: the whole model, the single
        blocks and, if every set is measured, the stack without any block.

        Raises:
            PlanError: if a plan does not fit the model.
        """
        plans: set[Plan] = {Plan()}
        plans.update(plan.check(n_blocks) for plan in self.plans)
        if self.mode == Mode.SEQUENTIAL:
            plans.update(self._checked(singles(n_blocks), n_blocks))
        if self.mode == Mode.COMBINATORIAL:
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
        for count in self._strategy_sizes(n_blocks) if self.strategies else ():
            for name in self.strategies:
                yield strategy_plan(name, n_blocks, count, self.seed)

    def _strategy_sizes(self, n_blocks: int) -> list[int]:
        """Numbers of removed blocks at which the strategies are measured."""
        asked = self.sizes or [count_for_ratio(ratio, n_blocks) for ratio in self.ratios]
        return self._within_bounds(asked or range(1, n_blocks), n_blocks)


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
