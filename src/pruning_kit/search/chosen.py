"""Plans that were named one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pruning_kit.plans.plan import Plan
from pruning_kit.search.one_round import OneRound


@dataclass(frozen=True, slots=True)
class Chosen(OneRound):
    """Chosen plans; their order and repetitions do not matter, and the whole model comes anyway."""

    form: ClassVar[str] = "1+3, 7-9 or none"
    help: ClassVar[str] = "chosen blocks"

    chosen: tuple[Plan, ...]

    def __post_init__(self) -> None:
        others = sorted(set(self.chosen) - {Plan()})
        object.__setattr__(self, "chosen", tuple(others or [Plan()]))

    @classmethod
    def parse(cls, text: str) -> Chosen:
        """Read plans with spaces between them: `1+3 2+4`.

        Raises:
            PlanError: if one cannot be read.
        """
        return cls(tuple(map(Plan.parse, text.split())))

    def __str__(self) -> str:
        return " ".join(map(str, self.chosen))

    def plans(self, n_blocks: int) -> tuple[Plan, ...]:
        """The chosen ones.

        Raises:
            PlanError: if one does not fit the model.
        """
        return tuple(plan.check(n_blocks) for plan in self.chosen)

    def bound(self, n_blocks: int) -> int:
        """Their number, and one for the whole model.

        Raises:
            PlanError: if one does not fit the model.
        """
        return len({Plan(), *self.plans(n_blocks)})
