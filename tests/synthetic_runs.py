"""Synthetic run folders, written as the kit writes them, with known costs and no model.

`python -m tests.synthetic_runs FOLDER N_BLOCKS` writes one to look at.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pruning_kit.machine import disk
from pruning_kit.plans.plan import Plan
from pruning_kit.runs import store
from pruning_kit.runs.results import write_samples
from pruning_kit.speed.timings import (
    END_TO_END,
    END_TO_END_PLAIN,
    QUANTITIES,
    Entry,
    Round,
    Timings,
)
from tests.synthetic_scores import additive_costs, all_plans, synthetic_nll

WHOLE_M, BLOCK_M = 81_912_576, 7_087_872
GROUP = 50


def costs_of(n_blocks: int, steepness: float = 1.0):
    """log PPL costs in the manner of a GPT-2: the first block carries most, the last much.

    Blocks 0 and 1 replace each other, and so do all neighbours, a little.
    """
    middle = [0.25 + 0.03 * ((7 * block) % 5) for block in range(1, n_blocks - 1)]
    ends = ([3.0], [1.2]) if n_blocks > 1 else ([3.0], [])
    pairs = {(block, block + 1): 0.15 for block in range(1, n_blocks - 1)}
    if n_blocks > 1:
        pairs[0, 1] = 1.5
    cost = additive_costs([*ends[0], *middle, *ends[1]], pairs)
    return lambda plan: steepness * cost(plan)


def write_run(
    folder: Path,
    n_blocks: int = 6,
    plans: Iterable[Plan] | None = None,
    *,
    n_windows: int = 120,
    timed: bool = True,
    failed: Sequence[Plan] = (),
    calibration: bool = False,
    recomputed: bool = False,
    cost=None,
    seed: int = 0,
    model: str = "distilgpt2",
    title: str = "WikiText-2 raw, test",
    text_sha256: str = "b1" * 32,
    changes: Mapping[str, Any] | None = None,
    samples: Mapping[Plan, str] | None = None,
) -> Path:
    """Write a finished run through the store and return its folder.

    Args:
        folder: where to; new or empty.
        n_blocks: blocks of the model.
        plans: what was measured; by default every set of blocks, also the empty stack.
        n_windows: windows of each text.
        timed: write latency.json, with one pool for each number of blocks.
        failed: plans with a window that is not finite.
        calibration: measure a second text to choose on.
        recomputed: mark the first window group of each text as computed again in float32.
        cost: log PPL increase of a plan; by default that of `costs_of`.
        seed: of the texts.
        model: name of the model.
        title: title of the text that is reported on.
        text_sha256: its hash.
        changes: replaces top-level entries of run.json, or adds some.
        samples: what plans wrote on from a prompt.
    """
    plans = all_plans(n_blocks) if plans is None else list(plans)
    cost = cost or costs_of(n_blocks)
    titles = {"test": title} | ({"calibration": "WikiText-2 raw, valid"} if calibration else {})
    sums, targets = {}, {}
    for number, split in enumerate(titles):
        sums[split], targets[split] = synthetic_nll(plans, cost, n_windows, seed + 100 * number)
        for plan in failed:
            sums[split][plans.index(plan), n_windows // 2] = np.nan
    groups = [[i, min(i + GROUP, n_windows)] for i in range(0, n_windows, GROUP)]
    info = _info(plans, n_blocks, targets, groups, titles, model, text_sha256)
    if recomputed:
        info["numerics"]["dtype"] = "float16"
    run = store.RunFolder.create(folder, info | dict(changes or {}))
    for split, nll_PN in sums.items():
        for number, (first, end) in enumerate(groups):
            again = {"recomputed": "float32"} if recomputed and number == 0 else {}
            run.write_part(split, number, nll_PN[:, first:end], {"kernel": "reference"} | again)
    if samples:
        write_samples(folder, "It was", 60, samples)
    if timed:
        disk.write_json(folder / "latency.json", synthetic_timings(plans, n_blocks).to_json())
    return folder


def _info(plans, n_blocks, targets, groups, titles, model, text_sha256) -> dict[str, Any]:
    names = [str(plan) for plan in plans]
    hashes = {"test": text_sha256, "calibration": "c2" * 32}
    return {
        "command": f"pruning-kit sweep --model {model} --mode combinatorial",
        "created": "2026-01-02T03:04:05+00:00",
        "identity": {"plans_sha256": hashlib.sha256(" ".join(names).encode()).hexdigest()},
        "model": {
            "name": model,
            "revision": None,
            "weights_sha256": "a0" * 32,
            "model_type": "gpt2",
            "n_blocks": n_blocks,
            "stored_dtype": "float32",
            "context_limit": 1024,
            "note": None,
        },
        "texts": {
            split: {
                "name": "wikitext2",
                "title": title,
                "sha256": hashes[split],
                "n_tokens": int(targets[split].sum()) + 1,
                "n_bytes": int(4.4 * targets[split].sum()),
                "n_windows_in_all": len(targets[split]),
                "part": None,
                "note": None,
            }
            for split, title in titles.items()
        },
        "protocol": {"context": 1024, "stride": 512, "max_windows": None},
        "numerics": {
            "dtype": "float32",
            "device": "cpu",
            "device_name": "AMD EPYC 9B14",
            "kernel": "reference",
            "attention": "sdpa",
            "batch_size": 8,
            "threads": 2,
        },
        "plans": names,
        "parameters": {str(plan): max(1, WHOLE_M - BLOCK_M * plan.size) for plan in plans},
        "windows": {
            split: {"groups": groups, "targets": values.tolist()}
            for split, values in targets.items()
        },
        "versions": {"pruning_kit": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "choice": {"mode": "combinatorial", "strategies": [], "sizes": [], "ratios": [], "seed": 0},
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
    }


def synthetic_timings(
    plans: Iterable[Plan], n_blocks: int, n_rounds: int = 12, seed: int = 0, whole_s: float = 0.4
) -> Timings:
    """Timings with a known line: 30 % of the whole model's time lies outside the blocks."""
    by_size: dict[int, list[Plan]] = {0: [Plan()]}
    for plan in plans:
        if 0 < plan.size < n_blocks:
            by_size.setdefault(plan.size, []).append(plan)
    pools = tuple(tuple(pool) for pool in by_size.values())
    entries = (
        Entry(Plan(), 0, 90_000_000),
        *(Entry(pool[0], index, 80_000_000) for index, pool in enumerate(pools)),
    )
    seconds_E = np.array(
        [whole_s * (0.3 + 0.7 * (n_blocks - entry.plan.size) / n_blocks) for entry in entries]
    )
    share = {"prefill_s": 0.1, "decode_s_per_token": 0.013, "end_to_end_s": 1.0}
    generator = np.random.default_rng(seed)

    def noisy(quantity: str) -> tuple[float, ...]:
        factors = np.exp(0.01 * generator.standard_normal(len(entries)))
        return tuple((share[quantity] * seconds_E * factors).tolist())

    def samples() -> dict[str, tuple[float, ...]]:
        found = {quantity: noisy(quantity) for quantity in QUANTITIES}
        return found | {END_TO_END_PLAIN: found[END_TO_END]}

    reading = {"time_s": 0.0, "cpu_busy_s": 0.0, "cpu_own_s": 0.0, "cpu_steal_s": 0.0}
    return Timings(
        n_blocks=n_blocks,
        protocol={
            "batch_size": 1,
            "prompt_tokens": 128,
            "new_tokens": 16,
            "end_to_end_prompt_tokens": 6,
            "end_to_end_new_tokens": 69,
            "target": 0.02,
            "budget_s": 15.0,
            "warmup_rounds": 1,
            "mode": "eager",
            "threads_asked": None,
        },
        machine={
            "cores": 2,
            "threads": 2,
            "threads_offered": 2,
            "device": "cpu",
            "device_name": "AMD EPYC 9B14",
        },
        pools=pools,
        entries=entries,
        start=reading | {"load_average": 0.1},
        rounds=tuple(
            Round(
                tuple(range(len(entries))),
                samples(),
                reading | {"time_s": float(number + 1), "load_average": 0.2},
            )
            for number in range(n_rounds)
        ),
        stopped_because="target met",
        elapsed_s=14.0,
    )


if __name__ == "__main__":
    print(write_run(Path(sys.argv[1]), int(sys.argv[2])))
