"""Proposers of one round: plans that are known before anything is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Self

from pruning_kit.bounds import MOST_PLANS
from pruning_kit.errors import TooManyPlansError
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.search.proposer import Asking
from pruning_kit.search.text import unreadable


class OneRound(ABC):
    """Plans of whole blocks, all measured at once; among them always the whole model."""

    __slots__ = ()

    mode: ClassVar[str | None] = None
    recovered: tuple[Variant, ...] = ()
    """Asked for besides the plans as cut."""

    @property
    def seed(self) -> int:
        """What draws at random; 0 where nothing does."""
        return 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form of what is known by its mode alone.

        Raises:
            PlanError: if the text has more.
        """
        if text != cls.mode:
            raise unreadable(text, str(cls.mode))
        return cls()

    def __str__(self) -> str:
        """The text form, of which `search.parse` is the inverse."""
        return str(self.mode)

    @abstractmethod
    def plans(self, n_blocks: int) -> Iterable[Plan]:
        """The plans, in any order; the whole model may be missing.

        Raises:
            PlanError: if one does not fit the model.
        """

    @abstractmethod
    def bound(self, n_blocks: int) -> int:
        """See `Proposer.bound`; the whole model counts."""

    def check(self, n_blocks: int) -> None:
        """See `Proposer.check`."""
        count = self.bound(n_blocks)
        if count > MOST_PLANS:
            raise TooManyPlansError(n_blocks, None, MOST_PLANS)

    def most_removed(self, n_blocks: int) -> int:
        """See `Proposer.most_removed`."""
        return max((plan.size for plan in self.plans(n_blocks)), default=0)

    def propose(self, n_blocks: int) -> Asking:
        """See `Proposer.propose`: one round, sorted."""
        plans = dict.fromkeys([Plan(), *self.plans(n_blocks)])
        yield sorted([*map(Variant, plans), *self.recovered])
