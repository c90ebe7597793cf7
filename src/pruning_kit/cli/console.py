"""The terminal: all that a person reads goes through these two consoles.

Text is never read as markup, nothing in it is obeyed by the terminal (see `printable`), long words
such as paths and commands are never broken, and letters that the terminal lacks are replaced.
"""

from __future__ import annotations

import codecs
import os
import sys
import textwrap
from collections.abc import Iterable
from contextlib import suppress
from traceback import walk_tb
from typing import Any, TextIO

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from pruning_kit.printable import printable

SUBSTITUTES = str.maketrans(
    {"−": "-", "–": "-", "─": "-", "×": "x", "±": "+/-", "…": "...", "≈": "~", "→": "->"}
    | {"“": '"', "”": '"', "‘": "'", "’": "'", "·": "*", "•": "*", "≤": "<=", "≥": ">=", "≠": "!="}
)
PLAIN = "pruning-kit-plain"


class Console(RichConsole):
    """A console for text from outside. Losing the one for notes does not end the work."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)
        self.failure: OSError | None = None

    def say(self, text: str, label: str = "", style: str = "") -> None:
        """A sentence of its own, behind a label in colour."""
        words = f"{label} {printable(text)}".lstrip()
        lines = textwrap.wrap(words, self.width, break_long_words=False, break_on_hyphens=False)
        said = Text("\n".join(lines))
        said.stylize(style, 0, len(label))
        self.print(said, soft_wrap=True)

    def show_line(self, text: str) -> None:
        """A line to copy from: it is not wrapped."""
        self.print(Text(printable(text)), soft_wrap=True)

    def show(self, renderable: RenderableType) -> None:
        """A table or another renderable."""
        self.print(renderable, crop=False)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments of a renderable, nothing but printable characters in them."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text, keep="\n"), style, control)

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's own."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            self._lose(error)

    def on_broken_pipe(self) -> None:
        """As rich's own, which is called when nobody reads any more."""
        self._lose(BrokenPipeError())

    def _lose(self, error: OSError) -> None:
        """Go on without a terminal for notes; without one for results, stop."""
        self.quiet = True
        self.failure = error
        if not self.stderr:
            raise SystemExit(1)


out = Console()
notes = Console(stderr=True)


def replace_what_is_lacking(streams: Iterable[TextIO | None]) -> None:
    """Have streams write what their encoding lacks in letters that it has, or as escapes."""
    codecs.register_error(PLAIN, _in_plain_letters)
    for stream in streams:
        with suppress(AttributeError):  # closed, or replaced by an object of another kind
            stream.reconfigure(errors=PLAIN)  # type: ignore[union-attr]


def _in_plain_letters(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end].translate(SUBSTITUTES)
    return lacking.encode("ascii", "backslashreplace").decode(), error.end


def arose_in_printing(error: OSError) -> bool:
    """Whether a console of the parser, which prints --help by itself, could not write."""
    frames = (frame for frame, _ in walk_tb(error.__traceback__))
    return any(isinstance(frame.f_locals.get("self"), RichConsole) for frame in frames)


def say_what_is_lost() -> bool:
    """Flush both streams; whether results could not be printed, which is said in a line."""
    error = _flush(sys.stdout) or out.failure
    if error and not isinstance(error, BrokenPipeError):  # where nobody reads, nobody misses it
        notes.show_line(
            f"Error: cannot print the result: {error.strerror}. What was measured and asked for in "
            "files is stored."
        )
    _flush(sys.stderr)
    for console in (out, notes):  # the next command of this process may have other streams
        console.quiet, console.failure = False, None
    return error is not None


def _flush(stream: TextIO | None) -> OSError | None:
    """Why what was written to a stream cannot leave; Python's own last flush is kept from it."""
    if stream is None:
        return None
    try:
        stream.flush()
    except OSError as error:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None
