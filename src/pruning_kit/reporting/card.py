"""Card: the figures of a run that a model card shows, with their intervals."""

from __future__ import annotations

import math
from typing import Any

from pruning_kit.findings.analysis import analyse
from pruning_kit.findings.evidence import Interval
from pruning_kit.findings.recovered import RecoveredRow, recovered_rows
from pruning_kit.findings.sizes import PlanRow
from pruning_kit.plans.costs import Cost
from pruning_kit.plans.variant import BRIDGED, Variant
from pruning_kit.reporting.words.numbers import format_change, format_nats, format_share
from pruning_kit.runs.results import Run, measured_numbers

COSTS = {None: Cost.as_cut, BRIDGED: Cost.bridged}
"""By which a variant's plan is judged in its own form."""


def card_numbers(run: Run, variant: Variant, weights_sha256: str) -> dict[str, Any]:
    """What a run says of a variant, by the names that a model card shows.

    Raises:
        RunError: if the run is of another model or did not measure the variant.
    """
    numbers = measured_numbers(run, variant, weights_sha256)
    if variant.recovery in COSTS:
        row = analyse(run, COSTS[variant.recovery]).row[variant.plan]
        said = {} if row.failed else _of_plan(row)
    else:
        said = _of_recovered(next(row for row in recovered_rows(run) if row.variant == variant))
    return numbers | {name: words for name, words in said.items() if words}


def _of_plan(row: PlanRow) -> dict[str, str | None]:
    said = {
        **_of_perplexity(row.ppl, row.ppl_ratio, row.kl),
        "tokens most likely to both": format_share(row.agreement) if row.agreement else None,
    }
    if row.latency is not None and row.latency.claimed:
        said["time of a generation beside the whole model's"] = format_change(row.latency.ratio)
    return said


def _of_recovered(row: RecoveredRow) -> dict[str, str | None]:
    if not math.isfinite(row.ppl.value):
        return {}
    said = _of_perplexity(row.ppl, row.ratio, row.kl)
    if row.step is not None:
        said["perplexity beside what it was made from"] = format_change(row.step)
    return said


def _of_perplexity(ppl: Interval, ratio: Interval, kl: Interval | None) -> dict[str, str | None]:
    return {
        "perplexity, 95 % interval": _bounds(ppl),
        "perplexity beside the whole model's": format_change(ratio),
        "KL to the whole model, nats per token": format_nats(kl) if kl else None,
    }


def _bounds(interval: Interval) -> str | None:
    if interval.low is None or interval.high is None:
        return None
    return f"{interval.low:,.5g} to {interval.high:,.5g}"
