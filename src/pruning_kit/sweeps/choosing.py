"""Choosing: which plan of a stored run is recovered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pruning_kit.errors import PlanError
from pruning_kit.plans.costs import Cost
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.runs.facts import NLL
from pruning_kit.runs.results import Run


def best_of(run: Run, size: int) -> Plan:
    """The plan of a size that costs least, bridged where there is such a row.

    Raises:
        PlanError: if the run has none of that size.
    """
    variants = [v for v in run.judged_by(Cost.bridged) if v.plan.size == size]
    if not variants:
        raise PlanError(
            f"cannot choose a plan of {size} blocks from {run.folder}: it measured none. Give "
            "`size` another number, or name the blocks."
        )
    return cheapest(run, variants).plan


def cheapest(run: Run, variants: Sequence[Variant]) -> Variant:
    """The one of some variants of a run that costs least on the text that plans are chosen on."""
    nll = run.sums_of(variants, NLL, run.facts.choosing_role)
    assert nll is not None, "every round takes it"
    return variants[int(np.nanargmin(nll.sum(axis=1)))]
