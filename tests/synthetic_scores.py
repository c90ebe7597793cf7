"""Synthetic runs with known answers: window sums for plans whose costs are chosen by the test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace

import numpy as np

from pruning_kit.findings.evidence import Scores
from pruning_kit.intervals.repeats import MIN_ROUNDS
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import subsets
from pruning_kit.speed.timings import END_TO_END

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


def synthetic_nll(plans, cost, n_windows=200, seed=0, noise=0.02):
    """NLL sums (P, N) and targets (N,): a shared text, and noise of each plan's own."""
    generator = np.random.default_rng(seed)
    targets_N = np.full(n_windows, 512)
    targets_N[0], targets_N[-1] = 1023, 100
    shared_N = 3.3 + 0.3 * generator.standard_normal(n_windows)
    own_PN = np.stack(
        [
            np.random.default_rng([seed, *plan.removed, 999]).standard_normal(n_windows)
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


class FakeRun:
    """What `analyse` reads of a stored run."""

    def __init__(self, plans, n_blocks, nll, targets, timings=None) -> None:
        self.plans, self.n_blocks, self.timings = plans, n_blocks, timings
        self.parameters = parameters(plans)
        self.splits = tuple(nll)
        self._nll, self._targets = nll, targets
        names = {"test": "the test text", "calibration": "the calibration text"}
        self.info = {
            "model": {"name": "synthetic"},
            "texts": {split: {"name": split, "title": names[split]} for split in nll},
            "command": "pruning-kit sweep --mode baseline --model synthetic --resume",
            "choice": {"seed": 0},
        }

    def nll(self, split="test"):
        return self._nll[split]

    def targets(self, split="test"):
        return self._targets[split]


def fake_timings(pools, seconds, n_rounds=MIN_ROUNDS):
    """Timings whose pools take the given seconds each, known to 1 %."""

    def summary(plan):
        index = next(i for i, pool in enumerate(pools) if plan in pool)
        ratio = seconds[index] / seconds[0]
        estimate = SimpleNamespace(value=ratio, low=0.99 * ratio, high=1.01 * ratio)
        return SimpleNamespace(
            end_to_end_s=SimpleNamespace(median_s=seconds[index], ratio=estimate),
            claimed={END_TO_END: True},
        )

    protocol = {"batch_size": 1, "end_to_end_prompt_tokens": 8, "end_to_end_new_tokens": 67}
    machine = {"device": "cpu", "device_name": "a test", "threads": 1, "threads_offered": 1}

    def timed_for(plan):
        return next(pool for pool in pools if plan in pool)[:1]

    return SimpleNamespace(
        pools=pools,
        summary=summary,
        timed_for=timed_for,
        rounds=[None] * n_rounds,
        protocol=protocol,
        machine=machine,
    )
