"""The best of what others asked for, distilled: does recovery change the choice?"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pruning_kit.errors import PlanError
from pruning_kit.plans.costs import Cost, judged_by
from pruning_kit.plans.distilled import NAME, Amount
from pruning_kit.plans.variant import Variant
from pruning_kit.search.proposer import Asking
from pruning_kit.search.text import Word, unreadable

TOKENS = 500_000


@dataclass(frozen=True, slots=True)
class BestDistilled:
    """Of each size the plans that cost least, bridged where there is such a row, distilled alike.

    It asks when everything else that a run measures is measured.
    """

    form: ClassVar[str] = f"{NAME}:3 or {NAME}:3,tokens=2000000"
    help: ClassVar[str] = "the best so many of each size, by bridged cost, distilled alike"
    mode: ClassVar[str | None] = None

    top: int
    tokens: int = TOKENS

    @classmethod
    def parse(cls, text: str) -> BestDistilled:
        """Read one word.

        Raises:
            PlanError: if the text has another form.
        """
        word = Word.parse(text, cls.form, settings=("tokens",))
        (top,) = word.whole_numbers(1)
        if not (top and word.settings.get("tokens", TOKENS) > 0):
            raise unreadable(text, cls.form)
        return cls(top, word.settings.get("tokens", TOKENS))

    def __str__(self) -> str:
        return Word.write((NAME,), (self.top,), tokens=self.tokens)

    @property
    def seed(self) -> int:
        """Nothing is drawn."""
        return 0

    def bound(self, n_blocks: int) -> int:
        """So many of each size, and the whole model."""
        return 1 + self.top * (n_blocks - 1)

    def check(self, n_blocks: int) -> None:
        """Fits any model."""

    def most_removed(self, n_blocks: int) -> int:
        """What is chosen is walked alone."""
        return 1

    def propose(self, n_blocks: int) -> Asking:
        """One round, when it knows what others cost."""
        costs: Mapping[Variant, float] = yield []
        by_size: dict[int, list[tuple[float, Variant]]] = defaultdict(list)
        for variant in judged_by(Cost.bridged, costs):
            if 0 < variant.plan.size < n_blocks and math.isfinite(costs[variant]):
                by_size[variant.plan.size].append((costs[variant], variant))
        recovery = Amount(self.tokens).recovery
        yield sorted(
            Variant(variant.plan, recovery)
            for of_size in by_size.values()
            for _, variant in sorted(of_size)[: self.top]
        )


def refuse_alone(proposers: object) -> PlanError:
    """What to say where nothing is asked for that could be chosen from."""
    return PlanError(
        f"cannot distil the best by {proposers}: nothing else is asked for to choose from. Add a "
        "mode, or pairs."
    )
