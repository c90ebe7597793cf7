"""Throughput against latency: what larger batches give, from a run with further batch sizes.

No torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from pruning_kit.intervals.repeats import Estimate
from pruning_kit.plans.plan import Plan
from pruning_kit.speed.timings import Timings


@dataclass(frozen=True, slots=True)
class BatchPoint:
    """One plan at one batch size; `ratio` is its decode latency over the whole model's there."""

    batch_size: int
    plan: Plan
    prefill_s: float
    decode_s_per_step: float
    decode_tokens_per_s: float
    ratio: Estimate


def batch_points(timings: Timings) -> list[BatchPoint]:
    """The whole model and the plan timed with it, at every batch size; empty without a sweep."""
    if not timings.batches:
        return []
    plans = timings.batches[0].plans
    by_size = {run.protocol["batch_size"]: run for run in (*timings.batches, timings)}
    return [_point(by_size[size], plan) for plan in plans for size in sorted(by_size)]


def _point(run: Timings, plan: Plan) -> BatchPoint:
    timing = run.summary(plan)
    return BatchPoint(
        run.protocol["batch_size"],
        plan,
        timing.prefill_s.median_s,
        timing.decode_s_per_token.median_s,
        timing.decode_tokens_per_s,
        timing.decode_s_per_token.ratio,
    )
