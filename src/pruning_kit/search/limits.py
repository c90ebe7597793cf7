"""Limits of searches in minutes, parameters or time, which are turned once into what they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pruning_kit.errors import PlanError
from pruning_kit.search.proposer import Proposer
from pruning_kit.search.sized import Grant, SizedSearch
from pruning_kit.search.together import Together


def bounded_in_minutes(proposer: Proposer) -> list[SizedSearch]:
    """Its searches that may take so many minutes."""
    return [member for member in searches_of(proposer) if _is_bounded(member)]


def granted(
    proposer: Proposer, evaluations: int | None, sizes: Mapping[str, Sequence[int]]
) -> Proposer:
    """The same, with what was found out before the start.

    Args:
        proposer: what was asked for.
        evaluations: shared by its searches that are bounded in minutes.
        sizes: by its text form, of each search that a limit on the model gives its sizes.
    """
    count = len(bounded_in_minutes(proposer)) or 1
    each = evaluations and max(1, evaluations // count)

    def grant(search: SizedSearch) -> SizedSearch:
        found = tuple(sizes.get(str(search), ()))
        return replace(search, granted=Grant(each if _is_bounded(search) else None, found))

    return _changed(proposer, lambda _: True, grant)


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


def with_budget(proposer: Together, params: int | None, microseconds: int | None) -> Together:
    """The same, with the sizes of each search that names none said by a limit on the model.

    Raises:
        PlanError: if every search names its sizes, or there is none.
    """

    def has_no_sizes(search: SizedSearch) -> bool:
        return not search.sizes

    if not any(map(has_no_sizes, searches_of(proposer))):
        name = "max_latency" if params is None else "max_params"
        raise PlanError(
            f"cannot use `{name}` for {proposer}: no search is left to find how many blocks go. "
            "Ask for one without a number, such as search."
        )
    bounded = _changed(
        proposer,
        has_no_sizes,
        lambda one: replace(one, params=params, microseconds=microseconds),
    )
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
