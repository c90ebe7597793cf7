"""Sentences on what to choose: what to take, limits, sizes, strategies, what to avoid."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from pruning_kit.findings.analysis import COLLAPSE_RATIO, Analysis
from pruning_kit.findings.budgets import (
    CHEAP_RATIO,
    MAX_RECOMMENDED_RATIO,
    STEEP_STEP,
    useful_sizes,
)
from pruning_kit.findings.evidence import exp
from pruning_kit.findings.sizes import AVOID_FACTOR, PlanLatency, PlanRow, Size
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import STRATEGIES
from pruning_kit.reporting.words.numbers import (
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
)

CHEAP, CEILING = (f"+{100 * (ratio - 1):g} %" for ratio in (CHEAP_RATIO, MAX_RECOMMENDED_RATIO))


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


def where(analysis: Analysis, form: str = " (on {})") -> str:
    """The text that plans are chosen on, where the run has two: such as ` (on valid)`."""
    same = analysis.selection == analysis.reported
    return "" if same else form.format(analysis.selection.short)


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
        f"at {at} removed even the best of them has {change(gap)} perplexity relative to the best "
        "set"
        if gap > 1
        else "the best of them is the best set each time"
    )
    return [
        "Fixed strategies (first, last; alternate: spread evenly; contiguous: neighbours in the "
        f"middle; random: one draw): {listed(ties)} {'does' if len(ties) == 1 else 'do'} best, or "
        f"as well as another, at {count} of {len(full)} numbers of removed blocks"
        f"{' each' if len(ties) > 1 else ''}; {behind}{where(analysis)}."
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
        f"perplexity{where(analysis)}{others} (no measured plan is better in one of these and at "
        "least as good in the others)"
    )


def recommendation(analysis: Analysis) -> list[str]:
    """What removing blocks costs at least, what to take, why not more, and on which text."""
    if not analysis.sizes:
        return []
    plan, cheap = analysis.recommended, analysis.cheap
    if plan == Plan():
        found = [_keep_all(analysis)]
    elif cheap == Plan():
        which = "one must go" if plan.size == 1 else "some must go"
        facts = _facts(analysis, analysis.row[plan], analysis.timed_on)
        found = [
            f"{_no_bargain(analysis)} If {which}, take {name_blocks(plan)}: {facts}.",
            *_why_not_more(analysis),
        ]
    else:
        facts = _facts(analysis, analysis.row[cheap], analysis.timed_on)
        found = [f"{name_blocks(cheap).capitalize()} can be removed at little cost: {facts}."]
        if plan != cheap:
            facts = _facts(analysis, analysis.row[plan])
            found.append(f"If more must go, take {name_blocks(plan)}: {facts}.")
        found += _why_not_more(analysis)
    if analysis.selection == analysis.reported and analysis.offers_choice:
        found.append(
            "Sets were chosen and reported on the same text, which flatters the chosen ones."
        )
    return found


def two_texts(analysis: Analysis) -> list[str]:
    """On which text sets were chosen, where it is another than the reported one."""
    if analysis.selection == analysis.reported or not analysis.offers_choice:
        return []
    return [
        f"Sets were chosen on {analysis.selection.title}, and their costs are reported on "
        f"{analysis.reported.title}, so that choosing does not flatter them; what holds for the "
        f"first says “on {analysis.selection.short}”."
    ]


def _no_bargain(analysis: Analysis) -> str:
    """That no best set costs little; of all sets only where none does."""
    removing = [row for row in analysis.rows if row.plan != Plan() and not row.failed]
    if min(row.ppl_ratio.value for row in removing) <= CHEAP_RATIO:
        chosen_on = analysis.selection.short
        return f"No set that is best on {chosen_on} costs at most {CHEAP} on both texts."
    what = "measured set of blocks"
    if analysis.complete:
        what = "block"
    elif analysis.importance.complete:
        what = "single block"
    return f"No {what} can be removed at little cost (at most {CHEAP} perplexity)."


def _keep_all(analysis: Analysis) -> str:
    size = analysis.cheapest
    assert size is not None
    cheapest = "cheapest" if analysis.complete else "cheapest measured"
    return (
        f"Keep the whole model: even the {cheapest} set, {name_blocks(size.best)}, costs more than "
        f"{CEILING}{where(analysis)}, this page's rule of thumb for the most to give: "
        f"{_facts(analysis, analysis.row[size.best], analysis.timed_on)}."
    )


def _why_not_more(analysis: Analysis) -> list[str]:
    """What stops the recommendation where it stops."""
    removed = analysis.recommended.size
    larger = [size for size in useful_sizes(analysis.sizes) if size.n_removed > removed]
    if not larger:
        return [] if removed == analysis.n_blocks - 1 else ["No larger set was measured."]
    size = larger[0]
    cost = size.increase.map(exp)
    measured = "" if size.complete else "measured "
    best = f"The best {measured}set of {size.n_removed}, {name_blocks(size.best)}, costs"
    ratio = analysis.row[size.best].selection_ratio
    if ratio > MAX_RECOMMENDED_RATIO:
        chosen_on = f" ({change(ratio)} on {analysis.selection.short})"
        seen = chosen_on if cost.value <= MAX_RECOMMENDED_RATIO else ""
        return [
            f"{best} {format_change(cost)}{seen}, more than this page recommends (at most "
            f"{CEILING}, a rule of thumb)."
        ]
    return [
        f"{best} {format_change(cost)}: after {count_blocks(analysis.turning_point)} costs rise "
        f"sharply, since the next costs more than {STEEP_STEP:g} times the average of those before "
        f"(in log perplexity{where(analysis, ', on {}')})."
    ]


def _facts(analysis: Analysis, row: PlanRow, timed_on: str = "") -> str:
    """Perplexity, parameters and time of a plan beside those of the whole model."""
    base = analysis.row[Plan()]
    facts = [
        f"perplexity {format_ppl(row.ppl.value)} instead of {format_ppl(base.ppl.value)}, "
        f"{format_change(row.ppl_ratio)}"
    ]
    if base.parameters and row.parameters is not None:
        saved = 100 * (1 - row.parameters / base.parameters)
        facts.append(
            f"{saved:.1f} % fewer parameters ({row.parameters / 1e6:.2f} instead of "
            f"{base.parameters / 1e6:.2f} M)"
        )
    if row.latency is not None:
        ms = [f"{1e3 * latency.median_s:.3g}" for latency in (row.latency, base.latency) if latency]
        of = f" for {timed_on}" if timed_on else ""
        on = ", timed on another model that does the same work" if row.latency.timed else ""
        facts.append(f"{speed(row.latency)} ({' instead of '.join(ms)} ms{of}{on})")
    return "; ".join(facts)


def ms_and_speed(row: PlanRow) -> str:
    """Milliseconds of a timed plan and its time beside the whole model's: `307 ms (23 % less…)`."""
    assert row.latency is not None
    ms = f"{1e3 * row.latency.median_s:.3g} ms"
    return ms if row.plan == Plan() else f"{ms} ({speed(row.latency)})"


def speed(latency: PlanLatency) -> str:
    """Time saved against the whole model, where the machine's noise allows to say it."""
    if not latency.claimed:
        return "not clearly faster"
    ratio = latency.ratio
    less = ratio.value < 1
    ends = [
        ratio.value,
        *([] if ratio.low is None or ratio.high is None else [ratio.low, ratio.high]),
    ]
    shares = sorted(100 * (1 - end if less else end - 1) for end in ends)
    bounds = f" [{shares[0]:.1f} to {shares[-1]:.1f} %]" if len(shares) > 1 else ""
    value = 100 * abs(1 - ratio.value)
    return f"{value:.1f} % {'less' if less else 'more'} time{bounds}"


def ladder(analysis: Analysis) -> list[str]:
    """The smallest plan within each limit; limits with one answer stand together."""
    limits: dict[tuple[Plan, tuple[str, ...]], list[str]] = {}
    for choice in analysis.ladder if analysis.sizes else ():
        if choice.row is not None:
            key = (choice.row.plan, choice.caveats)
            limits.setdefault(key, []).append(f"+{choice.budget.max_ppl_increase_pct:g}")
    answers = [
        f"{listed(values, 'or')} %: {_rung(analysis, plan, caveats)}"
        for (plan, caveats), values in limits.items()
    ]
    if not answers:
        return []
    return [
        f"Smallest measured model by the perplexity allowed{where(analysis)}: {'; '.join(answers)}."
    ]


def _rung(analysis: Analysis, plan: Plan, caveats: tuple[str, ...]) -> str:
    if plan == Plan():
        return "the whole model"
    row = analysis.row[plan]
    facts = [change(row.selection_ratio), *caveats]
    if analysis.selection != analysis.reported:
        facts.insert(1, f"{change(row.ppl_ratio.value)} on {analysis.reported.short}")
    return f"without {name_blocks(plan)} ({', '.join(facts)})"


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
    untested = (
        "By these few windows, do not" if analysis.selection_scores.resampling is None else "Do not"
    )
    return [f"{untested} remove {', nor '.join(named)}: {_harm(analysis)}."]


def _harm(analysis: Analysis) -> str:
    """What the blocks and pairs to avoid cost at least."""
    items = analysis.avoid
    sizes = items[0].sizes
    if sizes == (1,):
        costs = [analysis.row[Plan(item.blocks)].selection_ratio for item in items]
        if len(costs) == 1:
            return f"alone it costs {change(costs[0])}{where(analysis)}"
        return f"alone they cost {listed(map(change, costs))}{where(analysis)}"
    least = min(item.least_factor for item in items)
    return (
        f"every measured set of {ranges(sizes)} blocks that does has at least {at_least(least)} "
        f"times the perplexity of the best set of its size{where(analysis)}"
    )


def _worst(analysis: Analysis) -> list[str]:
    """Where no block is bad in every plan: the worst measured set."""
    ranked = [row for row in analysis.rows if row.plan != Plan() and row.selection_ratio > 0]
    worst = max(ranked, key=lambda row: row.selection_ratio, default=None)
    if worst is None or len(ranked) < 2 or worst.selection_ratio < AVOID_FACTOR:
        return []
    return [
        f"Worst of the measured sets: {worst.plan.short} ({change(worst.selection_ratio)})"
        f"{where(analysis)}."
    ]
