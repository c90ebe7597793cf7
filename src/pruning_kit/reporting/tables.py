"""Tables of a report: the best sets, single blocks, strategies, and what a run was made with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from pruning_kit.findings.analysis import COLLAPSE_RATIO, Analysis
from pruning_kit.findings.evidence import Interval
from pruning_kit.findings.importance import Shapley
from pruning_kit.findings.sizes import PlanRow, Size
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import STRATEGIES
from pruning_kit.reporting.document import Table
from pruning_kit.reporting.words.numbers import (
    format_nats,
    format_ppl,
    format_ratio,
    format_windows,
    listed,
)
from pruning_kit.reporting.words.texts import on_selection
from pruning_kit.runs.facts import NumericsFacts, Role
from pruning_kit.runs.results import Run

INTERVAL = "95 % interval"
UNCLEAR = "unclear"
NAT = "0.1 more is +10.5 % perplexity, 1 more 2.72×"
MAX_SIZES, MIN_SIZES = 16, 6


def format_params(row: PlanRow) -> str:
    """Parameters in millions."""
    return "" if row.parameters is None else f"{row.parameters / 1e6:.2f}"


def sizes_table(analysis: Analysis) -> Table | None:
    """The whole model and the best set of each size; the recommended plan stands out."""
    if not analysis.sizes:
        return None
    shown, left_out = sizes_to_show(analysis)
    rows = [analysis.row[Plan()], *(analysis.row[size.best] for size in shown)]
    timed = any(row.latency is not None for row in rows)
    headings = ["Removed", "PPL", "Ratio", INTERVAL, "Params M"]
    latency_headings = ["ms", "Ratio", INTERVAL] if timed else []
    starred = [row.plan == analysis.recommended for row in rows]
    unclear = any(UNCLEAR in latency_cells(row) for row in rows)
    shared = any(row.latency is not None and row.latency.timed for row in rows)
    return Table(
        tuple(headings + latency_headings),
        tuple(
            (
                f"{row.plan.short}{' *' * star}",
                format_ppl(row.ppl.value),
                *split_ratio(row.ppl_ratio, row.plan),
                format_params(row),
                *(latency_cells(row) if timed else ()),
            )
            for row, star in zip(rows, starred, strict=True)
        ),
        f"The whole model and {_best_sets(analysis)}, each ratio to the whole model; * is the most "
        "that this page recommends."
        + left_out
        + " Ratios of time are taken within each round, so they need not be the quotient of the "
        "milliseconds."
        * timed
        + " Models that do the same work share one time." * shared
        + f" {UNCLEAR}: no larger than the noise of this machine." * unclear,
        tuple(number for number, star in enumerate(starred) if star),
    )


def _best_sets(analysis: Analysis) -> str:
    if not analysis.offers_choice:
        return "the measured set of each size"
    return f"the best set of each size{on_selection(analysis, ' on {}')}"


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


def latency_cells(row: PlanRow) -> tuple[str, str, str]:
    """Milliseconds, ratio to the whole model (or `unclear` where none may be claimed), bounds."""
    if row.latency is None:
        return "", "", ""
    value, bounds = split_ratio(row.latency.ratio, row.plan)
    if row.plan != Plan() and not row.latency.claimed:
        value = UNCLEAR
    return f"{1e3 * row.latency.median_s:.3g}", value, bounds


def blocks_table(analysis: Analysis) -> Table | None:
    """Each block: perplexity without it, and its Shapley value."""
    single = {item.block: item for item in analysis.importance.items}
    shapley = analysis.shapley.values if isinstance(analysis.shapley, Shapley) else None
    if not single and shapley is None:
        return None
    rows = []
    for block in range(analysis.n_blocks):
        item = single.get(block)
        row = analysis.row.get(Plan((block,)))
        cells = [str(block), "not measured" if row is None else format_ppl(row.ppl.value)]
        cells += ("", "") if item is None else split_ratio(item.ppl_ratio)
        if shapley is not None:
            value, _, bounds = format_nats(shapley[block]).partition(" [")
            cells += [value, bounds.rstrip("]")]
        rows.append(tuple(cells))
    return Table(
        (
            "Block",
            "PPL without",
            "Ratio",
            INTERVAL,
            *(("Shapley", INTERVAL) if shapley is not None else ()),
        ),
        tuple(rows),
        "Ratio to the whole model."
        + f" Shapley values in nats per token: {NAT}." * (shapley is not None),
        analysis.importance.ranking.most[:1],
    )


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
        f"Perplexity on {analysis.selection.short} in units of the whole model's, by number of "
        "blocks removed: best, median (of the logarithms) and worst of the measured sets"
        f"{', and fixed strategies' if used else ''}."
        f"{left_out}",
    )


def provenance_table(run: Run) -> Table:
    """What the run was made from and with."""
    stored = run.facts
    model, numerics = stored.model, stored.numerics
    facts: list[tuple[str, Any]] = [
        ("Model", f"{model.name} ({model.model_type}, {run.n_blocks} blocks)"),
        ("Revision", model.revision),
        ("Weights SHA-256", model.weights_sha256),
        *(fact for role in run.roles for fact in _text_facts(run, role)),
        ("Windows", format_windows(stored.protocol)),
        ("Device", f"{numerics.device_name} ({numerics.device})"),
        ("Arithmetic", _arithmetic(numerics)),
        ("Kernel", numerics.note),
        *(fact for role in run.roles for fact in _recomputed(run, role)),
        ("Versions", listed(f"{name} {number}" for name, number in stored.versions.items())),
        ("Commit", _commit(stored.git_commit)),
        ("Measured", stored.created),
        ("Run folder", run.folder.name),
    ]
    return Table(
        ("", ""), tuple((name, str(value)) for name, value in facts if value not in (None, ""))
    )


def _text_facts(run: Run, role: Role) -> Iterable[tuple[str, Any]]:
    text, targets = run.facts.texts[role], run.targets(role)
    name = "Text" if role == "reported" else "Text chosen on"
    part = f", {text.part}" if text.part else ""
    yield name, f"{text.title}{part}; {int(targets.sum()):,} tokens in {len(targets):,} windows"
    yield f"{name} SHA-256", text.sha256


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
    return (
        f"{numerics.dtype}, attention {numerics.attention}, kernel {numerics.kernel}, "
        f"batch {numerics.batch_size}, {threads} thread{'s' * (threads != 1)}"
    )


def _commit(name: str | None) -> str | None:
    """A commit; a plus sign at its end means that files differed from it."""
    if name is None or not name.endswith("+"):
        return name
    return f"{name[:-1]} with uncommitted changes"
