"""How the cost grows, in sentences: the best set of each size, what a further block costs."""

from __future__ import annotations

from pruning_kit.findings.analysis import COLLAPSE_RATIO, Analysis
from pruning_kit.findings.evidence import exp
from pruning_kit.findings.sizes import Size
from pruning_kit.reporting.words.bridging import bridged
from pruning_kit.reporting.words.numbers import (
    change,
    count_blocks,
    factor,
    format_change,
    series,
)
from pruning_kit.reporting.words.texts import chosen_on


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
        measured = "" if collapsed.complete else "measured "
        found.append(
            f"With {count_blocks(collapsed.n_removed)} removed even the best {measured}set has "
            f"{factor(exp(collapsed.increase.value))} times the perplexity of the whole model."
        )
    return found


def _scope(analysis: Analysis) -> str:
    """What the sets named are, and on which text they were chosen if they were."""
    if not analysis.offers_choice:
        return f"Measured sets{bridged(analysis)}"
    complete = all(size.complete for size in analysis.sizes)
    best = "Best set of each size" if complete else "Best measured set of each size"
    return f"{best}{bridged(analysis)}, {chosen_on(analysis)}"


def _ties(size: Size) -> str:
    """How many others cannot be told from the best; silent where nothing was tested."""
    others = len(size.group) - 1
    if others == 0 or size.increase.low is None:
        return ""
    names = f" {size.group[1].short}" if others == 1 else f" {others:,} others"
    return f", not distinguishable from{names}"


def steps(analysis: Analysis) -> list[str]:
    """What each further block costs: the best set against the best of one block less."""
    steps = [(size, size.step.map(exp)) for size in analysis.sizes if size.step is not None]
    if len(steps) < 2:
        return []
    costs = series([(size.n_removed, change(ratio.value)) for size, ratio in steps])
    return [f"A further block costs: {costs}."]
