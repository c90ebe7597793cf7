"""What a report is, whatever it is written as: sections of sentences, tables and pictures."""

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
