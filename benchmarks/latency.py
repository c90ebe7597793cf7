"""Latency acceptance on this machine: null runs, two complete runs, and a batch sweep.

    python -m benchmarks.latency --threads 2            # all, both models, about half an hour
    python -m benchmarks.latency --parts null --runs 5  # a quick look
    python -m benchmarks.latency --device cuda --dtype float16 --mode cuda-graph

Null runs time the whole model against itself; counted are the runs whose interval covers 1.
Complete runs time every depth; printed are the ratios, the line, and whether two runs agree.
`--output FILE` keeps every raw sample as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

import pruning_kit
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plan import Plan, subsets
from pruning_kit.speed import latency, verdicts
from pruning_kit.speed.timings import QUANTITIES, Timings, compare

DEMO = Path(pruning_kit.__file__).parent / "demo"
MODELS = ("demo", "distilgpt2-shape")
PARTS = ("null", "sweep", "batch")
BATCH_SIZES = (1, 2, 4, 8)

Keep = Callable[[Timings], None]


def load(name: str, device: str, dtype: str) -> tuple[Decoder, list[int]]:
    """A model and the tokens of the historic prompt. A shape alone has random weights."""
    if name == "demo":
        model = AutoModelForCausalLM.from_pretrained(DEMO)
        prompt_ids = AutoTokenizer.from_pretrained(DEMO)(latency.PROMPT).input_ids
    else:
        model = GPT2LMHeadModel(GPT2Config(n_layer=6))
        prompt_ids = list(range(6))
    return Decoder(model.to(device, getattr(torch, dtype))), prompt_ids


def null_runs(
    decoder: Decoder,
    prompt_ids: Sequence[int],
    protocol: latency.LatencyProtocol,
    n_runs: int,
    keep: Keep,
) -> None:
    """Time the whole model against itself, again and again, and count."""
    runs = []
    for seed in range(n_runs):
        runs.append(latency.measure(decoder, [], prompt_ids, replace(protocol, seed=seed)))
        keep(runs[-1])
        texts = " ".join(_null_text(runs[-1], quantity) for quantity in QUANTITIES)
        print(f"  {seed:2d} {len(runs[-1].rounds):3d} rounds {texts}", flush=True)
    for quantity in QUANTITIES:
        tests = [run.null_test[quantity] for run in runs]
        narrow = sum(test.ratio.half_width <= protocol.target for test in tests)
        passed = sum(test.passed for test in tests)
        widest = max(test.ratio.half_width for test in tests)
        print(
            f"  {quantity}: covers 1 in {passed} of {n_runs}; half-width at most "
            f"{protocol.target:.0%} in {narrow}, widest {widest:.2%}"
        )


def _null_text(timings: Timings, quantity: str) -> str:
    test = timings.null_test[quantity]
    ratio = test.ratio
    mark = " " if test.passed else "!"
    return f"| {verdicts.NAMES[quantity]} {ratio.value:.4f} ±{ratio.half_width:.4f}{mark}"


def two_sweeps(
    decoder: Decoder, prompt_ids: Sequence[int], protocol: latency.LatencyProtocol, keep: Keep
) -> None:
    """Every depth, twice over; print both and whether they agree."""
    plans = list(subsets(decoder.n_blocks, range(1, decoder.n_blocks)))
    runs = []
    for seed in (100, 101):
        runs.append(latency.measure(decoder, plans, prompt_ids, replace(protocol, seed=seed)))
        keep(runs[-1])
        print_run(runs[-1])
    agreement = compare(*runs)
    worst = max(agreement.differences.items(), key=lambda item: abs(item[1].value - 1))
    print(
        f"  two runs agree on {len(agreement.differences) - len(agreement.disagreeing)} of "
        f"{len(agreement.differences)} ratios; largest difference {worst[1].value:.4f} "
        f"[{worst[1].low:.4f}, {worst[1].high:.4f}] ({worst[0][0]}, plan {worst[0][1]})"
    )


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
    for sentence in verdicts.findings(timings):
        print(f"  {sentence}")
    for sentence in verdicts.warnings(timings):
        print(f"  warning: {sentence}")


def batch_curve(
    decoder: Decoder, prompt_ids: Sequence[int], protocol: latency.LatencyProtocol, keep: Keep
) -> None:
    """Latency against throughput for the whole model and half of it."""
    half = Plan(tuple(range(1, decoder.n_blocks, 2)))
    runs = latency.batch_sweep(decoder, [half], prompt_ids, BATCH_SIZES, protocol)
    for size, run in runs.items():
        keep(run)
        whole, cut = run.summary(Plan()), run.summary(half)
        print(
            f"  batch {size}: whole {1000 * whole.decode_s_per_token.median_s:.2f} ms a step, "
            f"{whole.decode_tokens_per_s:.0f} tokens/s; plan {half} "
            f"{1000 * cut.decode_s_per_token.median_s:.2f} ms, {cut.decode_tokens_per_s:.0f} "
            f"tokens/s"
        )


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    protocol = latency.LatencyProtocol(
        mode=options.mode, budget_s=options.budget, target=options.target
    )
    kept: dict[str, list[dict[str, Any]]] = {}
    for name in options.models:
        decoder, prompt_ids = load(name, options.device, options.dtype)
        for part in options.parts:
            started = time.perf_counter()
            print(f"{name}, {part}, {options.mode}, {options.device}, {options.dtype}", flush=True)
            keep = _keeper(kept.setdefault(f"{name} {part}", []), kept, options.output)
            if part == "null":
                null_runs(decoder, prompt_ids, protocol, options.runs, keep)
            elif part == "sweep":
                longer = replace(protocol, budget_s=options.sweep_budget)
                two_sweeps(decoder, prompt_ids, longer, keep)
            else:
                batch_curve(decoder, prompt_ids, protocol, keep)
            print(f"  took {time.perf_counter() - started:.0f} s", flush=True)


def _keeper(runs: list[dict[str, Any]], kept: dict[str, Any], output: Path | None) -> Keep:
    """Adds a run to `runs`, a part of `kept`, and writes all of it at once: nothing is lost."""

    def keep(timings: Timings) -> None:
        runs.append(timings.to_json())
        if output is not None:
            output.write_text(json.dumps(kept))

    return keep


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--runs", type=int, default=20, help="null runs (20)")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds a null run (60)")
    parser.add_argument("--sweep-budget", type=float, default=240.0, help="seconds a sweep (240)")
    parser.add_argument("--target", type=float, default=0.02, help="half-width wanted (0.02)")
    parser.add_argument("--mode", choices=latency.MODES, default="eager")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="JSON of every raw sample")
    return parser.parse_args()


if __name__ == "__main__":
    main()
