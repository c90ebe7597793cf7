"""A run beside the published distilgpt2 table. Published figures are quoted, never measured.

The table stems from a script that dropped the empty rows of WikiText-2, miscounted tokens
slightly and timed ten sampled calls of unequal length, so its perplexities are near but not equal
to careful ones, and its speeds are not compared with anything.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from importlib.resources import files

from pruning_kit.errors import RunError
from pruning_kit.findings.comparison import measured_plans, order_agreement
from pruning_kit.plans.plan import Plan
from pruning_kit.runs.results import Run
from pruning_kit.runs.rows import perplexity

NAMES = ("distilgpt2", "distilbert/distilgpt2")
PARAMETERS = 81_912_576
BLOCKS = 6
TEXT, STRIDE = "wikitext2-published", 512


@dataclass(frozen=True)
class PublishedRow:
    """One row of the published table, as it was printed."""

    plan: Plan
    ppl: float
    ppl_change_pct: float
    params_m: float
    speed_ms: float


@dataclass(frozen=True)
class PublishedComparison:
    """A published row and what the run measured; `ratio` is measured over published."""

    published: PublishedRow
    ppl: float | None
    ratio: float | None
    params_m: float | None


@dataclass(frozen=True)
class AgainstPublished:
    """A run beside the published table."""

    run: Run
    rows: tuple[PublishedComparison, ...]
    agreement: float | None
    """Kendall's tau of the order of plans; None below three."""


def published_rows() -> list[PublishedRow]:
    """The published table, in its order."""
    text = (files("pruning_kit") / "data" / "published_distilgpt2.csv").read_text(encoding="utf-8")
    return [
        PublishedRow(
            Plan.parse(row["removed"]),
            float(row["ppl"]),
            float(row["ppl_change_pct"]),
            float(row["params_m"]),
            float(row["speed_ms"]),
        )
        for row in csv.DictReader(io.StringIO(text))
    ]


def compare_published(run: Run) -> AgainstPublished:
    """Put a run of distilgpt2 beside the published table.

    Raises:
        RunError: if the run measured another model, or none of the published plans.
    """
    _check_model(run)
    tokens = int(run.targets().sum())
    nats = dict(zip(run.plans, run.nll_as_cut().sum(axis=1).tolist(), strict=True))
    measured = {plan: perplexity(nats[plan], tokens) for plan in measured_plans(run)}
    rows = tuple(_compare(row, run, measured.get(row.plan)) for row in published_rows())
    both = [(row.published.ppl, row.ppl) for row in rows if row.ppl is not None]
    if not both:
        raise RunError(
            f"cannot compare {run.folder} with the published table: it measured none of its "
            "plans. Sweep the single blocks, or all sets of blocks."
        )
    agreement = order_agreement([a for a, _ in both], [b for _, b in both])
    return AgainstPublished(run, rows, agreement)


def _check_model(run: Run) -> None:
    name, parameters = run.facts.model.name, run.parameters.get(Plan(), 0)
    same_size = run.n_blocks == BLOCKS and parameters == PARAMETERS
    if name not in NAMES and not same_size:
        raise RunError(
            f"cannot compare {run.folder} with the published table: the table belongs to "
            f"distilgpt2 ({BLOCKS} blocks, {PARAMETERS / 1e6:.2f} M parameters), this run measured "
            f"{name} ({run.n_blocks} blocks, {parameters / 1e6:.2f} M). Sweep distilgpt2, or "
            "compare two runs."
        )


def _compare(row: PublishedRow, run: Run, ppl: float | None) -> PublishedComparison:
    parameters = run.parameters.get(row.plan)
    return PublishedComparison(
        row,
        ppl,
        None if ppl is None else ppl / row.ppl,
        None if parameters is None else parameters / 1e6,
    )
