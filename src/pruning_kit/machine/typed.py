"""Typed values: what JSON gave, as a type; what does not fit is named by its path."""

from __future__ import annotations

import copy
import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

Kind = TypeVar("Kind")
Count = Annotated[int, Meta(ge=1, le=10**18)]
Place = Annotated[int, Meta(ge=0, le=10**18)]
Blocks = Annotated[int, Meta(ge=1, le=10_000)]
"""Of a model; none has more."""
Seconds = Annotated[float, Meta(ge=1e-12, le=1e12)]
Number = Annotated[float, Meta(ge=-1e15, le=1e15)]
Step = str | int | None
"""Of a path: a name, a place in a list, or the name that msgspec leaves open in a dictionary."""

_MISSING = re.compile(r"Object missing required field `(\w+)`")
_AT = " - at `"
"""Before the path, after all that a message quotes."""
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]|(\[\.\.\.\])")
MAX_NAME = 40


class MisfitError(ValueError):
    """A fact that is missing, of another type, or (with a reason) cannot be true.

    A type's own `__post_init__` may raise it, with a path from there.
    """

    def __init__(self, path: str, reason: str = "") -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    @property
    def of_one(self) -> str:
        """What is wrong, to follow a singular: `its run.json …`."""
        return self._said("is", "lacks", "holds")

    @property
    def of_many(self) -> str:
        """What is wrong, to follow a plural: `they …`."""
        return self._said("are", "lack", "hold")

    def _said(self, are: str, lack: str, hold: str) -> str:
        if self.reason:
            where = f" in {self.path}" if self.path else ""
            return f"{are} wrong{where}: {self.reason}"
        return f"{lack} {self.path}, or {hold} it in another form"


def fit(value: Any, kind: type[Kind]) -> Kind:
    """A value of JSON as a type of msgspec's.

    Raises:
        MisfitError: naming the first fact that does not fit, such as `model.n_blocks`.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _named(value, kind, error) from None


def _named(value: Any, kind: type, error: msgspec.ValidationError) -> MisfitError:
    steps = _steps(error)
    for place, step in enumerate(steps):
        if step is None:
            steps[place] = _culprit(value, kind, error, steps[:place])
    cause = error.__cause__
    if isinstance(cause, MisfitError):
        return MisfitError(".".join(filter(None, (_path(steps), cause.path))), cause.reason)
    return MisfitError(_path(steps))


def _steps(error: msgspec.ValidationError) -> list[Step]:
    """Where msgspec found the misfit; a missing field is the last step."""
    text, found, where = str(error).rpartition(_AT)
    missing = _MISSING.fullmatch(text if found else where)
    steps: list[Step] = [
        match[1] or (int(match[2]) if match[2] else None)
        for match in _STEP.finditer(where if found else "")
    ]
    return [*steps, missing[1]] if missing else steps


def _culprit(value: Any, kind: type, error: msgspec.ValidationError, steps: list[Step]) -> Step:
    """The key of a dictionary under which the error is: alone it still makes the same one."""
    holder = value
    for step in steps:
        holder = holder[step]
    for key in holder:
        try:
            msgspec.convert(_with_one_key(value, steps, key), kind)
        except msgspec.ValidationError as found:
            if str(found) == str(error):
                return str(key)
    raise AssertionError(str(error))


def _with_one_key(value: Any, steps: list[Step], key: str) -> Any:
    if not steps:
        return {key: value[key]}
    changed = copy.copy(value)
    changed[steps[0]] = _with_one_key(value[steps[0]], steps[1:], key)
    return changed


def _path(steps: list[Step]) -> str:
    parts = (f"[{step}]" if isinstance(step, int) else f".{step:.{MAX_NAME}}" for step in steps)
    return "".join(parts).removeprefix(".")
