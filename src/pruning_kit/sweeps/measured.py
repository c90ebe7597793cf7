"""What was measured: sums of each variant over each window, as plain arrays.

Shapes: V variants, W windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pruning_kit.plans.variant import Variant
from pruning_kit.walk.measures import NLL
from pruning_kit.walk.sums import Sums

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Sums of some variants over neighbouring windows of a text."""

    variants: tuple[Variant, ...]
    sums: Mapping[str, np.ndarray]
    """By the name of a measure: float64 (V, W)."""
    targets: np.ndarray
    """Scored tokens of each window, int64 (W,)."""
    facts: dict[str, str]
    """How it was computed."""

    @classmethod
    def of(
        cls, variants: Sequence[Variant], sums: Sums, targets_BS: Tensor, facts: dict[str, str]
    ) -> Measured:
        """What a walk gave for windows of one shape."""
        n_windows, n_scored = targets_BS.shape
        arrays = {name: found.numpy() for name, found in sums.items()}
        return cls(tuple(variants), arrays, np.full(n_windows, n_scored), facts)

    @classmethod
    def of_all(cls, pieces: Sequence[Measured], variants: Sequence[Variant]) -> Measured:
        """Variants that were measured apart on the same windows, in the order asked for."""
        first = pieces[0]
        place = {v: i for i, v in enumerate(v for piece in pieces for v in piece.variants)}
        rows = [place[variant] for variant in variants]
        sums = {
            name: np.concatenate([piece.sums[name] for piece in pieces])[rows]
            for name in first.sums
        }
        return cls(tuple(variants), sums, first.targets, first.facts)

    @classmethod
    def joined(cls, pieces: Sequence[Measured]) -> Measured:
        """Neighbouring windows put together; the facts are those of the first."""
        sums = {
            name: np.concatenate([piece.sums[name] for piece in pieces], axis=1)
            for name in pieces[0].sums
        }
        targets = np.concatenate([piece.targets for piece in pieces])
        return cls(pieces[0].variants, sums, targets, pieces[0].facts)

    @property
    def is_finite(self) -> bool:
        """Whether no forward overflowed."""
        return all(bool(np.isfinite(sums).all()) for sums in self.sums.values())

    def means(self, measure: str = NLL.name) -> dict[Variant, float]:
        """Each variant's sum over all windows, divided by the scored tokens."""
        totals = self.sums[measure].sum(axis=1) / self.targets.sum()
        return dict(zip(self.variants, totals.tolist(), strict=True))

    def perplexities(self) -> dict[str, float]:
        """exp(all nats / all scored tokens) of each variant, by its text form."""
        with np.errstate(over="ignore"):
            return {str(v): float(np.exp(mean)) for v, mean in self.means().items()}
