"""How fast models are, in sentences: what was timed, on what, and what is not claimed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf
from typing import Any

import numpy as np

from pruning_kit.intervals import MIN_ROUNDS
from pruning_kit.intervals.repeats import Estimate
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.words.numbers import first_few, listed, significant
from pruning_kit.speed.depths import NULL_PAIR
from pruning_kit.speed.threads import Trial, Wanted
from pruning_kit.speed.throughput import batch_points
from pruning_kit.speed.timings import (
    DECODE,
    END_TO_END,
    END_TO_END_PLAIN,
    PREFILL,
    QUANTITIES,
    Timings,
)

NAMES = {PREFILL: "prefill", DECODE: "decode", END_TO_END: "end to end"}
READINGS = {"cpu_mhz": "processor frequency", "cpu_celsius": "processor temperature"}


def findings(timings: Timings) -> list[str]:
    """What was timed and how; of enough rounds also throughput and what is not claimed."""
    if len(timings.rounds) < MIN_ROUNDS:
        return [_extent(timings), *_threads(timings)]
    return [
        *throughput(timings),
        _extent(timings),
        *_threads(timings),
        f"{_interruptions(timings)}{_unread(timings)}",
    ]


def percent(share: float, digits: int = 1) -> str:
    """A share as per cent."""
    return f"{100 * share:.{digits}f} %"


def interval(ratio: Estimate) -> str:
    return f"{ratio.value:.3f} [{ratio.low:.3f} to {ratio.high:.3f}]"


def conditions(timings: Timings) -> str:
    """What end-to-end milliseconds are of, and where: `75 tokens on 2 threads of AMD EPYC`."""
    protocol, machine = timings.protocol, timings.machine
    batch_size, name = protocol["batch_size"], machine["device_name"]
    where = f"one {name}" if machine["device"] == "cuda" else f"{threads_used(machine)} of {name}"
    texts = f"{batch_size} texts of " if batch_size > 1 else ""
    return f"{texts}{_end_to_end_tokens(timings)} tokens on {where}"


def tasks(timings: Timings) -> str:
    """What each quantity is the time of."""
    protocol = timings.protocol
    return (
        f"decode: 1 token; prefill: {protocol['prompt_tokens']}; end to end: "
        f"{protocol['end_to_end_prompt_tokens']} continued to {_end_to_end_tokens(timings)}"
    )


def how_timed(timings: Timings) -> str:
    """Conditions, and what a person would not expect of them: fewer threads, a longer time."""
    fewer = timings.machine["threads"] < timings.machine["threads_offered"]
    why = [f"Fewer threads, because of short trials; {_promises(timings)}"]
    why *= bool(timings.trials) and fewer
    return ". ".join([conditions(timings), *why, *_overrun(timings)])


def threads_used(machine: Mapping[str, Any]) -> str:
    """The number of threads, and of how many: `1 of 2 threads`."""
    used, offered = machine["threads"], machine["threads_offered"]
    if used < offered:
        return f"{used} of {offered} threads"
    return f"{used} thread{'s' * (used != 1)}"


def _threads(timings: Timings) -> Iterator[str]:
    """How the number of threads came about."""
    if timings.protocol["threads_asked"] is not None:
        yield f"Timed with {threads_used(timings.machine)}, as asked for."
    elif timings.trials:
        used = threads_used(timings.machine)
        yield f"{used.capitalize()}, by short trials; {_promises(timings)}."


def _promises(timings: Timings) -> str:
    """What each trial promises: `decode promised ±8.1 % with 2, ±1.2 % with 1`."""
    promises = ", ".join(_promise(trial, timings.wanted) for trial in timings.trials)
    return f"decode promised {promises}"


def _promise(trial: Trial, wanted: Wanted) -> str:
    width = trial.expected_half_width(wanted)
    told = f"±{percent(width)}" if width < inf else f"no interval ({trial.round_s:.1f} s a round)"
    return f"{told} with {trial.threads}"


def _overrun(timings: Timings) -> Iterator[str]:
    """That the run took longer than its budget, and why it may."""
    budget_s = timings.protocol["budget_s"]
    if timings.elapsed_s > 1.1 * budget_s:
        enough = len(timings.rounds) >= MIN_ROUNDS
        why = f"an interval needs {MIN_ROUNDS} rounds" if enough else "no round is broken off"
        yield f"It took {timings.elapsed_s:.0f} s, more than the budget of {budget_s:g} s: {why}"


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
    return (
        f"Timed: the whole model (twice){_which_plans(timings)}{_equals(timings)}; {rounds}{until} "
        f"in {timings.elapsed_s:.0f} s ({timings.stopped_because})."
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
        return " and no other plan"
    if len(plans) == len(timings.plans) - 1:
        return " and every plan" if len(plans) > 1 else f" and plan {plans[0].short}"
    names = listed(first_few([plan.short for plan in plans]))
    return f", {names}, for all of equal work"


def _equals(timings: Timings) -> str:
    """That plans of equal work agree; where they do not, that is a doubt."""
    tests = timings.depth_test.values()
    return " (no clear difference)" if tests and not any(t.differ for t in tests) else ""


def _interruptions(timings: Timings) -> str:
    plain_RE, clean_RE = timings.seconds(END_TO_END_PLAIN), timings.seconds(END_TO_END)
    more = float(np.median(plain_RE[:, NULL_PAIR] / clean_RE[:, NULL_PAIR])) - 1
    return f"Interruptions, left out, would add {percent(more)}."


def _unread(timings: Timings) -> str:
    wanted = dict(READINGS)
    if timings.machine.get("device") == "cuda":
        wanted["gpu_mhz"] = "GPU clock"
    missing = [name for key, name in wanted.items() if key not in timings.start]
    return f" Not offered: {', '.join(missing)}." if missing else ""


def throughput(timings: Timings) -> Iterator[str]:
    """For each plan, tokens per second and milliseconds a step at every batch size."""
    points = batch_points(timings)
    for plan in dict.fromkeys(point.plan for point in points):
        name = f"plan {plan.short}" if plan.size else "the whole model"
        steps = "; ".join(
            f"{point.batch_size}: {point.decode_tokens_per_s:,.0f} tokens/s, "
            f"{significant(1000 * point.decode_s_per_step)} ms a step"
            for point in points
            if point.plan == plan
        )
        yield f"Decode of {name} by batch size: {steps}."
