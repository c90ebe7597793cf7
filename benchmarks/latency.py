"""Latency acceptance on this machine: null runs, complete runs, further batch sizes, runs alone.

    python -m benchmarks.latency --threads 2            # all, both models
    python -m benchmarks.latency --parts null --runs 5  # a quick look
    python -m benchmarks.latency --device cuda --dtype float16 --modes eager compile cuda-graph

`null` times the whole model against itself; counted are the runs whose interval covers 1.
`sweep` times every depth in two complete runs and prints ratios, lines, and whether the runs
agree; one of two equal plans is then slowed by a factor, to see from which size it is noticed.
`batch` prints throughput against latency. `alone` times every depth without turns, one after the
other, and `generate`: what the turns and the bare loop leave out. `--output FILE` keeps every raw
sample as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

import pruning_kit
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.machine import readings
from pruning_kit.machine.devices import Stopwatch, device_name, device_sync
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import subsets
from pruning_kit.reporting.words import doubts, speed
from pruning_kit.speed import latency, stored_timings, throughput
from pruning_kit.speed.generation import Workload
from pruning_kit.speed.protocol import EXECUTIONS, LatencyProtocol
from pruning_kit.speed.timings import QUANTITIES, Timings, compare
from pruning_kit.speed.turns import Turns
from pruning_kit.speed.workload import PROMPT

DEMO = Path(pruning_kit.__file__).parent / "demo"
MODELS = ("demo", "distilgpt2-shape")
BATCH_SIZES = (2, 4, 8, 16)
SLOW_DOWNS = (1.05, 1.005)

Keep = Callable[[Timings], None]
Part = Callable[[Decoder, list[int], LatencyProtocol, argparse.Namespace, Keep], None]


def load(name: str, device: str, dtype: str) -> tuple[Decoder, list[int]]:
    """A model and the tokens of the historic prompt. A shape alone has random weights."""
    if name == "demo":
        model = AutoModelForCausalLM.from_pretrained(DEMO)
        prompt_ids = AutoTokenizer.from_pretrained(DEMO)(PROMPT).input_ids
    else:
        model = GPT2LMHeadModel(GPT2Config(n_layer=6)).eval()
        prompt_ids = list(range(6))
    return Decoder(model.to(device, getattr(torch, dtype))), prompt_ids


def null_runs(
    decoder: Decoder,
    prompt_ids: list[int],
    protocol: LatencyProtocol,
    options: argparse.Namespace,
    keep: Keep,
) -> None:
    """Time the whole model against itself, again and again, and count."""
    runs = []
    for seed in range(options.runs):
        runs.append(latency.measure(decoder, [], prompt_ids, replace(protocol, seed=seed)))
        keep(runs[-1])
        texts = " ".join(_null_text(runs[-1], quantity) for quantity in QUANTITIES)
        print(
            f"  {seed:2d} {len(runs[-1].rounds):3d} rounds {runs[-1].elapsed_s:3.0f} s, "
            f"{speed.threads_used(runs[-1].machine)} {texts}",
            flush=True,
        )
    for quantity in QUANTITIES:
        tests = [run.null_test[quantity] for run in runs]
        narrow = sum(test.ratio.half_width <= protocol.target for test in tests)
        passed = sum(test.passed for test in tests)
        widest = max(test.ratio.half_width for test in tests)
        print(
            f"  {quantity}: covers 1 in {passed} of {len(runs)}; half-width at most "
            f"{protocol.target:.0%} in {narrow}, widest {widest:.2%}"
        )


def _null_text(timings: Timings, quantity: str) -> str:
    test = timings.null_test[quantity]
    ratio = test.ratio
    mark = " " if test.passed else "!"
    return f"| {speed.NAMES[quantity]} {ratio.value:.4f} ±{ratio.half_width:.4f}{mark}"


def sweeps(
    decoder: Decoder,
    prompt_ids: list[int],
    protocol: LatencyProtocol,
    options: argparse.Namespace,
    keep: Keep,
) -> None:
    """Every depth, twice over or as often as asked; print each run, and whether they agree."""
    longer = replace(protocol, budget_s=options.sweep_budget)
    runs = []
    for seed in range(100, 100 + options.sweeps):
        runs.append(
            latency.measure(decoder, _depths(decoder), prompt_ids, replace(longer, seed=seed))
        )
        keep(runs[-1])
        print_run(runs[-1])
        print_slow_downs(runs[-1])
    if options.sweeps < 2:
        return
    agreement = compare(runs[0], runs[1])
    worst = max(agreement.differences.items(), key=lambda item: abs(item[1].value - 1))
    print(
        f"  two runs agree on {len(agreement.differences) - len(agreement.disagreeing)} of "
        f"{len(agreement.differences)} ratios; largest difference {worst[1].value:.4f} "
        f"[{worst[1].low:.4f}, {worst[1].high:.4f}] ({worst[0][0]}, plan {worst[0][1]})"
    )


def _depths(decoder: Decoder) -> list[Plan]:
    return list(subsets(decoder.n_blocks, range(1, decoder.n_blocks)))


def print_run(timings: Timings) -> None:
    """One line a depth, then what the run says about itself."""
    print(
        "  blocks   prefill ms      ratio   decode ms/token      ratio   end to end ms      ratio"
    )
    for pool in timings.pools:
        summary = timings.summary(pool[0])
        cells = [
            f"{1000 * one.median_s:9.3f} {one.ratio.value:.3f} ±{one.ratio.half_width:.3f}"
            for one in (summary.prefill_s, summary.decode_s_per_token, summary.end_to_end_s)
        ]
        peak = f"{summary.peak_bytes / 2**20:7.1f} MiB" if summary.peak_bytes else ""
        print(f"  {timings.n_blocks - pool[0].size:6d}   {'   '.join(cells)} {peak}")
    falls = {
        quantity: all(
            late.value < early.value for early, late in pairwise(timings.ratios[quantity])
        )
        for quantity in QUANTITIES
    }
    print(f"  falls with every block removed: {falls}")
    for sentence in speed.findings(timings):
        print(f"  {sentence}")
    for sentence in doubts.warnings(timings):
        print(f"  warning: {sentence}")


def print_slow_downs(timings: Timings) -> None:
    """Whether the depth test notices the last of two equal plans, were it slower by a factor."""
    pools = [entry.pool for entry in timings.entries]
    entry = next(i for i in reversed(range(2, len(pools))) if pools[i] == pools[i - 1])
    for factor in SLOW_DOWNS:
        tests = slowed(timings, entry, factor).depth_test
        told = {speed.NAMES[quantity]: test.differ for quantity, test in tests.items()}
        print(f"  plan {timings.entries[entry].plan} slowed {factor}-fold is told apart: {told}")


def slowed(timings: Timings, entry: int, factor: float) -> Timings:
    """The run as if one entry had taken `factor` times as long."""
    rounds = []
    for turn in timings.rounds:
        samples = {
            quantity: tuple(s * factor if i == entry else s for i, s in enumerate(values))
            for quantity, values in turn.samples.items()
        }
        rounds.append(replace(turn, samples=samples))
    return replace(timings, rounds=tuple(rounds))


def batch_curve(
    decoder: Decoder,
    prompt_ids: list[int],
    protocol: LatencyProtocol,
    options: argparse.Namespace,
    keep: Keep,
) -> None:
    """Latency against throughput for the whole model and half of it."""
    half = Plan(tuple(range(1, decoder.n_blocks, 2)))
    run = latency.measure(decoder, [half], prompt_ids, replace(protocol, batches=BATCH_SIZES))
    keep(run)
    for point in throughput.batch_points(run):
        print(
            f"  plan {point.plan}, batch {point.batch_size}: "
            f"prefill {1000 * point.prefill_s:.2f} ms, "
            f"decode {1000 * point.decode_s_per_step:.2f} ms a step, "
            f"{point.decode_tokens_per_s:,.0f} tokens/s; decode ratio to the whole model "
            f"{point.ratio.value:.3f} ±{point.ratio.half_width:.3f}"
        )


def alone(
    decoder: Decoder,
    prompt_ids: list[int],
    protocol: LatencyProtocol,
    options: argparse.Namespace,
    keep: Keep,
) -> None:
    """Medians of each depth timed by itself, without turns; and `generate` of the whole model."""
    stopwatch = Stopwatch(time.perf_counter, device_sync(decoder.device))
    torch.set_num_threads(options.threads or torch.get_num_threads())
    for size in range(decoder.n_blocks):
        plan = Plan(tuple(range(size)))
        unbroken = Turns(prefills=1000, steps=1000, lead_in_s=0.0)
        work = Workload(decoder, [plan], prompt_ids, protocol, stopwatch, unbroken)
        samples = [work.sample_round([0])[0] for _ in range(12)][2:]
        cells = [f"{q} {1000 * median(s[q] for s in samples):.3f}" for q in QUANTITIES]
        print(f"  {decoder.n_blocks - size} blocks alone, ms: {', '.join(cells)}")
    tokens = torch.tensor([prompt_ids], device=decoder.device)
    n_new = protocol.end_to_end_tokens - len(prompt_ids)
    seconds = [stopwatch.seconds(lambda: _generate(decoder, tokens, n_new)) for _ in range(12)][2:]
    print(f"  `generate` of the whole model to the same length: {1000 * median(seconds):.1f} ms")


def _generate(decoder: Decoder, tokens: torch.Tensor, n_new: int) -> None:
    decoder.model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=n_new,
        min_new_tokens=n_new,
        do_sample=False,
        pad_token_id=0,
    )


PARTS: dict[str, Part] = {
    "null": null_runs,
    "sweep": sweeps,
    "batch": batch_curve,
    "alone": alone,
}


def main() -> None:
    options = _options()
    print(f"{device_name(torch.device(options.device))}, {readings.facts()}", flush=True)
    kept: dict[str, list[dict[str, Any]]] = {}
    for name in options.models:
        decoder, prompt_ids = load(name, options.device, options.dtype)
        for execution in options.executions:
            protocol = LatencyProtocol(
                execution=execution,
                budget_s=options.budget,
                target=options.target,
                threads=options.threads,
            )
            for part in options.parts:
                started = time.perf_counter()
                title = f"{name} {part} {execution} {options.device} {options.dtype}"
                print(title, flush=True)
                keep = _keeper(kept.setdefault(title, []), kept, options.output)
                PARTS[part](decoder, prompt_ids, protocol, options, keep)
                print(f"  took {time.perf_counter() - started:.0f} s", flush=True)


def _keeper(runs: list[dict[str, Any]], kept: dict[str, Any], output: Path | None) -> Keep:
    """Adds a run to `runs`, a part of `kept`, and writes all of it at once: nothing is lost."""

    def keep(timings: Timings) -> None:
        runs.append(stored_timings.to_json(timings))
        if output is not None:
            output.write_text(json.dumps(kept))

    return keep


def _options(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=tuple(PARTS))
    parser.add_argument("--runs", type=int, default=20, help="null runs (20)")
    parser.add_argument("--sweeps", type=int, default=2, help="complete runs (2)")
    parser.add_argument("--budget", type=float, default=25.0, help="seconds a null run (25)")
    parser.add_argument("--sweep-budget", type=float, default=120.0, help="seconds a sweep (120)")
    parser.add_argument("--target", type=float, default=0.02, help="half-width wanted (0.02)")
    parser.add_argument("--executions", nargs="+", choices=EXECUTIONS, default=("eager",))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, help="default: what trials choose, of all cores")
    parser.add_argument("--output", type=Path, help="JSON of every raw sample")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
