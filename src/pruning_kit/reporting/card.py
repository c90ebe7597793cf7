"""Card: the figures of a run that a model card shows, with their intervals."""

from __future__ import annotations

from typing import Any

from pruning_kit.findings.analysis import analyse
from pruning_kit.findings.evidence import Interval
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
    if variant.recovery not in COSTS:
        return numbers
    row = analyse(run, COSTS[variant.recovery]).row[variant.plan]
    return numbers if row.failed else numbers | _with_intervals(row)


def _with_intervals(row: PlanRow) -> dict[str, str]:
    said = {
        "perplexity, 95 % interval": _bounds(row.ppl),
        "perplexity beside the whole model's": format_change(row.ppl_ratio),
        "KL to the whole model, nats per token": row.kl and format_nats(row.kl),
        "tokens most likely to both": row.agreement and format_share(row.agreement),
    }
    if row.latency is not None and row.latency.claimed:
        said["time of a generation beside the whole model's"] = format_change(row.latency.ratio)
    return {name: words for name, words in said.items() if words}


def _bounds(interval: Interval) -> str | None:
    if interval.low is None or interval.high is None:
        return None
    return f"{interval.low:,.5g} to {interval.high:,.5g}"
