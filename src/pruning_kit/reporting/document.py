"""What a report says, whatever it is written as: sections of sentences, tables and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from pruning_kit.findings.analysis import COLLAPSE_RATIO, Analysis
from pruning_kit.findings.budgets import Budget
from pruning_kit.findings.evidence import Interval
from pruning_kit.findings.importance import Shapley
from pruning_kit.findings.sizes import PlanRow, Size
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import STRATEGIES
from pruning_kit.plans.variant import Variant
from pruning_kit.printable import copyable, each_printable, quoted
from pruning_kit.reporting.words import budget as budget_in_words
from pruning_kit.reporting.words import doubts
from pruning_kit.reporting.words import speed as verdicts
from pruning_kit.reporting.words.advice import where
from pruning_kit.reporting.words.numbers import (
    format_bos,
    format_nats,
    format_ppl,
    format_ratio,
    format_windows,
    listed,
    name_blocks,
)
from pruning_kit.reporting.words.sections import section_sentences
from pruning_kit.runs.facts import NumericsFacts, Role
from pruning_kit.runs.results import Run

INTERVAL = "95 % interval"
UNCLEAR = "unclear"
NAT = "0.1 more is +10.5 % perplexity, 1 more 2.72×"
PERPLEXITY = (
    "Perplexity is exp(sum of NLL / scored tokens) over all windows; every token but the first is "
    "scored once."
)
SAMPLES_PROVE_LITTLE = (
    "Continuations of the same prompt, stored with the run. One text proves little; perplexity is "
    "the measure."
)
MAX_SIZES, MIN_SIZES = 16, 6
LINES = {"code": "\n", "text": "\n\t"}
"""Texts of several lines: commands, and what models write."""


class _Printable:
    """A value whose texts are `printable`, whatever names they were made of."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, each_printable(value, keep=LINES.get(name, "")))


@dataclass(frozen=True)
class Table(_Printable):
    """Cells as text; columns other than the first hold numbers and stand to the right.

    `bold` are the numbers of rows that stand out.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    bold: tuple[int, ...] = ()


@dataclass(frozen=True)
class Section(_Printable):
    """A part of a report; `pictures` are names of figures, `code` is a command to copy."""

    name: str
    title: str
    sentences: tuple[str, ...] = ()
    table: Table | None = None
    pictures: tuple[str, ...] = ()
    code: str = ""


@dataclass(frozen=True)
class Sample(_Printable):
    """A continuation of the run's prompt by one model, with the model's perplexity as text."""

    title: str
    ppl: str
    text: str


@dataclass(frozen=True)
class Document(_Printable):
    """A whole report. `notes` are what a reader must know first, such as a substituted model."""

    title: str
    subtitle: str
    notes: tuple[str, ...]
    sections: tuple[Section, ...]


def build_document(run: Run, analysis: Analysis, budget: Budget | None = None) -> Document:
    """Everything that a run says, for terminal, Markdown and the page.

    Raises:
        RunError: if the budget limits what the run did not measure.
    """
    said = {name: tuple(text) for name, text in section_sentences(analysis).items()}
    sections = [
        Section("summary", "In short", said["summary"] + _doubted(run)),
        *_budget_section(run, analysis, budget),
        Section(
            "choices",
            "What to choose",
            said["choices"] + said["front"],
            sizes_table(analysis),
            ("speed",),
            recommended_command(run, analysis),
        ),
        Section(
            "importance",
            "Which blocks matter",
            said["importance"] + said["shapley"],
            blocks_table(analysis),
            ("removed-block", "shapley"),
        ),
        Section(
            "interactions",
            "How pairs of blocks add up",
            said["interactions"],
            None,
            ("pairs", "interactions"),
        ),
        Section(
            "sizes",
            "How the cost grows",
            said["sizes"] + said["strategies"],
            strategies_table(analysis),
            ("sizes",),
        ),
        Section("avoid", "What to avoid", said["avoid"]),
        *_samples_section(run, analysis),
        speed_section(run),
        Section("uncertainty", "How sure this is", said["uncertainty"]),
        Section("provenance", "How it was measured", (PERPLEXITY,), provenance_table(run)),
        Section("command", "The same run again", (), None, (), copyable(run.facts.command)),
    ]
    name = "the demo model" if run.facts.model.name == "demo" else run.facts.model.name
    return Document(
        f"Removing blocks from {name}",
        f"{_what_was_measured(analysis)} on {analysis.reported.title}: "
        f"{analysis.reported.n_tokens:,} tokens{_chosen_on(analysis)}"
        f"{format_bos(run.facts.protocol)}; "
        f"{run.facts.created[:10]}",
        tuple(notes(run)),
        tuple(_without_repetition(sections)),
    )


def _what_was_measured(analysis: Analysis) -> str:
    """How many sets of blocks were removed, and whether from a measured whole model."""
    count = sum(row.plan != Plan() for row in analysis.rows)
    sets = f"{count:,} set{'s' * (count != 1)} of blocks removed"
    if analysis.baseline is None:
        return sets
    return f"The whole model and {sets}" if count else "The whole model"


def _chosen_on(analysis: Analysis) -> str:
    """The text that plans were chosen on, where it is another than the reported one."""
    if analysis.selection == analysis.reported:
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
            "These figures are those of the kit's small embedded demo model (GPT-2 in form, "
            "trained on 108 English books, other novels by Jane Austen among them), not of "
            f"distilgpt2{why}."
        )
    elif model.note:
        found.append(f"{model.note}.")
    for role in run.roles:
        text = run.facts.texts[role]
        if text.note:
            found.append(f"{text.note} {text.title} was scored in its place.")
        if text.part:
            found.append(
                f"Only a part of {text.title} was scored ({text.part}), so the figures are "
                "preliminary and do not compare with those of the whole text."
            )
    if run.timings_note is not None:
        found.append(run.timings_note)
    return found


def _budget_section(run: Run, analysis: Analysis, budget: Budget | None) -> list[Section]:
    if budget is None or budget == Budget():
        return []
    choice = analysis.choose(budget)
    plan = None if choice.row is None else choice.row.plan
    command = "" if plan is None or plan == Plan() else prune_command(run, plan.short)
    said = tuple(budget_in_words.sentences(analysis, choice))
    return [Section("budget", "Within your budget", said, None, (), command)]


def recommended_command(run: Run, analysis: Analysis) -> str:
    """The command that makes the recommended model; empty where the whole model is to be kept."""
    plan = analysis.recommended
    if plan == Plan():
        return ""
    return f"# makes the model without {name_blocks(plan)}\n{prune_command(run, plan.short)}"


def prune_command(run: Run, plan: str) -> str:
    """The command that cuts a plan, in its short form, out of the model and saves it."""
    model = quoted(run.facts.model.name)
    return f"pruning-kit prune --model {model} --remove {plan} --out pruned-{plan}"


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
    return f"the best set of each size{where(analysis, ' on {}')}"


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


def _samples_section(run: Run, analysis: Analysis) -> list[Section]:
    """Stored continuations, the whole model's first."""
    said = [
        f"{sample.title}{f' (perplexity {sample.ppl})' * bool(sample.ppl)}: "
        f"“{' '.join(sample.text.split())}”"
        for sample in samples(run, analysis)
    ]
    if not said:
        return []
    return [Section("samples", "How they write", (SAMPLES_PROVE_LITTLE, *said))]


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
    row = analysis.row.get(variant.plan) if variant.recovery is None else None
    return "" if row is None else format_ppl(row.ppl.value)


def speed_section(run: Run) -> Section:
    """How the latencies were measured and what makes them doubtful."""
    title = "How fast"
    if run.timings is None:
        left_out = "The timings are left out: see the note at the top."
        said = "No latency was measured in this run." if run.timings_note is None else left_out
        return Section("speed", title, (said,))
    sentences = verdicts.findings(run.timings)
    doubtful = [f"Doubtful: {text}" for text in doubts.warnings(run.timings)]
    return Section("speed", title, (*doubtful, *sentences))


def _doubted(run: Run) -> tuple[str, ...]:
    """That the timings are doubtful, for the top of the report."""
    count = 0 if run.timings is None else len(doubts.warnings(run.timings))
    if not count:
        return ()
    return (f"The timings are doubtful for {count} reason{'s' * (count > 1)}: see How fast.",)


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
