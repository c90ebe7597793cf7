"""What to choose, in sentences: the set to take, what it costs, and why no larger one."""

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
from pruning_kit.reporting.words.numbers import change, count_blocks, format_change, name_blocks
from pruning_kit.reporting.words.texts import on_selection

CHEAP, CEILING = (f"+{100 * (ratio - 1):g} %" for ratio in (CHEAP_RATIO, MAX_RECOMMENDED_RATIO))


def recommendation(analysis: Analysis) -> list[str]:
    """What removing blocks costs at least, what to take, why not more, and on which text."""
    if not analysis.sizes:
        return []
    plan, cheap = analysis.recommended, analysis.cheap
    if plan == Plan():
        found = [_keep_all(analysis)]
    else:
        found = [*_what_to_take(analysis, plan, cheap), *_why_not_more(analysis)]
    if analysis.offers_choice and not analysis.two_texts:
        found.append("Sets were chosen and reported on the same text, which flatters them.")
    return found


def _what_to_take(analysis: Analysis, plan: Plan, cheap: Plan) -> list[str]:
    """The set that costs little, if there is one, and the recommended one."""
    taken = f"take {name_blocks(plan)}: {plan_facts(analysis, plan)}."
    if cheap == Plan():
        which = "one must go" if plan.size == 1 else "some must go"
        return [f"{_no_bargain(analysis)} If {which}, {taken}"]
    facts = plan_facts(analysis, cheap)
    little = f"{name_blocks(cheap).capitalize()} can be removed at little cost: {facts}."
    return [little] if plan == cheap else [little, f"If more must go, {taken}"]


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
        f"the rule of thumb of {CEILING}{on_selection(analysis)}: "
        f"{plan_facts(analysis, size.best)}."
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
    best = f"Best {measured}set of {size.n_removed}: {size.best.short},"
    ratio = analysis.row[size.best].selection_ratio
    if ratio > MAX_RECOMMENDED_RATIO:
        seen = "" if cost.value > MAX_RECOMMENDED_RATIO else on_selection(analysis, " on {}")
        paid = format_change(cost) if not seen else f"{change(ratio)}{seen}"
        return [f"{best} {paid}, over the rule of thumb of {CEILING}."]
    return [
        f"{best} {format_change(cost)}. After {count_blocks(analysis.turning_point)} costs rise "
        f"sharply (to over {STEEP_STEP:g} times the average of those before, in log perplexity"
        f"{on_selection(analysis, ' on {}')})."
    ]
