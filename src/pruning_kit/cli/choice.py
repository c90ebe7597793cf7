"""What to measure: from the words that were typed to proposers, and advice on what to type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pruning_kit import bounds
from pruning_kit.cli.numbers import read_number, read_numbers
from pruning_kit.errors import NoSizeLeftError, PlanError, TooManyPlansError
from pruning_kit.plans.permutations import permutations_within
from pruning_kit.plans.plan import Plan, parse_plans
from pruning_kit.search.baseline import Baseline
from pruning_kit.search.chosen import Chosen
from pruning_kit.search.combinatorial import Combinatorial
from pruning_kit.search.proposer import Proposer
from pruning_kit.search.sequential import Sequential
from pruning_kit.search.shapley import MIN_PERMUTATIONS, ShapleyOrders
from pruning_kit.search.strategies import Strategies
from pruning_kit.search.together import MAX_PLANS, Together

SHAPLEY = "shapley:"


class Mode(StrEnum):
    """The three modes of the kit."""

    BASELINE = "baseline"
    SEQUENTIAL = "sequential"
    COMBINATORIAL = "combinatorial"


@dataclass(frozen=True, slots=True)
class Choice:
    """The options that say what to measure.

    Raises:
        PlanError: if a number is absurd, or an option would not be used.
    """

    mode: Mode | None = None
    plans: tuple[Plan, ...] = ()
    shapley_permutations: int = 0
    """The N of `--plans shapley:N`; 0: none."""
    strategies: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    ratios: tuple[float, ...] = ()
    max_removed: int | None = None
    seed: int = 0
    max_plans: int = MAX_PLANS

    @classmethod
    def typed(
        cls,
        mode: Mode | None,
        plans: list[str] | None,
        strategies: str | None,
        sizes: str | None,
        ratios: str | None,
        max_removed: int | None,
        max_plans: int,
        seed: int,
    ) -> Choice:
        """The choice from the words of a command line.

        Raises:
            PlanError: if a word cannot be read, or nothing says what to measure.
        """
        words = [word for text in plans or [] for word in text.split()]
        orders = [word for word in words if word.startswith(SHAPLEY)]
        choice = cls(
            mode,
            tuple(parse_plans(word for word in words if word not in orders)),
            sum(map(_permutations, orders)),
            tuple(name.strip() for name in strategies.split(",")) if strategies else (),
            tuple(read_numbers(sizes, int, "--sizes")),
            tuple(read_numbers(ratios, float, "--ratios")),
            max_removed,
            seed,
            max_plans,
        )
        if not (mode or words or strategies):
            raise PlanError(
                "cannot start a sweep: nothing says what to measure. Give --mode baseline, "
                "sequential or combinatorial, or --plans, or --strategies."
            )
        return choice

    def __post_init__(self) -> None:
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
            f"--plans {SHAPLEY}N with N =": (self.shapley_permutations or None,),
            "--ratios": self.ratios,
            "--seed": (self.seed,),
            "--max-plans": (self.max_plans,),
        }
        for option, values in numbers.items():
            for value in values:
                bounds.check(option, value, PlanError)

    def _refuse_idle_sizes(self) -> None:
        if (self.sizes or self.max_removed is not None) and not self._sized:
            option = "--sizes" if self.sizes else "--max-removed"
            instead = f" in place of --mode {self.mode}" * (self.mode is not None)
            raise PlanError(
                f"cannot use {option} here: only --mode combinatorial and --strategies choose by "
                f"size. Give --mode combinatorial{instead}, or add --strategies first,last."
            )

    @property
    def _sized(self) -> bool:
        """Whether something chooses by size."""
        return self.mode == Mode.COMBINATORIAL or bool(self.strategies)

    @property
    def proposer(self) -> Together:
        """What asks for all of it.

        Raises:
            PlanError: if a strategy is unknown.
        """
        return Together(tuple(self._proposers()), self.max_plans, self.seed)

    def _proposers(self) -> Iterator[Proposer]:
        if self.mode == Mode.BASELINE:
            yield Baseline()
        if self.mode == Mode.SEQUENTIAL:
            yield Sequential()
        if self.mode == Mode.COMBINATORIAL:
            yield Combinatorial(self.sizes, self.max_removed)
        if self.strategies:
            yield Strategies(self.strategies, self.sizes, self.ratios, self.max_removed, self.seed)
        if self.shapley_permutations:
            yield ShapleyOrders(self.shapley_permutations)
        if self.plans:
            yield Chosen(self.plans)

    def check(self, n_blocks: int) -> None:
        """Refuse what the proposer refuses, and say what to type instead.

        Raises:
            PlanError: if a plan does not fit the model, or there are more than `max_plans`.
        """
        try:
            self.proposer.check(n_blocks)
        except TooManyPlansError as error:
            raise PlanError(self._too_many(error)) from None
        except NoSizeLeftError as error:
            raise PlanError(
                f"cannot remove {error.smallest} blocks or more: --max-removed allows "
                f"{error.max_removed}. Raise it or choose smaller {error.asked}."
            ) from None

    def _too_many(self, error: TooManyPlansError) -> str:
        """What to say of more plans than were allowed for."""
        fewer = " or ".join(self.narrower(error.n_blocks, self.max_plans))
        choose = f"Choose fewer, such as with {fewer}" if fewer else "Choose fewer"
        if error.count is None:
            return (
                f"cannot measure all that was asked for of {error.n_blocks} blocks: that is more "
                f"than {error.limit:,} plans, and a sweep holds no more. {choose}."
            )
        work = error.calls and f", in {error.calls:,} block calls for each window"
        return (
            f"cannot measure {error.count:,} plans of {error.n_blocks} blocks without your word: "
            f"that is more than {error.limit:,}{work or ''}. {choose}, or ask for all with "
            f"--max-plans {error.count}."
        )

    def narrower(self, n_blocks: int, at_most: int) -> list[str]:
        """What to type, one option each, to measure no more plans than that, and how many."""
        found = []
        for option, changes in self._narrowing(n_blocks, at_most):
            with suppress(PlanError):  # the option does not go with the others
                proposer = replace(self, **changes).proposer
                if proposer.bound(n_blocks) <= at_most:
                    count = len(next(proposer.propose(n_blocks)))
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
        others = replace(self, shapley_permutations=0).proposer.bound(n_blocks)
        orders = permutations_within(n_blocks, at_most - others + 1)
        if self.shapley_permutations and orders >= MIN_PERMUTATIONS:
            yield f"--plans {SHAPLEY}{orders}", {"shapley_permutations": orders}

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
            while replace(self, max_removed=top + 1).proposer.bound(n_blocks) <= at_most:
                top += 1
        return top


def _permutations(word: str) -> int:
    count = read_number(word.removeprefix(SHAPLEY), int, f"--plans {word}")
    bounds.check(f"--plans {SHAPLEY}N with N =", count, PlanError)
    return count
