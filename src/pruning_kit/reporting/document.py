"""What a report is, whatever it is written as: sections of sentences, tables and figures."""

from __future__ import annotations

from dataclasses import dataclass

from pruning_kit.printable import each_printable

LINES = {"code": "\n", "text": "\n\t"}
"""Texts of several lines: commands, and what models write."""


class _Printable:
    """A value whose texts are `printable`, whatever names they were made of."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, each_printable(value, keep=LINES.get(name, "")))


@dataclass(frozen=True)
class Table(_Printable):
    """Cells as text; columns other than the first hold numbers and stand to the right."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    bold: tuple[int, ...] = ()
    """The numbers of rows that stand out."""
    ends: tuple[int, ...] = ()
    """The numbers of rows behind which a terminal leaves a line."""


@dataclass(frozen=True)
class Section(_Printable):
    """A part of a report."""

    name: str
    title: str
    sentences: tuple[str, ...] = ()
    table: Table | None = None
    figures: tuple[str, ...] = ()
    """Names of the catalogue."""
    code: str = ""
    """A command to copy."""


@dataclass(frozen=True)
class Sample(_Printable):
    """A continuation of the run's prompt by one model."""

    title: str
    ppl: str
    """The model's perplexity; empty where it was not measured."""
    text: str


@dataclass(frozen=True)
class Document(_Printable):
    """A whole report."""

    title: str
    subtitle: str
    notes: tuple[str, ...]
    """What a reader must know first, such as a substituted model."""
    sections: tuple[Section, ...]
