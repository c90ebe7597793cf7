"""Sentences on what to choose: sizes, strategies, the front, budgets, what to avoid."""

from __future__ import annotations

from collections import Counter

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.budgets import MAX_RECOMMENDED_RATIO, STEEP_STEP
from pruning_kit.findings.choices import AVOID_FACTOR, PlanLatency, PlanRow, Size
from pruning_kit.findings.scores import exp
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
    name_blocks,
    percent,
    ranges,
    series,
    some_plans,
    times,
)

COLLAPSE_RATIO = 10.0
NOTHING = "no measured set of blocks can be removed."


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
            f"With {count_blocks(collapsed.n_removed)} removed even {_best_set(collapsed)} has "
            f"{factor(exp(collapsed.increase.value))} times the perplexity of the whole model."
        )
    return found


def _best_set(size: Size) -> str:
    return "the best set" if size.complete else "the best measured set"


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
    costs = series([(size.n_removed, change(ratio.value)) for size, ratio in steps])
    measured = "" if all(size.complete for size in analysis.sizes) else "measured "
    return [
        f"Cost of each further block (perplexity of the best {measured}set relative to the best "
        f"{measured}with one block less): {costs}."
    ]


def diminishing_returns(analysis: Analysis) -> list[str]:
    """Where the costs jump."""
    reached = analysis.turning_point
    beyond = [size.n_removed for size in analysis.sizes if size.n_removed > reached]
    if not beyond or reached == 0:
        return []
    each = " for each block" if beyond[0] > reached + 1 else ""
    before = "the first" if reached == 1 else f"each of the first {reached} on average"
    return [
        f"Returns diminish sharply after {count_blocks(reached)}: going on to {beyond[0]} costs, "
        f"in log perplexity,{each} more than {STEEP_STEP:g} times as much as {before}"
        f"{_where(analysis)}."
    ]


def _where(analysis: Analysis) -> str:
    """The text a statement holds for, where the run has two."""
    same = analysis.selection == analysis.reported
    return "" if same else f" (on {analysis.selection.title})"


def efficiency(analysis: Analysis) -> list[str]:
    """Costs per share of the parameters removed."""
    known = [(size.n_removed, size.per_percent) for size in analysis.sizes if size.per_percent]
    if len(known) < 2:
        return []
    costs = [(count, f"{percent(exp(cost.value), 2)} %") for count, cost in known]
    cheapest = min(known, key=lambda item: item[1].value)[0]
    return [
        "Parameter efficiency (perplexity that each 1 % of the parameters removed costs, "
        f"compounded), by blocks removed: {series(costs)}; lowest at {cheapest}."
    ]


def optimism(analysis: Analysis) -> list[str]:
    """What choosing on another text has flattered; empty with one text."""
    sizes = [size for size in analysis.sizes if size.optimism is not None]
    if not sizes:
        return []
    each = [
        (size.n_removed, f"{_shift(size.optimism)} ({_shift(size.text_shift)})") for size in sizes
    ]
    return [
        "Optimism of choosing: how much more perplexity, relative to the whole model's, the chosen "
        f"sets have on {analysis.reported.title} than on {analysis.selection.title}, by blocks "
        "removed (in brackets the median of all measured sets, which is the texts' own "
        f"difference): {series(each)}.",
        _hindsight(analysis, sizes),
    ]


def _shift(log_ratio: float | None) -> str:
    return f"{percent(exp(log_ratio or 0.0))} %"


def _hindsight(analysis: Analysis, sizes: list[Size]) -> str:
    """What the best sets by the reported text would have gained over the chosen ones."""
    missed = [size for size in sizes if size.best_reported != size.best]
    if not missed:
        return (
            f"In hindsight the same sets are best on {analysis.reported.title}, at every number "
            "of blocks removed."
        )
    gains = [
        (size, analysis.row[size.best_reported].ppl.value / analysis.row[size.best].ppl.value)
        for size in missed
    ]
    names = [(s.n_removed, f"{s.best_reported} ({percent(ratio, 2)} %)") for s, ratio in gains]
    return (
        f"In hindsight another set is best on {analysis.reported.title} (in brackets its "
        f"perplexity relative to the chosen one's), by blocks removed: {series(names)}."
    )


def strategies(analysis: Analysis) -> list[str]:
    """Fixed strategies against each other, the best set and the median of all sets."""
    full = [size for size in analysis.sizes if all(size.strategies.values())]
    if len(full) < 2:
        return []
    winners = Counter(name for size in full for name in _winners(analysis, size))
    count = max(winners.values())
    ties = [name for name in STRATEGIES if winners[name] == count]
    better = Counter(
        name
        for size in full
        for name, ratio in _strategy_ratios(analysis, size).items()
        if ratio < size.median_ratio
    )
    beaten = [f"{name} {better[name]}" for name in STRATEGIES]
    gap, at = max(
        (
            min(_strategy_ratios(analysis, size).values())
            / analysis.row[size.best].selection_ratio,
            size.n_removed,
        )
        for size in full
    )
    return [
        f"Of the fixed strategies ({', '.join(STRATEGIES)}), {listed(ties)} "
        f"{'does' if len(ties) == 1 else 'do'} best most often: at {count} of {len(full)} numbers "
        f"of removed blocks{' each' if len(ties) > 1 else ''}{_where(analysis)}.",
        f"How often each has less perplexity than the median measured set, out of {len(full)}: "
        f"{', '.join(beaten)}{_where(analysis)}.",
        f"The best of them falls furthest behind the best set at {at} removed: {change(gap)} "
        f"perplexity compared with it{_where(analysis)}."
        if gap > 1
        else f"The best of them is the best set at each of these numbers{_where(analysis)}.",
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


def front(analysis: Analysis) -> list[str]:
    """The Pareto front, its first plans by name."""
    plans = [row.plan for row in analysis.front]
    if len(analysis.rows) < 2 or not plans:
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
        f"perplexity{_where(analysis)}{others} (no measured plan is better in one of these and at "
        "least as good in the others)"
    )


def recommendation(analysis: Analysis) -> list[str]:
    """What to take without a budget, and why neither more nor less."""
    if not analysis.sizes:
        return []
    limit = f"{100 * (MAX_RECOMMENDED_RATIO - 1):g}"
    plan, row = analysis.recommended, analysis.row[analysis.recommended]
    if plan == Plan():
        least = analysis.sizes[0]
        return [
            f"Without a budget, keep the whole model: with {count_blocks(least.n_removed)} removed "
            f"even {_best_set(least)} ({name_blocks(least.best)}) costs more than {limit} % "
            f"perplexity{_where(analysis)}: {format_change(least.increase.map(exp))} "
            f"({analysis.selection_note})."
        ]
    return [
        f"Without a budget, remove {name_blocks(plan)} ({plan.size} of {analysis.n_blocks}): "
        f"{_facts(analysis, row)} ({analysis.selection_note}).",
        _why_not_more(analysis, limit),
    ]


def _why_not_more(analysis: Analysis, limit: str) -> str:
    """What stops the recommendation where it stops."""
    removed = analysis.recommended.size
    larger = [size for size in analysis.sizes if size.n_removed > removed]
    if not larger:
        measured_all = removed == analysis.n_blocks - 1
        return "Only one block is left then." if measured_all else "No larger set was measured."
    ratio = analysis.row[larger[0].best].selection_ratio
    too_much = ratio > MAX_RECOMMENDED_RATIO
    why = f"that costs more than {limit} %" if too_much else "costs rise sharply there"
    return (
        f"Not more, since {why}: {change(ratio)} perplexity with {_best_set(larger[0])} of "
        f"{larger[0].n_removed} ({name_blocks(larger[0].best)}){_where(analysis)}."
    )


def _facts(analysis: Analysis, row: PlanRow) -> str:
    facts = [f"perplexity {format_ppl(row.ppl.value)}, {format_change(row.ppl_ratio)}"]
    base = analysis.baseline
    if base is not None and base.parameters and row.parameters is not None:
        saved = 100 * (1 - row.parameters / base.parameters)
        facts.append(f"{row.parameters / 1e6:.2f} M parameters, {saved:.1f} % fewer")
    if row.latency is not None:
        facts.append(f"{1e3 * row.latency.median_s:.3g} ms, {speed(row.latency)}")
    return "; ".join(facts)


def speed(latency: PlanLatency) -> str:
    """Latency relative to the whole model's, where the machine's noise allows to say it."""
    return times(latency.ratio.value) if latency.claimed else "not clearly faster"


def nothing_is_free(analysis: Analysis) -> list[str]:
    """Beside a recommended plan: the limits within which no set can be removed."""
    if analysis.recommended == Plan():
        return []
    return [sentence for sentence in ladder(analysis) if sentence.endswith(NOTHING)]


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
            found.append(f"{within}{_where(analysis)}, {NOTHING}")
            continue
        caveat = f"; {listed(caveats)}" if caveats else ""
        facts = _facts(analysis, analysis.row[plan])
        found.append(
            f"{within}, the smallest measured model is the one without {name_blocks(plan)}: "
            f"{facts}{caveat} ({analysis.selection_note})."
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
    sizes = items[0].sizes
    return [
        f"Do not remove {', nor '.join(named)}: "
        f"every measured set of {ranges(sizes)} block{'s' * (sizes != (1,))} that does has at "
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
