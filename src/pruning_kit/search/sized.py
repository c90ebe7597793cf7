"""Searches for the best sets of some sizes, within so many evaluations."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple

from pruning_kit.bounds import MOST_PLANS
from pruning_kit.errors import PlanError, TooManyPlansError
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import sizes_or_half
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


BOUNDS = {
    "evaluations": ("with {:,} evaluations", MOST_PLANS),
    "minutes": ("for {:,} minutes", MOST_MINUTES),
    "params": ("within {:,} parameters", 10**12),
    "microseconds": ("within {:,} microseconds", 10**15),
}
"""Settings of a search by name, in words, and the most that each may be."""


class Grant(NamedTuple):
    """What is found out once, before the start, of a search that is bounded by something else."""

    evaluations: int | None = None
    """What minutes were turned into."""
    sizes: tuple[int, ...] = ()
    """What a limit on the model was turned into."""


@dataclass(frozen=True, slots=True)
class SizedSearch:
    """The best sets of some sizes that a way to search finds.

    Raises:
        PlanError: if it may make no evaluation, or what bounds it is said twice.
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
    params: int | None = None
    """Parameters that may stay, which say the sizes in place of these."""
    microseconds: int | None = None
    """Of the end-to-end task, likewise, as a timing before the start turns them into sizes."""
    granted: Grant = field(default=Grant(), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(sorted(set(self.sizes))))
        for name, (words, most) in BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise PlanError(
                    f"cannot search {words.format(value)}: give a number from 1 to {most:,}."
                )
        self._refuse_two("how long", "evaluations", "minutes")
        self._refuse_two("how many blocks go", "params", "microseconds")
        if self.sizes and self.is_budgeted:
            name = "microseconds" if self.params is None else "params"
            raise PlanError(
                f"cannot search for {as_ranges(self.sizes)} blocks {self._said(name)}: both say "
                "how many blocks go. Leave one out."
            )

    def _refuse_two(self, what: str, one: str, other: str) -> None:
        if getattr(self, one) is not None and getattr(self, other) is not None:
            raise PlanError(
                f"cannot search {self._said(one)} and {self._said(other)}: both say {what}. Leave "
                "one out."
            )

    def _said(self, name: str) -> str:
        return BOUNDS[name][0].format(getattr(self, name))

    @property
    def is_budgeted(self) -> bool:
        """Whether a limit on the model says the sizes."""
        return (self.params, self.microseconds) != (None, None)

    @classmethod
    def parse(cls, text: str) -> SizedSearch:
        """Read `search:6`, `search:4-10,minutes=20`, `beam:params=60000000,seed=1`.

        Raises:
            PlanError: if the text has another form.
        """
        word = Word.parse(text, cls.form, (*BOUNDS, "seed"))
        settings: dict[str, Any] = dict(word.settings)
        return cls(word.names[0], word.whole_numbers(), **settings)

    def __str__(self) -> str:
        sizes = as_ranges(self.sizes)
        limits = {name: getattr(self, name) for name in BOUNDS}
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
        sizes = self.sizes or self.granted.sizes
        if self.is_budgeted and not sizes:  # not known yet; most likely it will be one
            sizes = (max(1, n_blocks // 2),)
        return sizes_or_half(sizes, n_blocks)

    def allowed(self, n_blocks: int) -> int:
        """Evaluations: those asked for or granted, or all that the way needs.

        Where this has no end, a tenth of all sets of the sizes, if that is not more than 20 for
        each block, and a quarter of it for each further size, and not less than 24.
        """
        sizes, needs = self._sizes(n_blocks), WAYS[self.way].needs
        if limit := self.evaluations or self.granted.evaluations:
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
