"""Each block removed alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles
from pruning_kit.search.one_round import OneRound


@dataclass(frozen=True, slots=True)
class Sequential(OneRound):
    """The whole model without each block in turn."""

    mode: ClassVar[str | None] = "sequential"
    form: ClassVar[str] = "sequential"
    help: ClassVar[str] = "each block removed alone"

    def plans(self, n_blocks: int) -> Iterable[Plan]:
        """One plan for each block."""
        return singles(n_blocks)

    def bound(self, n_blocks: int) -> int:
        """The blocks and the whole model.

        Raises:
            PlanError: if the model has but one block.
        """
        Plan((0,)).check(n_blocks)
        return 1 + n_blocks
