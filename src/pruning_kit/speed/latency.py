"""Latency of really cut models: which plans are timed, with how many threads, and on what.

One model is cut in place for each call and mended after it, so memory does not grow with the
number of plans. Plans that do the same work share an entry. The calls are in `generation`, their
rounds in `rounds`, the samples and what they say in `timings`.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig

from pruning_kit.errors import DeviceError, TimingError, first_line
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.machine import devices, disk, readings
from pruning_kit.machine.devices import (
    Clock,
    Stopwatch,
    Sync,
    current_device,
    device_sync,
    dtype_name,
    using_threads,
)
from pruning_kit.plans.plan import Plan
from pruning_kit.speed.generation import Workload
from pruning_kit.speed.pools import choose_entries, middle_plan, pool_plans
from pruning_kit.speed.protocol import LatencyProtocol
from pruning_kit.speed.rounds import run_rounds, share_done
from pruning_kit.speed.threads import Trial, Wanted, choose, try_threads
from pruning_kit.speed.timings import BUDGET_ENDED, Timings
from pruning_kit.speed.turns import Turns
from pruning_kit.speed.workload import check_protocol

DEFAULT_PROTOCOL = LatencyProtocol()

# Facts of the machine in which two timings must agree to be of one kind.
BINDING = (
    "device",
    "device_name",
    "processor",
    "cores",
    "dtype",
    "attention",
    "model_type",
    "torch",
    "transformers",
)

Progress = Callable[[float], None]


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

    Device and number format are those the caller set. On a CPU trials choose the number of threads,
    at most those that PyTorch is set to, unless the protocol names one. Model and threads are as
    before afterwards.

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
        DeviceError: if the execution does not apply to the device or the model.
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
            threads=timings.machine["threads"],
            budget_s=protocol.budget_s / len(protocol.batches),
        )
        middle = [middle_plan(timings.pools)]
        run = _measure_one_batch(
            decoder, middle, prompt_ids, part, stopwatch, tell(number), _turns_of(timings)
        )
        timings = replace(timings, batches=(*timings.batches, run))
    return timings


def _turns_of(timings: Timings) -> Turns:
    facts = timings.protocol
    return Turns(facts["turn_prefills"], facts["turn_steps"], facts["lead_in_s"])


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
    offered = torch.get_num_threads()
    with (
        current_device(decoder.device),
        _quiet_collector(),
        _compiler_limit(len(entries)),
        _memory_errors(protocol.batch_size),
        using_threads(offered),  # trials set other numbers
    ):
        cuts = [entry.plan for entry in entries]
        workload = Workload(decoder, cuts, prompt_ids, protocol, stopwatch, turns)
        trials = _choose_threads(workload)
        _warm_up(workload, protocol.budget_s - (clock() - started))
        read = readings.reader(_gpu_reader(decoder.device))
        draft = Timings(
            n_blocks=decoder.n_blocks,
            protocol=_protocol_facts(protocol, len(prompt_ids)) | _workload_facts(workload),
            machine=_machine_facts(decoder.model.config, decoder.device, decoder.model.dtype)
            | {"threads_offered": offered},
            pools=pools,
            entries=tuple(
                replace(entry, peak_bytes=workload.peak_bytes(number))
                for number, entry in enumerate(entries)
            ),
            start=read(),
            rounds=(),
            stopped_because=BUDGET_ENDED,
            elapsed_s=clock() - started,
            trials=trials,
        )

        def tidy_and_read() -> readings.Reading:
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


def _choose_threads(workload: Workload) -> tuple[Trial, ...]:
    """Set the number of threads asked for, or else the one that trials speak for.

    Only eager calls on the CPU are tried: a compiled step would be compiled for each number.
    """
    protocol, offered = workload.protocol, torch.get_num_threads()
    if protocol.threads is not None:
        torch.set_num_threads(protocol.threads)
        return ()
    if workload.decoder.device.type != "cpu" or protocol.execution != "eager" or offered == 1:
        return ()

    def try_round(threads: int) -> tuple[float, ...]:
        torch.set_num_threads(threads)
        return workload.trial_round()

    wanted = Wanted(protocol.budget_s, len(workload.plans), protocol.target)
    trials = try_threads(offered, try_round, workload.stopwatch.clock, wanted)
    torch.set_num_threads(choose(trials, wanted).threads)
    return trials


def binding_facts(
    protocol: LatencyProtocol,
    n_prompt_tokens: int,
    config: PretrainedConfig,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """The facts in which two timings must agree to be of one kind; orders (`seed`) need not.

    A number of threads that was asked for must have been used. One that trials choose may be any
    of as many as are offered now.
    """
    facts = _protocol_facts(protocol, n_prompt_tokens)
    del facts["seed"], facts["threads_asked"]
    if protocol.threads is None:
        facts["threads_offered"] = torch.get_num_threads()
    else:
        facts["threads"] = protocol.threads
    machine_now = _machine_facts(config, device, dtype)
    return facts | {name: machine_now[name] for name in BINDING}


def first_difference(stored: Timings, wanted: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first of the wanted facts that stored timings do not have; the plans are not looked at.

    Returns:
        its name, the stored and the wanted value; None if the
        stored timings are of this protocol and readings.
    """
    then = {**stored.machine, **stored.protocol}
    return disk.first_difference({name: then.get(name) for name in wanted}, wanted)


def _protocol_facts(protocol: LatencyProtocol, n_prompt_tokens: int) -> dict[str, Any]:
    facts = asdict(protocol)
    return facts | {
        "threads_asked": facts.pop("threads"),
        "batches": list(protocol.batches),
        "end_to_end_prompt_tokens": n_prompt_tokens,
        "end_to_end_new_tokens": protocol.end_to_end_tokens - n_prompt_tokens,
    }


def _workload_facts(workload: Workload) -> dict[str, Any]:
    turns = workload.turns
    return {
        "turn_prefills": turns.prefills,
        "turn_steps": turns.steps,
        "lead_in_s": turns.lead_in_s,
        **asdict(workload.repeats),
    }


def _warm_up(workload: Workload, left_s: float) -> None:
    """Rounds that are not kept. Here the compiler works, so here it fails."""
    try:
        workload.warm_up(workload.protocol.warmup_rounds, left_s)
    except torch._dynamo.exc.TorchDynamoException as error:
        raise DeviceError(
            f"cannot compile on {workload.decoder.device.type!r}: {first_line(error)}. "
            "Time without compiling."
        ) from error


def _gpu_reader(device: torch.device) -> readings.GpuReader | None:
    if device.type != "cuda":
        return None
    return readings.gpu_reader(f"GPU-{torch.cuda.get_device_properties(device).uuid}")


def _machine_facts(
    config: PretrainedConfig, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    return readings.facts() | {
        "device": device.type,
        "device_name": devices.device_name(device),
        "threads": torch.get_num_threads(),
        "dtype": dtype_name(dtype),
        "attention": config._attn_implementation,
        "model_type": config.model_type,
        "torch": str(torch.__version__),
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
            "ones, or leave timing out."
        ) from error


@contextmanager
def _compiler_limit(n_entries: int) -> Iterator[None]:
    """Let the compiler keep a version of the decode step for every entry."""
    limit = max(torch._dynamo.config.recompile_limit, 2 * n_entries)
    with torch._dynamo.config.patch(recompile_limit=limit, accumulated_recompile_limit=8 * limit):
        yield
