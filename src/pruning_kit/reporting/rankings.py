"""The table of rankings of blocks by one pass, beside what was measured."""

from __future__ import annotations

from pruning_kit.findings.rankings import Compared, compared
from pruning_kit.reporting.document import Section, Table
from pruning_kit.runs.results import Run
from pruning_kit.search.ranked import RANKINGS

SHOWN = 8
"""Blocks of an order; the others follow."""


def rankings_section(run: Run) -> Section:
    """Rankings and how far they agree with what blocks cost alone."""
    table = rankings_table(run)
    return Section("rankings", "Blocks ranked by one pass", (), table)


def rankings_table(run: Run) -> Table | None:
    """A line for each ranking; None where none was asked for."""
    found = compared(run)
    if not found:
        return None
    columns = [("As cut", [one.as_cut for one in found])]
    if any(one.bridged is not None for one in found):
        columns.append(("Bridged", [one.bridged for one in found]))
    shown = [(head, values) for head, values in columns if any(v is not None for v in values)]
    rows = [
        (one.name, _order(one), *(_correlation(values[at]) for _, values in shown))
        for at, one in enumerate(found)
    ]
    head = ("Ranking", "Least important first", *(name for name, _ in shown))
    return Table(head, tuple(rows), _caption(found, bool(shown)))


def _caption(found: tuple[Compared, ...], correlates: bool) -> str:
    said = "; ".join(f"{one.name}: {RANKINGS[one.name]}" for one in found)
    if not correlates:
        return f"{said}. What blocks cost alone was not measured."
    return (
        f"{said}. Beside it Spearman's rank correlation with what {found[0].n_blocks} blocks cost "
        "when each is removed alone, on the text chosen on: 1 is the same order, 0 none."
    )


def _order(one: Compared) -> str:
    rest = ", …" * (len(one.order) > SHOWN)
    return ", ".join(map(str, one.order[:SHOWN])) + rest


def _correlation(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
