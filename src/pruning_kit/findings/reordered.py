"""Reordered: whether recovery changes which set of blocks of a size costs least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pruning_kit.findings.bridging import places_of
from pruning_kit.findings.comparison import order_agreement
from pruning_kit.findings.evidence import Interval, exp
from pruning_kit.findings.recovered import change_between
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import BRIDGED, Recovery, Variant
from pruning_kit.runs.facts import NLL, Role

if TYPE_CHECKING:
    from pruning_kit.runs.results import Run

MIN_PLANS = 4
"""Below which nothing is said of orders."""


class Place(NamedTuple):
    """One form of a plan on the reported text, among the same form of the others."""

    ppl: float
    rank: int
    """1 costs least."""


@dataclass(frozen=True)
class Reordered:
    """Plans that remove `n_removed` blocks and were measured as cut, bridged and recovered.

    The best ones are chosen on the text that plans are chosen on.
    """

    n_removed: int
    recovery: Recovery
    places: dict[Plan, tuple[Place, Place, Place]]
    """As cut, bridged and recovered, the plan that costs least recovered first."""
    tau_as_cut: float | None
    """Kendall's tau of the orders as cut and recovered; None of few plans."""
    tau_bridged: float | None
    """The same of the orders bridged and recovered."""
    best_bridged: Plan
    best: Plan
    """Recovered."""
    regret: Interval
    """What the first one, recovered, has for perplexity relative to the second, paired."""

    @property
    def is_clear(self) -> bool:
        """Whether the choice bridged costs more by more than chance."""
        return self.regret.low is not None and self.regret.low > 1


def reordered(run: Run) -> tuple[Reordered, ...]:
    """Each recovery of several plans of one size; only plans with finite numbers count."""
    found = sorted(_compared(run), key=_group)
    groups = [list(group) for _, group in groupby(found, key=_group)]
    return tuple(_reordered(run, group) for group in groups if len(group) > 1)


def _compared(run: Run) -> list[Variant]:
    """Variants with weights of their own whose plans were measured as cut and bridged too."""
    known = set(run.variants)
    own = [v for v in run.variants if v.recovery not in (None, BRIDGED)]
    whole = [v for v in own if {Variant(v.plan), Variant(v.plan, BRIDGED)} <= known]
    roles: set[Role] = {"reported", run.facts.choosing_role}
    finite = np.all([np.isfinite(_costs(run, whole, role)).all(axis=0) for role in roles], axis=0)
    return [variant for variant, is_finite in zip(whole, finite, strict=True) if is_finite]


def _costs(run: Run, variants: Sequence[Variant], role: Role) -> np.ndarray:
    """NLL per token as cut, bridged and recovered, (3, P)."""
    forms = [
        [Variant(v.plan) for v in variants],
        [Variant(v.plan, BRIDGED) for v in variants],
        variants,
    ]
    sums = [run.sums_of(form, NLL, role) for form in forms]
    return np.stack([s.sum(axis=1) for s in sums if s is not None]) / run.targets(role).sum()


def _group(variant: Variant) -> tuple[int, str]:
    return variant.plan.size, str(variant.recovery)


def _reordered(run: Run, variants: Sequence[Variant]) -> Reordered:
    plans, recovery = [variant.plan for variant in variants], variants[0].recovery
    assert recovery is not None
    costs_3P = _costs(run, variants, "reported")
    places = [
        [Place(exp(cost), rank) for cost, rank in zip(costs, places_of(costs), strict=True)]
        for costs in costs_3P.tolist()
    ]
    by_plan = dict(zip(plans, zip(*places, strict=True), strict=True))
    _, bridged, recovered = _costs(run, variants, run.facts.choosing_role)
    first, best = variants[int(bridged.argmin())], variants[int(recovered.argmin())]
    enough = len(plans) >= MIN_PLANS
    return Reordered(
        plans[0].size,
        recovery,
        dict(sorted(by_plan.items(), key=lambda item: item[1][2].rank)),
        order_agreement(costs_3P[0], costs_3P[2]) if enough else None,
        order_agreement(costs_3P[1], costs_3P[2]) if enough else None,
        first.plan,
        best.plan,
        change_between(run, first, best),
    )
