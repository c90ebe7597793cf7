"""Several proposers as one."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from pruning_kit.bounds import MOST_PLANS
from pruning_kit.errors import TooManyPlansError
from pruning_kit.plans.paths import as_cut, count_calls
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.search.baseline import Baseline
from pruning_kit.search.best import BestDistilled, refuse_alone
from pruning_kit.search.chosen import Chosen
from pruning_kit.search.one_round import OneRound
from pruning_kit.search.proposer import Asking, Proposer, Request, Scoring, Screening, next_round
from pruning_kit.search.ranked import Ranked
from pruning_kit.search.strategies import Strategies

MAX_PLANS = 5000
LISTED_PLANS = 20_000  # so many are listed in a second, to be counted exactly


@dataclass(frozen=True, slots=True)
class Together:
    """The union of what several proposers ask for, round by round, and always the whole model.

    Nothing is measured twice, yet each proposer decides as if it were alone, by what it asked for
    itself. The order of the proposers does not matter, nor in how many parts chosen plans are
    given. In its text form, and so where it is compared, is what is measured; what is allowed is
    not.
    """

    proposers: tuple[Proposer, ...]
    max_plans: int = field(default=MAX_PLANS, compare=False)
    """More variants than this are measured only when asked for by raising it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "proposers", _canonical(self.proposers))

    @property
    def seed(self) -> int:
        """That of the first proposer that has one."""
        return next((member.seed for member in self.proposers if member.seed), 0)

    @property
    def mode(self) -> str | None:
        """That of the proposers, if it is one."""
        modes = {member.mode for member in self.proposers} - {None}
        return modes.pop() if len(modes) == 1 else None

    def __str__(self) -> str:
        return " ".join(map(str, self.proposers))

    @property
    def trains(self) -> bool:
        """Whether some of what will be asked for is trained, known only when the rest is."""
        return any(map(_waits, self.proposers))

    def bound(self, n_blocks: int) -> int:
        """As many as there are where no two proposers ask for the same.

        Raises:
            PlanError: if what one asks for does not fit the model.
        """
        count = 1 + sum(member.bound(n_blocks) - 1 for member in self.proposers)
        members = self._one_round()
        if members is None:
            return count
        return min(2**n_blocks + sum(len(member.recovered) for member in members), count)

    def check(self, n_blocks: int) -> None:
        """Refuse what does not fit the model or is more than allowed.

        Raises:
            PlanError: if one proposer refuses, or there are more variants than `max_plans`.
        """
        for member in self.proposers:
            member.check(n_blocks)
        if all(_waits(member) for member in self.proposers):
            raise refuse_alone(self)
        count = self.bound(n_blocks)
        if count > MOST_PLANS:
            raise TooManyPlansError(n_blocks, None, MOST_PLANS)
        if count > self.max_plans:
            self._count_exactly(n_blocks, count)

    def _count_exactly(self, n_blocks: int, bound: int) -> None:
        """Refuse more plans than allowed, listed where they are few and known."""
        members = self._one_round()
        if members is None or bound > max(self.max_plans, LISTED_PLANS):
            raise TooManyPlansError(n_blocks, bound, self.max_plans)
        plans = _plans(members, n_blocks)
        count = len(plans) + sum(len(member.recovered) for member in members)
        if count > self.max_plans:
            calls = count_calls(as_cut(plan, n_blocks) for plan in plans)
            raise TooManyPlansError(n_blocks, count, self.max_plans, calls)

    def count(self, n_blocks: int) -> int:
        """As many as there are, counted by listing them where they are known beforehand."""
        members = self._one_round()
        return self.bound(n_blocks) if members is None else len(_plans(members, n_blocks))

    def most_removed(self, n_blocks: int) -> int:
        """Blocks that a variant of any proposer lacks at most."""
        return max(member.most_removed(n_blocks) for member in self.proposers)

    def propose(self, n_blocks: int) -> Asking:
        """Rounds of what the proposers ask for next and that was not measured, sorted.

        Screenings and scores follow, one by one.
        """
        measured: set[Variant] = set()
        first = [member for member in self.proposers if not _waits(member)]
        costs = yield from _rounds(first, n_blocks, measured, None)
        last = [member for member in self.proposers if _waits(member)]
        yield from _rounds(last, n_blocks, measured, costs)

    def _one_round(self) -> list[OneRound] | None:
        """The proposers, if all of them know their plans beforehand."""
        known = [member for member in self.proposers if isinstance(member, OneRound)]
        return known if len(known) == len(self.proposers) else None


def _waits(member: Proposer) -> bool:
    """Whether it asks when all others have nothing more to ask."""
    return isinstance(member, BestDistilled)


def _rounds(
    members: Iterable[Proposer], n_blocks: int, measured: set[Variant], known: Any
) -> Generator[Request, Any, Any]:
    """The rounds of some proposers; gives the costs that are known at their end.

    Args:
        members: the proposers.
        n_blocks: of the model.
        measured: what was asked for; what is asked for is added.
        known: the costs so far; None at the start.
    """
    running = [(part, part.propose(n_blocks)) for member in members for part in _parts(member)]
    asked = _still_asking([(part, asking, next_round(asking)) for part, asking in running])
    while asked:
        known = yield from _measured([request for _, _, request in asked], measured, known)
        answered = []
        for part, asking, request in asked:
            share = known.share(_name(part), request)
            costs = known if _waits(part) else share
            answered.append((part, asking, next_round(asking, costs)))
        asked = _still_asking(answered)
    return known


def _parts(member: Proposer) -> Sequence[Proposer]:
    """One for each ranking or strategy that a word names, so that each plan says which it is of."""
    if isinstance(member, Ranked | Strategies):
        return [replace(member, names=(name,)) for name in member.names]
    return [member]


def _name(member: Proposer) -> str:
    """Whom a row is proposed by: nobody where it was named by hand."""
    return "" if isinstance(member, Chosen) else str(member)


def _still_asking(
    replies: Iterable[tuple[Proposer, Asking, Request | None]],
) -> list[tuple[Proposer, Asking, Request]]:
    return [(part, asking, reply) for part, asking, reply in replies if reply is not None]


def _measured(
    requests: Sequence[Request], measured: set[Variant], known: Any
) -> Generator[Request, Any, Any]:
    """One round of all variants that are asked for and new, then screenings and scores."""
    others = [one for one in requests if isinstance(one, Screening | Scoring)]
    rows = [one for one in requests if not isinstance(one, Screening | Scoring)]
    asked = dict.fromkeys(chain([Variant()], *rows))  # sorted in parts
    if new := sorted(variant for variant in asked if variant not in measured):
        known = yield new
        measured.update(new)
    for other in others:
        known = yield other
    return known


def _plans(members: Iterable[OneRound], n_blocks: int) -> set[Plan]:
    """What proposers of one round ask for, with the whole model."""
    return {Plan()}.union(*(member.plans(n_blocks) for member in members))


def _canonical(proposers: Iterable[Proposer]) -> tuple[Proposer, ...]:
    """The same without unions inside, in one order, chosen plans last and in one piece."""
    flat = list(_flat(proposers))
    named = [member for member in flat if isinstance(member, Chosen)]
    plans = tuple(plan for member in named for plan in member.chosen)
    recovered = tuple(variant for member in named for variant in member.recovered)
    others = {str(member): member for member in flat if not isinstance(member, Chosen)}
    chosen = [Chosen(plans, recovered)] if named else []
    return (*(others[text] for text in sorted(others)), *chosen) or (Baseline(),)


def _flat(proposers: Iterable[Proposer]) -> Iterable[Proposer]:
    for member in proposers:
        yield from _flat(member.proposers) if isinstance(member, Together) else [member]
