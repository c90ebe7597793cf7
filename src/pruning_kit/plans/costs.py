"""Costs: in which form plans are judged, as they are cut or as a person would use them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from pruning_kit.errors import PlanError
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import BRIDGED, Variant


class Cost(StrEnum):
    """What a plan is judged by."""

    as_cut = "as cut"
    bridged = "bridged"
    """Bridged where it was measured so, that is where bridges help it; else as cut."""

    @classmethod
    def _missing_(cls, value: object) -> Cost:
        known = " or ".join(repr(cost.value) for cost in cls)
        raise PlanError(f"cannot judge plans by {value!r:.60}: choose {known}.")


def judged_by(cost: Cost, variants: Iterable[Variant]) -> list[Variant]:
    """The variant that each plan is judged by, in the order of plans.

    Other recoveries have rows of their own and judge no plan.
    """
    known = {None, BRIDGED} if cost is Cost.bridged else {None}
    found: dict[Plan, Variant] = {}
    for variant in sorted(variants):  # as cut before bridged
        if variant.recovery in known:
            found[variant.plan] = variant
    return list(found.values())
