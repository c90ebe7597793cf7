"""Sentences on what to choose: sizes, strategies, the front, budgets, what to avoid."""

from __future__ import annotations

from collections import Counter

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.budgets import STEEP_STEP
from pruning_kit.findings.choices import AVOID_FACTOR, PlanRow, Size
from pruning_kit.findings.scores import Interval, exp
from pruning_kit.plan import STRATEGIES, Plan
from pruning_kit.reporting.wording import (
    MAX_NAMED,
    at_least,
    change,
    count_blocks,
    factor,
    format_change,
    format_ppl,
    listed,
    percent,
)

COLLAPSE_RATIO = 10.0


def best_of_each_size(analysis: Analysis) -> list[str]:
    """The best set of each size until even the best one collapses."""
    shown: list[str] = []
    collapsed = None
    for size in analysis.sizes:
        ratio = size.increase.map(exp)
        if ratio.value > COLLAPSE_RATIO and shown:
            collapsed = size
            break
        shown.append(f"{size.n_removed} removed: {size.best} ({format_change(ratio)}{_ties(size)})")
    if not shown:
        return []
    complete = all(size.complete for size in analysis.sizes)
    scope = "Best set of each size" if complete else "Best measured set of each size"
    found = [f"{scope}, {analysis.selection_note}: {'; '.join(shown)}."]
    if collapsed is not None:
        found.append(
            f"With {count_blocks(collapsed.n_removed)} removed even the best "
            f"{'' if collapsed.complete else 'measured '}set has "
            f"{factor(exp(collapsed.increase.value))} times the perplexity of the whole model."
        )
    return found


def _ties(size: Size) -> str:
    """How many others cannot be told from the best; silent where nothing was tested."""
    others = len(size.group) - 1
    if others == 0 or size.increase.low is None:
        return ""
    names = f" {size.group[1]}" if others == 1 else f" {others:,} others"
    return f", not distinguishable from{names}"


def steps(analysis: Analysis) -> list[str]:
    """What each further block costs."""
    steps = [(size, size.step.map(exp)) for size in analysis.sizes if size.step is not None]
    if len(steps) < 2:
        return []
    costs = [f"{size.n_removed}: {format_change(Interval(ratio.value))}" for size, ratio in steps]
    return [
        "Cost of each further block (perplexity of the best set relative to the best with one "
        f"block less): {', '.join(costs)}."
    ]


def diminishing_returns(analysis: Analysis) -> list[str]:
    """Where the costs jump."""
    reached = analysis.turning_point
    beyond = [size.n_removed for size in analysis.sizes if size.n_removed > reached]
    if not beyond or reached == 0:
        return []
    return [
        f"Returns diminish sharply after {count_blocks(reached)}: going on to {beyond[0]} costs, "
        f"for each block, more than {STEEP_STEP:g} times the average of those before"
        f"{_where(analysis)}."
    ]


def _where(analysis: Analysis) -> str:
    """The text a statement holds for, where the run has two."""
    same = analysis.selection == analysis.reported
    return "" if same else f" (on {analysis.selection.title})"


def efficiency(analysis: Analysis) -> list[str]:
    """Costs per parameter removed."""
    known = [(size.n_removed, size.per_million) for size in analysis.sizes if size.per_million]
    if len(known) < 2:
        return []
    costs = [f"{count}: {1e3 * cost.value:.2f}".replace("-", "−") for count, cost in known]
    cheapest = min(known, key=lambda item: item[1].value)[0]
    return [
        "Thousandths of a nat per token for each million parameters removed, by blocks removed: "
        f"{', '.join(costs)}; cheapest at {cheapest}."
    ]


def optimism(analysis: Analysis) -> list[str]:
    """What choosing on another text has flattered; empty with one text."""
    known = [(size, size.optimism) for size in analysis.sizes if size.optimism is not None]
    if not known:
        return []
    each = [f"{size.n_removed}: {percent(exp(value))} %" for size, value in known]
    found = [
        "Optimism of choosing (how far the chosen set's relative perplexity on "
        f"{analysis.reported.title} lies above that on {analysis.selection.title}), by blocks "
        f"removed: {', '.join(each)}."
    ]
    missed = [size for size, _ in known if size.best_reported != size.best]
    if missed:
        names = [f"{size.n_removed} removed: {size.best_reported}" for size in missed]
        found.append(f"In hindsight another set was best on the reported text: {', '.join(names)}.")
    return found


def strategies(analysis: Analysis) -> list[str]:
    """Fixed strategies against the best, median and worst of all sets."""
    full = [size for size in analysis.sizes if all(size.strategies.values())]
    if len(full) < 2:
        return []
    winners = Counter(name for size in full for name in _winners(analysis, size))
    count = max(winners.values())
    ties = [name for name in STRATEGIES if winners[name] == count]
    found = [
        f"Of the fixed strategies ({', '.join(STRATEGIES)}), {listed(ties)} "
        f"{'does' if len(ties) == 1 else 'do'} best most often: at {count} of {len(full)} numbers "
        f"of removed blocks{' each' if len(ties) > 1 else ''}{_where(analysis)}."
    ]
    for size in full:
        names = _winners(analysis, size)
        ratio = analysis.row[size.strategies[names[0]] or Plan()].selection_ratio
        found.append(
            f"{size.n_removed} removed: "
            f"best set {change(analysis.row[size.best].selection_ratio)}, "
            f"median {change(size.median_ratio)}, "
            f"worst {change(analysis.row[size.worst].selection_ratio)}; "
            f"best strategy ({listed(names)}) {change(ratio)}."
        )
    return found


def _winners(analysis: Analysis, size: Size) -> list[str]:
    """The strategies whose plan has the lowest perplexity; several may name one plan."""
    ratio = {
        name: analysis.row[plan].selection_ratio
        for name, plan in size.strategies.items()
        if plan is not None
    }
    return [name for name in ratio if ratio[name] == min(ratio.values())]


def front(analysis: Analysis) -> list[str]:
    """The Pareto front by name."""
    plans = [row.plan for row in analysis.front]
    if len(analysis.rows) < 2 or not plans:
        return []
    timed = any(row.latency is not None for row in analysis.rows)
    over = "perplexity, parameters and latency" if timed else "perplexity and parameters"
    return [
        f"On the Pareto front over {over} (no measured plan is better in one and as good in the "
        f"others): {listed(plans)}."
    ]


def recommendation(analysis: Analysis) -> list[str]:
    """What to take without a budget."""
    if not analysis.sizes:
        return []
    plan, row = analysis.recommended, analysis.row[analysis.recommended]
    if plan == Plan():
        least = analysis.sizes[0]
        return [
            "Without a budget, keep the whole model: even the best set with "
            f"{count_blocks(least.n_removed)} removed is {least.best} (perplexity "
            f"{format_change(least.increase.map(exp))}; {analysis.selection_note})."
        ]
    return [
        f"Without a budget, remove {plan} ({plan.size} of {count_blocks(analysis.n_blocks)}): "
        f"{_facts(analysis, row)} ({analysis.selection_note})."
    ]


def _facts(analysis: Analysis, row: PlanRow) -> str:
    facts = [f"perplexity {format_ppl(row.ppl.value)}, {format_change(row.ppl_ratio)}"]
    base = analysis.baseline
    if base is not None and base.parameters and row.parameters is not None:
        saved = 100 * (1 - row.parameters / base.parameters)
        facts.append(f"{row.parameters / 1e6:.2f} M parameters, {saved:.1f} % fewer")
    if row.latency is not None:
        facts.append(f"{1e3 * row.latency.median_s:.3g} ms, {row.latency.ratio.value:.2f} times")
    return "; ".join(facts)


def ladder(analysis: Analysis) -> list[str]:
    """The smallest plan within each limit; limits with one answer share a sentence."""
    limits: dict[tuple[Plan, tuple[str, ...]], list[str]] = {}
    for choice in analysis.ladder if analysis.sizes else ():
        if choice.row is not None:
            key = (choice.row.plan, choice.caveats)
            limits.setdefault(key, []).append(f"{choice.budget.max_ppl_increase_pct:g}")
    found = []
    for (plan, caveats), values in limits.items():
        within = f"With at most {listed(values, 'or')} % more perplexity"
        if plan == Plan():
            found.append(f"{within}, no measured set of blocks can be removed.")
            continue
        caveat = f"; {listed(caveats)}" if caveats else ""
        facts = _facts(analysis, analysis.row[plan])
        found.append(
            f"{within}, the smallest measured model is without {plan}: {facts}{caveat} "
            f"({analysis.selection_note})."
        )
    return found


def to_avoid(analysis: Analysis) -> list[str]:
    """Blocks and pairs to keep, or the worst measured set."""
    items = analysis.avoid
    if not items:
        return _worst(analysis)
    singles = [f"block {item.blocks[0]}" for item in items if len(item.blocks) == 1]
    pairs = [str(Plan(item.blocks)) for item in items if len(item.blocks) == 2]
    rest = len(pairs) - MAX_NAMED
    pairs = pairs[:MAX_NAMED] + ([f"{rest:,} more pairs"] if rest > 0 else [])
    named = [listed(singles, "or")] if singles else []
    named += [f"together {listed(pairs, 'or')}"] if pairs else []
    least = min(item.least_factor for item in items)
    sizes = listed(items[0].sizes, "or")
    return [
        f"Do not remove {', nor '.join(named)}: "
        f"every measured set of {sizes} block{'s' * (items[0].sizes != (1,))} that does has at "
        f"least {at_least(least)} times the perplexity of the best set of its size"
        f"{_where(analysis)}."
    ]


def _worst(analysis: Analysis) -> list[str]:
    """Where no block is bad in every plan: the worst measured set."""
    ranked = [row for row in analysis.rows if row.plan != Plan() and row.selection_ratio > 0]
    worst = max(ranked, key=lambda row: row.selection_ratio, default=None)
    if worst is None or len(ranked) < 2 or worst.selection_ratio < AVOID_FACTOR:
        return []
    return [
        f"Worst of the measured sets: {worst.plan} ({change(worst.selection_ratio)})"
        f"{_where(analysis)}."
    ]
