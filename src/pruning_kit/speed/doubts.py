"""Doubts: what makes a timing run doubtful, each kind with its numbers. No torch.

Shapes: R rounds, E entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import inf, log, log1p

import numpy as np

from pruning_kit.intervals import MIN_ROUNDS
from pruning_kit.intervals.repeats import Estimate, Floats
from pruning_kit.plans.plan import Plan
from pruning_kit.speed.depths import NULL_PAIR, DepthTest
from pruning_kit.speed.timings import BUDGET_ENDED, END_TO_END, MOST_BUDGETS, QUANTITIES, Timings

# Thresholds below which a disturbance hardly moves a ratio that is paired within rounds.
DRIFT = 0.05
SLOW_START = 1.25
OUTLIER_DEVIATIONS = 5.0
OUTLIER_SHARE = 0.05
OTHERS_CORES = 0.25
STEAL_SHARE = 0.01
CLOCK_CHANGE = 0.10
MAD_TO_DEVIATION = 1.4826  # of a normal distribution


class Doubt:
    """A reason to distrust timings, of any kind."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class TooFewRounds(Doubt):
    """The budget ended before there were rounds enough for an interval."""

    needed_s: float
    """What so many rounds would take, at least what the budget was allowed to become."""


@dataclass(frozen=True, slots=True)
class OpenConclusion(Doubt):
    """Which of two models is faster end to end was asked for and is not known."""

    plan: Plan
    other: Plan
    ratio: Estimate
    n_more: int
    """Further pairs that are open."""
    needed_s: float
    """What would settle the ratio, were it as it seems; infinite where nothing would."""


@dataclass(frozen=True, slots=True)
class UnequalWhole(Doubt):
    """The whole model timed twice differs from itself by more than the precision asked for."""

    quantity: str
    ratio: Estimate


@dataclass(frozen=True, slots=True)
class UnequalEquals(Doubt):
    """Plans that do the same work take different times."""

    quantity: str
    test: DepthTest


@dataclass(frozen=True, slots=True)
class Drift(Doubt):
    """The whole model became slower, or faster, from the first round to the last."""

    change: float
    """As a share of the time."""


@dataclass(frozen=True, slots=True)
class SlowStart(Doubt):
    """The first round was slower than the median of the others."""

    ratio: float


@dataclass(frozen=True, slots=True)
class Outliers(Doubt):
    """Samples far above the median of their model."""

    quantity: str
    n_outliers: int
    n_samples: int
    slowest: float
    """The largest sample over its median."""
    share_of_one: float
    """The share of one model's samples that are so slow, of the model with the most."""


@dataclass(frozen=True, slots=True)
class OtherPrograms(Doubt):
    """Other programs used the processor during the run."""

    cores: float
    load_before: float
    load_after: float


@dataclass(frozen=True, slots=True)
class Steal(Doubt):
    """The host gave the processor to others."""

    share: float


@dataclass(frozen=True, slots=True)
class ClockMoved(Doubt):
    """A clock did not keep its frequency; all in MHz."""

    reading: str
    """`cpu_mhz` or `gpu_mhz`."""
    low: float
    high: float
    step: float
    """The largest change from one round to the next."""


@dataclass(frozen=True, slots=True)
class GpuSlowed(Doubt):
    """The GPU held its clock down."""

    n_rounds: int


def doubts(timings: Timings) -> list[Doubt]:
    """What a person would act on: an open conclusion, unequal equals, a disturbed machine."""
    found: list[Doubt] = []
    if len(timings.rounds) < MIN_ROUNDS:
        found.append(_too_few_rounds(timings))
    else:
        found += [*_open_conclusion(timings), *_unequal(timings), *_drift(timings)]
        found += _outliers(timings)
    return [*found, *_slow_start(timings), *_load(timings), *_clocks(timings), *_slowed(timings)]


def _too_few_rounds(timings: Timings) -> TooFewRounds:
    all_s = timings.elapsed_s * MIN_ROUNDS / len(timings.rounds)
    return TooFewRounds(max(all_s, MOST_BUDGETS * timings.protocol["budget_s"]))


def _open_conclusion(timings: Timings) -> Iterator[OpenConclusion]:
    """Which of two depths is faster, or whether a plan is faster than the whole model.

    Conclusions rest on end-to-end time. Once that is known to the target, a smaller difference is
    one that was not asked for.
    """
    if timings.stopped_because != BUDGET_ENDED or END_TO_END not in timings.unknown:
        return
    unclear = _unclear_pairs(timings)
    if unclear:
        (plan, other), ratio = unclear[0]
        needed_s = timings.elapsed_s * _times_needed(ratio)
        yield OpenConclusion(plan, other, ratio, len(unclear) - 1, needed_s)


def _unclear_pairs(timings: Timings) -> list[tuple[tuple[Plan, Plan], Estimate]]:
    """Depths not told from the one above them, and plans not told from the whole model."""
    steps = {pair: ratio for pair, ratio in timings.steps.items() if ratio.covers(1.0)}
    summaries = [timings.summary(pool[0]) for pool in timings.pools[1:]]
    unclaimed = {
        (summary.plan, Plan()): summary.end_to_end_s.ratio
        for summary in summaries
        if not summary.claimed[END_TO_END]
    }
    return list({**steps, **unclaimed}.items())


def _times_needed(ratio: Estimate) -> float:
    """How many times the rounds would make an interval exclude 1, were the ratio as it seems.

    Widths fall with the square root of the number of rounds.
    """
    if not 0 < ratio.low <= ratio.high < inf or ratio.value == 1:
        return inf
    return float((log(ratio.high / ratio.low) / 2 / log(ratio.value)) ** 2)


def _unequal(timings: Timings) -> Iterator[UnequalWhole | UnequalEquals]:
    for quantity, null in timings.null_test.items():
        if not null.passed and null.resolution > timings.protocol["target"]:
            yield UnequalWhole(quantity, null.ratio)
    for quantity, test in timings.depth_test.items():
        if test.differ:
            yield UnequalEquals(quantity, test)


def whole_model_s(timings: Timings) -> Floats:
    """The whole model's end-to-end time in each round: geometric mean of the null test's pair."""
    pair_R2 = timings.seconds(END_TO_END)[:, NULL_PAIR]
    return np.exp(np.log(pair_R2).mean(axis=1))


def _drift(timings: Timings) -> Iterator[Drift]:
    seconds_R = whole_model_s(timings)
    rounds_R = np.arange(len(seconds_R))
    if np.ptp(seconds_R) == 0:
        return
    from scipy import stats  # a second, which a run without timings need not wait for

    trend = stats.kendalltau(rounds_R, seconds_R)
    slope = stats.theilslopes(np.log(seconds_R), rounds_R).slope
    change = float(np.expm1(slope * rounds_R[-1]))
    if trend.pvalue < 0.01 and abs(change) > DRIFT:
        yield Drift(change)


def _outliers(timings: Timings) -> Iterator[Outliers]:
    for quantity in QUANTITIES:
        log_RE = np.log(timings.seconds(quantity))
        residual_RE = log_RE - np.median(log_RE, axis=0)
        deviation = MAD_TO_DEVIATION * float(np.median(np.abs(residual_RE)))
        least = max(OUTLIER_DEVIATIONS * deviation, log1p(timings.protocol["target"]))
        outliers = residual_RE > least
        if deviation and outliers.mean() > OUTLIER_SHARE:
            yield Outliers(
                quantity,
                int(outliers.sum()),
                outliers.size,
                float(np.exp(residual_RE.max())),
                float(outliers.mean(axis=0).max()),
            )


def _slow_start(timings: Timings) -> Iterator[SlowStart]:
    seconds_RE = timings.seconds(END_TO_END)
    if len(seconds_RE) < 3:
        return
    ratio = float(np.median(seconds_RE[0] / np.median(seconds_RE[1:], axis=0)))
    if ratio > SLOW_START:
        yield SlowStart(ratio)


def _load(timings: Timings) -> Iterator[OtherPrograms | Steal]:
    start, end = timings.start, timings.rounds[-1].reading
    wall_s = end["time_s"] - start["time_s"]
    if wall_s <= 0:
        return
    busy_s, own_s, steal_s = (
        end[key] - start[key] for key in ("cpu_busy_s", "cpu_own_s", "cpu_steal_s")
    )
    others = (busy_s - own_s) / wall_s
    if others > OTHERS_CORES:
        yield OtherPrograms(others, start["load_average"], end["load_average"])
    steal = steal_s / wall_s / timings.machine["cores"]
    if steal > STEAL_SHARE:
        yield Steal(steal)


def _clocks(timings: Timings) -> Iterator[ClockMoved]:
    for key in ("cpu_mhz", "gpu_mhz"):
        clocks = [turn.reading[key] for turn in timings.rounds if key in turn.reading]
        steps = [abs(late - early) for early, late in pairwise(clocks)]
        if steps and max(clocks) - min(clocks) > CLOCK_CHANGE * max(clocks):
            yield ClockMoved(key, min(clocks), max(clocks), max(steps))


def _slowed(timings: Timings) -> Iterator[GpuSlowed]:
    n_rounds = sum(turn.reading.get("gpu_slowed", 0.0) > 0 for turn in timings.rounds)
    if n_rounds:
        yield GpuSlowed(n_rounds)
