"""Rankings of blocks by one pass, beside what the single blocks cost when they were measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pruning_kit.plans.costs import Cost
from pruning_kit.runs.facts import NLL
from pruning_kit.search.ranked import order_of

if TYPE_CHECKING:
    from pruning_kit.runs.results import Run

FEWEST_BLOCKS = 3
"""That a correlation is taken over."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One ranking beside the measured costs, on the text that plans are chosen on."""

    name: str
    order: tuple[int, ...]
    """All blocks, the least important first."""
    as_cut: float | None
    """Spearman's rank correlation with what blocks cost alone, of those that were measured so;
    None where they are too few, or all alike."""
    bridged: float | None
    """The same with bridged costs, as cut where a block has none; None too without bridges."""
    n_blocks: int
    """That it is taken over."""


def compared(run: Run) -> tuple[Compared, ...]:
    """The rankings that a run holds; none where none was asked for."""
    cut, bridged = (_costs_of_singles(run, cost) for cost in (Cost.as_cut, Cost.bridged))
    return tuple(
        Compared(
            name,
            tuple(order_of(facts.scores)),
            _correlation(facts.scores[0], cut),
            _correlation(facts.scores[0], bridged) if bridged != cut else None,
            len(cut),
        )
        for name, facts in run.rankings.items()
    )


def _costs_of_singles(run: Run, cost: Cost) -> dict[int, float]:
    """Nats without each block that was removed alone; infinite where a forward failed."""
    singles = [variant for variant in run.judged_by(cost) if variant.plan.size == 1]
    nats_PW = run.sums_of(singles, NLL, run.facts.choosing_role)
    assert nats_PW is not None, "every round takes it"
    totals = np.nan_to_num(nats_PW.sum(axis=1), nan=np.inf).tolist()
    return {variant.plan.removed[0]: nats for variant, nats in zip(singles, totals, strict=True)}


def _correlation(scores: Sequence[float], costs: dict[int, float]) -> float | None:
    ranks = _ranks([scores[block] for block in costs]), _ranks(list(costs.values()))
    if len(costs) < FEWEST_BLOCKS or not all(np.ptp(some) for some in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Places in ascending order, equal values sharing the mean of theirs."""
    found = np.asarray(values)
    below = (found[:, None] > found).sum(axis=1)
    alike = (found[:, None] == found).sum(axis=1)
    return np.asarray(below + (alike - 1) / 2)
