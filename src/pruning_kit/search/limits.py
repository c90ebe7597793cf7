"""Limits in minutes, which a timing turns once, before the start, into evaluations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pruning_kit.errors import PlanError
from pruning_kit.search.proposer import Proposer
from pruning_kit.search.sized import SizedSearch
from pruning_kit.search.together import Together


def bounded_in_minutes(proposer: Proposer) -> list[SizedSearch]:
    """Its searches that may take so many minutes."""
    return [member for member in searches_of(proposer) if _is_bounded(member)]


def granted(proposer: Proposer, evaluations: int) -> Proposer:
    """The same, with so many evaluations shared by its searches that are bounded in minutes."""
    count = len(bounded_in_minutes(proposer)) or 1
    each = max(1, evaluations // count)
    return _changed(proposer, _is_bounded, lambda one: replace(one, granted=each))


def with_minutes(proposer: Together, minutes: int) -> Together:
    """The same, each search bounded so.

    Raises:
        PlanError: if there is no search, or one is bounded otherwise.
    """
    if not any(isinstance(member, SizedSearch) for member in searches_of(proposer)):
        raise PlanError(
            f"cannot search for {minutes} minutes: {proposer} is no search. Ask for one, such as "
            "search:6."
        )
    bounded = _changed(proposer, lambda _: True, lambda one: replace(one, minutes=minutes))
    assert isinstance(bounded, Together)
    return bounded


def searches_of(proposer: Proposer) -> list[SizedSearch]:
    """Those of a proposer that are bounded by evaluations."""
    members = proposer.proposers if isinstance(proposer, Together) else (proposer,)
    return [member for member in members if isinstance(member, SizedSearch)]


def _is_bounded(search: SizedSearch) -> bool:
    return search.minutes is not None


def _changed(
    proposer: Proposer,
    which: Callable[[SizedSearch], bool],
    change: Callable[[SizedSearch], SizedSearch],
) -> Proposer:
    """A proposer with some of its searches changed."""
    if isinstance(proposer, Together):
        members = tuple(_changed(member, which, change) for member in proposer.proposers)
        return replace(proposer, proposers=members)
    return change(proposer) if isinstance(proposer, SizedSearch) and which(proposer) else proposer
