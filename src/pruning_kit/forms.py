"""The form of stored JSON: what has to be in a file before anything is read from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MAX_NAMED = 3


def what_is_missing(value: object, form: Any) -> str:
    """The facts that are missing or of another kind, by name, such as `model.n_blocks`.

    Args:
        value: what JSON gave.
        form: a type (`float` takes whole numbers too, `object` takes anything), a list of the form
            that every item has, or a dictionary of forms by name; other names may be there too.

    Returns:
        the first names and how many more there are; empty if nothing is missing.
    """
    names = list(_misfits(value, form, ""))
    rest = f" and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + rest


def _misfits(value: object, form: Any, name: str) -> Iterator[str]:
    kind = type(form) if isinstance(form, dict | list) else form
    if not isinstance(value, int | float if kind is float else kind):
        yield name
    elif isinstance(form, dict) and isinstance(value, dict):
        for key, inner in form.items():
            where = f"{name}.{key}" if name else key
            if key in value:
                yield from _misfits(value[key], inner, where)
            else:
                yield where
    elif isinstance(form, list) and isinstance(value, list):
        for number, item in enumerate(value):
            yield from _misfits(item, form[0], f"{name}[{number}]")
