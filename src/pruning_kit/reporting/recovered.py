"""Tables of recovered models: each plan as cut, bridged, and with weights of its own."""

from __future__ import annotations

from itertools import accumulate

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.recovered import RecoveredRow
from pruning_kit.reporting.document import Table
from pruning_kit.reporting.tables import BRIDGED, INTERVAL, split_ratio
from pruning_kit.reporting.words.numbers import format_ppl

RANK = "Rank"


def recovered_table(analysis: Analysis) -> Table | None:
    """A row for each form of a plan, behind each other; None where no weights are own ones."""
    rows = analysis.recovered
    if not rows:
        return None
    ends = [
        number + 1
        for number, row in enumerate(rows[:-1])
        if row.variant.plan != rows[number + 1].variant.plan
    ]
    return Table(
        ("Removed", "PPL", "Ratio", INTERVAL, "KL", "To start", INTERVAL),
        (_whole(analysis), *map(_cells, rows)),
        "Ratios: to the whole model. To start: to the form that it is made from, bridged where "
        "there is such a row, else as cut; paired.",
        bold=(0,),
        ends=(0, *ends),
    )


def _whole(analysis: Analysis) -> tuple[str, ...]:
    base = analysis.baseline
    return ("none", "" if base is None else format_ppl(base.ppl.value), *[""] * 5)


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


def reordered_table(analysis: Analysis) -> Table | None:
    """Sets that were recovered alike, with what each costs and its rank, form by form."""
    rows = [
        (
            f"{plan.short} {one.recovery}",
            *(cell for place in places for cell in (format_ppl(place.ppl), str(place.rank))),
        )
        for one in analysis.reordered
        for plan, places in one.places.items()
    ]
    if not rows:
        return None
    lengths = [len(one.places) for one in analysis.reordered]
    return Table(
        ("Removed", "As cut", RANK, BRIDGED, RANK, "Recovered", RANK),
        tuple(rows),
        "Perplexities, and ranks among the sets of the same size here; 1 costs least.",
        ends=tuple(end - 1 for end in list(accumulate(lengths))[:-1]),
    )
