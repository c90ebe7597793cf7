"""Paths: the calls that a variant computes, in order. The walk takes these and knows no plan."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

from pruning_kit.errors import PlanError
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.unit import ATTENTION, MLP, WHOLE, Unit

_CALL = re.compile(r"(\d+[am]?)(?:>(\d+))?")


class Call(NamedTuple):
    """A unit that is applied as it is (`3`), or in a form that bridges to a later block (`3>5`)."""

    unit: Unit
    to: int | None = None
    """The block to which the unit's own form bridges; None: the unit as it is."""

    @classmethod
    def parse(cls, text: str) -> Call:
        """Read `3`, `3a` or `3>5`; the inverse of `str`.

        Raises:
            PlanError: if the text is none of these, or goes backwards.
        """
        match = _CALL.fullmatch(text)
        if match is None:
            raise PlanError(f"cannot read {text!r} as a call: write a unit, such as 3, or 3>5.")
        unit, to = Unit.parse(match[1]), match[2] and int(match[2])
        if to and to <= unit.block + 1:
            raise PlanError(f"cannot bridge {text}: nothing is between. Write {unit}.")
        return cls(unit, to or None)

    def __str__(self) -> str:
        return str(self.unit) if self.to is None else f"{self.unit}>{self.to}"

    @property
    def block(self) -> int:
        """The block that the unit is or belongs to."""
        return self.unit.block

    @property
    def is_plain_block(self) -> bool:
        """Whether a whole block is applied as it is."""
        return self.to is None and self.unit.part == WHOLE


Path = tuple[Call, ...]
"""Calls in the order in which they are made; equal beginnings give equal states."""


@cache
def plain(block: int, part: str = WHOLE) -> Call:
    """The call of a unit as it is: one object for each, since many paths share it."""
    return Call(Unit(block, part))


def parse_path(text: str) -> Path:
    """Read calls separated by spaces; the inverse of `path_text`."""
    return tuple(map(Call.parse, text.split()))


def path_text(path: Path) -> str:
    """The calls, separated by spaces."""
    return " ".join(map(str, path))


def as_cut(plan: Plan, n_blocks: int) -> Path:
    """The path of a plan without recovery: what it keeps, plainly."""
    if not plan.sublayers:
        return tuple(map(plain, plan.kept(n_blocks)))
    other: Mapping[str, str] = {ATTENTION: MLP, MLP: ATTENTION}
    left = {unit.block: other[unit.part] for unit in plan.sublayers}
    return tuple(plain(block, left.get(block, WHOLE)) for block in plan.kept(n_blocks))


def count_calls(paths: Iterable[Path]) -> int:
    """Calls of a walk that shares beginnings: the number of distinct ones.

    In their order, a path adds those beginnings that it does not share with the one before.
    """
    calls, before = 0, Path()
    for path in sorted(set(paths), key=walk_order):
        pairs = enumerate(zip(before, path, strict=False))
        shared = next((at for at, (a, b) in pairs if a != b), min(len(before), len(path)))
        calls += len(path) - shared
        before = path
    return calls


def walk_order(path: Path) -> tuple[tuple[int, int, int], ...]:
    """Sorts paths as they are walked: an end first, then what skips most.

    A state is freed as soon as the last call that reads it was made, so at most (most blocks
    skipped) + 2 states live at once.
    """
    return tuple(map(_call_order, path))


@cache
def _call_order(call: Call) -> tuple[int, int, int]:
    to = call.block + 1 if call.to is None else call.to
    return -call.block, -to, (MLP, ATTENTION, WHOLE).index(call.unit.part)
