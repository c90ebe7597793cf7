"""Recovered: what each form of a plan costs, from the one as cut to those with own weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pruning_kit.findings.evidence import Interval, exp
from pruning_kit.intervals.windows import MIN_WINDOWS, estimate
from pruning_kit.plans.variant import BRIDGED, Variant
from pruning_kit.runs.facts import NLL, Role

if TYPE_CHECKING:
    from pruning_kit.runs.results import Run


@dataclass(frozen=True)
class RecoveredRow:
    """One form of a plan on the reported text; NaN where a forward failed."""

    variant: Variant
    ppl: Interval
    ratio: Interval
    """Of its perplexity to the whole model's, paired."""
    step: Interval | None
    """The same to that of the form it is made from, as cut or bridged; None for as cut."""
    kl: Interval | None
    """Divergence from the whole model, nats per token; None where it was not measured."""
    further: Mapping[Role, Interval]
    """`step` on each further text that both forms were measured on."""

    @property
    def has_own_weights(self) -> bool:
        """Whether it is neither as cut nor bridged."""
        return self.variant.recovery not in (None, BRIDGED)


def recovered_rows(run: Run) -> tuple[RecoveredRow, ...]:
    """Every form of the plans that have one with own weights, the plans in their order."""
    own = {v.plan for v in run.variants if v.recovery not in (None, BRIDGED)}
    shown = [variant for variant in run.variants if variant.plan in own]
    return tuple(_row(run, variant) for variant in sorted(shown, key=_order))


def _order(variant: Variant) -> tuple[object, ...]:
    """As cut, bridged, others."""
    recovery = variant.recovery
    return variant.plan, recovery is not None, recovery != BRIDGED, str(recovery)


def _row(run: Run, variant: Variant) -> RecoveredRow:
    start = _start(run, variant)
    ppl = _mean(run, NLL, variant)
    assert ppl is not None, "every round takes it"
    return RecoveredRow(
        variant,
        ppl.map(exp),
        change_between(run, variant, Variant()),
        None if start is None else change_between(run, variant, start),
        _mean(run, "kl", variant),
        {} if start is None else _further(run, variant, start),
    )


def _further(run: Run, variant: Variant, start: Variant) -> dict[Role, Interval]:
    found = {role: _mean(run, NLL, variant, start, role) for role in run.facts.further_roles}
    return {
        role: step.map(exp)
        for role, step in found.items()
        if step is not None and math.isfinite(step.value)
    }


def _start(run: Run, variant: Variant) -> Variant | None:
    """The form that a variant is made from: the bridged one where there is one."""
    if variant.recovery is None:
        return None
    bridged = Variant(variant.plan, BRIDGED)
    is_bridge = variant.recovery == BRIDGED
    return bridged if bridged in run.variants and not is_bridge else Variant(variant.plan)


def change_between(run: Run, variant: Variant, other: Variant) -> Interval:
    """The ratio of two variants' perplexities on the reported text, paired."""
    found = _mean(run, NLL, variant, other)
    assert found is not None, "every round takes it"
    return found.map(exp)


def _mean(
    run: Run,
    measure: str,
    variant: Variant,
    other: Variant | None = None,
    role: Role = "reported",
) -> Interval | None:
    """A measure per token, or how much more it is than another variant's; None if unmeasured."""
    sums = run.sums_of([variant, *([] if other is None else [other])], measure, role)
    if sums is None:
        return None
    series_1N = sums[:1] if other is None else sums[:1] - sums[1:]
    if not np.isfinite(series_1N).all():
        return Interval(math.nan)
    found = estimate(series_1N, run.targets(role))
    value, half = float(found.value_C[0]), float(found.half_width_C[0])
    if series_1N.shape[1] < MIN_WINDOWS:
        return Interval(value)
    return Interval(value, value - half, value + half)
