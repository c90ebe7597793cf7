"""Whether what the reported text says holds on further texts, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.elsewhere import Elsewhere
from pruning_kit.findings.evidence import exp
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.words.numbers import (
    change,
    format_change,
    name_blocks,
    series,
    some_plans,
)
from pruning_kit.reporting.words.sureness import few_windows

TITLE_WIDTH = 24


def title_of(analysis: Analysis, one: Elsewhere) -> str:
    """The name of a further text; texts that are called alike are told apart by their role."""
    titles = [analysis.reported.short, *(other.text.short for other in analysis.elsewhere)]
    alike = titles.count(one.text.short) > 1
    return f"{one.text.short} ({one.text.role})" if alike else one.text.short


def in_a_column(title: str, width: int = TITLE_WIDTH) -> str:
    """A title for a table: of a long one the middle is left out."""
    half = (width - 1) // 2
    return title if len(title) <= width else f"{title[:half]}…{title[-half:]}"


def of_the_choice(analysis: Analysis) -> list[str]:
    """That the set to take, or the cheapest one, costs clearly more or less on further texts."""
    cheapest, plan = analysis.cheapest, analysis.recommended
    if plan == Plan() and cheapest is not None:
        plan = cheapest.best
    costs = [
        f"clearly {'more' if one.shift[plan] > 0 else 'less'} on {title_of(analysis, one)}, "
        f"{format_change(one.ratio[plan])}"
        for one in analysis.elsewhere
        if one.is_clear(plan)
    ]
    if not costs:
        return []
    return [f"{name_blocks(plan).capitalize()} cost{'s' * (plan.size == 1)} {'; '.join(costs)}."]


def elsewhere_sentences(analysis: Analysis) -> list[str]:
    """Which plans cost clearly more or less there, and whether their order is the same."""
    return [said for one in analysis.elsewhere for said in _on_text(analysis, one)]


def _on_text(analysis: Analysis, one: Elsewhere) -> list[str]:
    title = title_of(analysis, one)
    if one.ppl is None:
        return [f"On {title} the whole model was not measured in full: nothing is relative to it."]
    if not one.ratio:
        return []
    return [_differences(analysis, one, title), *_order(analysis, one, title)]


def _differences(analysis: Analysis, one: Elsewhere, title: str) -> str:
    if not one.adjusted_p:
        few = min(analysis.reported.n_windows, one.text.n_windows)
        return (
            f"No cost on {title} was tested against that on {analysis.reported.short} "
            f"({few_windows(few)})."
        )
    count = len(one.ratio)
    return (
        f"Of {count:,} set{'s' * (count != 1)}, relative to the whole model, on {title} against "
        f"{analysis.reported.short}: {_named(one, one.costlier)} clearly more, "
        f"{_named(one, one.cheaper)} clearly less."
    )


def _named(one: Elsewhere, plans: Sequence[Plan]) -> str:
    """How many plans, some of them, and how far off: `2 (1 and 1+3, by +4.0 % to +9.1 %)`."""
    if not plans:
        return "none"
    shifts = [one.shift[plan] for plan in plans]
    ends = dict.fromkeys(change(exp(end)) for end in (min(shifts), max(shifts)))
    return f"{len(plans):,} ({some_plans(plans)}, by {' to '.join(ends)})"


def _order(analysis: Analysis, one: Elsewhere, title: str) -> list[str]:
    """Kendall's tau of all plans, and the sizes whose best plan is another one there."""
    if one.order_agreement is None:
        return []
    sizes = [size for size in analysis.sizes if size.n_measured > 1]
    others = [
        (size.n_removed, best.short)
        for size in sizes
        if (best := one.best(size.n_removed)) is not None and best != size.best
    ]
    tau = (
        f"The order of the sets on {title} and {analysis.reported.short}: Kendall's tau "
        f"{one.order_agreement:.2f} (1 the same, 0 no relation)"
    )
    if not sizes:
        return [f"{tau}."]
    if not others:
        return [f"{tau}; the best of each size is the best on {title} too."]
    return [f"{tau}; on {title} another set is best, by blocks removed: {series(others)}."]
