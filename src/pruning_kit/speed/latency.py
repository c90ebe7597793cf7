"""Latency of really cut models: what is timed, in which order, and when it is enough.

One model is cut in place for each call and mended after it, so memory does not grow with the
number of plans. Plans that do the same work share an entry. Every round times every entry once in
a random order; rounds go on until each ratio to the whole model is known well enough or the
budget ends. The samples and what they say are in `timings`.
"""

from __future__ import annotations

import gc
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from pruning_kit.cutting.surgery import block_signature
from pruning_kit.errors import DeviceError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plan import Plan
from pruning_kit.speed import machine
from pruning_kit.speed.timings import (
    BUDGET_ENDED,
    QUANTITIES,
    TARGET_MET,
    Entry,
    Round,
    Timings,
)
from pruning_kit.speed.workload import (
    DEFAULT_PROTOCOL,
    MODES,
    PROMPT,
    Clock,
    LatencyProtocol,
    Sample,
    Stopwatch,
    Sync,
    Workload,
    check_mode,
    device_sync,
)

__all__ = [
    "MODES",
    "PROMPT",
    "LatencyProtocol",
    "batch_sweep",
    "choose_entries",
    "measure",
    "pool_plans",
    "run_rounds",
]

Progress = Callable[[Timings], None]


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
        progress: called after each round with all that was measured so far.

    Raises:
        PlanError: if a plan does not fit the model.
        TimingError: if the prompts do not fit the model's context.
        DeviceError: if the mode does not apply to the device or the model.
    """
    check_mode(decoder.model, protocol.mode)
    stopwatch = Stopwatch(clock, sync or device_sync(decoder.device))
    started = clock()
    pools = pool_plans(decoder, plans)
    entries = choose_entries(pools, protocol.per_plan)
    with _quiet_collector(), _compiler_limit(len(entries)):
        workload = Workload(decoder, prompt_ids, protocol, stopwatch)
        _warm_up(workload, entries, protocol)
        read = machine.reader(_gpu_reader(decoder.device))
        draft = Timings(
            n_blocks=decoder.n_blocks,
            protocol=asdict(protocol) | _prompt_facts(prompt_ids, protocol),
            machine=_facts(decoder.model),
            pools=pools,
            entries=tuple(
                replace(entry, peak_bytes=workload.peak_bytes(entry.plan)) for entry in entries
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
            lambda entry: workload.sample(entries[entry].plan),
            started=started,
            clock=clock,
            read=tidy_and_read,
            progress=progress,
        )


def _prompt_facts(prompt_ids: Sequence[int], protocol: LatencyProtocol) -> dict[str, int]:
    return {
        "end_to_end_prompt_tokens": len(prompt_ids),
        "end_to_end_new_tokens": protocol.end_to_end_tokens - len(prompt_ids),
    }


def batch_sweep(
    decoder: Decoder,
    plans: Sequence[Plan],
    prompt_ids: Sequence[int],
    batch_sizes: Sequence[int],
    protocol: LatencyProtocol = DEFAULT_PROTOCOL,
    **measure_options: Any,
) -> dict[int, Timings]:
    """One timing run for each batch size, each with an equal part of the budget.

    With `Timings.summary(plan).decode_tokens_per_s` this is the latency-throughput curve.
    """
    part = replace(protocol, budget_s=protocol.budget_s / len(batch_sizes))
    return {
        size: measure(decoder, plans, prompt_ids, replace(part, batch_size=size), **measure_options)
        for size in batch_sizes
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

    One of each pool leaves nothing to test the pooling with, so the largest pool sends two.
    """
    largest = max(range(len(pools)), key=lambda index: len(pools[index]))
    entries = [Entry(Plan(), 0)]
    for index, pool in enumerate(pools):
        ends = dict.fromkeys((pool[0], pool[-1])) if index == largest else pool[:1]
        entries += [Entry(plan, index) for plan in (pool if per_plan else ends)]
    return entries


def run_rounds(
    draft: Timings,
    sample: Callable[[int], Sample],
    *,
    started: float,
    clock: Clock,
    read: Callable[[], machine.Reading] = machine.read,
    progress: Progress | None = None,
) -> Timings:
    """Add rounds to `draft` until the target is met or the next round would pass the budget.

    To reach `min_rounds`, up to twice the budget is spent.

    The intervals are looked at after 8, 12, 18, 27, … rounds only: an experiment that may stop
    after each round stops too often when chance makes the interval narrow.

    Args:
        draft: a run without rounds.
        sample: times one entry, by its number.
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
        rounds.append(_one_round(len(draft.entries), sample, shuffler, read))
        now = clock()
        timings = replace(draft, rounds=tuple(rounds), elapsed_s=now - started)
        if progress is not None:
            progress(timings)
        if len(rounds) == next_look:
            next_look = -(-next_look * 3 // 2)
            if timings.widest[0] <= protocol["target"]:
                return replace(timings, stopped_because=TARGET_MET)
        round_s = (now - first_round) / len(rounds)
        enough = len(rounds) >= protocol["min_rounds"]
        allowed_s = protocol["budget_s"] * (1 if enough else 2)
        if now + round_s - started > allowed_s:
            return timings


def _one_round(
    n_entries: int,
    sample: Callable[[int], Sample],
    shuffler: random.Random,
    read: Callable[[], machine.Reading],
) -> Round:
    order = list(range(n_entries))
    shuffler.shuffle(order)
    samples = {entry: sample(entry) for entry in order}
    columns = {
        quantity: tuple(samples[entry][quantity] for entry in range(n_entries))
        for quantity in QUANTITIES
    }
    return Round(tuple(order), columns, read())


def _warm_up(workload: Workload, entries: Sequence[Entry], protocol: LatencyProtocol) -> None:
    """Calls that are not kept. Here the compiler works, so here it fails."""
    try:
        for _ in range(protocol.warmup_rounds):
            for entry in entries:
                workload.sample(entry.plan)
    except torch._dynamo.exc.TorchDynamoException as error:
        raise DeviceError(
            f"cannot compile on {workload.decoder.device.type!r}: {str(error).splitlines()[0]} "
            "Use the eager mode."
        ) from error


def _gpu_reader(device: torch.device) -> machine.GpuReader | None:
    if device.type != "cuda":
        return None
    return machine.gpu_reader(f"GPU-{torch.cuda.get_device_properties(device).uuid}")


def _facts(model: PreTrainedModel) -> dict[str, Any]:
    device = model.device
    on_gpu = device.type == "cuda"
    return machine.facts() | {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if on_gpu else None,
        "threads": torch.get_num_threads(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": model.config._attn_implementation,
        "model_type": model.config.model_type,
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
def _compiler_limit(n_entries: int) -> Iterator[None]:
    """Let the compiler keep a version of the decode step for every entry and prompt length."""
    limit = max(torch._dynamo.config.recompile_limit, 4 * n_entries)
    with torch._dynamo.config.patch(recompile_limit=limit, accumulated_recompile_limit=8 * limit):
        yield
