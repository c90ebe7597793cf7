"""Rankings: the plans of the blocks that matter least by scores of one pass over a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pruning_kit.errors import PlanError
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import sizes_or_half
from pruning_kit.plans.variant import Variant
from pruning_kit.search.proposer import Asking, Scoring
from pruning_kit.search.text import Word, as_ranges, unreadable

RANKINGS: Mapping[str, str] = {
    "influence": "one minus the cosine between a block's input and output",
    "angular": "the angle between the stream before and after a run of neighbouring blocks",
    "magnitude": "the size of what a block adds beside that of its output",
    "taylor": "the sum of weight times gradient of the loss, without signs",
}
"""By name what each scores, in half a line. Low: the blocks do little."""

Scores = Sequence[Sequence[float]]
"""Of one ranking: the first row is of single blocks, the next of runs of two, and so on. A ranking
that scores blocks for themselves has one row."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The blocks that some rankings find least important, at each size; without sizes up to half.

    Of what scores runs of neighbours it is the best run, of others the set of the lowest scores.

    Raises:
        PlanError: if a ranking is unknown.
    """

    mode: ClassVar[str | None] = None
    form: ClassVar[str] = "influence:6, influence,taylor:4-10 or angular"
    help: ClassVar[str] = f"the least important by {', '.join(RANKINGS)}: of each size up to half"

    names: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    """Numbers of removed blocks; empty: each up to half of them."""

    def __post_init__(self) -> None:
        for name in self.names or [""]:
            if name not in RANKINGS:
                raise PlanError(
                    f"cannot rank blocks by {name!r}: the rankings are {', '.join(RANKINGS)}."
                )
        object.__setattr__(self, "names", tuple(n for n in RANKINGS if n in self.names))
        object.__setattr__(self, "sizes", tuple(sorted(set(self.sizes))))

    @classmethod
    def parse(cls, text: str) -> Ranked:
        """Read `influence:6`, `influence,taylor:4-10`, `angular`.

        Raises:
            PlanError: if the text has another form.
        """
        word = Word.parse(text, cls.form)
        if word.shares:
            raise unreadable(text, cls.form)
        return cls(word.names, word.whole)

    def __str__(self) -> str:
        return Word.write(self.names, [as_ranges(self.sizes)] if self.sizes else [])

    @property
    def seed(self) -> int:
        """Nothing is drawn."""
        return 0

    def bound(self, n_blocks: int) -> int:
        """One for each ranking and size, and one for the whole model.

        Raises:
            PlanError: if a size is impossible for the model.
        """
        return 1 + len(self.names) * len(self._sizes(n_blocks))

    def check(self, n_blocks: int) -> None:
        """See `Proposer.check`."""
        self._sizes(n_blocks)

    def most_removed(self, n_blocks: int) -> int:
        """The largest size."""
        return max(self._sizes(n_blocks))

    def _sizes(self, n_blocks: int) -> list[int]:
        return sizes_or_half(self.sizes, n_blocks)

    def propose(self, n_blocks: int) -> Asking:
        """The whole model, the scores, and all plans in one round."""
        yield [Variant()]
        costs = yield Scoring(self.names)
        plans = {
            least_important(costs.scores[name], size)
            for name in self.names
            for size in self._sizes(n_blocks)
        }
        yield sorted(map(Variant, plans))


def least_important(scores: Scores, size: int) -> Plan:
    """The plan that a ranking proposes for a size, ties going to the earlier blocks."""
    if len(scores) == 1:
        return Plan(tuple(order_of(scores)[:size]))
    row = scores[size - 1]
    first = min(range(len(row)), key=row.__getitem__)
    return Plan(tuple(range(first, first + size)))


def order_of(scores: Scores) -> list[int]:
    """The blocks by their scores for themselves, the least important first."""
    return sorted(range(len(scores[0])), key=scores[0].__getitem__)
