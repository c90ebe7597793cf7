"""Sentences on the number of blocks removed: the best set of each, what a further block costs."""

from __future__ import annotations

from itertools import pairwise

from pruning_kit.findings.analysis import COLLAPSE_RATIO, Analysis
from pruning_kit.findings.evidence import exp
from pruning_kit.findings.sizes import Size
from pruning_kit.reporting.words.numbers import (
    change,
    count_blocks,
    factor,
    format_change,
    percent,
    series,
)


def best_of_each_size(analysis: Analysis) -> list[str]:
    """The best set of each size until even the best one collapses."""
    shown: list[str] = []
    collapsed = None
    for size in analysis.sizes:
        ratio = size.increase.map(exp)
        if ratio.value > COLLAPSE_RATIO and shown:
            collapsed = size
            break
        shown.append(
            f"{size.n_removed} removed: {size.best.short} ({format_change(ratio)}{_ties(size)})"
        )
    if not shown:
        return []
    found = [f"{_scope(analysis)}: {'; '.join(shown)}."]
    if collapsed is not None:
        found.append(
            f"With {count_blocks(collapsed.n_removed)} removed even {_best_set(collapsed)} has "
            f"{factor(exp(collapsed.increase.value))} times the perplexity of the whole model."
        )
    return found


def _scope(analysis: Analysis) -> str:
    """What the sets named are, and on which text they were chosen if they were."""
    if not analysis.offers_choice:
        return "Measured sets"
    complete = all(size.complete for size in analysis.sizes)
    best = "Best set of each size" if complete else "Best measured set of each size"
    return f"{best}, {analysis.selection_note}"


def _best_set(size: Size) -> str:
    return "the best set" if size.complete else "the best measured set"


def _ties(size: Size) -> str:
    """How many others cannot be told from the best; silent where nothing was tested."""
    others = len(size.group) - 1
    if others == 0 or size.increase.low is None:
        return ""
    names = f" {size.group[1].short}" if others == 1 else f" {others:,} others"
    return f", not distinguishable from{names}"


def steps(analysis: Analysis) -> list[str]:
    """What each further block costs."""
    steps = [(size, size.step.map(exp)) for size in analysis.sizes if size.step is not None]
    if len(steps) < 2:
        return []
    costs = series([(size.n_removed, change(ratio.value)) for size, ratio in steps])
    measured = "" if all(size.complete for size in analysis.sizes) else "measured "
    values = [ratio.value for _, ratio in steps]
    rising = all(less < more for less, more in pairwise(values))
    what = (
        "Each further block costs more than the one before"
        if rising
        else "Cost of each further block"
    )
    return [
        f"{what} (perplexity of the best {measured}set relative to the best {measured}with one "
        f"block less): {costs}."
    ]


def efficiency(analysis: Analysis) -> list[str]:
    """Costs per share of the parameters removed."""
    known = [(size.n_removed, size.per_percent) for size in analysis.sizes if size.per_percent]
    if len(known) < 2:
        return []
    costs = [(count, f"{percent(exp(cost.value), 2)} %") for count, cost in known]
    cheapest = min(known, key=lambda item: item[1].value)[0]
    return [
        "Perplexity for each 1 % of the parameters removed (compounded), by blocks removed: "
        f"{series(costs)}; least at {cheapest}."
    ]
