"""Plans and variants that were named one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.search.one_round import OneRound


@dataclass(frozen=True, slots=True)
class Chosen(OneRound):
    """Chosen plans; their order and repetitions do not matter, and the whole model comes anyway.

    The plan of a recovered variant is measured as cut too, to compare with.
    """

    form: ClassVar[str] = "1+3, 7-9, 1+3~refitted or none"
    help: ClassVar[str] = "chosen blocks, as cut or recovered"

    chosen: tuple[Plan, ...]
    recovered: tuple[Variant, ...] = ()

    def __post_init__(self) -> None:
        recovered = sorted(set(self.recovered))
        others = sorted({*self.chosen} - {Plan()})
        object.__setattr__(self, "chosen", tuple(others or [Plan()] * (not recovered)))
        object.__setattr__(self, "recovered", tuple(recovered))

    @classmethod
    def parse(cls, text: str) -> Chosen:
        """Read plans and variants with spaces between them: `1+3 2+4~bridged`.

        Raises:
            PlanError: if one cannot be read.
        """
        named = [Variant.parse(word) for word in text.split()]
        return cls(
            tuple(one.plan for one in named if one.recovery is None),
            tuple(one for one in named if one.recovery is not None),
        )

    def __str__(self) -> str:
        return " ".join(map(str, [*self.chosen, *self.recovered]))

    def plans(self, n_blocks: int) -> tuple[Plan, ...]:
        """The chosen ones, and those of the recovered variants.

        Raises:
            PlanError: if one does not fit the model.
        """
        plans = [*self.chosen, *(variant.plan for variant in self.recovered)]
        return tuple(plan.check(n_blocks) for plan in dict.fromkeys(plans))

    def bound(self, n_blocks: int) -> int:
        """The number of plans and recovered variants, and one for the whole model.

        Raises:
            PlanError: if one does not fit the model.
        """
        return len({Plan(), *self.plans(n_blocks)}) + len(self.recovered)
