"""The table of recovered models: each plan as cut, bridged, and with weights of its own."""

from __future__ import annotations

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.recovered import RecoveredRow
from pruning_kit.reporting.document import Table
from pruning_kit.reporting.tables import INTERVAL, split_ratio
from pruning_kit.reporting.words.numbers import format_ppl


def recovered_table(analysis: Analysis) -> Table | None:
    """A row for each form of a plan, behind each other; None where no weights are own ones."""
    rows = analysis.recovered
    if not rows:
        return None
    ends = [
        number
        for number, row in enumerate(rows[:-1])
        if row.variant.plan != rows[number + 1].variant.plan
    ]
    return Table(
        ("Removed", "PPL", "Ratio", INTERVAL, "KL", "To start", INTERVAL),
        tuple(map(_cells, rows)),
        "Ratios: to the whole model. To start: to the form that it is made from, bridged where "
        "there is such a row, else as cut; paired.",
        ends=tuple(ends),
    )


def _cells(row: RecoveredRow) -> tuple[str, ...]:
    name = row.variant.plan.short
    if row.variant.recovery is not None:
        name = f"{name} {row.variant.recovery}"
    return (
        name,
        format_ppl(row.ppl.value),
        *split_ratio(row.ratio),
        "" if row.kl is None else f"{row.kl.value:.3f}",
        *(("", "") if row.step is None else split_ratio(row.step)),
    )
