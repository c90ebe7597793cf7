"""Comparisons in words and tables, as a document that every report format can write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pruning_kit.findings import published
from pruning_kit.findings.comparison import Comparison, NoSpeed, PlanComparison, Unpaired
from pruning_kit.findings.evidence import Interval
from pruning_kit.findings.published import AgainstPublished, PublishedComparison
from pruning_kit.intervals import MIN_ROUNDS
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.document import Document, Section, Table
from pruning_kit.reporting.tables import split_ratio
from pruning_kit.reporting.words.numbers import (
    change,
    factor,
    first_few,
    format_nats,
    format_ppl,
    listed,
    some_plans,
)
from pruning_kit.reporting.words.speed import NAMES
from pruning_kit.reporting.words.sureness import few_windows
from pruning_kit.runs.results import Run

MAX_ROWS = 40
UNPAIRED = {
    Unpaired.TEXT: "the texts differ",
    Unpaired.TOKENIZER: "the tokenizers differ",
    Unpaired.WINDOWS: "context or stride differ",
    Unpaired.BOS: "the windows of one begin with BOS",
    Unpaired.PART: "different parts of the text were scored",
}
TAU = "(1 the same order, 0 no relation)"
QUOTED = (
    "Published figures are quoted from the distilgpt2 table. Its script miscounted tokens slightly "
    "and left out windows that were not finite, so small differences are expected.",
    "Published speeds are means of ten sampled calls of unequal length on an unnamed machine (the "
    "unpruned model appears at 403 ms, a model of one block less at 460 ms), so they are quoted "
    "and not compared.",
)


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
            *_beside_whole(comparison),
        ),
    )


def _plans(count: int) -> str:
    return f"{count:,} plan{'s' * (count != 1)}"


def _notes(comparison: Comparison) -> Iterator[str]:
    """What a reader must know first: that bridges do not count, timings that cannot be read."""
    yield from _as_cut(comparison.first, comparison.second)
    for name, run in (("First", comparison.first), ("Second", comparison.second)):
        if run.timings_note:
            yield f"{name} run: {run.timings_note}"


def _as_cut(*runs: Run) -> Iterator[str]:
    if any(run.bridges for run in runs):
        yield "Plans are compared as cut; bridged rows are left out."


def _plan_by_plan(comparison: Comparison) -> list[Section]:
    """The table; of the whole model alone there is nothing to lay side by side."""
    if comparison.only_whole_model:
        return []
    table = _unpaired_table if comparison.unpaired else _paired_table
    shown = _to_show(comparison.rows)
    left_out = tuple(_left_out(comparison.rows, shown))
    return [Section("plans", "Plan by plan", left_out, table(shown))]


def _beside_whole(comparison: Comparison) -> list[Section]:
    """How far plans are from the whole model, where both runs measured that."""
    sides = [(row.first, row.second) for row in comparison.rows]
    if comparison.only_whole_model or any(None in (a.kl, b.kl) for a, b in sides):
        return []
    return [Section("kl", "KL and agreement", (), _beside_whole_table(_to_show(comparison.rows)))]


def _beside_whole_table(rows: Sequence[PlanComparison]) -> Table:
    return Table(
        ("Removed", "KL first", "second", "Change", "95 % interval", "Agree first", "second"),
        tuple(
            (
                row.plan.short,
                *(f"{side.kl:.3f}" for side in (row.first, row.second)),
                *_nats_cells(row.kl_change),
                *(f"{side.agreement:.3f}" for side in (row.first, row.second)),
            )
            for row in rows
        ),
        "Nats per token, and the share of tokens with the same most likely one, both to the whole "
        "model of the same run.",
    )


def _nats_cells(nats: Interval | None) -> tuple[str, str]:
    if nats is None:
        return "", ""
    value, _, bounds = format_nats(nats).partition(" [")
    return value, bounds.rstrip("]")


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
    if comparison.unpaired:
        found += [
            f"The runs are not paired, because {UNPAIRED[comparison.unpaired]}: figures stand side "
            "by side and no difference is tested."
        ]
        if comparison.unpaired is Unpaired.TOKENIZER:
            found.append("Perplexities per token do not compare then; bits per byte do.")
    else:
        found += _paired_sentences(comparison)
    if comparison.agreement is not None:
        found.append(
            f"The order of the {len(comparison.rows):,} plans agrees with Kendall's tau = "
            f"{comparison.agreement:.2f} {TAU}."
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
    if comparison.rows[0].adjusted_p is None:
        why = few_windows(len(comparison.first.targets()))
        return [*found, f"Nothing was tested ({why})."]
    differing = [row.plan for row in comparison.rows if row.differs]
    if not differing:
        return [*found, "No perplexity differs clearly between the runs."]
    return [
        *found,
        f"{len(differing):,} of {count} differ{'s' * (len(differing) == 1)} clearly between the "
        f"runs, by a test that holds for all at once: {some_plans(differing)}.",
    ]


def _speed_sentence(comparison: Comparison) -> str:
    if isinstance(comparison.speed, NoSpeed):
        return f"Speed is not compared: {_why_no_speed(comparison, comparison.speed)}."
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


def _why_no_speed(comparison: Comparison, why: NoSpeed) -> str:
    if why is NoSpeed.NOTHING_SHARED:
        return "no pruned model was timed in both runs"
    n_rounds = {
        name: 0 if run.timings is None else len(run.timings.rounds)
        for name, run in (("first", comparison.first), ("second", comparison.second))
    }
    if not any(n_rounds.values()):
        return "neither run has timings to compare"
    name = min(n_rounds, key=n_rounds.__getitem__)
    if why is NoSpeed.UNTIMED:
        return f"the {name} run has no timings to compare"
    return (
        f"the {name} run was timed for {n_rounds[name]} rounds only, and at least {MIN_ROUNDS} are "
        "needed"
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
            "The order of these plans agrees with Kendall's tau = "
            f"{comparison.agreement:.2f} {TAU}."
        )
    return Document(
        f"{comparison.run.folder.name} and the published distilgpt2 table",
        f"{comparison.run.facts.texts['reported'].title}",
        (*QUOTED, *_as_cut(comparison.run), *_other_protocol(comparison.run)),
        (
            Section("summary", "In short", tuple(sentences)),
            Section("plans", "Row by row", (), _published_table(comparison.rows)),
        ),
    )


def _other_protocol(run: Run) -> Iterator[str]:
    """In what the run differs from what the table was made with."""
    name, text, stride = (
        run.facts.model.name,
        run.facts.texts["reported"],
        run.facts.protocol.stride,
    )
    if name not in published.NAMES:
        yield f"{name} is taken for distilgpt2 by its blocks and parameters."
    if text.name != published.TEXT:
        yield (
            "The text differs: the table used WikiText-2 raw, test, without empty rows, this run "
            f"{text.title}. Sweep with --dataset {published.TEXT} to compare like with like."
        )
    if stride != published.STRIDE:
        yield f"The stride differs: the table used {published.STRIDE}, this run {stride}."
    if text.part:
        yield f"This run scored only a part of the text ({text.part})."


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
