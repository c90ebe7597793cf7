"""The terminal: tables that read well at 80 columns, progress with the time left, notes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from pruning_kit.reporting.wording import format_ppl
from pruning_kit.runs.results import Run

MAX_ROWS = 80
BEST_OF_EACH_SIZE = 5
HEADINGS = [
    "Removed",
    "Layers",
    "Perplexity",
    "Speed\nms",
    "Params\nM",
    "PPL\nchange",
    "Speed\nchange",
]
UNCLEAR = "unclear"


class TerminalObserver:
    """Tells a person at the terminal what a sweep does; notes and progress go to stderr."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str) -> None:
        self.console.print(escape(text))

    def warn(self, text: str) -> None:
        self.console.print(f"[bold yellow]Note:[/] {escape(text)}")

    @contextmanager
    def track(self, what: str, total: int) -> Iterator[Callable[[float], None]]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(escape(what), total=total)
            yield lambda step: progress.advance(task, step)


class SilentObserver:
    """For processes that share a run with the one that talks, and for use as a library."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say nothing; the result records it."""

    @contextmanager
    def track(self, what: str, total: int) -> Iterator[Callable[[float], None]]:
        yield lambda step: None


def describe_run(run: Run) -> list[str]:
    """What was run, in three lines: model, text, arithmetic."""
    info = run.info
    model, text, numerics = info["model"], info["texts"]["test"], info["numerics"]
    part = f", {text['part']}" if text["part"] else ""
    tokens = int(run.targets().sum())
    protocol = info["protocol"]
    threads = f", {numerics['threads']} threads" if numerics["device"] == "cpu" else ""
    return [
        f"Model: {model['name']} ({model['model_type']}, {run.n_blocks} blocks, "
        f"weights {model['weights_sha256'][:8]})",
        f"Text: {text['title']}{part}; {tokens:,} tokens scored, "
        f"context {protocol['context']}, stride {protocol['stride']}",
        f"On: {numerics['device_name']}, {numerics['dtype']}{threads}",
    ]


def sweep_table(run: Run, mode: str | None, saved: bool) -> Table:
    """The measured plans of a mode in the historic columns, the whole model first.

    Within each number of removed blocks the lowest perplexity comes first and is marked. Of long
    tables the best of each size are shown.
    """
    frame = run.frame()
    frame = frame[frame["split"] == "test"]
    base = frame[frame["mode"] == "baseline"]
    shown = [mode] if mode in ("sequential", "combinatorial") else ["sequential", "combinatorial"]
    rows = frame[frame["mode"].isin(shown)]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for index, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if index == 0 else "right", vertical="bottom")
    for _, row in base.iterrows():
        table.add_row(*_cells(row), style="bold", end_section=True)
    sizes = list(rows.groupby("blocks", sort=False))
    limit = None if len(rows) <= MAX_ROWS else BEST_OF_EACH_SIZE
    for _, group in sizes:
        ranked = group if mode == "sequential" else group.sort_values("ppl", kind="stable")
        best = group["ppl"].idxmin() if group["ppl"].notna().any() else None
        for number, (label, row) in enumerate(ranked.head(limit or len(ranked)).iterrows()):
            mark = label == best and len(group) > 1
            last = number == min(limit or len(ranked), len(ranked)) - 1
            table.add_row(
                *_cells(row, "*" if mark else ""),
                style="green" if mark else None,
                end_section=last,
            )
    table.caption = _caption(rows, limit, saved)
    table.caption_justify = "left"
    return table


def _cells(row: pd.Series, mark: str = "") -> list[str]:
    return [
        f"{row['removed']}{' ' + mark if mark else ''}",
        str(row["blocks"]),
        format_ppl(row["ppl"]),
        _number(row["speed_ms"], ".1f"),
        f"{row['params_m']:.2f}",
        _change(row["ppl_change_pct"]),
        UNCLEAR if row["speed_claimed"] is False else _change(row["speed_change_pct"]),
    ]


def _number(value: float, form: str) -> str:
    return "" if value is None or math.isnan(value) else f"{value:{form}}"


def _change(percent: float) -> str:
    """A change in per cent, short where it is huge."""
    if percent is None or math.isnan(percent):
        return ""
    if abs(percent) < 1e4:
        return f"{percent:+.1f} %"
    return f"{percent:+,.0f} %" if abs(percent) < 1e6 else f"{percent:+.1e} %"


def _caption(rows: pd.DataFrame, limit: int | None, saved: bool) -> str:
    notes = []
    if len(rows) > 1:
        notes.append("* lowest perplexity of its size")
    if limit is not None:
        where = "all {0:,} are in results.csv" if saved else "all {0:,} with --save_results"
        notes.append(f"the best {limit} of each size; {where.format(len(rows))}")
    if rows["speed_pooled"].eq(True).any():
        notes.append("speed of plans that do equal work is measured together")
    if rows["speed_claimed"].eq(False).any():
        notes.append(f"{UNCLEAR}: the difference is not larger than the noise of this machine")
    return "; ".join(notes)
