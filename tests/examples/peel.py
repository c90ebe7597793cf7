"""A search of several rounds: remove the block that costs least, again and again; all are rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.search.proposer import Asking
from pruning_kit.search.text import Word


@dataclass(frozen=True, slots=True)
class Peel:
    """Each round measures what is left to remove besides the blocks chosen before: `peel:3`."""

    mode: ClassVar[str | None] = None
    seed: ClassVar[int] = 0
    form: ClassVar[str] = "peel:3"
    help: ClassVar[str] = "the block that costs least removed, three times over"

    n_removed: int

    @classmethod
    def parse(cls, text: str) -> Peel:
        """Read `peel:3`.

        Raises:
            PlanError: if the text has another form.
        """
        (n_removed,) = Word.parse(text, cls.form).whole_numbers(1)
        return cls(n_removed)

    def __str__(self) -> str:
        return Word.write(["peel"], [self.n_removed])

    def bound(self, n_blocks: int) -> int:
        """The whole model, and in each round one variant for each block that is left."""
        Plan(tuple(range(self.n_removed))).check(n_blocks)
        return 1 + sum(n_blocks - n_chosen for n_chosen in range(self.n_removed))

    def check(self, n_blocks: int) -> None:
        """Refuse to remove more blocks than there are."""
        self.bound(n_blocks)

    def most_removed(self, n_blocks: int) -> int:
        """As many as are asked for."""
        return self.n_removed

    def propose(self, n_blocks: int) -> Asking:
        """One round for each block to remove."""
        chosen = Plan()
        for _ in range(self.n_removed):
            further = [Variant(Plan((*chosen.removed, i))) for i in chosen.kept(n_blocks)]
            costs = yield further
            chosen = min(further, key=costs.__getitem__).plan
