"""The table of what bridging changes."""

from __future__ import annotations

from collections.abc import Iterable

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.bridging import Bridging, SizeBridged
from pruning_kit.findings.evidence import exp
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.document import Table
from pruning_kit.reporting.tables import BRIDGED, INTERVAL, MAX_SIZES, split_ratio
from pruning_kit.reporting.words.numbers import format_ppl
from pruning_kit.reporting.words.texts import on_selection

MARK = "†"


def bridging_table(analysis: Analysis) -> Table | None:
    """The best set of each size, and below it the one chosen as cut where that is another."""
    found = analysis.bridging
    if found is None or not found.sizes:
        return None
    shown = found.sizes[:MAX_SIZES]
    rows = [row for size in shown for row in _rows(found, size)]
    left_out = len(found.sizes) - len(shown)
    marked = any(size.best != size.best_as_cut for size in shown)
    return Table(
        ("Removed", "As cut", BRIDGED, "Taken back", "Ratio", INTERVAL),
        tuple(rows),
        f"The best set of each size bridged{on_selection(analysis, ' on {}')}. Taken back: of the "
        "nats above the whole model."
        + f" {MARK}: the best as cut, with its ratio, bridged, to the set above." * marked
        + f" Left out here are {left_out} larger sizes." * (left_out > 0),
    )


def _rows(found: Bridging, size: SizeBridged) -> Iterable[tuple[str, ...]]:
    yield (*_costs(found, size.best), "", "")
    if size.best != size.best_as_cut:
        name, *costs = _costs(found, size.best_as_cut)
        yield f"{name} {MARK}", *costs, *split_ratio(size.regret.map(exp))


def _costs(found: Bridging, plan: Plan) -> tuple[str, ...]:
    """A set with its perplexity by either cost, and the share that is taken back."""
    both, share = found.reported, found.reported.taken_back(plan)
    bridged = plan in both.judged.bridged
    return (
        plan.short,
        format_ppl(exp(both.as_cut.log_ppl(plan))),
        format_ppl(exp(both.judged.log_ppl(plan))) if bridged else "",
        f"{100 * share:.0f} %".replace("-", "−") if bridged and share is not None else "",
    )
