"""Every set of blocks, or every one of some sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pruning_kit.bounds import MOST_PLANS
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import largest_size, singles, sizes_within, subsets
from pruning_kit.search.one_round import OneRound
from pruning_kit.search.text import Word, unreadable

PAIRS = "pairs"


@dataclass(frozen=True, slots=True)
class Combinatorial(OneRound):
    """Every set of blocks, or those of some sizes with what the walk to them passes anyway.

    That is the whole model, the single blocks and, if every set is asked for, the stack without
    any block, which is measured but cannot be exported.
    """

    mode: ClassVar[str | None] = "combinatorial"
    form: ClassVar[str] = "combinatorial, combinatorial:2,3, combinatorial:max=3 or pairs"
    help: ClassVar[str] = "every set of blocks, those of 2 and of 3, of up to 3, or of 2"

    sizes: tuple[int, ...] = ()
    """Numbers of removed blocks; empty: all."""
    max_removed: int | None = None
    """Upper bound of `sizes`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(sorted(set(self.sizes))))

    @classmethod
    def parse(cls, text: str) -> Combinatorial:
        """Read `combinatorial`, `combinatorial:2,3`, `combinatorial:max=3` or `pairs`.

        Raises:
            PlanError: if the text has another form.
        """
        if text == PAIRS:
            return cls((2,))
        word = Word.parse(text, cls.form, ("max",))
        if PAIRS in word.names:
            raise unreadable(text, PAIRS)
        return cls(word.whole_numbers(), word.settings.get("max"))

    def __str__(self) -> str:
        if self == Combinatorial((2,)):
            return PAIRS
        return Word.write(["combinatorial"], self.sizes, max=self.max_removed)

    def plans(self, n_blocks: int) -> Iterator[Plan]:
        """The plans, smaller sets first.

        Raises:
            PlanError: if a size is impossible for the model, or none is left.
        """
        sizes = self._sizes(n_blocks)
        yield from singles(n_blocks)
        yield from subsets(n_blocks, sizes)
        if self._is_power_set(n_blocks):
            yield Plan(tuple(range(n_blocks)))

    def bound(self, n_blocks: int) -> int:
        """Exactly how many they are; counting ends beyond `MOST_PLANS`.

        Raises:
            PlanError: if a size is impossible for the model, or none is left.
        """
        count = int(self._is_power_set(n_blocks))
        for size in sorted({0, 1, *self._sizes(n_blocks)}):
            count += math.comb(n_blocks, size)
            if count > MOST_PLANS:
                break
        return count

    def _sizes(self, n_blocks: int) -> list[int]:
        Plan((0,)).check(n_blocks)
        within = sizes_within(self.sizes, self.max_removed, n_blocks)
        return within or list(range(2, largest_size(self.max_removed, n_blocks) + 1))

    def _is_power_set(self, n_blocks: int) -> bool:
        """Whether every set of blocks is measured, so that the empty stack completes them."""
        return not self.sizes and self.max_removed in (None, n_blocks - 1)
