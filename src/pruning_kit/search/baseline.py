"""The whole model alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from pruning_kit.plans.plan import Plan
from pruning_kit.search.one_round import OneRound


@dataclass(frozen=True, slots=True)
class Baseline(OneRound):
    """The whole model, to compare with."""

    mode: ClassVar[str | None] = "baseline"
    form: ClassVar[str] = "baseline"
    help: ClassVar[str] = "the whole model alone"

    def plans(self, n_blocks: int) -> Iterable[Plan]:
        """The plan that removes nothing."""
        return [Plan()]

    def bound(self, n_blocks: int) -> int:
        """One."""
        return 1
