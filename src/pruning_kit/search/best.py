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
from pruning_kit.plans.sets import sizes_within
from pruning_kit.plans.variant import Variant
from pruning_kit.search.proposer import Asking
from pruning_kit.search.text import Word, unreadable

TOKENS = 500_000


@dataclass(frozen=True, slots=True)
class BestDistilled:
    """Of each size, or of one, the plans that cost least, bridged where there is such a row.

    All are distilled alike.

    It asks when everything else that a run measures is measured.
    """

    form: ClassVar[str] = f"{NAME}:3 or {NAME}:3,size=2,tokens=2000000"
    help: ClassVar[str] = "the best so many of each size, or of one, by bridged cost, distilled"
    mode: ClassVar[str | None] = None

    top: int
    tokens: int = TOKENS
    size: int | None = None
    """Of removed blocks; None: each."""

    @classmethod
    def parse(cls, text: str) -> BestDistilled:
        """Read one word.

        Raises:
            PlanError: if the text has another form.
        """
        word = Word.parse(text, cls.form, settings=("tokens", "size"))
        (top,) = word.whole_numbers(1)
        if not top or any(value <= 0 for value in word.settings.values()):
            raise unreadable(text, cls.form)
        return cls(top, **word.settings)

    def __str__(self) -> str:
        return Word.write((NAME,), (self.top,), size=self.size, tokens=self.tokens)

    @property
    def seed(self) -> int:
        """Nothing is drawn."""
        return 0

    def bound(self, n_blocks: int) -> int:
        """So many of each size, and the whole model."""
        return 1 + self.top * (n_blocks - 1 if self.size is None else 1)

    def check(self, n_blocks: int) -> None:
        """Fits any model, but for a size that it has not.

        Raises:
            PlanError: naming it.
        """
        if self.size is not None:
            sizes_within((self.size,), None, n_blocks)

    def most_removed(self, n_blocks: int) -> int:
        """What is chosen is walked alone."""
        return 1

    def propose(self, n_blocks: int) -> Asking:
        """One round, when it knows what others cost."""
        costs: Mapping[Variant, float] = yield []
        by_size: dict[int, list[tuple[float, Variant]]] = defaultdict(list)
        for variant in judged_by(Cost.bridged, costs):
            size = variant.plan.size
            is_asked = size == self.size if self.size else 0 < size < n_blocks
            if is_asked and math.isfinite(costs[variant]):
                by_size[size].append((costs[variant], variant))
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
