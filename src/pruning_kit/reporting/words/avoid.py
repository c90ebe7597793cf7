"""What to avoid, in a sentence: blocks and pairs to keep, or the worst measured set."""

from __future__ import annotations

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.sizes import AVOID_FACTOR
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.words.numbers import MAX_NAMED, at_least, change, listed, ranges
from pruning_kit.reporting.words.texts import on_selection


def to_avoid(analysis: Analysis) -> list[str]:
    """Blocks and pairs to keep, or the worst measured set."""
    items = analysis.avoid
    if not items:
        return _worst(analysis)
    singles = [f"block {item.blocks[0]}" for item in items if len(item.blocks) == 1]
    pairs = [Plan(item.blocks).short for item in items if len(item.blocks) == 2]
    rest = len(pairs) - MAX_NAMED
    pairs = pairs[:MAX_NAMED] + ([f"{rest:,} more pairs"] if rest > 0 else [])
    named = [listed(singles, "or")] if singles else []
    named += [f"together {listed(pairs, 'or')}"] if pairs else []
    untested = "Do not" if analysis.tested else "By these few windows, do not"
    return [f"{untested} remove {', nor '.join(named)}: {_harm(analysis)}."]


def _harm(analysis: Analysis) -> str:
    """What the blocks and pairs to avoid cost at least."""
    items = analysis.avoid
    sizes = items[0].sizes
    if sizes == (1,):
        costs = [analysis.row[Plan(item.blocks)].selection_ratio for item in items]
        pronoun = "it costs" if len(costs) == 1 else "they cost"
        return f"alone {pronoun} {listed(map(change, costs))}{on_selection(analysis)}"
    least = min(item.least_factor for item in items)
    return (
        f"every measured set of {ranges(sizes)} blocks that does has at least {at_least(least)} "
        f"times the perplexity of the best set of its size{on_selection(analysis)}"
    )


def _worst(analysis: Analysis) -> list[str]:
    """Where no block is bad in every plan: the worst measured set."""
    ranked = [row for row in analysis.rows if row.plan != Plan() and row.selection_ratio > 0]
    worst = max(ranked, key=lambda row: row.selection_ratio, default=None)
    if worst is None or len(ranked) < 2 or worst.selection_ratio < AVOID_FACTOR:
        return []
    return [
        f"Worst of the measured sets: {worst.plan.short} ({change(worst.selection_ratio)})"
        f"{on_selection(analysis)}."
    ]
