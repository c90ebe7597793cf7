"""Settings: what is said of each, once, and the least and most that its number may be.

Ranges are wide (hundreds of threads, contexts of a million tokens): they refuse what no person can
mean. What a model, a machine or a text cannot do is said by the code that knows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pruning_kit.errors import PruningKitError

TOKENS = 2**24
MOST_PLANS = 2**20
"""A run holds all of its plans in memory."""
MOST_PERMUTATIONS = 10_000
"""Sampled orders of the blocks; more are not used."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `least` to `most`, or those strictly between them."""

    least: float
    most: float
    strictly: bool = False

    def __contains__(self, value: float) -> bool:
        if self.strictly:
            return self.least < value < self.most
        return self.least <= value <= self.most  # never true of nan

    def __str__(self) -> str:
        words = "above {:,} and below {:,}" if self.strictly else "from {:,} to {:,}"
        return words.format(self.least, self.most)

    def check(self, name: str, value: Any, error: type[PruningKitError]) -> None:
        """Refuse a number, or one of several, that is outside; None may be.

        Raises:
            PruningKitError: of the kind `error`, naming what is set, value and range.
        """
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and number not in self:
                shown = f"{number:.15g}" if isinstance(number, float) else number
                raise error(f"cannot use {name} {shown}: it needs to be {self}.")


BUDGETS = {
    "--max-latency": Range(0, 10**9, strictly=True),
    "--max-params": Range(0, 10**6, strictly=True),
    "--max-ppl-increase": Range(0, 10**9),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What is said of a field of a dataclass of settings; the command line offers it so."""

    help: str
    group: str = ""
    """Under which heading it is offered."""
    error: type[PruningKitError] = PruningKitError
    """What a value out of range is."""
    allowed: Range | None = None
    name: str = ""
    """As the command line calls it, if not by the name of the field."""


def setting(
    default: Any,
    help: str,
    group: str = "",
    error: type[PruningKitError] = PruningKitError,
    allowed: Range | None = None,
    name: str = "",
) -> Any:
    """A field with a default and what is said of it, for a dataclass of settings."""
    said = Setting(help, group, error, allowed, name)
    return field(default=default, metadata={Setting: said})


def settings_of(kind: Any) -> Mapping[str, Setting]:
    """What is said of each field of a dataclass; those of which nothing is are left out."""
    return {f.name: f.metadata[Setting] for f in fields(kind) if Setting in f.metadata}


def check(settings: Any) -> None:
    """Refuse settings out of their range.

    Raises:
        PruningKitError: of the kind of the setting, naming the field and what it may be.
    """
    for name, said in settings_of(settings).items():
        if said.allowed:
            said.allowed.check(name, getattr(settings, name), said.error)
