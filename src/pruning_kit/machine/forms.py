"""The form of stored JSON: what has to be in a file before anything is read from it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

MAX_NAMED = 3
MAX_DIGITS = 300
"""Of whole numbers, so that `float` takes them."""


def parse_json(content: bytes) -> Any:
    """The value of a JSON file: every number one that `float` takes, all text Unicode.

    Raises:
        ValueError: saying what is wrong.
    """
    text = content.decode("utf-8")
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\ud" in text or "\\uD" in text:  # half a character is written so, and so are whole ones
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _whole(digits: str) -> int:
    return int(digits) if len(digits.lstrip("-")) <= MAX_DIGITS else _refuse(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _refuse(digits)


def _refuse(digits: str) -> Any:
    raise ValueError(f"the number {digits:.30} is out of range")


@dataclass(frozen=True)
class Restricted:
    """A form, and a test that values of this form have to pass as well."""

    form: Any
    allows: Callable[[Any], bool]


def between(kind: type, least: float, most: float) -> Restricted:
    """The form of a number within bounds, both included."""
    return Restricted(kind, lambda value: least <= value <= most)


COUNT = between(int, 1, 10**18)
BLOCKS = between(int, 1, 10_000)
"""Of a model; none has that many."""
PLAN = Restricted(
    str, lambda text: re.fullmatch(r"none|[0-9]{1,5}(\+[0-9]{1,5})*", text) is not None
)
"""A plan as `str` writes it."""


def what_is_missing(value: object, form: Any) -> str:
    """The facts that are missing or of another kind, by name, such as `model.n_blocks`.

    Args:
        value: what JSON gave.
        form: a type (`float` takes whole numbers too, `object` takes anything), a list of the form
            that every item has, a dictionary of forms by name (other names may be there too, with
            `str` for their form, if they need one), or one of these `Restricted`.

    Returns:
        the first names and how many more there are; empty if nothing is missing.
    """
    names = list(_misfits(value, form, ""))
    rest = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + rest


def _misfits(value: object, form: Any, name: str) -> Iterator[str]:
    if isinstance(form, Restricted):
        found = list(_misfits(value, form.form, name))
        yield from found or ([] if form.allows(value) else [name])
    elif not _is_of_kind(value, type(form) if isinstance(form, dict | list) else form):
        yield name
    elif isinstance(form, dict) and isinstance(value, dict):
        wanted = dict.fromkeys(value, form[str]) | form if str in form else form
        for key, inner in wanted.items():
            if key is str:
                continue
            where = f"{name}.{key}" if name else key
            if key in value:
                yield from _misfits(value[key], inner, where)
            else:
                yield where
    elif isinstance(form, list) and isinstance(value, list):
        for number, item in enumerate(value):
            yield from _misfits(item, form[0], f"{name}[{number}]")


def _is_of_kind(value: object, kind: Any) -> bool:
    if isinstance(value, bool) and kind in (int, float):
        return False
    return isinstance(value, int | float if kind is float else kind)
