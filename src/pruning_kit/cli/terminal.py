"""The terminal: tables that read well at 80 columns, progress with the time left, notes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from rich import box
from rich.console import JustifyMethod
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pruning_kit.cli.console import Console
from pruning_kit.findings.analysis import Analysis
from pruning_kit.plans.plan import Plan
from pruning_kit.printable import printable
from pruning_kit.reporting.words.numbers import (
    change,
    duration,
    format_ppl,
    format_windows,
    in_lines,
)
from pruning_kit.reporting.words.speed import how_timed
from pruning_kit.runs.results import Run
from pruning_kit.sweeps.observer import Work

Row = Mapping[str, Any]
MAX_ROWS = 80
BEST_OF_EACH_SIZE = 5
HEADINGS = [
    "Removed",
    "Layers",
    "Perplexity",
    "Speed\nms",
    "Params\nM",
    "PPL\nvs whole",
    "Time\nvs whole",
]
UNCLEAR = "unclear"
NAME_WIDTH = 16
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
        self.console.say(text)

    def warn(self, text: str) -> None:
        self.console.say(text, "Note:", "bold yellow")

    def expect(self, work: Work) -> None:
        """Say how long it will take, if long, and what would make it shorter."""
        if work.seconds <= LONG_S:
            return
        shared = f" shared by {work.n_processes} processes" * (work.n_processes > 1)
        shorter = [] if work.goes_on else self._shorter(work)
        self.say(
            f"{work.n_variants:,} plan{'s' * (work.n_variants > 1)} on {work.n_windows_of_all:,} "
            f"window{'s' * (work.n_windows_of_all > 1)}{shared} will take about "
            f"{duration(work.seconds)}."
            + (f" Shorter: {', or '.join(shorter)}." if shorter else "")
        )

    def _shorter(self, work: Work) -> list[str]:
        """Options that would make a new run much shorter, and how long or large it would be."""
        found = []
        fewer = max(1, int(LONG_S / work.seconds_per_window))
        if fewer <= work.n_windows / MUCH:
            took = duration(fewer * work.seconds_per_window)
            found.append(f"--max-windows {fewer * work.n_processes} (about {took})")
        if narrower := self.narrower(work.n_blocks, int(work.n_variants / MUCH)):
            found.append(narrower)
        return found

    @contextmanager
    def track(self, what: str, total: int) -> Iterator[Callable[[float], None]]:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(printable(what), total=total)
            yield lambda step: progress.advance(task, step)


def describe_run(run: Run) -> list[str]:
    """What was run, in a line each: model, text, arithmetic, and timing where there was one."""
    facts = run.facts
    model, text, numerics = facts.model, facts.texts["reported"], facts.numerics
    part = f", {text.part}" if text.part else ""
    tokens = int(run.targets().sum())
    count = numerics.threads
    threads = f", {count} thread{'s' * (count != 1)}" if numerics.device == "cpu" else ""
    return [
        f"Model: {model.name} ({model.model_type}, {run.n_blocks} blocks, "
        f"weights {model.weights_sha256[:8]})",
        f"Text: {text.title}{part}; {tokens:,} tokens scored, {format_windows(facts.protocol)}",
        f"On: {numerics.device_name}, {numerics.dtype}{threads}",
        *([] if run.timings is None else [f"Timed: {how_timed(run.timings)}"]),
    ]


def sweep_table(run: Run, analysis: Analysis, mode: str | None, saved: bool) -> Table:
    """The measured plans in the historic columns, the whole model first.

    Of `sequential` the blocks come in their order where all are shown; otherwise, within each
    number of removed blocks, the best plan first. The best one of a size, by the text that plans
    are chosen on, is marked. Of long tables the best of each size are shown.
    """
    base, *rest = run.rows_as_cut()
    rows = [row for row in rest if row["mode"] != "empty"]
    ratio = {str(row.plan): row.selection_ratio for row in analysis.rows}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for index, heading in enumerate(HEADINGS):
        justify: JustifyMethod = "left" if index == 0 else "right"
        table.add_column(heading, justify=justify, overflow="fold", vertical="bottom")
    table.add_row(*_cells(base), style="bold", end_section=True)
    limit = len(rows) if len(rows) <= MAX_ROWS else BEST_OF_EACH_SIZE
    best = {str(size.best) for size in analysis.sizes if size.n_measured > 1}
    for _, rows_of_size in groupby(rows, key=lambda row: row["blocks"]):
        group = list(rows_of_size)
        if mode != "sequential" or len(group) > limit:
            group.sort(key=lambda row: _failed_last(ratio[row["removed"]]))
        for row in group[:limit]:
            mark = row["removed"] in best
            table.add_row(
                *_cells(row, " *" if mark else ""),
                style="green" if mark else None,
                end_section=row is group[:limit][-1],
            )
    caption = printable(_caption(analysis, rows, limit, saved))
    table.caption = Text(caption, style="table.caption")
    table.caption_justify = "left"
    return table


def _failed_last(ratio: float) -> tuple[bool, float]:
    return math.isnan(ratio), ratio


def _cells(row: Row, mark: str = "") -> list[str]:
    return [
        in_lines(f"{Plan.parse(row['removed']).short}{mark}", NAME_WIDTH),
        str(row["blocks"]),
        format_ppl(row["ppl"]),
        _number(row["speed_ms"], ".1f"),
        f"{row['params_m']:.2f}",
        _change(row["ppl_change_pct"]),
        UNCLEAR if row["speed_claimed"] is False else _change(row["speed_change_pct"]),
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None or math.isnan(value) else f"{value:{form}}"


def _change(percent: float | None) -> str:
    """A change in per cent, as a factor from a doubling on: `+7.1 %`, `3.98×`."""
    if percent is None or math.isnan(percent):
        return ""
    return change(1 + percent / 100)


def _caption(analysis: Analysis, rows: Sequence[Row], limit: int, saved: bool) -> str:
    notes = []
    if analysis.offers_choice:
        two_texts = analysis.selection != analysis.reported
        where = f" on {analysis.selection.title}, which plans are chosen on" if two_texts else ""
        notes.append(f"* lowest perplexity of its size{where}")
    if limit < len(rows):
        where = "all {0:,} are in results.csv" if saved else "all {0:,} with --save_results"
        notes.append(f"the best {limit} of each size; {where.format(len(rows))}")
    if any(row["speed_pooled"] for row in rows):
        notes.append("plans that do equal work share one timing")
    if any(row["speed_claimed"] is False for row in rows):
        notes.append(f"{UNCLEAR}: the difference is not larger than the noise of this machine")
    return "; ".join(notes)
