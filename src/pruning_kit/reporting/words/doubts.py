"""What makes a timing run doubtful, in a sentence each: what was tried already, what to try."""

from __future__ import annotations

from functools import singledispatch
from math import ceil

from pruning_kit.intervals import MIN_ROUNDS
from pruning_kit.intervals.repeats import TRIM
from pruning_kit.reporting.words.speed import NAMES, interval, percent, pool_name, threads_used
from pruning_kit.speed import doubts as doubt
from pruning_kit.speed.timings import MOST_BUDGETS, Timings

MOST_ADVISED_S = 120.0
CLOCKS = {"cpu_mhz": "processor", "gpu_mhz": "GPU"}


def warnings(timings: Timings) -> list[str]:
    """A sentence for each doubt."""
    return [_said(found, timings) for found in doubt.doubts(timings)]


@singledispatch
def _said(found: doubt.Doubt, _timings: Timings) -> str:
    raise AssertionError(f"no words for {found}")


@_said.register
def _(found: doubt.TooFewRounds, timings: Timings) -> str:
    budget_s, n_rounds = timings.protocol["budget_s"], len(timings.rounds)
    needed_s = 1.2 * found.needed_s
    return (
        f"the budget of {budget_s:g} s ended after {n_rounds} round{'s' * (n_rounds > 1)}, and "
        f"{MIN_ROUNDS} would not have fitted into {MOST_BUDGETS} times that: no interval can be "
        f"given. Try {_fewer_threads(timings)}a quieter machine, or --latency-budget "
        f"{ceil(needed_s / MOST_BUDGETS)}, which may take {needed_s:.0f} s."
    )


@_said.register
def _(found: doubt.OpenConclusion, timings: Timings) -> str:
    more = f" So are {found.n_more} more pairs." if found.n_more else ""
    return (
        f"{len(timings.rounds)} rounds in {timings.elapsed_s:.0f} s leave open which is faster end "
        f"to end, {pool_name(timings, found.plan)} or {pool_name(timings, found.other)}: a ratio "
        f"of {interval(found.ratio)}.{more} {_remedy(found, timings)}"
    )


def _remedy(found: doubt.OpenConclusion, timings: Timings) -> str:
    """What would settle a ratio: fewer threads, more rounds within reason, a quieter machine."""
    if fewer := _fewer_threads(timings):
        return f"Try {fewer}or a quieter machine."
    if found.needed_s <= MOST_ADVISED_S:
        budget_s = max(found.needed_s, 1.5 * timings.protocol["budget_s"])
        return f"Try --latency-budget {ceil(budget_s)}."
    return "Try a quieter machine: more rounds would not settle it within reason here."


def _fewer_threads(timings: Timings) -> str:
    """Advice to use fewer threads, where that was not tried: for a list, else empty."""
    used = timings.machine["threads"]
    if timings.machine["device"] != "cpu" or used == 1:
        return ""
    if timings.protocol["threads_asked"] is not None:
        return "without --threads, so that trials choose their number, "
    fewer_tried = any(trial.threads < used for trial in timings.trials)
    return "" if fewer_tried else f"--threads {used // 2}, "


@_said.register
def _(found: doubt.UnequalWhole, timings: Timings) -> str:
    return (
        f"the whole model timed twice differs from itself in {NAMES[found.quantity]}: "
        f"{interval(found.ratio)}. By chance each of the three quantities does so once in twenty "
        f"runs; otherwise the machine is too noisy. Try {_fewer_threads(timings)}again with other "
        "programs closed, or a larger --latency-budget."
    )


@_said.register
def _(found: doubt.UnequalEquals, _timings: Timings) -> str:
    test = found.test
    return (
        f"plans that do the same work differ in {NAMES[found.quantity]}: {test.plan.short} is at "
        f"{interval(test.deviation)} of the mean of its equals (p = {test.p_value:.3f}). Try "
        "--per-plan."
    )


@_said.register
def _(found: doubt.Drift, _timings: Timings) -> str:
    return (
        f"the whole model took {percent(abs(found.change), 0)} "
        f"{'more' if found.change > 0 else 'less'} time at the end of the run than at its start. "
        "Ratios stand; milliseconds are a mixture. Try again when the load is steady."
    )


@_said.register
def _(found: doubt.SlowStart, timings: Timings) -> str:
    count = timings.protocol["warmup_rounds"]
    return (
        f"the first round was {found.ratio:.1f}× slower than the median of the others although "
        f"{count} warm-up round{'s were' if count > 1 else ' was'} made. Trimming keeps it out of "
        "the ratios. Try more warm-up rounds."
    )


@_said.register
def _(found: doubt.Outliers, _timings: Timings) -> str:
    return (
        f"{found.n_outliers} of {found.n_samples} samples ({NAMES[found.quantity]}) lie far above "
        f"their median, up to {found.slowest:.1f}×. Ratios leave out the slowest and the fastest "
        f"{percent(TRIM, 0)} of the rounds; of one model's samples up to "
        f"{percent(found.share_of_one, 0)} are so slow. Try closing other programs."
    )


@_said.register
def _(found: doubt.OtherPrograms, timings: Timings) -> str:
    return (
        f"other programs used {found.cores:.1f} of {timings.machine['cores']} cores (load average "
        f"{found.load_before:.1f} before the run, {found.load_after:.1f} after), beside "
        f"{threads_used(timings.machine)} here. Try {_fewer_threads(timings)}a quiet machine."
    )


@_said.register
def _(found: doubt.Steal, _timings: Timings) -> str:
    return (
        f"the host took {percent(found.share)} of the processor time away (steal). Try another "
        "time or machine."
    )


@_said.register
def _(found: doubt.ClockMoved, _timings: Timings) -> str:
    return (
        f"the {CLOCKS[found.reading]}'s clock moved between {found.low:.0f} and {found.high:.0f} "
        f"MHz, by up to {found.step:.0f} MHz from one round to the next. Try a fixed frequency "
        "where you may set one."
    )


@_said.register
def _(found: doubt.GpuSlowed, timings: Timings) -> str:
    return (
        f"the GPU held its clock down after {found.n_rounds} of {len(timings.rounds)} rounds "
        "(heat, power or a setting). Try a cooler GPU."
    )
