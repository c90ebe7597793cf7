"""Sampled orders of the blocks, from whose plans Shapley values are estimated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pruning_kit.bounds import MOST_PERMUTATIONS
from pruning_kit.errors import PlanError
from pruning_kit.plans.permutations import count_shapley_plans, permutations_within, shapley_plans
from pruning_kit.plans.plan import Plan
from pruning_kit.search.one_round import OneRound
from pruning_kit.search.text import Word
from pruning_kit.search.together import MAX_PLANS

MIN_PERMUTATIONS = 4  # two pairs show an error
PERMUTATIONS_PER_BLOCK = 16
MAX_SWEPT_BLOCKS = 8  # up to 256 plans: all of them cost less than sampled orders


@dataclass(frozen=True, slots=True)
class ShapleyOrders(OneRound):
    """The plans met when blocks are added in sampled orders, each followed by its reverse.

    Raises:
        PlanError: if there is no order, or are more than are used.
    """

    form: ClassVar[str] = "shapley:160"
    help: ClassVar[str] = "the sets met in 160 sampled orders of the blocks, for Shapley values"

    n_orders: int
    seed: int = 0
    """What the orders are drawn from; Shapley values are estimated from those of seed 0."""

    def __post_init__(self) -> None:
        if not 1 <= self.n_orders <= MOST_PERMUTATIONS:
            raise PlanError(
                f"cannot sample {self.n_orders} orders of the blocks: give a number from 1 to "
                f"{MOST_PERMUTATIONS:,}."
            )

    @classmethod
    def parse(cls, text: str) -> ShapleyOrders:
        """Read `shapley:160` or `shapley:160,seed=3`.

        Raises:
            PlanError: if the text has another form.
        """
        word = Word.parse(text, cls.form, ("seed",))
        (n_orders,) = word.whole_numbers(1)
        return cls(n_orders, word.settings.get("seed", 0))

    def __str__(self) -> str:
        return Word.write(["shapley"], [self.n_orders], seed=self.seed or None)

    def plans(self, n_blocks: int) -> list[Plan]:
        """The plans, sorted; the one that removes every block is among them."""
        return shapley_plans(n_blocks, self.n_orders, self.seed)

    def bound(self, n_blocks: int) -> int:
        """As many as there are where no two orders meet."""
        return count_shapley_plans(n_blocks, self.n_orders)


def permutations_to_sample(n_blocks: int) -> int | None:
    """Orders to measure for Shapley values, within the usual limit on plans; None: all sets.

    Of few blocks all sets are measured; otherwise 16 orders for each block if so many are allowed.
    """
    if n_blocks <= MAX_SWEPT_BLOCKS:
        return None
    allowed = permutations_within(n_blocks, MAX_PLANS)
    wanted = min(PERMUTATIONS_PER_BLOCK * n_blocks, MOST_PERMUTATIONS, allowed)
    return max(MIN_PERMUTATIONS, wanted)
