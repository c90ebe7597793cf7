"""Gaps: from a kept block to the next kept one, or to the final norm, over what is removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

from pruning_kit.errors import PlanError
from pruning_kit.plans.paths import Call, Path, as_cut
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.unit import Unit


class Gap(NamedTuple):
    """From a kept block to the next kept one; the number of blocks stands for the final norm."""

    block: int
    to: int

    @classmethod
    def parse(cls, text: str) -> Gap:
        """Read `2>4`; the inverse of `str`.

        Raises:
            PlanError: if the text has another form.
        """
        call = Call.parse(text)
        if call.to is None or call.unit.part:
            raise PlanError(f"cannot read {text!r:.40} as a gap: write it like 2>4.")
        return cls(call.block, call.to)

    def __str__(self) -> str:
        return str(self.call)

    @property
    def call(self) -> Call:
        """The block applied in the form that bridges the gap."""
        return Call(Unit(self.block), self.to)

    @property
    def plan(self) -> Plan:
        """What is removed where there is this gap alone."""
        return Plan(tuple(range(self.block + 1, self.to)))


def gaps_of(plan: Plan, n_blocks: int) -> Iterator[Gap]:
    """The gaps of a plan that have a kept block before them, in order."""
    return (gap for gap in stretches_of(plan, n_blocks) if gap.to > gap.block + 1)


def stretches_of(plan: Plan, n_blocks: int) -> Iterator[Gap]:
    """From each kept block to the next one or to the final norm, whether a gap or not."""
    return (Gap(block, to) for block, to in pairwise([*plan.kept(n_blocks), n_blocks]))


def bridged_path(plan: Plan, n_blocks: int, forms: Mapping[Gap, object]) -> Path:
    """The path of a plan with every gap bridged that there is a form for."""
    calls = {gap.block: gap.call for gap in gaps_of(plan, n_blocks) if gap in forms}
    return tuple(calls.get(call.block, call) for call in as_cut(plan, n_blocks))
