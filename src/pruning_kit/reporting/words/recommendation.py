"""Sentences on what to choose: the set to take and why no larger one, and the limits' ladder."""

from __future__ import annotations

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.budgets import (
    CHEAP_RATIO,
    MAX_RECOMMENDED_RATIO,
    STEEP_STEP,
    useful_sizes,
)
from pruning_kit.findings.evidence import exp
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.words.facts import plan_facts
from pruning_kit.reporting.words.numbers import (
    change,
    count_blocks,
    format_change,
    listed,
    name_blocks,
)
from pruning_kit.reporting.words.texts import on_selection

CHEAP, CEILING = (f"+{100 * (ratio - 1):g} %" for ratio in (CHEAP_RATIO, MAX_RECOMMENDED_RATIO))


def recommendation(analysis: Analysis) -> list[str]:
    """What removing blocks costs at least, what to take, why not more, and on which text."""
    if not analysis.sizes:
        return []
    plan, cheap = analysis.recommended, analysis.cheap
    if plan == Plan():
        found = [_keep_all(analysis)]
    elif cheap == Plan():
        which = "one must go" if plan.size == 1 else "some must go"
        facts = plan_facts(analysis, analysis.row[plan], on_what=True)
        found = [
            f"{_no_bargain(analysis)} If {which}, take {name_blocks(plan)}: {facts}.",
            *_why_not_more(analysis),
        ]
    else:
        facts = plan_facts(analysis, analysis.row[cheap], on_what=True)
        found = [f"{name_blocks(cheap).capitalize()} can be removed at little cost: {facts}."]
        if plan != cheap:
            facts = plan_facts(analysis, analysis.row[plan])
            found.append(f"If more must go, take {name_blocks(plan)}: {facts}.")
        found += _why_not_more(analysis)
    if analysis.selection == analysis.reported and analysis.offers_choice:
        found.append(
            "Sets were chosen and reported on the same text, which flatters the chosen ones."
        )
    return found


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
        f"{CEILING}{on_selection(analysis)}, this page's rule of thumb for the most to give: "
        f"{plan_facts(analysis, analysis.row[size.best], on_what=True)}."
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
        f"(in log perplexity{on_selection(analysis, ', on {}')})."
    ]


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
        f"Smallest measured model by the perplexity allowed{on_selection(analysis)}: "
        f"{'; '.join(answers)}."
    ]


def _rung(analysis: Analysis, plan: Plan, caveats: tuple[str, ...]) -> str:
    if plan == Plan():
        return "the whole model"
    row = analysis.row[plan]
    facts = [change(row.selection_ratio), *caveats]
    if analysis.selection != analysis.reported:
        facts.insert(1, f"{change(row.ppl_ratio.value)} on {analysis.reported.short}")
    return f"without {name_blocks(plan)} ({', '.join(facts)})"
