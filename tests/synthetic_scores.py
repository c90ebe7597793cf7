"""Synthetic runs with known answers: window sums for plans whose costs are chosen by the test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from pruning_kit.findings.evidence import Scores
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import subsets

PARAMETERS_WHOLE, PARAMETERS_BLOCK = 82_000_000, 7_000_000


def all_plans(n_blocks: int, empty: bool = True) -> list[Plan]:
    """Every set of blocks, with or without the stack that lacks them all."""
    return list(subsets(n_blocks, range(n_blocks + empty)))


def additive_costs(costs: Iterable[float], pairs: Mapping[tuple[int, int], float] | None = None):
    """log PPL increase of a plan: the sum of its blocks' costs and of its pairs' extra costs."""
    costs = tuple(costs)

    def cost(plan: Plan) -> float:
        extra = sum(
            value for pair, value in (pairs or {}).items() if set(pair) <= set(plan.removed)
        )
        return sum(costs[block] for block in plan.removed) + extra

    return cost


def synthetic_nll(plans, cost, n_windows=200, seed=0, noise=0.02, form=999):
    """NLL sums (P, N) and targets (N,): a shared text, and noise of each plan's own."""
    generator = np.random.default_rng(seed)
    targets_N = np.full(n_windows, 512)
    targets_N[0], targets_N[-1] = 1023, 100
    shared_N = 3.3 + 0.3 * generator.standard_normal(n_windows)
    own_PN = np.stack(
        [
            np.random.default_rng([seed, *plan.removed, form]).standard_normal(n_windows)
            for plan in plans
        ]
    )
    means_P = np.array([cost(plan) for plan in plans])
    return (shared_N + means_P[:, None] + noise * own_PN) * targets_N, targets_N


def synthetic_scores(plans, cost, **options) -> Scores:
    nll_PN, targets_N = synthetic_nll(plans, cost, **options)
    return Scores.of(plans, nll_PN, targets_N)


def parameters(plans) -> dict[Plan, int]:
    return {plan: PARAMETERS_WHOLE - PARAMETERS_BLOCK * plan.size for plan in plans}
