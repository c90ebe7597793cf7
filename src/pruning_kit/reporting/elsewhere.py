"""Tables of further texts: one of a report, and a shorter one for the end of a sweep."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.elsewhere import Elsewhere
from pruning_kit.findings.evidence import exp
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.document import Table
from pruning_kit.reporting.tables import INTERVAL, UNCLEAR, sizes_to_show, split_ratio
from pruning_kit.reporting.words.elsewhere import in_a_column, title_of
from pruning_kit.reporting.words.numbers import format_ppl, format_ratio

FEW_PLANS = 8
"""Shown in all where there are few sizes."""
TITLES_WIDTH, MIN_TITLE = 64, 7


def elsewhere_table(analysis: Analysis) -> Table | None:
    """The whole model and the best sets, on the reported text and on each further one."""
    if not analysis.elsewhere:
        return None
    plans = [Plan(), *best_plans(analysis)]
    rows = [cells for plan in plans for cells in _rows_by_text(analysis, plan)]
    return Table(
        ("Removed", "On", "PPL", "Ratio", INTERVAL, "Differs"),
        tuple(rows),
        "Ratios to the whole model on the same text. Differs: whether the ratio is clearly more or "
        f"less than on {analysis.reported.short}, by a test of all sets and texts at once.",
    )


def texts_table(analysis: Analysis) -> Table:
    """The best sets' ratios on each text, a column each, and the whole model's perplexity."""
    titles = [analysis.reported.short, *(title_of(analysis, one) for one in analysis.elsewhere)]
    width = max(MIN_TITLE, TITLES_WIDTH // len(titles) - 2)
    base = analysis.baseline
    whole = [None if base is None else base.ppl, *(one.ppl for one in analysis.elsewhere)]
    marked = any(one.costlier or one.cheaper for one in analysis.elsewhere)
    clearly = f"; ≠ clearly another than on {analysis.reported.short}"
    return Table(
        ("Removed", *(in_a_column(title, width) for title in titles)),
        (
            ("none", *("" if ppl is None else format_ppl(ppl.value) for ppl in whole)),
            *(_ratios(analysis, plan) for plan in best_plans(analysis)),
        ),
        "none: perplexity; others: ratios to the whole model on the same text" + clearly * marked,
        bold=(0,),
        ends=(0,),
    )


def _ratios(analysis: Analysis, plan: Plan) -> tuple[str, ...]:
    """A plan's ratios on each text, those marked that are clearly other ones."""
    found = [(one.ratio.get(plan), one.is_clear(plan)) for one in analysis.elsewhere]
    there = (
        "" if ratio is None else f"{'≠ ' * clear}{format_ratio(ratio.value)}"
        for ratio, clear in found
    )
    return (plan.short, format_ratio(analysis.row[plan].ppl_ratio.value), *there)


def best_plans(analysis: Analysis) -> list[Plan]:
    """The best of each size to show, or the best few where there are few sizes."""
    shown, _ = sizes_to_show(analysis)
    of_each = max(1, FEW_PLANS // max(1, len(shown)))
    ranked = sorted(analysis.rows, key=lambda row: (row.failed, row.selection_ratio))
    return [
        row.plan
        for size in shown
        for row in [row for row in ranked if row.plan.size == size.n_removed][:of_each]
    ]


def _rows_by_text(analysis: Analysis, plan: Plan) -> Iterable[tuple[str, ...]]:
    """A plan on every text, the reported one first."""
    row, title = analysis.row.get(plan), in_a_column(analysis.reported.short)
    if row is not None:
        yield plan.short, title, format_ppl(row.ppl.value), *split_ratio(row.ppl_ratio, plan), ""
    for one in analysis.elsewhere:
        ratio = one.ratio.get(plan)
        known = plan in one.scores.place
        yield (
            plan.short,
            in_a_column(title_of(analysis, one)),
            format_ppl(exp(one.scores.log_ppl(plan)) if known else math.nan),
            *(("", "") if ratio is None else split_ratio(ratio)),
            _differs(one, plan),
        )


def _differs(one: Elsewhere, plan: Plan) -> str:
    if plan not in one.adjusted_p:
        return ""
    return ("more" if one.shift[plan] > 0 else "less") if one.is_clear(plan) else UNCLEAR
