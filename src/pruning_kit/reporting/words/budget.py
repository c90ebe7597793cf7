"""A budget, in sentences: what was chosen within its limits, or what stands in the way."""

from __future__ import annotations

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.budgets import Budget, Caveat, Choice
from pruning_kit.findings.sizes import PlanRow
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.words.facts import ms_and_speed
from pruning_kit.reporting.words.numbers import (
    change,
    format_change,
    format_ppl,
    listed,
    name_blocks,
)
from pruning_kit.reporting.words.texts import chosen_on, on_selection

CAVEATS = {
    Caveat.PPL_EXCEEDED: "on the reported text it exceeds the limit on perplexity",
    Caveat.PPL_UNSURE: "its 95 % interval reaches beyond the limit on perplexity",
    Caveat.LATENCY_UNSURE: "its 95 % interval reaches beyond the limit on latency",
}


def budget_sentences(analysis: Analysis, choice: Choice) -> list[str]:
    """The plan chosen within a budget, or why there is none."""
    if choice.row is not None:
        return [_chosen(analysis, choice, choice.row), *_why_whole(analysis, choice, choice.row)]
    measured = sum(not row.failed for row in analysis.rows)
    limits = _limits(analysis, choice.budget)
    found = [f"No choice: none of the {measured:,} measured models keeps to {limits}."]
    if choice.nearest is not None:
        found.append(f"Nearest: {_named(choice.nearest)} ({_facts(choice.nearest)}).")
    return [*found, *(_alone(analysis, single) for single in choice.alone)]


def _limits(analysis: Analysis, budget: Budget) -> str:
    """The limits in words, such as `at most 60,000,000 parameters`."""
    parts = []
    if budget.max_latency_s is not None:
        parts.append(f"at most {1e3 * budget.max_latency_s:g} ms")
    if budget.max_params is not None:
        parts.append(f"at most {budget.max_params:,} parameters")
    if budget.max_ppl_increase_pct is not None:
        more = f"at most {budget.max_ppl_increase_pct:g} % more perplexity"
        parts.append(f"{more}{on_selection(analysis)}")
    return listed(parts)


def _chosen(analysis: Analysis, choice: Choice, row: PlanRow) -> str:
    caveats = f"; but {listed(_caveats(choice))}" if choice.caveats else ""
    return (
        f"With {_limits(analysis, choice.budget)}: {_what(row)}, {_facts(row)}{caveats}"
        f" ({chosen_on(analysis)})."
    )


def _caveats(choice: Choice) -> list[str]:
    return [CAVEATS[caveat] for caveat in choice.caveats]


def _why_whole(analysis: Analysis, choice: Choice, row: PlanRow) -> list[str]:
    """What the cheapest set costs, where the limit on perplexity lets no block go."""
    size, limit = analysis.cheapest, choice.budget.max_ppl_increase_pct
    if row.plan != Plan() or size is None or limit is None:
        return []
    ratio = analysis.row[size.best].selection_ratio
    if ratio <= 1 + limit / 100:
        return []
    least = f"{name_blocks(size.best).capitalize()}, the cheapest to remove, "
    return [f"{least}would cost {change(ratio)}{on_selection(analysis)}."]


def _alone(analysis: Analysis, choice: Choice) -> str:
    limit = _limits(analysis, choice.budget)
    if choice.row is None:
        nearest = choice.nearest
        least = "" if nearest is None else f"; nearest: {_named(nearest)} ({_facts(nearest)})"
        return f"No measured model has {limit}{least}."
    facts = listed([_facts(choice.row), *_caveats(choice)], "but")
    return f"{limit[0].upper()}{limit[1:]} alone: {_what(choice.row)} ({facts})."


def _what(row: PlanRow) -> str:
    return "keep the whole model" if row.plan == Plan() else f"remove {name_blocks(row.plan)}"


def _named(row: PlanRow) -> str:
    return "the whole model" if row.plan == Plan() else f"without {name_blocks(row.plan)}"


def _facts(row: PlanRow) -> str:
    """Perplexity, parameters and time of a plan, beside the whole model's where it is another."""
    against = "" if row.plan == Plan() else f" ({format_change(row.ppl_ratio)})"
    facts = [f"perplexity {format_ppl(row.ppl.value)}{against}{' bridged' * row.bridged}"]
    if row.parameters is not None:
        facts.append(f"{row.parameters / 1e6:.2f} M parameters")
    if row.latency is not None:
        facts.append(ms_and_speed(row))
    return ", ".join(facts)
