"""What bridging changes, and what bridges were made of, in sentences."""

from __future__ import annotations

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.bridging import Bridging, OnText, Ranks
from pruning_kit.findings.evidence import exp
from pruning_kit.plans.costs import Cost
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.words.numbers import (
    change,
    count_blocks,
    listed,
    name_blocks,
    series,
    some_plans,
)
from pruning_kit.reporting.words.sureness import few_windows
from pruning_kit.reporting.words.texts import chosen_on
from pruning_kit.runs.facts import lacks_text
from pruning_kit.runs.recoveries import BridgesFacts
from pruning_kit.runs.results import Run

MAX_MOVED = 3
REMEDY = "For bridges name a text to fit them on, which is never reported: `--calibrate-on TEXT`."


def how_bridged(run: Run) -> list[str]:
    """What bridges were fitted on and which plans have none, or why there are none at all."""
    if run.bridges is not None:
        return [_fitted(run, run.bridges)]
    if run.facts.unbridged is None:
        return []
    remedy = f" {REMEDY}" * lacks_text(run.facts)
    return [f"Gaps are not bridged: {run.facts.unbridged}.{remedy}"]


def _fitted(run: Run, facts: BridgesFacts) -> str:
    text = facts.fitting
    tokens = "" if text.n_tokens is None else f", {text.n_tokens:,} tokens"
    return f"Bridges are fitted on {text.title}{tokens}; {_without(run, facts)}."


def _without(run: Run, facts: BridgesFacts) -> str:
    """How many plans have no bridged row, and why."""
    bridged = {v.plan for v in run.judged_by(Cost.bridged) if v.recovery is not None}
    plans = [plan for plan in run.plans if 0 < plan.size < run.n_blocks]
    without = {str(plan) for plan in plans if plan not in bridged}
    if not without:
        return "every set has a bridged row"
    unhelped = len(without & set(facts.unhelped))
    rest = len(without) - unhelped
    why = [f"{unhelped:,} would not be better with it"] * bool(unhelped)
    why += [f"{rest:,} with no block before a gap to bear it"] * bool(rest)
    sets = f"{len(without):,} of {len(plans):,} sets"
    return f"{sets} {'has' if len(without) == 1 else 'have'} no bridged row ({', '.join(why)})"


def bridging_sentences(analysis: Analysis) -> list[str]:
    """How much bridges take back, how they change the order, and what choosing as cut costs."""
    found = analysis.bridging
    if found is None:
        return []
    return [
        *(_on_text(one) for one in found.texts),
        *_taken_back(found),
        *_order(found),
        *_regret(analysis, found),
    ]


def _on_text(one: OnText) -> str:
    count = f"{one.n_bridged:,} bridged set{'s' * (one.n_bridged != 1)}"
    if not one.tested:
        why = few_windows(one.text.n_windows)
        return f"None of the {count} was tested against the same as cut ({why})."
    worse = f"{len(one.worse):,} clearly worse"
    named = f" ({some_plans(one.worse)})" * bool(one.worse)
    return (
        f"On {one.text.short}, of {count} {len(one.better):,} are clearly better than as cut, "
        f"{worse}{named}."
    )


def _taken_back(found: Bridging) -> list[str]:
    medians = [
        (size.n_removed, f"{100 * size.median_taken_back:.0f} %")
        for size in found.sizes
        if size.median_taken_back is not None
    ]
    if not medians:
        return []
    return [
        "Of the nats above the whole model bridging takes back (median of the bridged sets, by "
        f"blocks removed) {series(medians)}."
    ]


def _order(found: Bridging) -> list[str]:
    """Kendall's tau of each size, and the plans that move farthest."""
    taus = [
        (size.n_removed, f"{size.order_agreement:.2f}".replace("-", "−"))
        for size in found.sizes
        if size.order_agreement is not None
    ]
    if not taus:
        return []
    sets = {size.n_removed: len(size.ranks) for size in found.sizes}
    far = [ranks for ranks in found.moved if ranks.moved > 1][:MAX_MOVED]
    moved = [_moved(ranks, sets[ranks.plan.size]) for ranks in far]
    said = f"Rank (1 costs least): {'; '.join(moved)}." if moved else "No set moves far."
    return [
        "Order of the sets as cut and bridged, Kendall's tau (1 the same, 0 no relation) by blocks "
        f"removed: {series(taus)}. {said}"
    ]


def _moved(ranks: Ranks, n_plans: int) -> str:
    return f"{name_blocks(ranks.plan)} from {ranks.as_cut} to {ranks.bridged} of {n_plans}"


def _regret(analysis: Analysis, found: Bridging) -> list[str]:
    """What choosing as cut and then bridging costs; the table has the numbers of each size."""
    sizes = [size for size in found.sizes if len(size.ranks) > 1]
    others = [size for size in sizes if size.best != size.best_as_cut]
    if not sizes:
        return []
    how = chosen_on(analysis)
    if not others:
        return [f"At every size the best set as cut is the best one bridged ({how})."]
    largest = max(others, key=lambda size: size.regret.value)
    costs = (
        f"Chosen as cut and then bridged, another set is taken at {len(others)} of "
        f"{count(len(sizes))}, for {change(exp(largest.regret.value))} perplexity at most (with "
        f"{count_blocks(largest.n_removed)} removed; {how})"
    )
    if not analysis.scores.has_intervals:
        return [f"{costs}; none was tested."]
    clear = [size for size in others if size.is_clear]
    dearer = [str(size.n_removed) for size in clear if size.regret.value > 0]
    cheaper = [str(size.n_removed) for size in clear if size.regret.value < 0]
    if not clear:
        return [f"{costs}: at no size a clear difference."]
    said = [f"clearly dearer with {listed(dearer)} removed"] * bool(dearer)
    said += [f"clearly cheaper with {listed(cheaper)} removed"] * bool(cheaper)
    return [f"{costs}: {listed(said)}."]


def count(n_sizes: int) -> str:
    """`1 size`, `2 sizes`."""
    return f"{n_sizes} size{'s' * (n_sizes != 1)}"


def bridged(analysis: Analysis) -> str:
    """That plans are judged bridged, to stand behind what is said of many."""
    return ", bridged where that helps" * analysis.judged_bridged


def judged(analysis: Analysis, plan: Plan) -> str:
    """That a cost is that of a bridged plan, and what it is as cut, to stand behind it."""
    row = analysis.row[plan]
    if not row.bridged:
        return ""
    whole = analysis.row[Plan()].ppl.value
    as_cut = "" if row.as_cut is None else f" (as cut {change(row.as_cut.value / whole)})"
    return f" bridged{as_cut}"
