"""Comparisons in words and tables, as a document that every report format can write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pruning_kit.findings.comparison import Comparison, PlanComparison
from pruning_kit.findings.published import AgainstPublished, PublishedComparison
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.document import Document, Section, Table
from pruning_kit.reporting.tables import split_ratio
from pruning_kit.reporting.words.numbers import (
    change,
    factor,
    first_few,
    format_ppl,
    listed,
    some_plans,
)
from pruning_kit.reporting.words.speed import NAMES

MAX_ROWS = 40


def comparison_document(comparison: Comparison) -> Document:
    """Two runs compared: what differs between them, then the plans."""
    first, second = comparison.first, comparison.second
    differing = Table(
        ("", "first", "second"),
        tuple((d.name, d.first, d.second) for d in comparison.differences),
    )
    return Document(
        f"{first.folder.name} (first) and {second.folder.name} (second)",
        f"{_plans(len(comparison.rows))} in common, {comparison.n_only_first:,} only in the "
        f"first, {comparison.n_only_second:,} only in the second",
        tuple(_notes(comparison)),
        (
            Section("summary", "In short", tuple(_sentences(comparison))),
            Section(
                "differences",
                "What differs",
                () if comparison.differences else ("Nothing that was recorded.",),
                differing if comparison.differences else None,
            ),
            *_plan_by_plan(comparison),
        ),
    )


def _plans(count: int) -> str:
    return f"{count:,} plan{'s' * (count != 1)}"


def _notes(comparison: Comparison) -> Iterator[str]:
    """What a reader must know first: timings that cannot be read."""
    for name, run in (("First", comparison.first), ("Second", comparison.second)):
        if run.timings_note:
            yield f"{name} run: {run.timings_note}"


def _plan_by_plan(comparison: Comparison) -> list[Section]:
    """The table; of the whole model alone there is nothing to lay side by side."""
    if comparison.only_whole_model:
        return []
    table = _unpaired_table if comparison.unpaired_because else _paired_table
    shown = _to_show(comparison.rows)
    left_out = tuple(_left_out(comparison.rows, shown))
    return [Section("plans", "Plan by plan", left_out, table(shown))]


def _to_show(rows: Sequence[PlanComparison]) -> list[PlanComparison]:
    """All rows, or of many the whole model and those that differ most."""
    if len(rows) <= MAX_ROWS:
        return list(rows)
    ranked = sorted(rows, key=lambda row: -abs(row.ratio.value - 1))[:MAX_ROWS]
    kept = {row.plan for row in ranked} | {Plan()}
    return [row for row in rows if row.plan in kept]


def _left_out(rows: Sequence[PlanComparison], shown: Sequence[PlanComparison]) -> list[str]:
    if len(rows) == len(shown):
        return []
    return [
        f"Shown are the whole model and the {MAX_ROWS} plans that differ most of {len(rows):,}."
    ]


def _sentences(comparison: Comparison) -> list[str]:
    found = [_whole_model_alone(comparison.rows[0])] if comparison.only_whole_model else []
    if comparison.unpaired_because:
        found += [
            f"The runs are not paired, because {comparison.unpaired_because}: figures stand side "
            "by side and no difference is tested."
        ]
        if comparison.unpaired_because == "the tokenizers differ":
            found.append("Perplexities per token do not compare then; bits per byte do.")
    else:
        found += _paired_sentences(comparison)
    if comparison.agreement is not None:
        found.append(
            f"The order of the {len(comparison.rows):,} plans agrees with Kendall's tau = "
            f"{comparison.agreement:.2f} (1 the same order, 0 no relation)."
        )
    return [*found, _speed_sentence(comparison)]


def _whole_model_alone(row: PlanComparison) -> str:
    sides = [
        f"{format_ppl(side.ppl)} in the {name} ({side.bits_per_byte:.3f} bits per byte)"
        for name, side in (("first", row.first), ("second", row.second))
    ]
    return (
        "The runs have only the whole model in common, so nothing can be said here of removing "
        f"blocks: sweep the same plans in both. Its perplexity is {listed(sides)}."
    )


def _paired_sentences(comparison: Comparison) -> list[str]:
    count = _plans(len(comparison.rows))
    if comparison.largest_difference == 0:
        return [f"Same windows: all sums of the {count} agree to the last bit."]
    found = [
        "Same windows, compared one by one: sums differ by at most "
        f"{comparison.largest_difference:.0e}, relative to their size."
    ]
    reason = comparison.rows[0].ratio.reason
    if reason:
        return [*found, f"Nothing was tested ({reason})."]
    differing = [row.plan for row in comparison.rows if row.differs]
    if not differing:
        return [*found, "No perplexity differs clearly between the runs."]
    return [
        *found,
        f"{len(differing):,} of {count} differ{'s' * (len(differing) == 1)} clearly between the "
        f"runs, by a test that holds for all at once: {some_plans(differing)}.",
    ]


def _speed_sentence(comparison: Comparison) -> str:
    if comparison.speed is None:
        return f"Speed is not compared: {comparison.no_speed_because}."
    timed = {plan for _, plan in comparison.speed.differences}
    compared = (
        f"Speed relative to the whole model of the same run was compared for {len(timed)} timed "
        f"plan{'s' * (len(timed) != 1)} ({listed(NAMES.values())})"
    )
    disagreeing = comparison.speed.disagreeing
    if not disagreeing:
        return f"{compared}: the runs nowhere differ clearly."
    named = first_few([f"{NAMES[quantity]} without {plan.short}" for quantity, plan in disagreeing])
    return (
        f"{compared}: {len(disagreeing)} of {len(comparison.speed.differences)} ratios differ"
        f"{'s' * (len(disagreeing) == 1)} clearly between the runs, by intervals that hold for all "
        f"at once: {listed(named)}."
    )


def _paired_table(rows: Sequence[PlanComparison]) -> Table:
    return Table(
        ("Removed", "PPL first", "PPL second", "Second to first", "95 % interval", "Differs"),
        tuple(
            (
                row.plan.short,
                format_ppl(row.first.ppl),
                format_ppl(row.second.ppl),
                *split_ratio(row.ratio),
                "yes" if row.differs else "" if row.adjusted_p is None else "no",
            )
            for row in rows
        ),
    )


def _unpaired_table(rows: Sequence[PlanComparison]) -> Table:
    return Table(
        ("Removed", "PPL first", "second", "Change first", "second", "Bits/byte first", "second"),
        tuple(
            (
                row.plan.short,
                *(format_ppl(side.ppl) for side in (row.first, row.second)),
                *(_own_change(row.plan, side.change) for side in (row.first, row.second)),
                *(f"{side.bits_per_byte:.3f}" for side in (row.first, row.second)),
            )
            for row in rows
        ),
        "Changes are relative to the whole model of the same run.",
    )


def _own_change(plan: Plan, ratio: float) -> str:
    return "" if plan == Plan() else change(ratio)


def published_document(comparison: AgainstPublished) -> Document:
    """A run beside the published distilgpt2 table."""
    measured = [row for row in comparison.rows if row.ratio is not None]
    ratios = sorted(row.ratio for row in measured if row.ratio is not None)
    bounds = dict.fromkeys(factor(ratio) for ratio in (ratios[0], ratios[-1]))
    sentences = [
        f"{len(measured)} of {len(comparison.rows)} published plans "
        f"{'was' if len(measured) == 1 else 'were'} measured; measured perplexity is "
        f"{' to '.join(bounds)} times the published one."
    ]
    if comparison.agreement is not None:
        sentences.append(
            f"The order of these plans agrees with Kendall's tau = {comparison.agreement:.2f} "
            "(1 the same order, 0 no relation)."
        )
    return Document(
        f"{comparison.run.folder.name} and the published distilgpt2 table",
        f"{comparison.run.facts.texts['reported'].title}",
        comparison.notes,
        (
            Section("summary", "In short", tuple(sentences)),
            Section("plans", "Row by row", (), _published_table(comparison.rows)),
        ),
    )


def _published_table(rows: Sequence[PublishedComparison]) -> Table:
    return Table(
        ("Removed", "Published", "Measured", "Ratio", "M published", "M measured", "ms published"),
        tuple(
            (
                row.published.plan.short,
                format_ppl(row.published.ppl),
                "" if row.ppl is None else format_ppl(row.ppl),
                "" if row.ratio is None else factor(row.ratio),
                f"{row.published.params_m:.2f}",
                "" if row.params_m is None else f"{row.params_m:.2f}",
                f"{row.published.speed_ms:.0f}",
            )
            for row in rows
        ),
        "Perplexity, parameters in millions, end-to-end latency. Empty: not measured.",
    )
