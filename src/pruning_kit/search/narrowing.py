"""What to measure instead where a search asks for too much."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from pruning_kit.errors import PlanError
from pruning_kit.plans.permutations import permutations_within
from pruning_kit.search.combinatorial import Combinatorial
from pruning_kit.search.proposer import Proposer
from pruning_kit.search.sequential import Sequential
from pruning_kit.search.shapley import MIN_PERMUTATIONS, ShapleyOrders
from pruning_kit.search.strategies import Strategies
from pruning_kit.search.together import Together


def narrower(asked: Together, n_blocks: int, at_most: int) -> Iterator[tuple[Together, int]]:
    """Unions like one, with one search narrowed so that no more plans are measured than that.

    Yields:
        each union and how many plans it is.
    """
    for index, member in enumerate(asked.proposers):
        others = asked.proposers[:index] + asked.proposers[index + 1 :]
        left = at_most - sum(other.bound(n_blocks) - 1 for other in others)
        for instead in _instead_of(member, n_blocks, left):
            with suppress(PlanError):  # the model has no such sets
                if instead.bound(n_blocks) <= left:
                    union = Together((*others, instead), asked.max_plans)
                    yield union, union.count(n_blocks)


def _instead_of(asked: Proposer, n_blocks: int, at_most: int) -> Iterator[Proposer]:
    match asked:
        case Combinatorial():
            yield Combinatorial((2,))
            if not asked.sizes:
                yield from _with_a_bound(asked, n_blocks, at_most)
            yield Sequential()
        case Strategies():
            yield replace(asked, sizes=(2,), ratios=(), max_removed=None)
            if not asked.sizes:
                yield from _with_a_bound(asked, n_blocks, at_most)
        case ShapleyOrders():
            orders = permutations_within(n_blocks, at_most)
            if orders >= MIN_PERMUTATIONS:
                yield replace(asked, n_orders=orders)


def _with_a_bound(
    asked: Combinatorial | Strategies, n_blocks: int, at_most: int
) -> Iterator[Proposer]:
    """The same up to the largest size that leaves no more plans than that, if this is above 2."""
    top = 1
    with suppress(PlanError):  # the model has no more blocks to remove
        while replace(asked, max_removed=top + 1).bound(n_blocks) <= at_most:
            top += 1
    if top > 2:
        yield replace(asked, max_removed=top)
