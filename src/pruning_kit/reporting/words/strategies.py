"""How fixed strategies do against each other and the best sets, in a sentence."""

from __future__ import annotations

from collections import Counter

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.sizes import Size
from pruning_kit.plans.sets import STRATEGIES
from pruning_kit.reporting.words.numbers import change, listed
from pruning_kit.reporting.words.texts import on_selection


def strategies(analysis: Analysis) -> list[str]:
    """Fixed strategies against each other and the best set."""
    full = [size for size in analysis.sizes if all(size.strategies.values())]
    if len(full) < 2 or not analysis.offers_choice:
        return []
    winners = Counter(name for size in full for name in _winners(analysis, size))
    count = max(winners.values())
    ties = [name for name in STRATEGIES if winners[name] == count]
    gap, at = max(
        (
            min(_strategy_ratios(analysis, size).values())
            / analysis.row[size.best].selection_ratio,
            size.n_removed,
        )
        for size in full
    )
    behind = (
        f"at {at} removed none comes nearer to the best set than {change(gap)}"
        if gap > 1
        else "at every size one names the best set"
    )
    return [
        f"Best fixed strategy: {listed(ties)}, at {count} of {len(full)} sizes"
        f"{' each' if len(ties) > 1 else ''}; {behind}{on_selection(analysis)}."
    ]


def _winners(analysis: Analysis, size: Size) -> list[str]:
    """The strategies whose plan has the lowest perplexity; several may name one plan."""
    ratio = _strategy_ratios(analysis, size)
    return [name for name in ratio if ratio[name] == min(ratio.values())]


def _strategy_ratios(analysis: Analysis, size: Size) -> dict[str, float]:
    return {
        name: analysis.row[plan].selection_ratio
        for name, plan in size.strategies.items()
        if plan is not None
    }
