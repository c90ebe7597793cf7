"""Numbers that were typed, several with commas between them."""

from __future__ import annotations

from typing import TypeVar

from pruning_kit.errors import PlanError

Number = TypeVar("Number", int, float)


def read_numbers(text: str | None, kind: type[Number], option: str) -> list[Number]:
    """The numbers of an option; none where it was not given.

    Raises:
        PlanError: if one is none, naming the option.
    """
    if text is None:
        return []
    return [read_number(part, kind, f"{option} {text}") for part in text.split(",")]


def read_number(text: str, kind: type[Number], typed: str) -> Number:
    """A number.

    Raises:
        PlanError: if it is none, with what was typed.
    """
    try:
        return kind(text)
    except ValueError:
        example = "a whole number, such as 2" if kind is int else "a number, such as 0.25"
        raise PlanError(f"cannot read {text!r} in {typed!r}: write {example}.") from None
