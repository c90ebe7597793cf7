"""The Pareto front, in a sentence."""

from __future__ import annotations

from pruning_kit.findings.analysis import Analysis
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.words.numbers import some_plans
from pruning_kit.reporting.words.texts import on_selection


def front(analysis: Analysis) -> list[str]:
    """The Pareto front, where it is not made of the best sets of each size alone."""
    plans = [row.plan for row in analysis.front]
    if set(plans) <= {Plan(), *(size.best for size in analysis.sizes)}:
        return []
    return [
        f"{len(plans):,} of {len(analysis.rows):,} plans are on the Pareto front over "
        f"{what_is_the_front(analysis)}: {some_plans(plans)}."
    ]


def what_is_the_front(analysis: Analysis) -> str:
    """The quantities of the front, and what being on it means."""
    timed = any(row.latency is not None for row in analysis.rows)
    others = ", parameters and latency" if timed else " and parameters"
    return (
        f"perplexity{on_selection(analysis)}{others} (no measured plan is better in one of "
        "these and at least as good in the others)"
    )
