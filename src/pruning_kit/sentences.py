"""Sentences: what an analysis says, in plain English made from its numbers.

Every sentence is true of the numbers by construction: it names a difference only where a test
found one, and says what was not measured. Changes of perplexity below a doubling are written in
per cent, others as a factor; square brackets hold the bounds of the 95 % interval.
"""

from __future__ import annotations

from collections import Counter

from pruning_kit.analysis import Analysis
from pruning_kit.budgets import STEEP_STEP
from pruning_kit.choices import PlanRow, Size
from pruning_kit.importance import Interaction, NotAvailable, Ranking
from pruning_kit.plan import STRATEGIES, Plan
from pruning_kit.scores import Interval, exp
from pruning_kit.wording import (
    MAX_NAMED,
    at_least,
    change,
    count_blocks,
    factor,
    format_change,
    format_nats,
    format_ppl,
    listed,
    percent,
    some_plans,
)

COLLAPSE_RATIO = 10.0


def summary_sentences(analysis: Analysis) -> list[str]:
    """The conclusions in a few sentences, for the end of a terminal table."""
    found = _importance_extremes(analysis)
    found += _best_of_each_size(analysis) if any(s.n_removed > 1 for s in analysis.sizes) else []
    found += _avoid(analysis)[:1]
    return [*(found or _baseline(analysis)), *_failed(analysis)]


def section_sentences(analysis: Analysis) -> dict[str, list[str]]:
    """All sentences for a report, by section; a section without anything to say is empty."""
    return {
        "summary": [
            *_baseline(analysis),
            *_recommendation(analysis),
            *_importance_extremes(analysis),
            *_avoid(analysis)[:1],
            *_failed(analysis),
        ],
        "importance": [*_importance_extremes(analysis), *_importance_ranking(analysis)],
        "shapley": _shapley(analysis),
        "interactions": _interactions(analysis),
        "sizes": [
            *_best_of_each_size(analysis),
            *_steps(analysis),
            *_efficiency(analysis),
            *_optimism(analysis),
        ],
        "strategies": _strategies(analysis),
        "front": _front(analysis),
        "choices": [*_recommendation(analysis), *_ladder(analysis)],
        "avoid": _avoid(analysis),
        "uncertainty": [_sentence(analysis.uncertainty_note), _sentence(analysis.selection_note)],
    }


def _sentence(note: str) -> str:
    return f"{note[0].upper()}{note[1:]}."


def _baseline(analysis: Analysis) -> list[str]:
    row = analysis.baseline
    if row is None or row.failed:
        return ["The whole model was not measured in full, so nothing is relative to it."]
    bounds = ""
    if row.ppl.low is not None and row.ppl.high is not None:
        bounds = f" [{format_ppl(row.ppl.low)} to {format_ppl(row.ppl.high)}]"
    sentence = (
        f"The whole model ({count_blocks(analysis.n_blocks)}) has a perplexity of "
        f"{format_ppl(row.ppl.value)}{bounds} on {analysis.reported.title}."
    )
    if len(analysis.rows) > 1:
        return [sentence]
    return [sentence, "No plan that removes a block was measured."]


def _failed(analysis: Analysis) -> list[str]:
    plans = [row.plan for row in analysis.failed]
    if not plans:
        return []
    count = f"{len(plans):,} plan{'s' * (len(plans) != 1)}"
    return [f"{count} failed (not finite) and left out of every statement: {some_plans(plans)}."]


def _importance_extremes(analysis: Analysis) -> list[str]:
    importance = analysis.importance
    if len(importance.items) < 2:
        return [
            f"Without block {item.block} the perplexity changes by {format_change(item.ppl_ratio)}."
            if item.ppl_ratio.value < 2
            else f"Without block {item.block} the perplexity is "
            f"{format_change(item.ppl_ratio)} that of the whole model."
            for item in importance.items
        ]
    ratio = {item.block: item.ppl_ratio for item in importance.items}
    scope = "" if importance.complete else f" of the {len(ratio)} measured"
    most, least = importance.most, importance.least
    if len(most) == len(ratio):
        return [
            f"Removed alone, block {most[0]}{scope} matters most "
            f"(perplexity {format_change(ratio[most[0]])}), but no other can be told from it."
        ]
    return [
        f"Removed alone, block {most[0]}{scope} matters most "
        f"(perplexity {format_change(ratio[most[0]])}){_tied(most)}, "
        f"block {least[0]} least ({format_change(ratio[least[0]])}){_tied(least)}."
    ]


def _tied(blocks: tuple[int, ...]) -> str:
    return f", not distinguishable from {listed(blocks[1:])}" if len(blocks) > 1 else ""


def _hierarchy(ranking: Ranking) -> str:
    if ranking.separated is None:
        return f"{ranking} (order of the estimates, not tested)"
    signs = []
    if any(ranking.separated):
        signs.append("> differs by a test that holds for all pairs at once")
    if not all(ranking.separated):
        signs.append("≈ cannot be told apart")
    return f"{ranking} ({'; '.join(signs)})"


def _importance_ranking(analysis: Analysis) -> list[str]:
    importance = analysis.importance
    if len(importance.items) < 2:
        return []
    return [f"Hierarchy of single removals: {_hierarchy(importance.ranking)}."]


def _shapley(analysis: Analysis) -> list[str]:
    shapley = analysis.shapley
    if isinstance(shapley, NotAvailable):
        return [
            f"Shapley values: not available, since {shapley.reason}. "
            f"`{shapley.command}` measures the plans that they need."
        ]
    if analysis.n_blocks == 1:
        return [f"The only block carries all {format_nats(shapley.total)} nats per token."]
    how = f"exact, from all {2**analysis.n_blocks:,} plans"
    if shapley.sampling_error is not None:
        how = (
            f"estimated from {shapley.n_permutations:,} permutations, sampling error at most "
            f"{max(shapley.sampling_error):.3f}"
        )
    first, last = shapley.ranking.blocks[0], shapley.ranking.blocks[-1]
    return [
        f"Shared out over all orders of removal, block {first} carries most: "
        f"{format_nats(shapley.values[first])} of {format_nats(shapley.total)} nats per token; "
        f"block {last} least: {format_nats(shapley.values[last])} (Shapley values, {how}).",
        f"Hierarchy of Shapley values: {_hierarchy(shapley.ranking)}.",
    ]


def _interactions(analysis: Analysis) -> list[str]:
    pairs = analysis.interactions
    if not pairs:
        return []
    clear = sorted((pair for pair in pairs if pair.is_clear), key=lambda pair: pair.excess.value)
    if not clear:
        if analysis.scores.reason:
            return [
                f"None of the {len(pairs)} pairs was tested against the sum of its two single "
                f"costs ({analysis.scores.reason})."
            ]
        return [f"None of the {len(pairs)} pairs differs clearly from the sum of its single costs."]
    found = [
        f"{len(clear)} of {len(pairs)} pairs differ clearly from the sum of their single costs."
    ]
    if clear[-1].excess.value > 0:
        found.append(_pair(clear[-1], "worse", "more"))
    if clear[0].excess.value < 0:
        found.append(_pair(clear[0], "better", "less"))
    return found


def _pair(pair: Interaction, how: str, direction: str) -> str:
    size = pair.excess if direction == "more" else pair.excess.negated
    return (
        f"Blocks {pair.first} and {pair.second} together are {how} than their sum: "
        f"{format_nats(size)} nats per token {direction}."
    )


def _best_of_each_size(analysis: Analysis) -> list[str]:
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


def _steps(analysis: Analysis) -> list[str]:
    steps = [(size, size.step.map(exp)) for size in analysis.sizes if size.step is not None]
    if len(steps) < 2:
        return []
    costs = [f"{size.n_removed}: {format_change(Interval(ratio.value))}" for size, ratio in steps]
    found = [
        "Cost of each further block (perplexity of the best set relative to the best with one "
        f"block less): {', '.join(costs)}."
    ]
    reached = analysis.turning_point
    if any(size.n_removed == reached + 1 for size in analysis.sizes) and reached > 0:
        found.append(
            f"Returns diminish sharply after {count_blocks(reached)}: the next costs more than "
            f"{STEEP_STEP:g} times the average of those before it."
        )
    return found


def _efficiency(analysis: Analysis) -> list[str]:
    known = [(size.n_removed, size.per_million) for size in analysis.sizes if size.per_million]
    if len(known) < 2:
        return []
    costs = [f"{count}: {1e3 * cost.value:.2f}".replace("-", "−") for count, cost in known]
    cheapest = min(known, key=lambda item: item[1].value)[0]
    return [
        "Thousandths of a nat per token for each million parameters removed, by blocks removed: "
        f"{', '.join(costs)}; cheapest at {cheapest}."
    ]


def _optimism(analysis: Analysis) -> list[str]:
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
        names = [f"{size.n_removed}: {size.best_reported}" for size in missed]
        found.append(f"In hindsight another set was best on the reported text: {', '.join(names)}.")
    return found


def _strategies(analysis: Analysis) -> list[str]:
    full = [size for size in analysis.sizes if all(size.strategies.values())]
    if not full:
        return []
    winners = Counter(_winner(analysis, size) for size in full)
    count = max(winners.values())
    ties = [name for name in STRATEGIES if winners[name] == count]
    sizes = f"{len(full)} number{'s' * (len(full) != 1)} of removed blocks"
    found = [
        f"Of the fixed strategies ({', '.join(STRATEGIES)}), {listed(ties)} "
        f"{'does' if len(ties) == 1 else 'do'} best most often: at {count} of {sizes}"
        f"{' each' if len(ties) > 1 else ''} (perplexity on {analysis.selection.title})."
    ]
    for size in full:
        ratio = analysis.row[size.strategies[_winner(analysis, size)] or Plan()].selection_ratio
        best = analysis.row[size.best].selection_ratio
        found.append(
            f"{size.n_removed} removed: best set {change(best)}, "
            f"median {change(size.median_ratio)}, "
            f"worst {change(analysis.row[size.worst].selection_ratio)}; "
            f"best strategy ({_winner(analysis, size)}) {change(ratio)}."
        )
    return found


def _winner(analysis: Analysis, size: Size) -> str:
    ratio = {
        name: analysis.row[plan].selection_ratio
        for name, plan in size.strategies.items()
        if plan is not None
    }
    return min(ratio, key=lambda name: ratio[name])


def _front(analysis: Analysis) -> list[str]:
    plans = [row.plan for row in analysis.front]
    if len(analysis.rows) < 2 or not plans:
        return []
    timed = any(row.latency is not None for row in analysis.rows)
    over = "perplexity, parameters and latency" if timed else "perplexity and parameters"
    return [
        f"On the Pareto front over {over} (no measured plan is better in one and as good in the "
        f"others): {listed(plans)}."
    ]


def _recommendation(analysis: Analysis) -> list[str]:
    if not analysis.sizes:
        return []
    plan, row = analysis.recommended, analysis.row[analysis.recommended]
    if plan == Plan():
        least = analysis.sizes[0]
        return [
            "Without a budget, keep the whole model: removing even the best set of "
            f"{count_blocks(least.n_removed)} ({least.best}) leaves "
            f"{factor(exp(least.increase.value))} times its perplexity "
            f"({analysis.selection_note})."
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


def _ladder(analysis: Analysis) -> list[str]:
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
        found.append(f"{within}, the smallest measured model is without {plan}: {facts}{caveat}.")
    return found


def _avoid(analysis: Analysis) -> list[str]:
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
        f"least {at_least(least)} times the perplexity of the best set of its size."
    ]


def _worst(analysis: Analysis) -> list[str]:
    """Where no block is bad in every plan: the worst measured set."""
    ranked = [row for row in analysis.rows if row.plan != Plan() and row.selection_ratio > 1]
    if len(ranked) < 2:
        return []
    worst = max(ranked, key=lambda row: row.selection_ratio)
    return [f"Worst of the measured sets: {worst.plan} ({change(worst.selection_ratio)})."]
