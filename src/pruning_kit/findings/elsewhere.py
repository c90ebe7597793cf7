"""Elsewhere: whether what the reported text says of plans holds on further texts.

A plan's ratio to the whole model has a value on each text. Two texts are independent, so that the
difference of their logarithms has the errors of both.

Shapes: P plans that were measured in full on both texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pruning_kit.findings.comparison import order_agreement
from pruning_kit.findings.evidence import Interval, Scores, exp
from pruning_kit.intervals.memory import Array
from pruning_kit.intervals.windows import LEVEL, Estimates
from pruning_kit.plans.plan import Plan

if TYPE_CHECKING:
    from pruning_kit.findings.analysis import Text

Key = TypeVar("Key")


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """Plans on a further text, beside the same plans on the reported one."""

    text: Text
    scores: Scores
    ppl: Interval | None
    """The whole model's perplexity; None where it was not measured in full."""
    ratio: Mapping[Plan, Interval]
    """Of each pruned plan that was measured in full on both texts, to the whole model there."""
    shift: Mapping[Plan, float]
    """The logarithm of that ratio less the same on the reported text, nats per token."""
    adjusted_p: Mapping[Plan, float]
    """Whether it is zero, for all plans and further texts at once; empty where windows are few."""
    order_agreement: float | None
    """Kendall's tau of the order of plans on both texts; None where it is not defined."""

    @property
    def costlier(self) -> list[Plan]:
        """Plans whose ratio is clearly higher than on the reported text."""
        return [plan for plan in self.adjusted_p if self.is_clear(plan) and self.shift[plan] > 0]

    @property
    def cheaper(self) -> list[Plan]:
        """Plans whose ratio is clearly lower than on the reported text."""
        return [plan for plan in self.adjusted_p if self.is_clear(plan) and self.shift[plan] < 0]

    def is_clear(self, plan: Plan) -> bool:
        """Whether the ratios differ by a test that holds for all plans and texts at once."""
        return self.adjusted_p.get(plan, 1.0) <= 1 - LEVEL

    def best(self, n_removed: int) -> Plan | None:
        """The plan of this size with the lowest perplexity there."""
        found = [plan for plan in self.ratio if plan.size == n_removed]
        return min(found, key=lambda plan: self.ratio[plan].value, default=None)


def elsewhere(
    reported: Scores, further: Sequence[tuple[Text, Scores]], n_blocks: int
) -> tuple[Elsewhere, ...]:
    """What each further text says; the stack without any block is left out.

    Args:
        reported: the scores that plans are reported by.
        further: texts with their scores.
        n_blocks: of the whole model.
    """
    found = [_on_text(reported, text, scores, n_blocks) for text, scores in further]
    alone = {(one.text.role, plan): p for one in found for plan, p in one.adjusted_p.items()}
    together = _holm(alone)
    return tuple(
        replace(one, adjusted_p={plan: together[one.text.role, plan] for plan in one.adjusted_p})
        for one in found
    )


def _on_text(reported: Scores, text: Text, scores: Scores, n_blocks: int) -> Elsewhere:
    """What one further text says, each plan tested alone."""
    whole = Plan()
    if whole not in scores.place or whole not in reported.place:
        return Elsewhere(text, scores, None, {}, {}, {}, None)
    plans = [plan for plan in scores.place if 0 < plan.size < n_blocks and plan in reported.place]
    here, there = (_relative_to_whole(one, plans) for one in (reported, scores))
    ratios = [interval.map(exp) for interval in scores.intervals(there)]
    p_P = _p_values(here, there)
    tested = bool(np.isfinite(p_P).all())
    return Elsewhere(
        text,
        scores,
        scores.intervals(scores.estimate(scores.series([whole])))[0].map(exp),
        dict(zip(plans, ratios, strict=True)),
        dict(zip(plans, (there.value_C - here.value_C).tolist(), strict=True)),
        dict(zip(plans, p_P.tolist(), strict=True)) if tested else {},
        order_agreement(here.value_C.tolist(), there.value_C.tolist()),
    )


def _relative_to_whole(scores: Scores, plans: Sequence[Plan]) -> Estimates:
    """Logarithms of ratios to the whole model, paired with it."""
    return scores.estimate(scores.series(plans) - scores.series([Plan()]))


def _p_values(first: Estimates, second: Estimates) -> Array:
    """Two-sided tests of equal values on two independent texts, (P,); NaN where windows are few."""
    if first.errors is None or second.errors is None:
        return np.full(len(first.value_C), np.nan)
    errors = first.errors.and_independent(second.errors)
    return 2 * errors.beyond(np.abs(second.value_C - first.value_C))


def _holm(alone: Mapping[Key, float]) -> dict[Key, float]:
    """p values that hold for all tests at once, whatever their dependence.

    Source: Holm (1979).
    """
    adjusted, largest = {}, 0.0
    for number, key in enumerate(sorted(alone, key=alone.__getitem__)):
        largest = max(largest, min(1.0, (len(alone) - number) * alone[key]))
        adjusted[key] = largest
    return adjusted
