"""What makes a timing run doubtful, each with what was tried already and what to try."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import ceil, inf, log, log1p

import numpy as np

from pruning_kit.intervals import MIN_ROUNDS
from pruning_kit.intervals.repeats import TRIM, Estimate, Floats
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.words.speed import NAMES, interval, percent, pool_name, threads_used
from pruning_kit.speed.depths import NULL_PAIR
from pruning_kit.speed.timings import BUDGET_ENDED, END_TO_END, MOST_BUDGETS, QUANTITIES, Timings

# Thresholds below which a disturbance hardly moves a ratio that is paired within rounds.
DRIFT = 0.05
SLOW_START = 1.25
OUTLIER_DEVIATIONS = 5.0
OUTLIER_SHARE = 0.05
OTHERS_CORES = 0.25
STEAL_SHARE = 0.01
CLOCK_CHANGE = 0.10
MOST_ADVISED_S = 120.0
MAD_TO_DEVIATION = 1.4826  # of a normal distribution


def warnings(timings: Timings) -> list[str]:
    """What a person would act on: an open conclusion, unequal equals, a disturbed machine."""
    if len(timings.rounds) < MIN_ROUNDS:
        sentences = [_too_few_rounds(timings)]
    else:
        sentences = [*_open_conclusions(timings), *_null_warnings(timings)]
        sentences += [*_depth_warnings(timings), *_drift_warnings(timings)]
        sentences += _outlier_warnings(timings)
    return [
        *sentences,
        *_start_warnings(timings),
        *_load_warnings(timings),
        *_gpu_warnings(timings),
    ]


def _too_few_rounds(timings: Timings) -> str:
    budget_s, n_rounds = timings.protocol["budget_s"], len(timings.rounds)
    needed_s = max(timings.elapsed_s * MIN_ROUNDS / n_rounds, MOST_BUDGETS * budget_s)
    return (
        f"the budget of {budget_s:g} s ended after {n_rounds} round{'s' * (n_rounds > 1)}, and "
        f"{MIN_ROUNDS} would not have fitted into {MOST_BUDGETS} times that: no interval can be "
        f"given. Try {_fewer_threads(timings)}a quieter machine, or --latency-budget "
        f"{ceil(1.2 * needed_s / MOST_BUDGETS)}, which may take {1.2 * needed_s:.0f} s."
    )


def _open_conclusions(timings: Timings) -> Iterator[str]:
    """Which of two depths is faster, or whether a plan is faster than the whole model.

    Conclusions rest on end-to-end time. Once that is known to the target, a smaller difference is
    one that was not asked for.
    """
    if timings.stopped_because != BUDGET_ENDED or END_TO_END not in timings.unknown:
        return
    unclear = _unclear_pairs(timings)
    if not unclear:
        return
    (plan, other), ratio = unclear[0]
    more = f" So are {len(unclear) - 1} more pairs." if len(unclear) > 1 else ""
    yield (
        f"{len(timings.rounds)} rounds in {timings.elapsed_s:.0f} s (budget "
        f"{timings.protocol['budget_s']:g} s) leave open which is faster end to end, "
        f"{pool_name(timings, plan)} or {pool_name(timings, other)}: a ratio of "
        f"{interval(ratio)}.{more} {_remedy(timings, ratio)}"
    )


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


def _remedy(timings: Timings, ratio: Estimate) -> str:
    """What would settle a ratio: fewer threads, more rounds within reason, a quieter machine.

    Widths fall with the square root of the number of rounds.
    """
    if fewer := _fewer_threads(timings):
        return f"Try {fewer}or a quieter machine."
    needed_s = timings.elapsed_s * _times_needed(ratio)
    if needed_s <= MOST_ADVISED_S:
        return f"Try --latency-budget {ceil(max(needed_s, 1.5 * timings.protocol['budget_s']))}."
    return "Try a quieter machine: more rounds would not settle it within reason here."


def _times_needed(ratio: Estimate) -> float:
    """How many times the rounds would make an interval exclude 1, were the ratio as it seems."""
    if not 0 < ratio.low <= ratio.high < inf or ratio.value == 1:
        return inf
    return float((log(ratio.high / ratio.low) / 2 / log(ratio.value)) ** 2)


def _fewer_threads(timings: Timings) -> str:
    """Advice to use fewer threads, where that was not tried: for a list, else empty."""
    used = timings.machine["threads"]
    if timings.machine["device"] != "cpu" or used == 1:
        return ""
    if timings.protocol["threads_asked"] is not None:
        return "without --threads, so that trials choose their number, "
    fewer_tried = any(trial.threads < used for trial in timings.trials)
    return "" if fewer_tried else f"--threads {used // 2}, "


def _null_warnings(timings: Timings) -> Iterator[str]:
    """A failed null test, unless what it differs by is less than the precision asked for."""
    for quantity, test in timings.null_test.items():
        if not test.passed and test.resolution > timings.protocol["target"]:
            n_rounds = len(timings.seconds(quantity))
            yield (
                f"the whole model timed twice differs from itself in {NAMES[quantity]}: "
                f"{interval(test.ratio)}, although {n_rounds} rounds were interleaved in random "
                "order. By chance each of the three quantities does so once in twenty runs; "
                f"otherwise the machine is too noisy. Try {_fewer_threads(timings)}again with "
                "other programs closed, or a larger --latency-budget."
            )


def _depth_warnings(timings: Timings) -> Iterator[str]:
    for quantity, test in timings.depth_test.items():
        if test.differ:
            yield (
                f"plans that do the same work differ in {NAMES[quantity]}: {test.plan.short} is at "
                f"{interval(test.deviation)} of the mean of its equals (p = {test.p_value:.3f}). "
                "Try --per-plan."
            )


def whole_model_s(timings: Timings) -> Floats:
    """The whole model's end-to-end time in each round: geometric mean of the null test's pair."""
    pair_R2 = timings.seconds(END_TO_END)[:, NULL_PAIR]
    return np.exp(np.log(pair_R2).mean(axis=1))


def _drift_warnings(timings: Timings) -> Iterator[str]:
    seconds_R = whole_model_s(timings)
    rounds_R = np.arange(len(seconds_R))
    if np.ptp(seconds_R) == 0:
        return
    from scipy import stats  # a second, which a run without timings need not wait for

    trend = stats.kendalltau(rounds_R, seconds_R)
    slope = stats.theilslopes(np.log(seconds_R), rounds_R).slope
    change = float(np.expm1(slope * rounds_R[-1]))
    if trend.pvalue < 0.01 and abs(change) > DRIFT:
        yield (
            f"the whole model took {percent(abs(change), 0)} {'more' if change > 0 else 'less'} "
            f"time at the end of the run than at its start (end to end, {len(seconds_R)} rounds). "
            "Ratios are paired within rounds and stand; milliseconds are a mixture. Try again when "
            "the load is steady."
        )


def _start_warnings(timings: Timings) -> Iterator[str]:
    seconds_RE = timings.seconds(END_TO_END)
    if len(seconds_RE) < 3:
        return
    ratio = float(np.median(seconds_RE[0] / np.median(seconds_RE[1:], axis=0)))
    if ratio > SLOW_START:
        count = timings.protocol["warmup_rounds"]
        yield (
            f"the first round was {ratio:.1f}× slower than the median of the others although "
            f"{count} warm-up round{'s were' if count > 1 else ' was'} made. Trimming keeps it out "
            "of the ratios. Try more warm-up rounds."
        )


def _outlier_warnings(timings: Timings) -> Iterator[str]:
    for quantity in QUANTITIES:
        log_RE = np.log(timings.seconds(quantity))
        residual_RE = log_RE - np.median(log_RE, axis=0)
        deviation = MAD_TO_DEVIATION * float(np.median(np.abs(residual_RE)))
        least = max(OUTLIER_DEVIATIONS * deviation, log1p(timings.protocol["target"]))
        outliers = residual_RE > least
        if deviation and outliers.mean() > OUTLIER_SHARE:
            yield (
                f"{int(outliers.sum())} of {outliers.size} samples ({NAMES[quantity]}) lie more "
                f"than {OUTLIER_DEVIATIONS:g} deviations (by median absolute deviation) above "
                f"their median, up to {np.exp(residual_RE.max()):.1f}×. Ratios leave out the "
                f"slowest and the fastest {percent(TRIM, 0)} of the rounds; of one model's samples "
                f"up to {percent(outliers.mean(axis=0).max(), 0)} are so slow. Try closing other "
                "programs."
            )


def _load_warnings(timings: Timings) -> Iterator[str]:
    start, end = timings.start, timings.rounds[-1].reading
    wall_s = end["time_s"] - start["time_s"]
    cores = timings.machine["cores"]
    if wall_s <= 0:
        return
    busy_s, own_s, steal_s = (
        end[key] - start[key] for key in ("cpu_busy_s", "cpu_own_s", "cpu_steal_s")
    )
    others = (busy_s - own_s) / wall_s
    if others > OTHERS_CORES:
        yield (
            f"other programs used {others:.1f} of {cores} cores during the run (load average "
            f"{start['load_average']:.1f} before it, {end['load_average']:.1f} after), beside "
            f"{threads_used(timings.machine)} here. Rounds were interleaved against this. Try "
            f"{_fewer_threads(timings)}a quiet machine."
        )
    steal = steal_s / wall_s / cores
    if steal > STEAL_SHARE:
        yield (
            f"the host took {percent(steal)} of the processor time away (steal). "
            "Rounds were interleaved against this. Try another time or machine."
        )
    yield from _clock_warnings(timings, "cpu_mhz", "processor")


def _gpu_warnings(timings: Timings) -> Iterator[str]:
    yield from _clock_warnings(timings, "gpu_mhz", "GPU")
    slowed = [turn.reading.get("gpu_slowed", 0.0) for turn in timings.rounds]
    if any(slowed):
        yield (
            f"the GPU held its clock down after {int(sum(slowed))} of {len(slowed)} rounds (heat, "
            "power or a setting). Rounds were interleaved against this. Try a cooler GPU."
        )


def _clock_warnings(timings: Timings, key: str, name: str) -> Iterator[str]:
    clocks = [turn.reading[key] for turn in timings.rounds if key in turn.reading]
    changes = [abs(late - early) for early, late in pairwise(clocks)]
    if changes and max(clocks) - min(clocks) > CLOCK_CHANGE * max(clocks):
        yield (
            f"the {name}'s clock moved between {min(clocks):.0f} and {max(clocks):.0f} MHz during "
            f"the run, by up to {max(changes):.0f} MHz from one round to the next. Rounds were "
            "interleaved against this. Try a fixed frequency where you may set one."
        )
