"""What is in the report of a run: its sections, from everything that an analysis says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.budgets import Budget
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import BRIDGED, Variant
from pruning_kit.printable import copyable
from pruning_kit.reporting.blocks import blocks_table
from pruning_kit.reporting.bridging import bridging_table
from pruning_kit.reporting.commands import (
    prune_command,
    recommended_command,
    search_command,
    shapley_command,
)
from pruning_kit.reporting.document import Document, Sample, Section
from pruning_kit.reporting.elsewhere import elsewhere_table
from pruning_kit.reporting.rankings import rankings_section
from pruning_kit.reporting.recovered import recovered_table, reordered_table
from pruning_kit.reporting.searching import search_section
from pruning_kit.reporting.tables import (
    as_cut_text,
    bridged_text,
    provenance_table,
    sizes_table,
    speed_table,
    strategies_table,
)
from pruning_kit.reporting.words import doubts, speed
from pruning_kit.reporting.words.bridging import how_bridged
from pruning_kit.reporting.words.budget import budget_sentences
from pruning_kit.reporting.words.numbers import format_bos, name_blocks
from pruning_kit.reporting.words.recovered import recovered_sentences, reordered_sentences
from pruning_kit.reporting.words.sections import section_sentences
from pruning_kit.runs.results import Run

ONE_TEXT_PROVES_LITTLE = "Stored continuations of one prompt, which prove little."


def build_document(run: Run, analysis: Analysis, budget: Budget | None = None) -> Document:
    """Everything that a run says, for terminal, Markdown and the page.

    Raises:
        RunError: if the budget limits what the run did not measure.
    """
    said = {name: tuple(text) for name, text in section_sentences(analysis).items()}
    sections = [
        Section(
            "summary",
            "In short",
            said["summary"] + _doubted(run),
            sizes_table(analysis),
            code=recommended_command(run, analysis),
        ),
        *_budget_section(run, analysis, budget),
        Section(
            "importance",
            "Which blocks matter",
            said["importance"] + said["interactions"],
            blocks_table(analysis),
            ("removed-block", "shapley", "pairs", "interactions"),
            shapley_command(run, analysis),
        ),
        rankings_section(run),
        Section(
            "sizes", "How the cost grows", said["sizes"], strategies_table(analysis), ("sizes",)
        ),
        search_section(run, analysis),
        Section(
            "bridging",
            "What bridging changes",
            (*how_bridged(run), *said["bridging"]),
            bridging_table(analysis),
            ("bridging",),
        ),
        Section(
            "recovered",
            "Recovered models",
            tuple(recovered_sentences(run, analysis)),
            recovered_table(analysis),
            ("training",),
        ),
        Section(
            "reordered",
            "Whether recovery changes the choice",
            tuple(reordered_sentences(analysis)),
            reordered_table(analysis),
        ),
        Section("elsewhere", "On other texts", said["elsewhere"], elsewhere_table(analysis)),
        *_samples_section(run, analysis),
        speed_section(run),
        Section("uncertainty", "How sure this is", said["uncertainty"]),
        Section(
            "provenance",
            "How it was measured",
            table=provenance_table(run),
            code=copyable(run.facts.command),
        ),
    ]
    name = "the demo model" if run.facts.model.name == "demo" else run.facts.model.name
    return Document(
        f"Removing blocks from {name}",
        f"{_what_was_measured(analysis)} on {analysis.reported.title}: "
        f"{analysis.reported.n_tokens:,} tokens{_chosen_on(analysis)}"
        f"{format_bos(run.facts.protocol)}; {run.facts.created[:10]}",
        tuple(notes(run)),
        tuple(_without_repetition(sections)),
    )


def _what_was_measured(analysis: Analysis) -> str:
    """How many sets of blocks were removed, and whether from a measured whole model."""
    count = sum(row.plan != Plan() for row in analysis.rows)
    sets = f"{count:,} set{'s' * (count != 1)} of blocks removed, {_how_recovered(analysis)},"
    if analysis.baseline is None:
        return sets
    return f"The whole model and {sets}" if count else "The whole model"


def _how_recovered(analysis: Analysis) -> str:
    """What was done to the models whose costs are shown."""
    further = len({row.variant.plan for row in analysis.recovered if row.has_own_weights})
    trained = f"{further:,} of them recovered further" if further else "nothing retrained"
    if analysis.judged_bridged:
        return f"gaps bridged where that helps, {trained}"
    return trained + " or bridged" * (analysis.bridging is not None and not further)


def _chosen_on(analysis: Analysis) -> str:
    """The text that plans were chosen on, where it is another than the reported one."""
    if not analysis.two_texts:
        return ""
    title, short = analysis.selection.title, analysis.selection.short
    return f"; sets were chosen on {title}, marked “on {short}” below"


def _without_repetition(sections: Iterable[Section]) -> Iterator[Section]:
    """Each sentence where it stands first; sections without anything left are left out."""
    said: set[str] = set()
    for section in sections:
        new = tuple(sentence for sentence in section.sentences if sentence not in said)
        said |= set(new)
        if new or section.table is not None or section.code:
            yield replace(section, sentences=new)


def notes(run: Run) -> list[str]:
    """What a reader must know before any number: substitutions, and parts of a text."""
    found = []
    model = run.facts.model
    if model.name == "demo":
        why = f" ({model.note})" if model.note else ""
        found.append(
            "These figures are those of the kit's small embedded demo model (trained on English "
            f"books, other novels by Jane Austen among them), not of distilgpt2{why}."
        )
    elif model.note:
        found.append(f"{model.note}.")
    for role in run.roles:
        text = run.facts.texts[role]
        if text.note:
            found.append(f"{text.note} {text.title} was scored in its place.")
        if text.part:
            found.append(f"Preliminary figures: {text.title}, {text.part}.")
    if run.timings_note is not None:
        found.append(run.timings_note)
    return found


def _budget_section(run: Run, analysis: Analysis, budget: Budget | None) -> list[Section]:
    if budget is None or budget == Budget():
        return []
    choice = analysis.choose(budget)
    plan = None if choice.row is None else choice.row.plan
    bridged = choice.row is not None and choice.row.bridged
    command = "" if plan is None or plan == Plan() else prune_command(run, plan.short, bridged)
    if plan is None and budget.max_params is not None:
        command = search_command(run, analysis, budget.max_params)
    said = tuple(budget_sentences(analysis, choice))
    return [Section("budget", "Within your budget", said, code=command)]


def _samples_section(run: Run, analysis: Analysis) -> list[Section]:
    """Stored continuations, the whole model's first."""
    said = [
        f"{sample.title}{f' (perplexity {sample.ppl})' * bool(sample.ppl)}: "
        f"“{' '.join(sample.text.split())}”"
        for sample in samples(run, analysis)
    ]
    if not said:
        return []
    return [Section("samples", "How they write", (ONE_TEXT_PROVES_LITTLE, *said))]


def samples(run: Run, analysis: Analysis) -> list[Sample]:
    """Stored continuations, the whole model's first, with the perplexity of their plans."""
    written = {} if run.samples is None else run.samples.by_variant
    return [
        Sample(_title_of(variant), _ppl_of(variant, analysis), text.strip())
        for variant, text in written.items()
    ]


def _title_of(variant: Variant) -> str:
    removed = "Whole model" if variant.plan == Plan() else f"Without {name_blocks(variant.plan)}"
    return removed if variant.recovery is None else f"{removed}, {variant.recovery}"


def _ppl_of(variant: Variant, analysis: Analysis) -> str:
    row = analysis.row.get(variant.plan)
    if row is None:
        return ""
    if variant.recovery is None:
        return as_cut_text(row)
    return bridged_text(row) if variant.recovery == BRIDGED else ""


def speed_section(run: Run) -> Section:
    """How the latencies were measured and what makes them doubtful."""
    title = "How fast"
    if run.timings is None:
        left_out = "The timings are left out: see the note at the top."
        said = "No latency was measured in this run." if run.timings_note is None else left_out
        return Section("speed", title, (said,))
    sentences = speed.findings(run.timings)
    doubtful = [f"Doubtful: {text}" for text in doubts.warnings(run.timings)]
    return Section("speed", title, (*doubtful, *sentences), speed_table(run.timings))


def _doubted(run: Run) -> tuple[str, ...]:
    """That the timings are doubtful, for the top of the report."""
    count = 0 if run.timings is None else len(doubts.warnings(run.timings))
    if not count:
        return ()
    return (f"The timings are doubtful for {count} reason{'s' * (count > 1)}: see How fast.",)
