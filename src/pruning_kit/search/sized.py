"""Searches for the best sets of some sizes, within so many evaluations."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, NamedTuple

from pruning_kit.bounds import MOST_PLANS
from pruning_kit.errors import PlanError, TooManyPlansError
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import sizes_within
from pruning_kit.plans.variant import Variant
from pruning_kit.search.combined import SOLUTIONS, combined, quadratic
from pruning_kit.search.contest import Contest, Method
from pruning_kit.search.operators import BEAM_WIDTH, beam, evolution, greedy, spans, swaps
from pruning_kit.search.proposer import Asking
from pruning_kit.search.text import Word, as_ranges

MOST_MINUTES = 10_000
FINALISTS = 3
"""Of each size: measured on all windows of all texts, and rows."""


class Way(NamedTuple):
    """A way to search."""

    run: Callable[[Contest, Sequence[int]], Method]
    needs: Callable[[int, Sequence[int]], int] | None = None
    """Candidates in all, by the number of blocks and the sizes; None where there is no end."""


def _of_spans(n_blocks: int, sizes: Sequence[int]) -> int:
    return sum(n_blocks - size + 1 for size in sizes)


def _of_a_beam(n_blocks: int, sizes: Sequence[int], width: int = BEAM_WIDTH) -> int:
    widths = [min(width, math.comb(n_blocks, size)) for size in range(max(sizes))]
    return sum(width * (n_blocks - size) for size, width in enumerate(widths))


def _of_pairs(n_blocks: int, sizes: Sequence[int]) -> int:
    return n_blocks + math.comb(n_blocks, 2) + SOLUTIONS * len(sizes)


WAYS: dict[str, Way] = {
    "search": Way(combined),
    "spans": Way(spans, _of_spans),
    "greedy": Way(greedy, partial(_of_a_beam, width=1)),
    "beam": Way(beam, _of_a_beam),
    "evolution": Way(evolution),
    "quadratic": Way(quadratic, _of_pairs),
    "swaps": Way(swaps),
}


@dataclass(frozen=True, slots=True)
class SizedSearch:
    """The best sets of some sizes that a way to search finds.

    Raises:
        PlanError: if it may make no evaluation.
    """

    mode: ClassVar[str | None] = None
    form: ClassVar[str] = "search, search:6, search:4-10,minutes=20 or beam:6,evaluations=300"
    help: ClassVar[str] = f"the best sets of up to half, of 6, of 4 to 10; by {', '.join(WAYS)}"

    way: str
    sizes: tuple[int, ...] = ()
    """Numbers of removed blocks; empty: each up to half of them."""
    evaluations: int | None = None
    """A set on the whole text that is chosen on is one, on a part of it so much less; the whole
    model is one."""
    minutes: int | None = None
    """To search for, as a timing before the start turns them into evaluations."""
    seed: int = 0
    granted: int | None = field(default=None, compare=False)
    """What minutes were turned into."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(sorted(set(self.sizes))))
        if self.evaluations is not None and self.minutes is not None:
            raise PlanError(
                f"cannot search with {self.evaluations} evaluations and for {self.minutes} "
                "minutes: both say how long. Leave one out."
            )
        if self.minutes is not None and not 1 <= self.minutes <= MOST_MINUTES:
            raise PlanError(
                f"cannot search for {self.minutes} minutes: give a number from 1 to "
                f"{MOST_MINUTES:,}."
            )
        if self.evaluations is not None and not 1 <= self.evaluations <= MOST_PLANS:
            raise PlanError(
                f"cannot search with {self.evaluations} evaluations: give a number from 1 to "
                f"{MOST_PLANS:,}."
            )

    @classmethod
    def parse(cls, text: str) -> SizedSearch:
        """Read `search:6`, `search:4-10,minutes=20`, `beam:6,8,evaluations=300,seed=1`.

        Raises:
            PlanError: if the text has another form.
        """
        word = Word.parse(text, cls.form, ("evaluations", "minutes", "seed"))
        return cls(word.names[0], word.whole_numbers(), **word.settings)

    def __str__(self) -> str:
        sizes = as_ranges(self.sizes)
        limits = {"evaluations": self.evaluations, "minutes": self.minutes}
        return Word.write([self.way], [sizes] if sizes else [], **limits, seed=self.seed or None)

    def bound(self, n_blocks: int) -> int:
        """The whole model, as many as there are evaluations, and the finalists.

        Raises:
            PlanError: if a size is impossible for the model.
        """
        return 1 + self.allowed(n_blocks) + FINALISTS * len(self._sizes(n_blocks))

    def check(self, n_blocks: int) -> None:
        """See `Proposer.check`."""
        if self.bound(n_blocks) > MOST_PLANS:
            raise TooManyPlansError(n_blocks, None, MOST_PLANS)

    def most_removed(self, n_blocks: int) -> int:
        """The largest size."""
        return max(self._sizes(n_blocks))

    def _sizes(self, n_blocks: int) -> list[int]:
        Plan((0,)).check(n_blocks)
        return sizes_within(self.sizes or range(1, n_blocks // 2 + 1), None, n_blocks)

    def allowed(self, n_blocks: int) -> int:
        """Evaluations: those asked for or granted, or all that the way needs.

        Where this has no end, a tenth of all sets of the sizes, if that is not more than 20 for
        each block, and a quarter of it for each further size, and not less than 24.
        """
        sizes, needs = self._sizes(n_blocks), WAYS[self.way].needs
        if limit := self.evaluations or self.granted:
            return limit
        if needs is not None:
            return 1 + needs(n_blocks, sizes) + len(sizes)
        n_sets = sum(math.comb(n_blocks, size) for size in sizes)
        most = 20 * n_blocks + 5 * n_blocks * (len(sizes) - 1)
        return max(24, min(n_sets // 10, most))

    def propose(self, n_blocks: int) -> Asking:
        """The whole model, screenings, and the best of each size as rows."""
        sizes = self._sizes(n_blocks)
        costs = yield [Variant()]
        chance = random.Random(f"{self.way}:{self.seed}:{n_blocks}")
        contest = Contest(n_blocks, float(self.allowed(n_blocks)), costs, chance)
        with contest.keeping_back(len(sizes)):
            yield from WAYS[self.way].run(contest, sizes)
        finalists: list[Plan] = []
        for size in contest.shares(sizes):
            finalists += yield from contest.final(size, self.way, FINALISTS)
        yield [Variant(plan) for plan in finalists]
