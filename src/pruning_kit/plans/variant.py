"""Variants: a plan and how what it cost is recovered. A variant is the key of a row."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pruning_kit.errors import PlanError
from pruning_kit.plans.plan import Plan

MARK = "~"
_RECOVERY = re.compile(r"([a-z]+)(?::([\w.]+(?:,[\w.]+)*))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Recovery:
    """How a pruned model gets back what it lost: `bridged`, `distilled:8M,lora`."""

    name: str
    details: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Recovery:
        """Read a name and its details; the inverse of `str`.

        Raises:
            PlanError: if the text has another form.
        """
        match = _RECOVERY.fullmatch(text)
        if match is None:
            raise PlanError(
                f"cannot read {text!r:.60} as a recovery: write its name and, after a colon, its "
                "details, such as distilled:8M,lora."
            )
        return cls(match[1], tuple(match[2].split(",")) if match[2] else ())

    def __str__(self) -> str:
        return f"{self.name}:{','.join(self.details)}" if self.details else self.name


BRIDGED = Recovery("bridged")
"""Every gap bridged that is better so."""
REFITTED = Recovery("refitted")
"""Bridged, and output projections fitted anew where that helps."""


@dataclass(frozen=True, slots=True, repr=False)
class Variant:
    """A pruned model: `1+3` as cut, `1+3~bridged` recovered. `Variant()` is the whole model."""

    plan: Plan = field(default_factory=Plan)
    recovery: Recovery | None = None

    @classmethod
    def parse(cls, text: str) -> Variant:
        """Read a plan and, after `~`, a recovery; the inverse of `str`.

        Raises:
            PlanError: if either has another form.
        """
        plan, mark, recovery = text.partition(MARK)
        return cls(Plan.parse(plan), Recovery.parse(recovery) if mark else None)

    def __str__(self) -> str:
        return f"{self.plan}{MARK}{self.recovery}" if self.recovery else str(self.plan)

    def __repr__(self) -> str:
        return f"Variant.parse({str(self)!r})"

    def __lt__(self, other: Variant) -> bool:
        """Order by plan, as cut before recovered."""
        return self._order < other._order

    @property
    def _order(self) -> tuple[Plan, str]:
        return self.plan, str(self.recovery or "")
