"""Which plans a sweep measures: modes, sizes, named strategies. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pruning_kit import bounds
from pruning_kit.bounds import MOST_PLANS
from pruning_kit.errors import PlanError
from pruning_kit.plans.paths import as_cut, count_calls
from pruning_kit.plans.permutations import (
    count_shapley_plans,
    permutations_within,
    shapley_plans,
)
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import count_for_ratio, singles, strategy_plan, subsets

MAX_PLANS = 5000
LISTED_PLANS = 20_000  # so many are listed in a second, to be counted exactly
MIN_PERMUTATIONS = 4  # two pairs show an error
PERMUTATIONS_PER_BLOCK = 16
MAX_SWEPT_BLOCKS = 8  # up to 256 plans: all of them cost less than sampled orders


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
        """Refuse an unknown mode, absurd numbers, and modifiers that nothing would use.

        Raises:
            PlanError: naming the option.
        """
        if self.mode is not None and self.mode not in tuple(Mode):
            raise PlanError(
                f"cannot measure in mode {self.mode!r}: the modes are {', '.join(Mode)}."
            )
        self._check_numbers()
        self._refuse_idle_sizes()
        if self.ratios and not self.strategies:
            by_size = ", or choose by --sizes" * (self.mode == Mode.COMBINATORIAL)
            raise PlanError(
                "cannot use --ratios here: only --strategies choose by ratio. Add for example "
                f"--strategies first,last{by_size}."
            )
        if self.ratios and self.sizes:
            raise PlanError(
                "cannot use --ratios together with --sizes: both say how many blocks the "
                "strategies remove. Leave one out."
            )

    def _check_numbers(self) -> None:
        numbers = {
            "--sizes": self.sizes,
            "--max-removed": (self.max_removed,),
            "--plans shapley:N with N =": (self.shapley_permutations or None,),
            "--ratios": self.ratios,
            "--seed": (self.seed,),
            "--max-plans": (self.max_plans,),
        }
        for option, values in numbers.items():
            for value in values:
                bounds.check(option, value, PlanError)

    @property
    def _sized(self) -> bool:
        """Whether something chooses by size."""
        return self.mode == Mode.COMBINATORIAL or bool(self.strategies)

    def _refuse_idle_sizes(self) -> None:
        if (self.sizes or self.max_removed is not None) and not self._sized:
            option = "--sizes" if self.sizes else "--max-removed"
            instead = f" in place of --mode {self.mode}" * (self.mode is not None)
            raise PlanError(
                f"cannot use {option} here: only --mode combinatorial and --strategies choose by "
                f"size. Give --mode combinatorial{instead}, or add --strategies first,last."
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
        sizes = self._within_bounds(self.sizes, n_blocks, "sizes")
        return sizes or [size for size in range(2, n_blocks) if size <= self._top(n_blocks)]

    def _within_bounds(self, sizes: Sequence[int], n_blocks: int, asked: str) -> list[int]:
        """The sizes asked for, as `sizes` or `ratios`, that are not above `max_removed`."""
        if n_blocks == 1 and (sizes or self.max_removed is not None):
            Plan((0,)).check(n_blocks)  # which refuses it
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
                f"Raise it or choose smaller {asked}."
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

    def bound(self, n_blocks: int) -> int:
        """Number of plans at most, without listing them: exact for the modes alone.

        Counting ends where there are more than a sweep can hold.
        """
        chosen = len(set(self.plans))
        if self.shapley_permutations:
            chosen += count_shapley_plans(n_blocks, self.shapley_permutations) - 1
        chosen += len(self.strategies) * len(self._strategy_sizes(n_blocks))
        return min(2**n_blocks, self._count_of_mode(n_blocks) + chosen)

    def _count_of_mode(self, n_blocks: int) -> int:
        if self.mode != Mode.COMBINATORIAL:
            return 1 + n_blocks * (self.mode == Mode.SEQUENTIAL)
        count = int(self.is_power_set(n_blocks))
        for size in sorted({0, 1, *self.sizes_for(n_blocks)}):
            count += math.comb(n_blocks, size)
            if count > MOST_PLANS:
                break
        return count

    def resolve(self, n_blocks: int) -> list[Plan]:
        """The plans to measure, sorted: by number of removed blocks, then by the blocks.

        The combinatorial mode includes what its walk passes anyway: the whole model, the single
        blocks and, if every set is measured, the stack without any block.

        Raises:
            PlanError: if a plan does not fit the model, or there are more than `max_plans`.
        """
        for plan in self.plans:
            plan.check(n_blocks)
        bound = self.bound(n_blocks)
        if bound > min(MOST_PLANS, max(self.max_plans, LISTED_PLANS)):
            raise self._too_many(n_blocks, bound)
        plans = self._listed(n_blocks)
        if len(plans) > self.max_plans:
            calls = count_calls(as_cut(plan, n_blocks) for plan in plans)
            work = f", in {calls:,} block calls for each window"
            raise self._too_many(n_blocks, len(plans), work)
        return plans

    def _too_many(self, n_blocks: int, count: int, work: str = "") -> PlanError:
        """What to say of more plans than were allowed for."""
        fewer = " or ".join(self.narrower(n_blocks, self.max_plans))
        choose = f"Choose fewer, such as with {fewer}" if fewer else "Choose fewer"
        if count > MOST_PLANS:
            return PlanError(
                f"cannot measure all that was asked for of {n_blocks} blocks: that is more than "
                f"{MOST_PLANS:,} plans, and a sweep holds no more. {choose}."
            )
        return PlanError(
            f"cannot measure {count:,} plans of {n_blocks} blocks without your word: that is more "
            f"than {self.max_plans:,}{work}. {choose}, or ask for all with --max-plans {count}."
        )

    def narrower(self, n_blocks: int, at_most: int) -> list[str]:
        """What to type, one option each, to measure no more plans than that, and how many."""
        found = []
        for option, changes in self._narrowing(n_blocks, at_most):
            with suppress(PlanError):  # the option does not go with the others
                choice = replace(self, max_plans=at_most, **changes)
                if choice.bound(n_blocks) <= at_most:
                    count = len(choice.resolve(n_blocks))
                    found.append(f"{option} ({count:,} plan{'s' * (count != 1)})")
        return found

    def _narrowing(self, n_blocks: int, at_most: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Options that may narrow this choice, with the fields that they change."""
        if self._sized:
            yield "--sizes 2", {"sizes": (2,)}
        if self._sized and not self.sizes and (top := self._largest_top(n_blocks, at_most)) > 2:
            yield f"--max-removed {top}", {"max_removed": top}
        if self.mode == Mode.COMBINATORIAL:
            yield self._sequential()
        others = replace(self, shapley_permutations=0).bound(n_blocks)
        orders = permutations_within(n_blocks, at_most - others + 1)
        if self.shapley_permutations and orders >= MIN_PERMUTATIONS:
            yield f"--plans shapley:{orders}", {"shapley_permutations": orders}

    def _sequential(self) -> tuple[str, dict[str, Any]]:
        """The sequential mode in place of the combinatorial one, without what it does not take."""
        idle = {"--sizes": bool(self.sizes), "--max-removed": self.max_removed is not None}
        given = [option for option in idle if idle[option] and not self.strategies]
        if not given:
            return "--mode sequential", {"mode": Mode.SEQUENTIAL}
        changes = {"mode": Mode.SEQUENTIAL, "sizes": (), "max_removed": None}
        return f"--mode sequential without {' and '.join(given)}", changes

    def _largest_top(self, n_blocks: int, at_most: int) -> int:
        """The largest `max_removed` that leaves no more plans than that."""
        top = 1
        with suppress(PlanError):  # the model has no more blocks to remove
            while replace(self, max_removed=top + 1).bound(n_blocks) <= at_most:
                top += 1
        return top

    def _listed(self, n_blocks: int) -> list[Plan]:
        plans: set[Plan] = {Plan(), *self.plans}
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
        for count in self._strategy_sizes(n_blocks):
            for name in self.strategies:
                yield strategy_plan(name, n_blocks, count, self.seed)

    def _strategy_sizes(self, n_blocks: int) -> list[int]:
        """Numbers of removed blocks at which the strategies are measured."""
        if not self.strategies:
            return []
        asked = self.sizes or [count_for_ratio(ratio, n_blocks) for ratio in self.ratios]
        named = "ratios" if self.ratios else "sizes"
        return self._within_bounds(asked or range(1, n_blocks), n_blocks, named)


def shapley_options(n_blocks: int) -> str:
    """The options of a sweep that measures what Shapley values need, within the limit on plans.

    Of few blocks all sets; otherwise sampled orders, 16 for each block if so many are allowed.
    """
    if n_blocks <= MAX_SWEPT_BLOCKS:
        return "--mode combinatorial"
    wanted = min(
        PERMUTATIONS_PER_BLOCK * n_blocks,
        permutations_within(n_blocks, MAX_PLANS),
    )
    orders = max(MIN_PERMUTATIONS, wanted)
    count = count_shapley_plans(n_blocks, orders)
    return f"--plans shapley:{orders}{f' --max-plans {count}' * (count > MAX_PLANS)}"
