"""What a timing run says about itself, in sentences: findings, and warnings with what to try."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
from scipy import stats

from pruning_kit.plan import Plan
from pruning_kit.speed import throughput
from pruning_kit.speed.bootstrap import MIN_ROUNDS, TRIM, Estimate, Floats
from pruning_kit.speed.depths import NULL_PAIR, Fit
from pruning_kit.speed.timings import (
    BUDGET_ENDED,
    DECODE,
    END_TO_END,
    END_TO_END_PLAIN,
    MOST_BUDGETS,
    PREFILL,
    QUANTITIES,
    Timings,
)

NAMES = {PREFILL: "prefill", DECODE: "decode", END_TO_END: "end to end"}

# Thresholds below which a disturbance hardly moves a ratio that is paired within rounds.
DRIFT = 0.05
SLOW_START = 1.25
OUTLIER_DEVIATIONS = 5.0
OUTLIER_SHARE = 0.05
OTHERS_CORES = 0.25
STEAL_SHARE = 0.01
CLOCK_CHANGE = 0.10
FEW_ROUNDS = 10
MOST_TIMES = 10.0  # beyond so many budgets, extrapolating the width means nothing
MAX_NAMED = 6
MIN_DEPTHS = 3  # fewer fit any line
STRAIGHT = 0.05
MAD_TO_DEVIATION = 1.4826  # of a normal distribution


def findings(timings: Timings) -> list[str]:
    """What a block costs, how that was measured, the null test, and whether equal depths agree."""
    if len(timings.rounds) < MIN_ROUNDS:
        return [_extent(timings)]
    return [
        *_fit_sentences(timings),
        *throughput.sentences(timings),
        _extent(timings),
        _null_sentence(timings),
        *_depth_sentences(timings),
        _plain_sentence(timings),
        *_unread(timings),
    ]


def warnings(timings: Timings) -> list[str]:
    """What makes the run doubtful, each with what was tried already and what to try."""
    sentences = [*_precision_warnings(timings)]
    if len(timings.rounds) >= MIN_ROUNDS:
        sentences += [*_null_warnings(timings), *_depth_warnings(timings)]
        sentences += [*_drift_warnings(timings), *_outlier_warnings(timings)]
    return [
        *sentences,
        *_start_warnings(timings),
        *_load_warnings(timings),
        *_gpu_warnings(timings),
    ]


def percent(share: float, digits: int = 1) -> str:
    """A share as per cent."""
    return f"{100 * share:.{digits}f} %"


def _interval(ratio: Estimate) -> str:
    return f"{ratio.value:.3f} [{ratio.low:.3f} to {ratio.high:.3f}]"


def conditions(timings: Timings) -> str:
    """What end-to-end milliseconds are of, and where: `75 tokens on 2 threads of AMD EPYC`."""
    protocol, machine = timings.protocol, timings.machine
    batch, name = protocol["batch_size"], machine["device_name"]
    where = f"one {name}" if machine["device"] == "cuda" else f"{_threads(machine)} of {name}"
    texts = f"{batch} texts of " if batch > 1 else ""
    return f"{texts}{_end_to_end_tokens(timings)} tokens on {where}"


def _threads(machine: Mapping[str, Any]) -> str:
    return f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}"


def _end_to_end_tokens(timings: Timings) -> int:
    protocol = timings.protocol
    return int(protocol["end_to_end_prompt_tokens"] + protocol["end_to_end_new_tokens"])


def _extent(timings: Timings) -> str:
    n_rounds = len(timings.rounds)
    rounds = "1 round" if n_rounds == 1 else f"{n_rounds} interleaved rounds"
    return (
        f"Timed were the whole model, twice, and {_which_plans(timings)}; {rounds} in "
        f"{timings.elapsed_s:.0f} s ({timings.stopped_because})."
    )


def _which_plans(timings: Timings) -> str:
    """Which plans were timed, and for which others they stand."""
    plans = [entry.plan for entry in timings.entries if entry.plan.size]
    if not plans:
        return "no other plan"
    if len(plans) == len(timings.plans) - 1:
        return "every plan" if len(plans) > 1 else f"plan {plans[0].short}"
    few = ", ".join(plan.short for plan in plans[:MAX_NAMED])
    more = f" and {len(plans) - MAX_NAMED} more" if len(plans) > MAX_NAMED else ""
    return (
        f"{len(plans)} plan{'s' * (len(plans) > 1)}, {few}{more}, which stand for all that do the "
        "same work (as many blocks left, of each kind)"
    )


def _fit_sentences(timings: Timings) -> Iterator[str]:
    """What each block costs: end to end first, where the time outside the blocks is explained."""
    n_tokens = _end_to_end_tokens(timings)
    n_prompt = timings.protocol["end_to_end_prompt_tokens"]
    what = {
        END_TO_END: f"End to end (a prompt of {n_prompt} tokens continued to {n_tokens})",
        PREFILL: f"Prefill (reading {timings.protocol['prompt_tokens']} tokens)",
        DECODE: "Decode (each further token)",
    }
    whole = timings.summary(Plan())
    whole_s = {
        END_TO_END: whole.end_to_end_s.median_s,
        PREFILL: whole.prefill_s.median_s,
        DECODE: whole.decode_s_per_token.median_s,
    }
    n_depths = len({entry.plan.size for entry in timings.entries})
    for number, quantity in enumerate(what if timings.fit else ()):
        fit = timings.fit[quantity]
        line = f"; {_line(fit, brief=number > 0)}" if n_depths >= MIN_DEPTHS else ""
        yield (
            f"{what[quantity]}: each block removed saves {1000 * fit.per_block_s.value:.3g} ms of "
            f"{1000 * whole_s[quantity]:.3g} ms on average{line}."
        )


def _line(fit: Fit, *, brief: bool) -> str:
    """What the straight line through all depths says of the time outside the blocks."""
    share, off = fit.fixed_share, percent(fit.worst_residual)
    explained = "" if brief else " (embedding, head, choice of the token, overhead of each call)"
    if share.high <= 0:
        return (
            "a straight line through all depths would leave less than no time outside the blocks, "
            "so nothing is said of it"
        )
    if fit.worst_residual > STRAIGHT:
        return (
            f"not the same at every depth (one is {off} from a straight line), so nothing is said "
            "of the time outside the blocks"
        )
    if share.low <= 0:
        outside = f"the time outside the blocks{explained} is not distinguishable from zero"
    else:
        bounds = f"{100 * share.low:.0f} to {percent(share.high, 0)}"
        outside = (
            f"{percent(share.value, 0)} [{bounds}] of the time is outside the blocks{explained} "
            "and stays"
        )
    through = "the line" if brief else "a straight line through all depths, in per cent of its time"
    return f"{outside}; no depth is farther than {off} from {through}"


def _null_sentence(timings: Timings) -> str:
    """The whole model against itself, and the smallest difference that may be claimed."""
    tests = timings.null_test.items()
    found = [f"{NAMES[quantity]} {_interval(test.ratio)}" for quantity, test in tests]
    unclaimed = [
        f"{1 / (1 + test.resolution):.3f} and {1 + test.resolution:.3f} ({NAMES[quantity]})"
        for quantity, test in tests
    ]
    return (
        f"Null test, the whole model's time over its own: {'; '.join(found)}. So no ratio to "
        f"the whole model is claimed between {', '.join(unclaimed)}."
    )


def _depth_sentences(timings: Timings) -> Iterator[str]:
    tests = timings.depth_test
    equal = [
        f"{NAMES[quantity]} p = {test.p_value:.2g}"
        + (f" (a difference below {percent(test.least)}, not claimed)" if test.clear else "")
        for quantity, test in tests.items()
        if not test.differ
    ]
    if equal:
        yield f"Timed plans of equal work are not told apart: {', '.join(equal)}."
    for quantity, test in tests.items():
        if test.differ:
            yield (
                f"Plans of equal work differ in {NAMES[quantity]} (p = {test.p_value:.2g}); "
                f"clearest is {test.plan.short} at {_interval(test.deviation)} of the mean of its "
                "equals."
            )


def _plain_sentence(timings: Timings) -> str:
    plain_RE, clean_RE = timings.seconds(END_TO_END_PLAIN), timings.seconds(END_TO_END)
    more = float(np.median(plain_RE[:, NULL_PAIR] / clean_RE[:, NULL_PAIR])) - 1
    return (
        "Milliseconds are those of calls that nothing interrupts; with every interruption the "
        f"whole model took {percent(more)} longer end to end."
    )


def _unread(timings: Timings) -> Iterator[str]:
    wanted = {"cpu_mhz": "processor frequency", "cpu_celsius": "processor temperature"}
    if timings.machine.get("device") == "cuda":
        wanted["gpu_mhz"] = "GPU clock"
    missing = [name for key, name in wanted.items() if key not in timings.start]
    if missing:
        yield f"Not read, because this machine does not offer it: {', '.join(missing)}."


def _precision_warnings(timings: Timings) -> Iterator[str]:
    budget_s, target = timings.protocol["budget_s"], timings.protocol["target"]
    n_rounds = len(timings.rounds)
    if n_rounds < MIN_ROUNDS:
        needed_s = max(timings.elapsed_s * MIN_ROUNDS / n_rounds, MOST_BUDGETS * budget_s)
        yield (
            f"the budget of {budget_s:g} s ended after {n_rounds} round{'s' * (n_rounds > 1)}, and "
            f"{MIN_ROUNDS} would not have fitted into {MOST_BUDGETS} times that: no interval can "
            f"be given. Try --latency-budget {ceil(1.2 * needed_s / MOST_BUDGETS)}, fewer threads, "
            "or a quieter machine."
        )
        return
    width, quantity, plan = timings.widest
    if timings.stopped_because == BUDGET_ENDED and width > target:
        yield (
            f"{n_rounds} rounds in {timings.elapsed_s:.0f} s (budget {budget_s:g} s) were too few "
            f"to know every ratio to {percent(target)}: {NAMES[quantity]} of "
            f"{_pool(timings, plan)} is uncertain by ±{percent(width)}. "
            f"{_more_rounds(timings, width)}"
        )
    elif n_rounds < FEW_ROUNDS:
        yield f"{n_rounds} rounds are few: intervals are wide and rest on a handful of samples."


def _pool(timings: Timings, plan: Plan) -> str:
    """The models whose time that of a pool's first plan is."""
    if plan == Plan():
        return "the whole model against itself"
    pools = [pool for pool in timings.pools if pool[0].size == plan.size]
    if len(pools) > 1:
        return f"models that do the same work as the one without {plan.short}"
    if len(pools[0]) == 1:
        return f"the model without {plan.short}"
    left = timings.n_blocks - plan.size
    return f"models with {left} block{'s' * (left != 1)} left"


def _more_rounds(timings: Timings, width: float) -> str:
    """What to try for a width that the budget did not reach: widths fall with the square root."""
    target = timings.protocol["target"]
    times = (width / target) * (width / target)  # infinite, where ** would raise
    if times <= MOST_TIMES:
        budget_s = max(timings.elapsed_s * times, timings.protocol["budget_s"])
        return f"Try --latency-budget {budget_s:.0f}."
    many = f"{times:,.0f}" if times < 1e6 else "More than a million"
    budget_s, reachable = (
        timings.elapsed_s * MOST_TIMES,
        ceil(1000 * width / MOST_TIMES**0.5) / 1000,
    )
    return (
        f"{many} times as many rounds would be needed. Try a quieter machine, or settle for "
        f"less: --latency-budget {budget_s:.0f} --latency-target {reachable:g}."
    )


def _null_warnings(timings: Timings) -> Iterator[str]:
    for quantity, test in timings.null_test.items():
        if not test.passed:
            yield (
                f"the whole model timed twice differs from itself in {NAMES[quantity]}: "
                f"{_interval(test.ratio)}, although {len(timings.rounds)} rounds were interleaved "
                "in random order. By chance each of the three quantities does so once in twenty "
                "runs; otherwise the machine is too noisy. Try again with other programs closed, "
                "fewer threads, or a larger --latency-budget."
            )


def _depth_warnings(timings: Timings) -> Iterator[str]:
    for quantity, test in timings.depth_test.items():
        if test.differ:
            yield (
                f"plans that do the same work differ in {NAMES[quantity]}: {test.plan.short} is at "
                f"{_interval(test.deviation)} of the mean of its equals (p = {test.p_value:.3f}). "
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
        outliers = residual_RE > OUTLIER_DEVIATIONS * deviation
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
            f"{start['load_average']:.1f} before it, {end['load_average']:.1f} after), with "
            f"{timings.machine['threads']} threads here. Rounds were interleaved against this. Try "
            "a quiet machine, or fewer threads than free cores."
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
