"""Latency of really cut models: which plans are timed, in which order, and when it is enough.

One model is cut in place for each call and mended after it, so memory does not grow with the
number of plans. Plans that do the same work share an entry. Every round times every entry once, in
turns and in a random order; rounds go on until each ratio to the whole model is known well enough
or the budget ends. The calls are in `generation`, the samples and what they say in `timings`.
"""

from __future__ import annotations

import gc
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig

from pruning_kit.cutting.surgery import block_signature
from pruning_kit.errors import DeviceError, TimingError, first_line
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.models import dtype_name
from pruning_kit.plan import Plan
from pruning_kit.runs import store
from pruning_kit.speed import machine
from pruning_kit.speed.generation import Sample, Turns, Workload
from pruning_kit.speed.timings import (
    BUDGET_ENDED,
    END_TO_END_PLAIN,
    MOST_BUDGETS,
    QUANTITIES,
    TARGET_MET,
    Entry,
    Round,
    Timings,
)
from pruning_kit.speed.workload import (
    Clock,
    LatencyProtocol,
    Stopwatch,
    Sync,
    check_protocol,
    current_device,
    device_sync,
    option,
)

DEFAULT_PROTOCOL = LatencyProtocol()

# Facts of the machine in which two timings must agree to be of one kind.
BINDING = (
    "device",
    "device_name",
    "processor",
    "cores",
    "threads",
    "dtype",
    "attention",
    "model_type",
    "torch",
    "transformers",
)

Progress = Callable[[float], None]
SampleRound = Callable[[Sequence[int]], Mapping[int, Sample]]


def measure(
    decoder: Decoder,
    plans: Sequence[Plan],
    prompt_ids: Sequence[int],
    protocol: LatencyProtocol = DEFAULT_PROTOCOL,
    *,
    clock: Clock = time.perf_counter,
    sync: Sync | None = None,
    progress: Progress | None = None,
) -> Timings:
    """Time the plans against the whole model, which is added where it is missing.

    Device, number format and threads are those the caller set. The model is as before afterwards.

    Args:
        decoder: the whole model.
        plans: what to time; repeated plans are timed once.
        prompt_ids: token numbers of `PROMPT` (or another) for the end-to-end quantity.
        protocol: what is timed and how long.
        clock: seconds, monotonic.
        sync: waits until the device is idle; by default the device's own.
        progress: called after each round with the share of the expected time that is over.

    Raises:
        PlanError: if a plan does not fit the model.
        TimingError: if the prompts do not fit the model's context, or a batch not the memory.
        DeviceError: if the mode does not apply to the device or the model.
    """
    check_protocol(protocol, decoder.model, decoder.device, len(prompt_ids))
    stopwatch = Stopwatch(clock, sync or device_sync(decoder.device))
    n_parts = 1 + len(protocol.batches)

    def tell(part: int) -> Callable[[Timings], None] | None:
        return progress and (lambda run: progress((part + share_done(run)) / n_parts))

    timings = _measure_one_batch(decoder, plans, prompt_ids, protocol, stopwatch, tell(0))
    for number, size in enumerate(protocol.batches, start=1):
        part = replace(
            protocol,
            batch_size=size,
            batches=(),
            per_plan=False,
            budget_s=protocol.budget_s / len(protocol.batches),
        )
        middle = [_middle_plan(timings.pools)]
        run = _measure_one_batch(
            decoder, middle, prompt_ids, part, stopwatch, tell(number), _turns_of(timings)
        )
        timings = replace(timings, batches=(*timings.batches, run))
    return timings


def _turns_of(timings: Timings) -> Turns:
    facts = timings.protocol
    return Turns(facts["turn_prefills"], facts["turn_steps"], facts["lead_in_s"])


def _middle_plan(pools: Sequence[Sequence[Plan]]) -> Plan:
    """The first plan of the pool in the middle by size; the whole model where it is alone."""
    by_size = sorted((pool[0] for pool in pools[1:]), key=lambda plan: plan.size)
    return by_size[len(by_size) // 2] if by_size else Plan()


def _measure_one_batch(
    decoder: Decoder,
    plans: Sequence[Plan],
    prompt_ids: Sequence[int],
    protocol: LatencyProtocol,
    stopwatch: Stopwatch,
    progress: Callable[[Timings], None] | None,
    turns: Turns | None = None,
) -> Timings:
    clock = stopwatch.clock
    started = clock()
    pools = pool_plans(decoder, plans)
    entries = choose_entries(pools, protocol.per_plan)
    with (
        current_device(decoder.device),
        _quiet_collector(),
        _compiler_limit(len(entries)),
        _memory_errors(protocol.batch_size),
    ):
        cuts = [entry.plan for entry in entries]
        workload = Workload(decoder, cuts, prompt_ids, protocol, stopwatch, turns)
        _warm_up(workload, protocol)
        read = machine.reader(_gpu_reader(decoder.device))
        draft = Timings(
            n_blocks=decoder.n_blocks,
            protocol=_protocol_facts(protocol, len(prompt_ids))
            | {"turn_prefills": workload.turns.prefills, "turn_steps": workload.turns.steps}
            | {"lead_in_s": workload.turns.lead_in_s}
            | asdict(workload.repeats),
            machine=_machine_facts(decoder.model.config, decoder.device, decoder.model.dtype),
            pools=pools,
            entries=tuple(
                replace(entry, peak_bytes=workload.peak_bytes(number))
                for number, entry in enumerate(entries)
            ),
            start=read(),
            rounds=(),
            stopped_because=BUDGET_ENDED,
            elapsed_s=clock() - started,
        )

        def tidy_and_read() -> machine.Reading:
            gc.collect()
            return read()

        return run_rounds(
            draft,
            workload.sample_round,
            started=started,
            clock=clock,
            read=tidy_and_read,
            progress=progress,
        )


def binding_facts(
    protocol: LatencyProtocol,
    n_prompt_tokens: int,
    config: PretrainedConfig,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """The facts in which two timings must agree to be of one kind; orders (`seed`) need not."""
    facts = _protocol_facts(protocol, n_prompt_tokens)
    del facts["seed"]
    machine_now = _machine_facts(config, device, dtype)
    return facts | {name: machine_now[name] for name in BINDING}


def first_difference(stored: Timings, wanted: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first of the wanted facts that stored timings do not have; the plans are not looked at.

    Returns:
        its name (an option where there is one), the stored and the wanted value; None if the
        stored timings are of this protocol and machine.
    """
    then = {**stored.machine, **stored.protocol}
    difference = store.first_difference({name: then.get(name) for name in wanted}, wanted)
    return difference and (option(difference[0]), *difference[1:])


def _protocol_facts(protocol: LatencyProtocol, n_prompt_tokens: int) -> dict[str, Any]:
    return asdict(protocol) | {
        "batches": list(protocol.batches),
        "end_to_end_prompt_tokens": n_prompt_tokens,
        "end_to_end_new_tokens": protocol.end_to_end_tokens - n_prompt_tokens,
    }


def pool_plans(decoder: Decoder, plans: Sequence[Plan]) -> tuple[tuple[Plan, ...], ...]:
    """Plans grouped by the work they leave: as many kept blocks of each signature. Whole first."""
    kinds = [repr(block_signature(decoder, block)) for block in range(decoder.n_blocks)]
    pools: dict[frozenset[tuple[str, int]], list[Plan]] = {}
    for plan in sorted({Plan(), *plans}):
        kept = plan.check(decoder.n_blocks).kept(decoder.n_blocks)
        work = frozenset(Counter(kinds[block] for block in kept).items())
        pools.setdefault(work, []).append(plan)
    return tuple(tuple(pool) for pool in pools.values())


def choose_entries(pools: Sequence[Sequence[Plan]], per_plan: bool) -> list[Entry]:
    """The plans to time: the whole model twice, then one of each pool, or all of it.

    By turns that is a pool's first plan and its last, which keep the last blocks and the first: a
    block that few entries keep is colder in the processor's caches, and their plans seem slower.
    One of each pool leaves nothing to test the pooling with, so the largest pool sends both.
    """
    largest = max(range(len(pools)), key=lambda index: len(pools[index]))
    entries = [Entry(Plan(), 0)]
    for index, pool in enumerate(pools):
        ends = (pool[0], pool[-1])
        chosen = dict.fromkeys(ends) if index == largest else (ends[(index + 1) % 2],)
        entries += [Entry(plan, index) for plan in (pool if per_plan else chosen)]
    return entries


def run_rounds(
    draft: Timings,
    sample_round: SampleRound,
    *,
    started: float,
    clock: Clock,
    read: Callable[[], machine.Reading] = machine.read,
    progress: Callable[[Timings], None] | None = None,
) -> Timings:
    """Add rounds to `draft` until the target is met or the next round would pass the budget.

    To reach `min_rounds`, `MOST_BUDGETS` times the budget may be spent, if they fit into that.

    The intervals are looked at after 8, 12, 18, 27, … rounds only: an experiment that may stop
    after each round stops too often when chance makes the interval narrow.

    Args:
        draft: a run without rounds.
        sample_round: times every entry once, by number, in the order given.
        started: the clock when the budget began.
        clock: seconds, monotonic.
        read: takes a reading of the machine's state.
        progress: called after each round with all that was measured so far.
    """
    protocol = draft.protocol
    shuffler = random.Random(protocol["seed"])
    rounds: list[Round] = []
    first_round = clock()
    next_look = protocol["min_rounds"]
    while True:
        rounds.append(_one_round(len(draft.entries), sample_round, shuffler, read))
        now = clock()
        timings = replace(draft, rounds=tuple(rounds), elapsed_s=now - started)
        if progress is not None:
            progress(timings)
        if len(rounds) == next_look:
            next_look = -(-next_look * 3 // 2)
            if timings.widest[0] <= protocol["target"]:
                return replace(timings, stopped_because=TARGET_MET)
        round_s = (now - first_round) / len(rounds)
        allowed_s = protocol["budget_s"]
        needed_s = first_round - started + round_s * protocol["min_rounds"]
        if len(rounds) < protocol["min_rounds"] and needed_s <= MOST_BUDGETS * allowed_s:
            continue
        if now + round_s - started > allowed_s:
            return timings


def share_done(so_far: Timings) -> float:
    """How much of the time that a run at one batch size is expected to take is over."""
    protocol = so_far.protocol
    budget_s, least = protocol["budget_s"], protocol["min_rounds"]
    if len(so_far.rounds) < least:
        budget_s = max(budget_s, so_far.elapsed_s * least / len(so_far.rounds))
    return min(1.0, so_far.elapsed_s / budget_s)


def _one_round(
    n_entries: int,
    sample_round: SampleRound,
    shuffler: random.Random,
    read: Callable[[], machine.Reading],
) -> Round:
    order = list(range(n_entries))
    shuffler.shuffle(order)
    samples = sample_round(order)
    columns = {
        quantity: tuple(samples[entry][quantity] for entry in range(n_entries))
        for quantity in (*QUANTITIES, END_TO_END_PLAIN)
    }
    return Round(tuple(order), columns, read())


def _warm_up(workload: Workload, protocol: LatencyProtocol) -> None:
    """Rounds that are not kept. Here the compiler works, so here it fails."""
    try:
        workload.warm_up(protocol.warmup_rounds)
    except torch._dynamo.exc.TorchDynamoException as error:
        raise DeviceError(
            f"cannot compile on {workload.decoder.device.type!r}: {first_line(error)}. "
            "Leave out --compile and --cuda-graphs."
        ) from error


def _gpu_reader(device: torch.device) -> machine.GpuReader | None:
    if device.type != "cuda":
        return None
    return machine.gpu_reader(f"GPU-{torch.cuda.get_device_properties(device).uuid}")


def _machine_facts(
    config: PretrainedConfig, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    return machine.facts() | {
        "device": device.type,
        "device_name": machine.device_name(device),
        "threads": torch.get_num_threads(),
        "dtype": dtype_name(dtype),
        "attention": config._attn_implementation,
        "model_type": config.model_type,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """Keep Python's garbage collector out of timed calls; rounds collect between them."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


@contextmanager
def _memory_errors(batch_size: int) -> Iterator[None]:
    """Say which batch did not fit into the device's memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TimingError(
            f"cannot time batches of {batch_size}: the device ran out of memory. Choose smaller "
            "ones with --batch or --batch-sweep, or leave timing out with --no-speed."
        ) from error


@contextmanager
def _compiler_limit(n_entries: int) -> Iterator[None]:
    """Let the compiler keep a version of the decode step for every entry."""
    limit = max(torch._dynamo.config.recompile_limit, 2 * n_entries)
    with torch._dynamo.config.patch(recompile_limit=limit, accumulated_recompile_limit=8 * limit):
        yield
