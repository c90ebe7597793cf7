"""Perplexity against the tokens that a pruned model learnt from: the table of docs/recovery.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pruning_kit.errors import NoGainError
from pruning_kit.intervals.windows import estimate
from pruning_kit.plans.distilled import Amount
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import BRIDGED, Variant
from pruning_kit.pruning.recovery import computation_of, has_own_weights
from pruning_kit.sweeps.workbench import Workbench
from pruning_kit.walk.measures import NLL


class Ratio(NamedTuple):
    """Of two perplexities on the same windows, with its 95 % interval; NaN where these are few."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, nats_N: np.ndarray, others_N: np.ndarray, targets_N: np.ndarray) -> Ratio:
        """exp of the mean difference per token of sums of NLL over windows."""
        found = estimate((nats_N - others_N)[None], targets_N)
        mean, half = float(found.value_C[0]), float(found.half_width_C[0])
        return cls(*np.exp([mean, mean - half, mean + half]).tolist())

    def __str__(self) -> str:
        return f"{self.value:7.4f} [{self.low:.4f}, {self.high:.4f}]"


def forms_of(plan: Plan, budgets: Sequence[Amount]) -> list[Variant]:
    """A plan as cut, bridged, and distilled on each number of tokens."""
    distilled = [Variant(plan, budget.recovery) for budget in budgets]
    return [Variant(plan), Variant(plan, BRIDGED), *distilled]


def is_had(bench: Workbench, variant: Variant) -> bool:
    """Whether there is such a variant; it is made now. Said where it would gain nothing."""
    try:
        computation_of(variant, bench.material)
    except NoGainError as error:
        print(f"{variant}: the kit {error}", flush=True)
        return False
    return True


def measure_budgets(
    bench: Workbench, plans: Sequence[Plan], budgets: Sequence[Amount]
) -> dict[str, dict[str, Any]]:
    """Perplexity of every form of the plans on every text, printed as soon as it is known."""
    found: dict[str, dict[str, Any]] = {}
    for variant in [Variant(), *(form for plan in plans for form in forms_of(plan, budgets))]:
        if not is_had(bench, variant):
            continue
        found[str(variant)] = _row(bench, variant)
        print(_line(variant, found[str(variant)]), flush=True)
    return found


def _row(bench: Workbench, variant: Variant) -> dict[str, Any]:
    texts = {}
    for role in bench.texts:
        measured = bench.measure([variant, Variant()], role)
        nats, whole = measured.sums[NLL.name]
        ratio = Ratio.of(nats, whole, measured.targets)
        texts[role] = {"ppl": measured.perplexities()[str(variant)], "ratio": ratio}
    details = dict(bench.shelf[variant].details) if has_own_weights(variant) else {}
    return {"texts": texts, "details": details}


def _line(variant: Variant, row: Mapping[str, Any]) -> str:
    shown = "".join(f"{text['ppl']:9.2f} {text['ratio']}" for text in row["texts"].values())
    seconds = row["details"].get("seconds")
    return f"{variant!s:28}{shown}" + ("" if seconds is None else f"{seconds:9.1f} s")
