"""The terminal: tables that read well at 80 columns, progress with the time left, notes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from pruning_kit.cli.console import Console
from pruning_kit.cli.options import spell_settings
from pruning_kit.findings.analysis import Analysis, latencies
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.printable import printable
from pruning_kit.reporting.document import Table
from pruning_kit.reporting.tables import AGREEMENT, UNCLEAR, of_bridged, plans_table
from pruning_kit.reporting.words.numbers import duration, format_windows
from pruning_kit.reporting.words.speed import how_timed
from pruning_kit.runs.facts import Role
from pruning_kit.runs.results import Run
from pruning_kit.sweeps.observer import Advance, Work

MAX_ROWS = 80
BEST_OF_EACH_SIZE = 5
LONG_S = 60.0
MUCH = 1.5  # times as fast, for advice to be worth its line


class TerminalObserver:
    """Tells a person at the terminal what a sweep does; notes and progress go to stderr."""

    def __init__(
        self, console: Console, narrower: Callable[[int, int], str] = lambda *_: ""
    ) -> None:
        self.console = console
        self.narrower = narrower

    def say(self, text: str) -> None:
        self.console.say(spell_settings(text))

    def warn(self, text: str) -> None:
        self.console.say(spell_settings(text), "Note:", "bold yellow")

    def expect(self, work: Work) -> None:
        """Say how long it will take, if long, and what would make it shorter."""
        if work.seconds <= LONG_S:
            return
        shared = f" shared by {work.n_processes} processes" * (work.n_processes > 1)
        of_texts = f" of {work.n_texts} texts" * (work.n_texts > 1)
        shorter = [] if work.goes_on else self._shorter(work)
        self.say(
            f"{work.n_variants:,} plan{'s' * (work.n_variants > 1)} on {work.n_windows_of_all:,} "
            f"window{'s' * (work.n_windows_of_all > 1)}{of_texts}{shared} will take about "
            f"{duration(work.seconds)}."
            + (f" Shorter: {', or '.join(shorter)}." if shorter else "")
        )

    def expect_searches(self, evaluations: int, seconds: float) -> None:
        """Say how long a search may take, if long."""
        if seconds > LONG_S:
            self.say(
                f"The search makes at most {evaluations:,} evaluations, which take about "
                f"{duration(seconds)}, bridges apart; --search-minutes bounds it."
            )

    def _shorter(self, work: Work) -> list[str]:
        """Options that would make a new run much shorter, and how long or large it would be."""
        found = []
        per_window = work.n_texts * work.seconds_per_window
        fewer = max(1, int(LONG_S / per_window))  # of each text
        if fewer * work.n_texts <= work.n_windows / MUCH:
            took = duration(fewer * per_window)
            found.append(f"--max-windows {fewer * work.n_processes} (about {took})")
        if narrower := self.narrower(work.n_blocks, int(work.n_variants / MUCH)):
            found.append(narrower)
        return found

    @contextmanager
    def track(self, what: str, total: int) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            TextColumn("{task.fields[now]}", markup=False),
        )
        # where nobody looks it would leave an empty line, which a search does hundreds of times
        unseen = not self.console.is_terminal
        with Progress(*columns, console=self.console, transient=True, disable=unseen) as progress:
            task = progress.add_task(printable(what), total=total, now="")

            def advance(step: float, now: str = "", /) -> None:
                progress.advance(task, step)
                if now:
                    progress.update(task, now=printable(now))

            yield advance


def describe_run(run: Run) -> list[str]:
    """What was run, in a line each: model, text, arithmetic, and timing where there was one."""
    facts = run.facts
    model, numerics = facts.model, facts.numerics
    count = numerics.threads
    threads = f", {count} thread{'s' * (count != 1)}" if numerics.device == "cpu" else ""
    return [
        f"Model: {model.name} ({model.model_type}, {run.n_blocks} blocks, "
        f"weights {model.weights_sha256[:8]})",
        f"Text: {_scored(run, 'reported')}, {format_windows(facts.protocol)}",
        *(f"Also on: {_scored(run, role)}" for role in facts.further_roles),
        f"On: {numerics.device_name}, {numerics.dtype}{threads}",
        *([] if run.timings is None else [f"Timed: {how_timed(run.timings)}"]),
    ]


def _scored(run: Run, role: Role) -> str:
    """A text and how much of it was scored."""
    text, tokens = run.facts.texts[role], int(run.targets(role).sum())
    part = f", {text.part}" if text.part else ""
    return f"{text.title}{part}; {tokens:,} tokens scored"


def sweep_table(run: Run, analysis: Analysis, mode: str | None, saved: bool) -> Table:
    """The measured plans, the whole model first; it stands out, and so does the best of each size.

    Of `sequential` the blocks come in their order where all are shown; otherwise, within each
    number of removed blocks, the best plan first, by the text that plans are chosen on. Of long
    tables the best of each size are shown.
    """
    times = latencies(run)
    base, *rest = (replace(row, latency=times.get(row.plan)) for row in analysis.rows)
    limit = len(rest) if len(rest) <= MAX_ROWS else BEST_OF_EACH_SIZE
    rows, ends = [base], [0]
    for _, group in groupby(rest, key=lambda row: row.blocks):
        of_size = list(group)
        if mode != "sequential" or len(of_size) > limit:
            of_size.sort(key=lambda row: (math.isnan(row.selection_ratio), row.selection_ratio))
        rows += of_size[:limit]
        ends.append(len(rows) - 1)
    best = {size.best for size in analysis.sizes if size.n_measured > 1}
    names = [f"{row.plan.short}{' *' * (row.plan in best)}" for row in rows]
    table = plans_table(rows, names, without=AGREEMENT)
    notes = [
        *_notes(analysis, table),
        *_found_by(run, analysis),
        *_left_out(len(rest), limit, saved),
    ]
    return replace(
        table,
        caption="; ".join(notes),
        bold=tuple(number for number, row in enumerate(rows) if row.plan in {Plan(), *best}),
        ends=tuple(ends),
    )


def _notes(analysis: Analysis, table: Table) -> Iterator[str]:
    """What cells mean."""
    yield (
        f"Ratios are to the whole model{of_bridged(table)}, KL in nats a token, parameters in "
        "millions"
    )
    if analysis.offers_choice:
        where = f" on {analysis.selection.title}, which plans are chosen on" * analysis.two_texts
        yield f"* lowest perplexity of its size{where}"
    if any(row.latency is not None and row.latency.timed for row in analysis.rows):
        yield "plans that do equal work share one timing"
    if any(UNCLEAR in cells for cells in table.rows):
        yield f"{UNCLEAR}: the difference is not larger than the noise of this machine"


def _found_by(run: Run, analysis: Analysis) -> Iterator[str]:
    """Who proposed the best of each size, where that was found out by searching."""
    by = {size.best: run.proposed_by.get(Variant(size.best)) for size in analysis.sizes}
    found = [f"{plan.short} by {name}" for plan, name in by.items() if name]
    if run.screenings and found:
        yield f"proposed: {', '.join(found)}"


def _left_out(n_plans: int, limit: int, saved: bool) -> Iterator[str]:
    if limit < n_plans:
        where = "all {0:,} are in results.csv" if saved else "all {0:,} with --save_results"
        yield f"the best {limit} of each size; {where.format(n_plans)}"
