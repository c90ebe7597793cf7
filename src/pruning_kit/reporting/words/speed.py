"""What a timing run says, in sentences; what makes it doubtful is in `doubts`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf
from typing import Any

import numpy as np

from pruning_kit.intervals import MIN_ROUNDS
from pruning_kit.intervals.repeats import Estimate
from pruning_kit.plans.plan import Plan
from pruning_kit.speed import throughput
from pruning_kit.speed.depths import NULL_PAIR, Fit
from pruning_kit.speed.threads import Trial, Wanted
from pruning_kit.speed.timings import (
    DECODE,
    END_TO_END,
    END_TO_END_PLAIN,
    PREFILL,
    QUANTITIES,
    Timings,
)

NAMES = {PREFILL: "prefill", DECODE: "decode", END_TO_END: "end to end"}

MAX_NAMED = 6
MIN_DEPTHS = 3  # fewer fit any line
STRAIGHT = 0.05


def findings(timings: Timings) -> list[str]:
    """What a block costs, how that was measured, the null test, and whether equal depths agree."""
    if len(timings.rounds) < MIN_ROUNDS:
        return [_extent(timings), *_threads_sentences(timings)]
    return [
        *_fit_sentences(timings),
        *throughput.sentences(timings),
        _extent(timings),
        _precision_sentence(timings),
        *_threads_sentences(timings),
        _null_sentence(timings),
        *_depth_sentences(timings),
        _plain_sentence(timings),
        *_unread(timings),
    ]


def percent(share: float, digits: int = 1) -> str:
    """A share as per cent."""
    return f"{100 * share:.{digits}f} %"


def interval(ratio: Estimate) -> str:
    return f"{ratio.value:.3f} [{ratio.low:.3f} to {ratio.high:.3f}]"


def conditions(timings: Timings) -> str:
    """What end-to-end milliseconds are of, and where: `75 tokens on 2 threads of AMD EPYC`."""
    protocol, machine = timings.protocol, timings.machine
    batch, name = protocol["batch_size"], machine["device_name"]
    where = f"one {name}" if machine["device"] == "cuda" else f"{threads_used(machine)} of {name}"
    texts = f"{batch} texts of " if batch > 1 else ""
    return f"{texts}{_end_to_end_tokens(timings)} tokens on {where}"


def how_timed(timings: Timings) -> str:
    """Conditions, and what a person would not expect of them: fewer threads, a longer time."""
    sentences = [conditions(timings), *_fewer_threads(timings), *_overrun(timings)]
    return ". ".join(sentence.removesuffix(".") for sentence in sentences)


def threads_used(machine: Mapping[str, Any]) -> str:
    """The number of threads, and of how many: `1 of 2 threads`."""
    used, offered = machine["threads"], machine["threads_offered"]
    if used < offered:
        return f"{used} of {offered} threads"
    return f"{used} thread{'s' * (used != 1)}"


def _fewer_threads(timings: Timings) -> Iterator[str]:
    """Why fewer threads were used than offered, where trials chose them."""
    if timings.trials and timings.machine["threads"] < timings.machine["threads_offered"]:
        yield f"Fewer threads, because of short trials; decode promised {_promises(timings)}."


def _threads_sentences(timings: Timings) -> Iterator[str]:
    """How the number of threads came about."""
    if timings.protocol["threads_asked"] is not None:
        yield f"Timed with {threads_used(timings.machine)}, as asked for."
    elif timings.trials:
        yield (
            f"Timed with {threads_used(timings.machine)}, because of short trials; decode promised "
            f"{_promises(timings)}."
        )


def _promises(timings: Timings) -> str:
    """What each trial promises: `±8.1 % with 2 threads, ±1.2 % with 1 thread`."""
    return ", ".join(_promise(trial, timings.wanted) for trial in timings.trials)


def _promise(trial: Trial, wanted: Wanted) -> str:
    width = trial.expected_half_width(wanted)
    told = f"±{percent(width)}" if width < inf else f"no interval ({trial.round_s:.1f} s a round)"
    return f"{told} with {trial.threads} thread{'s' * (trial.threads > 1)}"


def _overrun(timings: Timings) -> Iterator[str]:
    """That the run took longer than its budget, and why it may."""
    budget_s = timings.protocol["budget_s"]
    if timings.elapsed_s > 1.1 * budget_s:
        enough = len(timings.rounds) >= MIN_ROUNDS
        why = f"an interval needs {MIN_ROUNDS} rounds" if enough else "no round is broken off"
        yield f"It took {timings.elapsed_s:.0f} s, more than the budget of {budget_s:g} s: {why}."


def _end_to_end_tokens(timings: Timings) -> int:
    protocol = timings.protocol
    return int(protocol["end_to_end_prompt_tokens"] + protocol["end_to_end_new_tokens"])


def _extent(timings: Timings) -> str:
    n_rounds = len(timings.rounds)
    rounds = "1 round" if n_rounds == 1 else f"{n_rounds} interleaved rounds"
    rested = [
        f"{NAMES[quantity]} {len(timings.seconds(quantity))}"
        for quantity in QUANTITIES
        if len(timings.seconds(quantity)) < n_rounds
    ]
    until = f", {', '.join(rested)} until known well enough" if rested else ""
    overrun = "".join(f" {sentence}" for sentence in _overrun(timings))
    return (
        f"Timed were the whole model, twice, and {_which_plans(timings)}; {rounds}{until} in "
        f"{timings.elapsed_s:.0f} s ({timings.stopped_because}).{overrun}"
    )


def _precision_sentence(timings: Timings) -> str:
    """To what share of itself each ratio is known, of the widest in each quantity."""
    widths = [
        f"{NAMES[quantity]} to {percent(width)} ({pool_name(timings, plan)})"
        for quantity, (width, plan) in timings.widest.items()
    ]
    return (
        f"Least known of the ratios, of {percent(timings.protocol['target'])} wanted: "
        f"{'; '.join(widths)}."
    )


def pool_name(timings: Timings, plan: Plan) -> str:
    """The models whose time that of a pool's first plan is."""
    if plan == Plan():
        return "the whole model"
    pools = [pool for pool in timings.pools if pool[0].size == plan.size]
    if len(pools) > 1:
        return f"models that do the same work as the one without {plan.short}"
    if len(pools[0]) == 1:
        return f"the model without {plan.short}"
    left = timings.n_blocks - plan.size
    return f"models with {left} block{'s' * (left != 1)} left"


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
    found = [f"{NAMES[quantity]} {interval(test.ratio)}" for quantity, test in tests]
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
                f"clearest is {test.plan.short} at {interval(test.deviation)} of the mean of its "
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
