"""Named strategies at some numbers or shares of removed blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from pruning_kit.errors import PlanError
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import (
    STRATEGIES,
    check_ratio,
    check_strategy,
    count_for_ratio,
    sizes_within,
    strategy_plan,
)
from pruning_kit.search.one_round import OneRound
from pruning_kit.search.text import Word


@dataclass(frozen=True, slots=True)
class Strategies(OneRound):
    """The plan of each strategy at each size or ratio; without either, at every size.

    Raises:
        PlanError: if a strategy is unknown, or there are sizes and ratios.
    """

    form: ClassVar[str] = "first, first,last:2,3, alternate:0.25 or random:max=4,seed=1"
    help: ClassVar[str] = f"{', '.join(STRATEGIES)}: at each size, or some sizes or shares"

    names: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    """Numbers of removed blocks."""
    ratios: tuple[float, ...] = ()
    """Shares of the blocks to remove, as an alternative to `sizes`."""
    max_removed: int | None = None
    """Upper bound of `sizes` and of what `ratios` come to."""
    seed: int = 0
    """For the strategy `random`."""

    def __post_init__(self) -> None:
        for name in self.names or [""]:
            check_strategy(name)
        for ratio in self.ratios:
            check_ratio(ratio)
        if self.sizes and self.ratios:
            raise PlanError(
                f"cannot remove {self.sizes[0]} blocks and a share of {self.ratios[0]:g} by one "
                "strategy: both say how many. Leave one out."
            )
        object.__setattr__(self, "names", tuple(n for n in STRATEGIES if n in self.names))
        object.__setattr__(self, "sizes", tuple(sorted(set(self.sizes))))
        object.__setattr__(self, "ratios", tuple(sorted(set(self.ratios))))

    @classmethod
    def parse(cls, text: str) -> Strategies:
        """Read `first`, `first,last:2,3`, `first:0.25`, `random:2,max=4,seed=1`.

        Raises:
            PlanError: if the text has another form.
        """
        word = Word.parse(text, cls.form, ("max", "seed"))
        top, seed = word.settings.get("max"), word.settings.get("seed", 0)
        return cls(word.names, word.whole, word.shares, top, seed)

    def __str__(self) -> str:
        numbers = (*self.sizes, *self.ratios)
        return Word.write(self.names, numbers, max=self.max_removed, seed=self.seed or None)

    def plans(self, n_blocks: int) -> Iterator[Plan]:
        """The plans, smaller sizes first.

        Raises:
            PlanError: if a size is impossible for the model, or none is left.
        """
        for size in self._sizes(n_blocks):
            for name in self.names:
                yield strategy_plan(name, n_blocks, size, self.seed)

    def bound(self, n_blocks: int) -> int:
        """One for each strategy and size, and one for the whole model.

        Raises:
            PlanError: if a size is impossible for the model, or none is left.
        """
        return 1 + len(self.names) * len(self._sizes(n_blocks))

    def _sizes(self, n_blocks: int) -> list[int]:
        asked = self.sizes or [count_for_ratio(ratio, n_blocks) for ratio in self.ratios]
        named = "ratios" if self.ratios else "sizes"
        return sizes_within(asked or range(1, n_blocks), self.max_removed, n_blocks, named)
