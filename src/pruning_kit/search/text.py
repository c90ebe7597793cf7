"""The text forms of proposers: a name and, after a colon, numbers and settings."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from pruning_kit.errors import PlanError
from pruning_kit.plans.plan import Plan

_NAMES = r"[a-z]+(?:,[a-z]+)*"
_NUMBER = r"\d{1,9}(?:\.\d{1,30})?(?:e-\d{1,3})?"
_RANGE = r"\d{1,5}-\d{1,5}"
_SETTING = r"[a-z]+=-?\d{1,18}"  # fits into 64 bits
_WORD = re.compile(
    rf"({_NAMES})(?::((?:{_NUMBER}|{_RANGE}|{_SETTING})(?:,(?:{_NUMBER}|{_RANGE}|{_SETTING}))*))?",
    re.ASCII,
)


class Word(NamedTuple):
    """The parts of a text form such as `first,last:2,3,max=4`."""

    text: str
    example: str
    """A word that can be read, for who wrote another."""
    names: tuple[str, ...]
    whole: tuple[int, ...]
    """Numbers without a decimal point or exponent; a range such as `4-10` is all that it holds."""
    shares: tuple[float, ...]
    """Numbers with one."""
    settings: Mapping[str, int]

    @classmethod
    def parse(cls, text: str, example: str, settings: Collection[str] = ()) -> Word:
        """Read a word; the inverse of `write`.

        Args:
            text: the word.
            example: see above.
            settings: names that may stand before `=`.

        Raises:
            PlanError: if the text has another form or an unknown setting.
        """
        match = _WORD.fullmatch(text)
        items = match[2].split(",") if match and match[2] else []
        listed = [_listed(item) for item in items if "=" not in item]
        numbers = [number for some in listed for number in some]
        given = dict(item.split("=") for item in items if "=" in item)
        twice = len(listed) + len(given) < len(items)
        if match is None or twice or not all(listed) or not given.keys() <= set(settings):
            raise unreadable(text, example)
        return cls(
            text,
            example,
            tuple(match[1].split(",")),
            tuple(int(number) for number in numbers if number.isdecimal()),
            tuple(float(number) for number in numbers if not number.isdecimal()),
            {name: int(value) for name, value in given.items()},
        )

    def whole_numbers(self, count: int | None = None) -> tuple[int, ...]:
        """The numbers of a word that has one name and only whole ones.

        Raises:
            PlanError: if it has others, or not `count` of them.
        """
        if len(self.names) > 1 or self.shares or count not in (None, len(self.whole)):
            raise unreadable(self.text, self.example)
        return self.whole

    @staticmethod
    def write(names: Iterable[str], numbers: Iterable[object] = (), **settings: int | None) -> str:
        """The text form; settings that are None are left out."""
        given = [f"{name}={value}" for name, value in settings.items() if value is not None]
        details = ",".join([*map(str, numbers), *given])
        return ",".join(names) + (f":{details}" if details else "")


def as_ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers with ranges where these are shorter, as `Word.parse` reads them."""
    return Plan(tuple(numbers)).short.replace("+", ",") if numbers else ""


def _listed(item: str) -> list[str]:
    """The numbers of a range; anything else as it is. A range that goes downwards is empty."""
    ends = re.fullmatch(r"(\d+)-(\d+)", item)
    return list(map(str, range(int(ends[1]), int(ends[2]) + 1))) if ends else [item]


def unreadable(text: str, example: str) -> PlanError:
    """What to say of a word that cannot be read."""
    return PlanError(f"cannot read {text!r:.60} as a way to choose plans: write {example}.")
