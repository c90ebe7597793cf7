"""Searches: what one looked at, and how far any ends from the best where all sets were measured.

For the latter each is carried out anew on what the run knows: no model is needed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pruning_kit.findings.evidence import exp
from pruning_kit.inputs.windows import places_of
from pruning_kit.intervals.windows import estimate
from pruning_kit.plans.costs import Cost
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.runs.facts import NLL
from pruning_kit.runs.screenings import first_proposals
from pruning_kit.search.costs import Costs
from pruning_kit.search.named import parse
from pruning_kit.search.replay import replay

if TYPE_CHECKING:
    from pruning_kit.runs.results import Run

SEARCHES = ("search", "spans", "greedy", "beam", "evolution", "quadratic", "swaps")


@dataclass(frozen=True, slots=True)
class Gap:
    """What a search missed of one size, on the text that plans are chosen on."""

    size: int
    best: Plan
    """Of all sets."""
    found: Plan | None
    """By the search; None where its evaluations ended before it came to this size."""
    ratio: float
    """Perplexity of `found` over that of `best`."""
    sure: bool
    """Whether the text can tell them apart: the paired interval is above 1."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A search carried out on known costs."""

    search: str
    """Its text form."""
    evaluations: float
    candidates: int
    gaps: tuple[Gap, ...]
    """Of each size, ascending."""


@dataclass(frozen=True, slots=True)
class Step:
    """A candidate of a search, in the order in which they were screened first."""

    plan: Plan
    proposed_by: str
    evaluations: float
    """Made when it was screened first; a set on the whole text is one, on a part so much less."""
    ratio: float
    """Perplexity over the whole model's, on all windows that it was screened on."""


def search_path(run: Run) -> tuple[Step, ...]:
    """What the searches of a run looked at; empty where there were none."""
    whole_VW = run.sums_of([Variant()], NLL, run.facts.choosing_role)
    assert whole_VW is not None, "every round takes it"
    targets_W = run.targets(run.facts.choosing_role)
    more: dict[Plan, float] = defaultdict(float)
    tokens: dict[Plan, int] = defaultdict(int)
    first: dict[Plan, float] = {}
    read = 0.0
    for screened in run.screenings:
        places_N = places_of(screened.windows)
        read += len(screened.candidates) * len(places_N) / len(targets_W)
        more_V = (screened.nats_VN - whole_VW[0, places_N]).sum(axis=1)
        for facts, more_nats in zip(screened.candidates, more_V.tolist(), strict=True):
            plan = facts.parsed.plan
            first.setdefault(plan, read)
            more[plan] += more_nats
            tokens[plan] += int(targets_W[places_N].sum())
    by = first_proposals(run.screenings)
    ratio = {plan: exp(more[plan] / tokens[plan]) for plan in first}
    return tuple(Step(plan, by.get(plan, ""), at, ratio[plan]) for plan, at in first.items())


def is_exhaustive(run: Run) -> bool:
    """Whether every set that leaves a block was measured."""
    return sum(plan.size < run.n_blocks for plan in run.plans) == 2**run.n_blocks - 1


def replayed(
    run: Run, cost: Cost = Cost.bridged, searches: Iterable[str] | None = None
) -> list[Replayed]:
    """Carry out searches and rankings for every size on an exhaustive run.

    Args:
        run: one that `is_exhaustive`.
        cost: what plans are judged by.
        searches: names of them; by default all searches, and the rankings that the run holds.
    """
    role = run.facts.choosing_role
    variants = run.judged_by(cost)
    nats_PW = run.sums_of(variants, NLL, role)
    assert nats_PW is not None, "every round takes it"
    nats = {variant.plan: row for variant, row in zip(variants, nats_PW, strict=True)}
    windows, sizes = run.facts.windows[role], f"1-{run.n_blocks - 1}" if run.n_blocks > 2 else "1"
    scores = {name: facts.scores for name, facts in run.rankings.items()}
    found = []
    for name in (*SEARCHES, *scores) if searches is None else searches:
        text = f"{name}:{sizes}"
        costs = replay(parse(text), run.n_blocks, nats, windows.targets, windows.groups, scores)
        found.append(_replayed(text, costs, nats, run))
    return found


def _replayed(text: str, costs: Costs, nats: dict[Plan, np.ndarray], run: Run) -> Replayed:
    targets_W = run.targets(run.facts.choosing_role)
    rows = [variant.plan for variant in costs]
    gaps = []
    for size in range(1, run.n_blocks):
        best = _cheapest([plan for plan in nats if plan.size == size], nats)
        mine = _cheapest([plan for plan in rows if plan.size == size], nats)
        assert best is not None
        gaps.append(_gap(size, best, mine, nats, targets_W))
    return Replayed(text, costs.evaluations, len(costs.plans), tuple(gaps))


def _cheapest(plans: list[Plan], nats: dict[Plan, np.ndarray]) -> Plan | None:
    finite = [plan for plan in plans if np.isfinite(nats[plan]).all()]
    return min(finite, key=lambda plan: float(nats[plan].sum()), default=None)


def _gap(
    size: int, best: Plan, mine: Plan | None, nats: dict[Plan, np.ndarray], targets_W: np.ndarray
) -> Gap:
    if mine is None:
        return Gap(size, best, None, np.inf, True)
    if mine == best:
        return Gap(size, best, mine, 1.0, False)
    told = estimate((nats[mine] - nats[best])[None], targets_W)
    more, width = float(told.value_C[0]), float(told.half_width_C[0])
    return Gap(size, best, mine, float(np.exp(more)), more > width)
