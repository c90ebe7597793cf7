"""Text from outside (names, paths, commands, notes of others) made fit for where it is shown.

Whatever stands in a name, a reader sees it and neither terminal, SVG, Markdown nor shell obeys it.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from typing import Any

HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of controls, formats (bidi overrides, tags), surrogates, separators."""
INLINE = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)|[\\*_<&]|\](?=\()")
"""A code span, as CommonMark pairs backticks, or a mark outside of one."""
JOINERS = "\u200c\u200d"  # formats that words of Persian or Hindi are spelled with


def printable(text: str, keep: str = "") -> str:
    r"""A text with every character that is obeyed instead of shown as an escape: `\x1b`, `\u202e`.

    Bytes that were no UTF-8, which Python keeps as surrogates, come out as bytes: `\xff`.

    Args:
        text: any text.
        keep: characters to let be, such as line ends where the text has lines of its own.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(c) if _is_obeyed(c) and c not in keep else c for c in text)


def _is_obeyed(character: str) -> bool:
    return unicodedata.category(character) in HIDDEN and character not in JOINERS


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte, by PEP 383
        code -= 0xDC00
    elif code > 0xFFFF:
        return f"\\U{code:08x}"
    elif code > 0x7F:
        return f"\\u{code:04x}"
    return f"\\x{code:02x}"


def each_printable(value: Any, keep: str = "") -> Any:
    """`printable` of a text, and of every text in a tuple of tuples; other values as they are."""
    if isinstance(value, str):
        return printable(value, keep)
    if isinstance(value, tuple):
        return tuple(each_printable(item, keep) for item in value)
    return value


def quoted(word: str) -> str:
    r"""A word to paste into a shell; where it cannot be shown, as bash and zsh read `$'\x1b'`."""
    if printable(word) == word:
        return shlex.quote(word)
    return "$'" + printable(word.replace("\\", "\\\\").replace("'", "\\'")) + "'"


def copyable(command: str) -> str:
    """A stored command on one line, to paste into a shell."""
    if printable(command) == command:
        return command
    try:
        return " ".join(map(quoted, shlex.split(command)))
    except ValueError:  # quotes that do not match: no command, whatever wrote it
        return printable(command)


def markdown_text(text: str) -> str:
    """A text for one line of Markdown: nothing in it is read as Markdown or HTML but code spans."""
    return INLINE.sub(lambda found: found[0] if found[1] else f"\\{found[0]}", printable(text))
