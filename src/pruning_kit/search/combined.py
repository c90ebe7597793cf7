"""Searches that choose what to measure by a quadratic surrogate of what was."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles, subsets
from pruning_kit.search.contest import Contest, Method, without
from pruning_kit.search.operators import spans, swaps_of
from pruning_kit.search.quadratic import Quadratic
from pruning_kit.search.ridge import Ridge

SOLUTIONS = 8
"""Cheapest sets of a surrogate that are measured."""
MOST_PAIRS = 10**6
"""None is out: all are what the surrogate is made of."""
AT_ONCE = 6
"""Sets of a size that are measured before the surrogate is fitted again."""
PATIENCE = 3
"""Rounds that bring a size nothing better, after which it is done."""


def quadratic(contest: Contest, sizes: Sequence[int]) -> Method:
    """Singles and pairs, then the cheapest sets by what these say."""
    for size in (1, 2):
        few = subsets(contest.n_blocks, [size])
        yield from contest.race(dict.fromkeys(few, "quadratic"), keep=MOST_PAIRS)
    surrogate = Quadratic.exact(_increases(contest), contest.n_blocks)
    for size in sizes:
        cheapest = surrogate.cheapest(size, SOLUTIONS, contest.chance)
        yield from contest.race(dict.fromkeys(cheapest, "quadratic"))


def combined(contest: Contest, sizes: Sequence[int]) -> Method:
    """All runs of neighbours, and one block after the other; then what a surrogate finds cheap.

    The surrogate is fitted to all that is known, again and again. Half of what it proposes lies
    beside the best set of a size, half anywhere. A size is done when nothing better came for a
    while and every swap of its best set is known; the search, when all are or all is spent.
    """
    ridge = Ridge(contest.n_blocks)
    yield from spans(contest, sizes)  # first, so that the shortest search has sets of its sizes
    yield from contest.race(dict.fromkeys(singles(contest.n_blocks), "singles"))
    for size in range(2, max(sizes) + 1):
        yield from contest.race(_further(contest, ridge, size))
    barren = dict.fromkeys(sizes, 0)
    while barren and not contest.exhausted:
        for size in list(barren):
            before, proposed = contest.best.get(size), _promising(contest, ridge, size)
            yield from contest.race(proposed)
            barren[size] = 0 if contest.best.get(size) != before else barren[size] + 1
            if not proposed or (barren[size] >= PATIENCE and "swaps" not in proposed.values()):
                del barren[size]


def _at_once(n_blocks: int) -> int:
    """Sets of a size that are measured before the surrogate is fitted again."""
    return max(AT_ONCE, n_blocks // 2)


def _further(contest: Contest, ridge: Ridge, size: int) -> dict[Plan, str]:
    """The best set of one block less, with each of those blocks that look cheapest besides."""
    best = contest.best.get(size - 1)
    if best is None:
        return {}
    further = [Plan((*best.removed, block)) for block in best.kept(contest.n_blocks)]
    ridge.learn(_increases(contest))
    cheapest = _cheapest(ridge, without(further, contest.known), _at_once(contest.n_blocks))
    return dict.fromkeys(cheapest, "greedy")


def _promising(contest: Contest, ridge: Ridge, size: int) -> dict[Plan, str]:
    """Sets that are not known yet: the cheapest by the surrogate, half of them beside the best."""
    known, n_blocks = contest.known, contest.n_blocks
    starts = [contest.best[size]] if size in contest.best else []
    count = _at_once(n_blocks)
    ridge.learn(_increases(contest))
    surrogate = ridge.drawn(contest.chance)
    anywhere = surrogate.cheapest(size, count // 2, contest.chance, starts, known)
    found = dict.fromkeys(anywhere, "quadratic")
    beside = [plan for start in starts for plan in swaps_of(start, n_blocks)]
    beside = without(beside, known | found.keys())
    return found | dict.fromkeys(_cheapest(ridge, beside, count - len(found)), "swaps")


def _cheapest(ridge: Ridge, plans: Sequence[Plan], count: int) -> list[Plan]:
    """So many of these, the cheapest by the likeliest surrogate first."""
    order = np.argsort(ridge.likeliest.prices(plans), kind="stable")[:count]
    return [plans[place] for place in order]


def _increases(contest: Contest) -> dict[Plan, float]:
    """What is known of sets that did not fail: nats per token beside the whole model."""
    found = {plan: contest.costs.increase(plan) for plan in contest.known}
    return {plan: cost for plan, cost in found.items() if math.isfinite(cost)}
