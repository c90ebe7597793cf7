"""How time and memory of a sweep grow with plans, blocks and windows.

    python -m benchmarks.growth [--device cpu|cuda] [--windows N]

GPT-2 with 12 blocks up to all 4,096 subsets, and GPT-2 XL's 48 blocks for all singles and pairs;
on a CPU both at a width of 128 with a small vocabulary, since only growth is asked for. The last
line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial

import torch

from benchmarks import machine
from benchmarks.sweep import Text, random_model
from pruning_kit.inputs.windows import sliding_windows
from pruning_kit.kernels import choose_kernel
from pruning_kit.plans.paths import as_cut, count_calls
from pruning_kit.plans.sets import subsets
from pruning_kit.walk.batching import choose_batch_size
from pruning_kit.walk.sums import nll_sums

SMALL = {"n_embd": 128, "n_head": 2, "vocab_size": 1024}
CASES = [(12, 768, 12, (1, 2, 3, 12)), (48, 1600, 25, (1, 2))]


def measure(
    device: torch.device, n_blocks: int, shape: dict[str, int], most: Sequence[int], n_windows: int
) -> list[dict[str, float]]:
    """One row for each largest number of removed blocks, and one with half the windows."""
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    decoder = random_model(device, n_layer=n_blocks, **shape)
    n_tokens = 1024 + 512 * n_windows
    tokens = torch.randint(0, decoder.model.config.vocab_size, (n_tokens,))
    text = Text(tokens, sliding_windows(n_tokens, 1024, 512))
    kernel = choose_kernel(decoder, text.batch(1, 2)[0], dtype, device)
    rows = []
    for removed, count in [*((m, n_windows) for m in most), (most[-1], n_windows // 2)]:
        plans = list(subsets(n_blocks, range(removed + 1)))
        batch = min(count, choose_batch_size(kernel, removed, *text.batch(1, 2)))
        starts = range(1, 1 + count, batch)
        groups = [(start, min(start + batch, 1 + count)) for start in starts]
        nll_sums(kernel, plans[:2], n_blocks, *text.batch(*groups[0]))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        took = 0.0
        for group in groups:
            walk = partial(nll_sums, kernel, plans, n_blocks, *text.batch(*group))
            took += machine.once(walk, device)
        rows.append(
            {
                "blocks": n_blocks,
                "plans": len(plans),
                "block_calls": count_calls(as_cut(plan, n_blocks) for plan in plans),
                "windows": count,
                "batch_windows": batch,
                "seconds": took,
                "milliseconds_per_plan_and_window": 1e3 * took / len(plans) / count,
                "peak_gib": machine.peak_bytes(device) / 2**30,
            }
        )
        print("  ".join(f"{name} {value:,.4g}" for name, value in rows[-1].items()), flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--windows", type=int, help="windows of the 12-block model")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    n_windows = options.windows or (32 if on_gpu else 2)
    rows = []
    for n_blocks, width, heads, most in CASES:
        shape = {"n_embd": width, "n_head": heads} if on_gpu else SMALL
        count = n_windows if n_blocks == 12 else max(2, n_windows // 8)
        rows += measure(device, n_blocks, shape, most, count)
    print(json.dumps({"machine": machine.name(device), "rows": rows}))


if __name__ == "__main__":
    main()
