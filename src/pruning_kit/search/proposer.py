"""Proposers: what to measure next, from what was measured before."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant


@dataclass(frozen=True, slots=True)
class Screening:
    """A round of candidates on the text that plans are chosen on alone: no rows of the result.

    Each is measured in the form that it is judged by: bridged where its gaps can be, else as cut.
    """

    proposed: Mapping[Plan, str]
    """The candidates, each with the name of the search that it comes from."""
    windows: int | None = None
    """So many at least, spread over the text; None: all."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """Scores of all blocks by rankings, from one pass over the text that plans are chosen on."""

    names: tuple[str, ...]
    """Of `ranked.RANKINGS`."""


Request = Sequence[Variant] | Screening | Scoring
"""Variants are measured on all windows of all texts, and are rows of the result."""

Asking = Generator[Request, Any, None]
"""A search under way: it yields the request of a round and is sent the costs.

They are `costs.Costs`: a mapping from every variant that it asked for and that is a row so far to
its nats per token on the text that plans are chosen on, NaN where a forward failed. They know
screened candidates, windows and scores too.
"""


class Proposer(Protocol):
    """A way to choose what a run measures: a frozen value with a text form.

    `search.parse` is the inverse of `str`. The text is stored with a run and is a part of its
    identity, so that two proposers of the same text ask for the same.
    """

    @property
    def mode(self) -> str | None:
        """The mode of the command line that it is; None where it is none."""

    @property
    def seed(self) -> int:
        """What draws at random: the strategy `random`, sampled orders. 0 where nothing does."""

    def __str__(self) -> str:
        """The text form, the same for all that ask for the same."""

    def bound(self, n_blocks: int) -> int:
        """Variants that it asks for in all its rounds, at most, counted without listing them.

        Counting may end beyond `bounds.MOST_PLANS`.

        Raises:
            PlanError: if what it asks for does not fit a model of so many blocks.
        """

    def check(self, n_blocks: int) -> None:
        """Refuse, before any weight is read, what cannot be measured.

        Raises:
            PlanError: if a plan does not fit the model, or there are more than allowed.
        """

    def most_removed(self, n_blocks: int) -> int:
        """Blocks that a variant lacks at most, which bounds the live states of the walk."""

    def propose(self, n_blocks: int) -> Asking:
        """Yield what to measure in one round, be sent the costs, and so on to the end.

        The first round measures the whole model besides; what was measured is not measured again.

        A function of the costs alone, never of the clock or of chance without a seed. A run that
        was stopped is resumed by replay: this generator is run again and sent stored costs, until
        it asks for something that was not measured.
        """


class Search(Proposer, Protocol):
    """A proposer that is registered in `search.named.SEARCHES`, to be asked for in words."""

    form: ClassVar[str]
    """Words that it reads, as examples: `first:2 or first:0.25`."""
    help: ClassVar[str]
    """What they ask for, in half a line."""

    @classmethod
    def parse(cls, text: str, /) -> Proposer:
        """Read one word, the inverse of `str`.

        Raises:
            PlanError: if the text has another form.
        """


def next_round(asking: Asking, costs: Mapping[Variant, float] | None = None) -> Request | None:
    """What a search asks for when sent the costs; None where it asks for nothing more.

    Args:
        asking: the search under way.
        costs: what was measured so far; None starts the search.
    """
    try:
        return next(asking) if costs is None else asking.send(costs)
    except StopIteration:
        return None
