"""Tables of a report: the best sets, strategies, times, and what a run was made with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pruning_kit.findings.analysis import COLLAPSE_RATIO, Analysis
from pruning_kit.findings.evidence import Interval
from pruning_kit.findings.sizes import PlanRow, Size
from pruning_kit.intervals import MIN_ROUNDS
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import STRATEGIES
from pruning_kit.reporting.document import Table
from pruning_kit.reporting.words.numbers import (
    format_ppl,
    format_ratio,
    format_windows,
    significant,
)
from pruning_kit.reporting.words.speed import NAMES, conditions, percent, tasks
from pruning_kit.reporting.words.texts import on_selection
from pruning_kit.runs.facts import NumericsFacts, Role
from pruning_kit.runs.results import Run
from pruning_kit.speed.depths import NULL_PAIR, Fit
from pruning_kit.speed.timings import DECODE, END_TO_END, PREFILL, Timings

INTERVAL = "95 % interval"
UNCLEAR = "unclear"
AGREEMENT = "Agree"
BRIDGED = "Bridged"
MAX_SIZES, MIN_SIZES = 16, 6
DIGITS = 12
MIN_DEPTHS = 3  # fewer fit any line
STRAIGHT = 0.05


def format_params(row: PlanRow) -> str:
    """Parameters in millions."""
    return "" if row.parameters is None else f"{row.parameters / 1e6:.2f}"


def sizes_table(analysis: Analysis) -> Table | None:
    """The whole model and the best set of each size; the recommended plan stands out."""
    if not analysis.sizes:
        return None
    shown, left_out = sizes_to_show(analysis)
    rows = [analysis.row[Plan()], *(analysis.row[size.best] for size in shown)]
    starred = [number for number, row in enumerate(rows) if row.plan == analysis.recommended]
    names = [f"{row.plan.short}{' *' * (number in starred)}" for number, row in enumerate(rows)]
    table = plans_table(rows, names, AGREEMENT if analysis.judged_bridged else "")
    return replace(
        table,
        caption=f"{_best_sets(analysis)}; ratios: to the whole model{of_bridged(table)}"
        + f"{'; *: recommended' * bool(starred)}.{left_out}"
        + f" {_compared(table)}" * ("KL" in table.headings)
        + " Params: millions."
        + "".join(_latency_notes(analysis, rows)),
        bold=tuple(starred),
    )


def plans_table(rows: Sequence[PlanRow], names: Sequence[str], without: str = "") -> Table:
    """What is known of plans, under their names; columns that hold nothing are left out."""
    columns = [
        (heading, [write(row) for row in rows]) for heading, write in COLUMNS if heading != without
    ]
    known = [(heading, cells) for heading, cells in columns if any(cells)]
    headings = ("Removed", *(heading for heading, _ in known))
    return Table(headings, tuple(zip(names, *(cells for _, cells in known), strict=True)))


def of_bridged(table: Table) -> str:
    """Which form what stands beside both perplexities is of, for a caption."""
    return ", of the bridged model where there is one" * (BRIDGED in table.headings)


def _compared(table: Table) -> str:
    agree = ", agree (same likeliest token)" * (AGREEMENT in table.headings)
    return f"KL (nats a token){agree}: with the whole model."


def _ratio(row: PlanRow) -> str:
    return split_ratio(row.ppl_ratio, row.plan)[0]


def _ratio_bounds(row: PlanRow) -> str:
    return split_ratio(row.ppl_ratio, row.plan)[1]


def as_cut_text(row: PlanRow) -> str:
    """Perplexity as cut; empty where it was not measured."""
    return "" if row.as_cut is None else format_ppl(row.as_cut.value)


def bridged_text(row: PlanRow) -> str:
    """Perplexity bridged; empty where a plan is judged as cut."""
    return format_ppl(row.ppl.value) if row.bridged else ""


def _mean(measured: Interval | None) -> str:
    return "" if measured is None else f"{measured.value:.3f}"


def _best_sets(analysis: Analysis) -> str:
    if not analysis.offers_choice:
        return "The measured set of each size"
    return f"The best set of each size{on_selection(analysis, ' on {}')}"


def _latency_notes(analysis: Analysis, rows: list[PlanRow]) -> Iterable[str]:
    """What milliseconds are of, whose they are, and where no ratio may be claimed."""
    found = [row.latency for row in rows if row.latency is not None]
    if found and analysis.timings is not None:
        yield f" ms ± 95 %: {conditions(analysis.timings)}"
        yield ", one time for equal work." if any(latency.timed for latency in found) else "."
    if any(_latency_ratio(row) == UNCLEAR for row in rows):
        yield f" {UNCLEAR}: within the noise."


def sizes_to_show(analysis: Analysis) -> tuple[tuple[Size, ...], str]:
    """The sizes for a table and what to say of the others: all, or of many the usable ones."""
    found = analysis.sizes
    if len(found) <= MAX_SIZES:
        return found, ""
    usable = [
        number
        for number, size in enumerate(found, 1)
        if analysis.row[size.best].selection_ratio <= COLLAPSE_RATIO
    ]
    shown = found[: max([MIN_SIZES, *usable])]
    rest = len(found) - len(shown)
    return shown, f" Left out here are {rest} larger sizes." * (rest > 0)


def split_ratio(ratio: Interval, plan: Plan | None = None) -> tuple[str, str]:
    """A ratio to the whole model and its bounds, for two columns; empty for the whole model."""
    if plan == Plan():
        return "", ""
    if ratio.low is None or ratio.high is None:
        return format_ratio(ratio.value), ""
    return format_ratio(ratio.value), f"{format_ratio(ratio.low)} to {format_ratio(ratio.high)}"


def _latency_ratio(row: PlanRow) -> str:
    """The ratio to the whole model, or `unclear` where none may be claimed."""
    if row.latency is None or row.plan == Plan():
        return ""
    return format_ratio(row.latency.ratio.value) if row.latency.claimed else UNCLEAR


def latency_text(row: PlanRow) -> str:
    """Milliseconds, and how far off the interval of the ratio to the whole model may put them."""
    if row.latency is None:
        return ""
    ms, ratio = 1e3 * row.latency.median_s, row.latency.ratio
    if row.plan == Plan() or ratio.low is None or ratio.high is None:
        return significant(ms)
    farther = max(ratio.high - ratio.value, ratio.value - ratio.low)
    return f"{significant(ms)} ± {significant(ms * farther / ratio.value, 2)}"


COLUMNS: Sequence[tuple[str, Callable[[PlanRow], str]]] = (
    ("PPL", as_cut_text),
    (BRIDGED, bridged_text),
    ("Ratio", _ratio),
    (INTERVAL, _ratio_bounds),
    ("KL", lambda row: _mean(row.kl)),
    (AGREEMENT, lambda row: _mean(row.agreement)),
    ("Params", format_params),
    ("ms", latency_text),
    ("Ratio", _latency_ratio),
)
"""The columns of tables of plans behind their names, in order; PPL is as cut."""


def strategies_table(analysis: Analysis) -> Table | None:
    """Perplexity relative to the whole model: sets of each size against fixed strategies."""
    if not analysis.offers_choice or len(analysis.sizes) < 2:
        return None
    ratio = {row.plan: row.selection_ratio for row in analysis.rows}
    used = [name for name in STRATEGIES if any(size.strategies[name] for size in analysis.sizes)]
    rows = []
    shown, left_out = sizes_to_show(analysis)
    for size in shown:
        named = [size.strategies[name] for name in used]
        values = [ratio[size.best], size.median_ratio, ratio[size.worst]]
        values += [math.nan if plan is None else ratio[plan] for plan in named]
        of = "" if size.complete else f" ({size.n_measured:,} of {size.n_possible:,} sets)"
        cells = ["" if math.isnan(value) else format_ratio(value) for value in values]
        rows.append((f"{size.n_removed}{of}", *cells))
    return Table(
        ("Removed", "Best", "Median", "Worst", *(name.capitalize() for name in used)),
        tuple(rows),
        f"Ratios to the whole model{on_selection(analysis)}: measured sets"
        f"{' and fixed strategies' if used else ''}.{left_out}",
    )


def speed_table(timings: Timings) -> Table | None:
    """What each quantity takes, what a block saves of it, and how well that is known."""
    if len(timings.rounds) < MIN_ROUNDS:
        return None
    n_depths = len({entry.plan.size for entry in timings.entries})
    rows = []
    for quantity in (END_TO_END, PREFILL, DECODE):
        fit = timings.fit.get(quantity)
        null, whole = timings.null_test[quantity].ratio, timings.seconds(quantity)[:, NULL_PAIR]
        rows.append(
            (
                NAMES[quantity],
                significant(1e3 * float(np.median(whole))),
                *([] if fit is None else [significant(1e3 * fit.per_block_s.value)]),
                *([] if fit is None or n_depths < MIN_DEPTHS else _outside_cells(fit)),
                f"{null.low:.3f} to {null.high:.3f}",
                percent(timings.widest[quantity][0]),
            )
        )
    lined = ("Outside", INTERVAL) if n_depths >= MIN_DEPTHS else ()
    block = ("A block",) if timings.fit else ()
    return Table(
        ("", "ms", *block, *lined, "Null test", "Known to"),
        tuple(rows),
        f"ms: whole model{'; a block: saved by each' * bool(block)}"
        f"{'; outside: share outside blocks' * bool(lined)}; null test: whole model over itself "
        "(less is not claimed); known to: widest interval, "
        f"{percent(timings.protocol['target'])} wanted. {tasks(timings).capitalize()}.",
    )


def _outside_cells(fit: Fit) -> tuple[str, str]:
    """The share of the time outside the blocks, where a straight line through all depths tells."""
    share = fit.fixed_share
    if share.low <= 0 or fit.worst_residual > STRAIGHT:
        return UNCLEAR, ""
    return percent(share.value, 0), f"{100 * share.low:.0f} to {percent(share.high, 0)}"


def provenance_table(run: Run) -> Table:
    """What the run was made from and with."""
    stored = run.facts
    model, numerics = stored.model, stored.numerics
    facts: list[tuple[str, Any]] = [
        (
            "Model",
            f"{model.name} ({model.model_type}, {run.n_blocks} blocks), weights "
            f"{model.weights_sha256[:DIGITS]}",
        ),
        ("Revision", model.revision),
        *(fact for role in run.roles for fact in _text_facts(run, role)),
        ("Arithmetic", _arithmetic(numerics)),
        *(fact for role in run.roles for fact in _recomputed(run, role)),
        ("Versions", ", ".join(f"{name} {number}" for name, number in stored.versions.items())),
        ("Measured", f"{stored.created}, in {run.folder.name}{_commit(stored.git_commit)}"),
    ]
    return Table(
        ("", ""),
        tuple((name, str(value)) for name, value in facts if value not in (None, "")),
        f"Hashes are cut to {DIGITS} digits; run.json has all. The command of the run:",
    )


def _text_facts(run: Run, role: Role) -> Iterable[tuple[str, Any]]:
    text, targets = run.facts.texts[role], run.targets(role)
    name = {"reported": "Text", "selection": "Text chosen on"}.get(role, "Further text")
    part = f", {text.part}" if text.part else ""
    count = f"{int(targets.sum()):,} tokens in {len(targets):,} windows"
    windows = format_windows(run.facts.protocol)
    yield name, f"{text.title}{part}: {count}, {windows}; {text.sha256[:DIGITS]}"


def _recomputed(run: Run, role: Role) -> Iterable[tuple[str, Any]]:
    """Windows whose group overflowed in 16 bits; a round computed every plan again on them."""
    again, n_windows = int(run.recomputed[role].any(axis=0).sum()), len(run.targets(role))
    if again:
        title, dtype = run.facts.texts[role].title, run.facts.numerics.dtype
        yield (
            "Computed again",
            f"{again:,} of {n_windows:,} windows of {title} were recomputed in float32 after an "
            f"overflow in {dtype}",
        )


def _arithmetic(numerics: NumericsFacts) -> str:
    threads = numerics.threads
    note = f" ({numerics.note})" if numerics.note else ""
    return (
        f"{numerics.dtype} on {numerics.device_name} ({numerics.device}, {threads} "
        f"thread{'s' * (threads != 1)}), attention {numerics.attention}, kernel "
        f"{numerics.kernel}{note}, batch {numerics.batch_size}"
    )


def _commit(name: str | None) -> str:
    """A commit, to be added to a list; a plus sign at its end means that files differed from it."""
    if name is None:
        return ""
    changed = " with uncommitted changes" * name.endswith("+")
    return f", commit {name.rstrip('+')[:DIGITS]}{changed}"
