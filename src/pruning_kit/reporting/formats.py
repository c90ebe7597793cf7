"""Reports of a stored run: for the terminal, as Markdown, and as one web page to mail around."""

from __future__ import annotations

import io
from enum import StrEnum
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from pruning_kit.errors import RunError
from pruning_kit.findings.analysis import Analysis, analyse
from pruning_kit.findings.budgets import Budget
from pruning_kit.machine import disk
from pruning_kit.printable import markdown_text
from pruning_kit.reporting import page
from pruning_kit.reporting.contents import build_document
from pruning_kit.reporting.document import Document, Section, Table
from pruning_kit.reporting.words.numbers import in_lines
from pruning_kit.runs.results import Run

TERMINAL_WIDTH = 80
MIN_FIRST_COLUMN = 8
MARK = "<!-- written by pruning-kit report -->"
"""The last line of every report that is a file: what does not end so is not written over."""


class Format(StrEnum):
    """What a report is written as."""

    terminal = "terminal"
    md = "md"
    html = "html"


def render(
    run: Run,
    form: Format | str = Format.terminal,
    budget: Budget | None = None,
    analysis: Analysis | None = None,
) -> str:
    """A report as text: plain for the terminal, Markdown, or a whole HTML page.

    Args:
        run: the run.
        form: what the text is.
        budget: limits for one more section.
        analysis: the run's, where it is at hand.

    Raises:
        RunError: if the budget limits what the run did not measure.
    """
    if analysis is None:
        analysis = analyse(run)
    document = build_document(run, analysis, budget)
    match Format(form):
        case Format.html:
            return page.render_page(run, analysis, document)
        case Format.md:
            return markdown(document)
        case Format.terminal:
            return plain_text(document)


def plain_text(document: Document) -> str:
    """A document as it stands on a terminal of 80 columns, without colour."""
    console = Console(file=io.StringIO(), width=TERMINAL_WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(renderable(document), crop=False)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def write_report(
    run: Run,
    path: Path,
    form: Format | str = Format.html,
    budget: Budget | None = None,
    analysis: Analysis | None = None,
) -> Path:
    """Write a report (as `render` makes it) whole and return its path.

    Raises:
        RunError: if something is in its place that is no earlier report, or the disk refuses.
    """
    _refuse_to_destroy(path)
    disk.write_file(path, f"{render(run, form, budget, analysis).rstrip()}\n{MARK}\n")
    return path


def _refuse_to_destroy(path: Path) -> None:
    """Let only empty files and earlier reports, which end with the mark, be written over."""
    with disk.disk_errors(str(path)):
        if not path.exists():
            return
        content = path.read_bytes().rstrip() if path.is_file() else None
    if content is None or (content and not content.endswith(MARK.encode())):
        found = (
            "something that is no file"
            if content is None
            else "a file that is no report of the kit"
        )
        raise RunError(
            f"cannot write the report to {path}: there is {found} in its place. Choose another "
            "place with `output`."
        )


def terminal_report(run: Run, analysis: Analysis, budget: Budget | None = None) -> Group:
    """The report for a rich console, in colour where it has some."""
    return renderable(build_document(run, analysis, budget))


def renderable(document: Document) -> Group:
    """A document for a rich console; text from outside is never read as markup."""
    parts: list[RenderableType] = [
        Text(document.title, style="bold"),
        Text(document.subtitle, style="dim"),
    ]
    parts += [Text(f"Note: {note}", style="bold yellow") for note in document.notes]
    for section in document.sections:
        parts += [Text(), Text(section.title, style="bold underline"), *_section_parts(section)]
    return Group(*parts)


def _section_parts(section: Section) -> list[RenderableType]:
    parts: list[RenderableType] = [_bullet(sentence) for sentence in section.sentences]
    if section.table is not None:
        parts += [Text()] * bool(parts)
        parts.append(rich_table(section.table))
    if section.code:
        lines = [f"  {line}" for line in section.code.splitlines()]  # whole, to be copied
        parts.append(Text("\n".join(lines), style="cyan", no_wrap=True, overflow="ignore"))
    return parts


def _bullet(sentence: str) -> RichTable:
    grid = RichTable.grid(padding=(0, 1))
    grid.add_column()
    grid.add_column(overflow="fold")
    grid.add_row(Text("-"), Text(sentence))
    return grid


def rich_table(table: Table) -> Group:
    """A table of at most 80 columns, its first column broken behind plus signs and spaces."""
    headed = any(table.headings)
    widths = [max(map(len, column)) for column in zip(table.headings, *table.rows, strict=True)]
    gap = 2 if _room(widths, 2) >= MIN_FIRST_COLUMN else 1
    room = _room(widths, gap)
    fits = room >= MIN_FIRST_COLUMN
    grid = RichTable(
        box=box.SIMPLE_HEAD,
        padding=(0, gap - 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        show_header=headed,
    )
    for index, heading in enumerate(table.headings):
        right = headed and index > 0
        grid.add_column(
            Text(heading),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=right and fits,
            min_width=min(widths[0], MIN_FIRST_COLUMN) if index == 0 and fits else None,
        )
    for number, row in enumerate(table.rows):
        first = in_lines(row[0], max(room, MIN_FIRST_COLUMN)) if headed else row[0]
        style = "bold" if number in table.bold else None
        grid.add_row(*map(Text, (first, *row[1:])), style=style, end_section=number in table.ends)
    return Group(grid, *([Text(table.caption, style="dim")] if table.caption else []))


def _room(widths: list[int], gap: int) -> int:
    """What further columns leave to the first one."""
    return TERMINAL_WIDTH - sum(width + gap for width in widths[1:])


def markdown(document: Document) -> str:
    """A document as Markdown, without figures."""
    lines = [f"# {markdown_text(document.title)}", "", markdown_text(document.subtitle), ""]
    for note in document.notes:
        lines += [f"> **Note:** {markdown_text(note)}", ""]
    for section in document.sections:
        lines += [f"## {section.title}", ""]
        lines += [f"- {markdown_text(sentence)}" for sentence in section.sentences]
        lines += [""] * bool(section.sentences)
        if section.table is not None:
            lines += [*_markdown_table(section.table), ""]
        if section.code:
            lines += [*(f"    {line}" for line in section.code.splitlines()), ""]
    return "\n".join(lines)


def _markdown_table(table: Table) -> list[str]:
    columns = len(table.headings)
    align = "|---|" + "---:|" * (columns - 1) if any(table.headings) else "|---" * columns + "|"
    lines = [_markdown_row(table.headings, False), align]
    lines += [_markdown_row(row, number in table.bold) for number, row in enumerate(table.rows)]
    return [*lines, "", markdown_text(table.caption)] if table.caption else lines


def _markdown_row(cells: tuple[str, ...], bold: bool) -> str:
    written = (markdown_text(cell).replace("|", "\\|") for cell in cells)
    return "| " + " | ".join(f"**{c}**" if bold and c else c for c in written) + " |"
