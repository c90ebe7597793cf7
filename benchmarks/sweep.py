"""How fast is a sweep? The usual way, a batched way and the kit's, in one process on one machine.

    python -m benchmarks.sweep [--device cpu|cuda] [--dtype float32|float16|bfloat16] [--quick]

A distilgpt2-shaped model with random weights and a seeded text as long as WikiText-2's test split;
all 64 subsets of its six blocks, context 1024, stride 512. What is too slow to run whole is timed
on some windows for each number of kept blocks and extrapolated; the table says on how many. The
last line of the output is one JSON object. Agreement with float32 is shown on the trained demo
model too, since random weights flatter short number formats.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
)

import pruning_kit
from benchmarks import machine
from benchmarks.reference import cut_model, window_nll
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.windows import Window, sliding_windows, window_groups
from pruning_kit.kernels import choose_kernel
from pruning_kit.kernels.generic import in_format
from pruning_kit.plans.paths import Call, as_cut, plain
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import subsets
from pruning_kit.walk.batching import choose_batch_size
from pruning_kit.walk.kernel import Batch, Kernel
from pruning_kit.walk.measures import MEASURES, NLL, Measure
from pruning_kit.walk.reference import ReferenceKernel
from pruning_kit.walk.sums import nll_sums, window_sums
from pruning_kit.walk.walk import walk

CONTEXT, STRIDE, TEXT_TOKENS = 1024, 512, 287_644
DEMO_CONTEXT = 512
WARM_SWEEPS = 3
"""The median of this many is the kit's time: cores of a virtual machine are others' too."""
PRODUCTS_BETWEEN = 3
"""Timed after each head, one more being made first to fetch what they read."""
DEMO = Path(pruning_kit.__file__).parent / "demo"


@dataclass(frozen=True, slots=True)
class Text:
    """Tokens and the windows to score."""

    tokens: Tensor
    windows: list[Window]

    def batch(self, first: int, end: int) -> tuple[Tensor, Tensor, int]:
        """Tokens read, targets and first scored output of neighbouring windows of one shape."""
        chosen = self.windows[first:end]
        tokens = torch.stack([self.tokens[w.start : w.start + w.n_inputs] for w in chosen])
        targets = torch.stack([self.tokens[w.first_target : w.stop] for w in chosen])
        return tokens, targets, chosen[0].first_output


def all_subsets(n_blocks: int) -> list[Plan]:
    """All 2**L plans, the one that leaves no block included."""
    return list(subsets(n_blocks, range(n_blocks + 1)))


def random_model(device: torch.device, **config: int) -> Decoder:
    """A GPT-2 with random weights, distilgpt2's shape unless told otherwise, in float32."""
    torch.manual_seed(0)
    with torch.device(device):
        return Decoder(GPT2LMHeadModel(GPT2Config(**{"n_layer": 6, **config})))


def random_text(n_vocab: int, n_tokens: int = TEXT_TOKENS) -> Text:
    """A seeded text and its sliding windows."""
    tokens = torch.randint(0, n_vocab, (n_tokens,), generator=torch.Generator().manual_seed(1))
    return Text(tokens, sliding_windows(n_tokens, CONTEXT, STRIDE))


def demo_text(n_tokens: int) -> Text:
    """The start of the embedded held-out text."""
    text = (DEMO / "heldout.txt").read_text(encoding="utf-8")[: 6 * n_tokens]
    tokens = torch.tensor(AutoTokenizer.from_pretrained(DEMO)(text, verbose=False)["input_ids"])[
        :n_tokens
    ]
    return Text(tokens, sliding_windows(len(tokens), DEMO_CONTEXT, DEMO_CONTEXT // 2))


def operations(decoder: Decoder, plans: Sequence[Plan], window: Window) -> dict[str, float]:
    """Multiplications and additions that the kit executes for one window, by part.

    Attention is counted causally; a block that only a leaf needs is counted as it is computed.
    """
    config = decoder.model.config
    width, read, scored = config.n_embd, window.first_output + window.n_targets, window.n_targets
    whole = 24 * read * width**2 + 2 * read**2 * width
    pairs = read * scored - scored**2 / 2
    leaf = 4 * read * width**2 + 20 * scored * width**2 + 4 * pairs * width
    leaves = []

    def count(_call: Call, state: Tensor, last: bool) -> Tensor:
        leaves.append(last)
        return state

    for _ in walk(torch.empty(0), count, [as_cut(plan, decoder.n_blocks) for plan in plans]):
        pass
    return {
        "block": whole,
        "leaf_block": leaf,
        "head": 2.0 * scored * width * config.vocab_size,
        "blocks": leaves.count(False) * whole + leaves.count(True) * leaf,
        "heads": len(plans) * 2.0 * scored * width * config.vocab_size,
    }


def executed_operations(
    decoder: Decoder, plans: Sequence[Plan], text: Text, groups: Sequence[tuple[int, int]]
) -> float:
    """Those of all plans over the groups' windows."""
    counts = [
        operations(decoder, plans, text.windows[i])
        for first, end in groups
        for i in range(first, end)
    ]
    return sum(count["blocks"] + count["heads"] for count in counts)


def sweep_sums(
    kernel: Kernel,
    decoder: Decoder,
    text: Text,
    groups: Sequence[tuple[int, int]],
    measures: Sequence[Measure] = (NLL,),
) -> Tensor:
    """NLL sums of all subsets on these window groups, (P, B); other measures are added up too."""
    n_blocks = decoder.n_blocks
    paths = [as_cut(plan, n_blocks) for plan in all_subsets(n_blocks)]
    whole = as_cut(Plan(), n_blocks)
    found = [window_sums(kernel, paths, *text.batch(*g), measures, whole) for g in groups]
    return torch.cat([sums[NLL.name] for sums in found], dim=1)


def compared_share(run: Callable[[Sequence[Measure]], Tensor], device: torch.device) -> float:
    """How much longer a sweep takes with KL and agreement than with NLL alone, by turns."""
    every = tuple(MEASURES.values())
    run(every)
    turns = [
        [machine.once(partial(run, chosen), device) for chosen in ((NLL,), every)]
        for _ in range(WARM_SWEEPS)
    ]
    alone_s, all_s = (sorted(times)[WARM_SWEEPS // 2] for times in zip(*turns, strict=True))
    return all_s / alone_s - 1


def usual_seconds(decoder: Decoder, text: Text, n_windows: int, n_all: int) -> float:
    """A whole power-set sweep the usual way, from timing each number of kept blocks."""
    device = decoder.device
    middle = len(text.windows) // 2
    tokens, _, first_output = text.batch(middle, middle + n_windows)
    tokens = tokens.to(device)
    total = 0.0
    for removed in range(decoder.n_blocks + 1):
        with cut_model(decoder, Plan(tuple(range(removed)))) as model, torch.no_grad():
            window_nll(model, tokens[:1], first_output)
            took = machine.once(partial(_window_by_window, model, tokens, first_output), device)
        total += math.comb(decoder.n_blocks, removed) * took / n_windows * n_all
    return total


def _window_by_window(model: PreTrainedModel, tokens_BT: Tensor, first_output: int) -> list[float]:
    return [window_nll(model, window[None], first_output) for window in tokens_BT]


def batched_seconds(decoder: Decoder, text: Text, batch: int, n_all: int) -> float:
    """A power-set sweep without sharing: batches, scored positions only through the head."""
    kernel = ReferenceKernel(decoder, exact_head=True)
    middle = len(text.windows) // 2
    inputs = text.batch(middle, middle + batch)
    total = 0.0
    for removed in range(decoder.n_blocks + 1):
        plan = Plan(tuple(range(removed)))
        repeats = 2 if decoder.device.type == "cuda" else 1
        alone = partial(nll_sums, kernel, [plan], decoder.n_blocks, *inputs)
        runs = [machine.once(alone, decoder.device) for _ in range(repeats)]
        total += math.comb(decoder.n_blocks, removed) * runs[-1] / batch * n_all
    return total


def agreement(
    kernel: Kernel, decoder: Decoder, text: Text, groups: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """Distance from the float32 reference over the groups' windows, worst plan named.

    The subset that leaves no block is no model; it is reported apart.
    """
    plans = all_subsets(decoder.n_blocks)
    reference = sweep_sums(ReferenceKernel(decoder, exact_head=True), decoder, text, groups)
    found = sweep_sums(kernel, decoder, text, groups)
    n_scored = sum(text.windows[i].n_targets for first, end in groups for i in range(first, end))
    off = ((found.sum(1) - reference.sum(1)) / n_scored).abs()
    worst = int(off[:-1].argmax())
    return {
        "worst_plan": str(plans[worst]),
        "nll_error_nats": float(off[worst]),
        "ppl_error_relative": math.expm1(float(off[worst])),
        "nll_nats": float(reference[worst].sum() / n_scored),
        "row_error_relative": float((off / (reference.sum(1) / n_scored)).max()),
        "no_block_left_nll_error_nats": float(off[-1]),
        "scored_tokens": n_scored,
    }


def demo_agreement(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """`agreement` on the trained demo model and its text, on a CPU the start of it."""
    on_gpu = device.type == "cuda"
    demo = Decoder(AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32).to(device))
    text = demo_text(10**6 if on_gpu else 33 * DEMO_CONTEXT)
    kernel = choose_kernel(demo, text.batch(1, 2)[0], dtype, device)
    if kernel.note:
        sys.exit(f"the fast path was not used for the demo model: {kernel.note}")
    return agreement(kernel, demo, text, window_groups(text.windows, 64 if on_gpu else 8))


class Alternating:
    """A kernel that repeats a large product after each head, timed but for the first call.

    Cores of a virtual machine may be slow for seconds or minutes; products made in between have the
    same cores.
    """

    def __init__(self, kernel: Kernel, product: machine.Product) -> None:
        self.name, self.note = kernel.name, kernel.note
        self.dtype, self.device = kernel.dtype, kernel.device
        self.first_calls_s: list[float] = []
        self.products_s: list[float] = []
        self._kernel, self._product = kernel, product
        self.learn = kernel.learn

    def open(self, tokens_BT: Tensor, targets_BS: Tensor, first_output: int) -> Batch:
        opened = self._kernel.open(tokens_BT, targets_BS, first_output)
        nll = opened.nll

        def nll_and_products(hidden: Tensor) -> Tensor:
            found = nll(hidden)
            first_s, *others_s = (
                machine.once(self._product.call, self.device) for _ in range(1 + PRODUCTS_BETWEEN)
            )
            self.first_calls_s.append(first_s)
            self.products_s += others_s
            return found

        opened.nll = nll_and_products  # type: ignore[method-assign]
        return opened


def alternate(
    kernel: Kernel, product: machine.Product, sweep: Callable[[Kernel], object], executed: float
) -> dict[str, float]:
    """The rates of a sweep of so many operations and of products made meanwhile."""
    alternating = Alternating(kernel, product)
    all_s = machine.once(lambda: sweep(alternating), kernel.device)
    products_s = sum(alternating.products_s)
    sweep_rate = executed / (all_s - products_s - sum(alternating.first_calls_s))
    products_rate = len(alternating.products_s) * product.operations / products_s
    return {
        "alternating_products_tflops": products_rate / 1e12,
        "alternating_sweep_tflops": sweep_rate / 1e12,
        "alternating_share": sweep_rate / products_rate,
    }


def part_calls(
    kernel: Kernel, inputs: tuple[Tensor, Tensor, int]
) -> dict[str, Callable[[], object]]:
    """A whole block, a leaf's block and the head of an opened batch, each as a call of its own."""
    tokens, targets, first_output = inputs
    opened = kernel.open(tokens.to(kernel.device), targets.to(kernel.device), first_output)
    state = opened.hidden_BTD
    return {
        "block": lambda: opened.apply(plain(0), state, False),
        "leaf_block": lambda: opened.apply(plain(0), state, True),
        "head": lambda: opened.nll(state),
    }


def part_rates(
    kernel: Kernel, text: Text, batch: int, counts: dict[str, float]
) -> dict[str, float]:
    """Operations per second of a whole block, a leaf's block and the head, each alone."""
    middle = len(text.windows) // 2
    calls = part_calls(kernel, text.batch(middle, middle + batch))
    with torch.no_grad():
        return {
            part: batch * counts[part] / machine.seconds(call, kernel.device)
            for part, call in calls.items()
        }


def measure(device: torch.device, dtype: torch.dtype, quick: bool) -> dict[str, Any]:
    """Everything the table and the JSON line show."""
    on_gpu = device.type == "cuda"
    ceiling_before, copy = machine.matmul_ceiling(device, dtype), machine.copy_ceiling(device)
    decoder = random_model(device)
    plans, text = all_subsets(decoder.n_blocks), random_text(decoder.model.config.vocab_size)
    middle = len(text.windows) // 2
    counts = operations(decoder, plans, text.windows[middle])

    kernels: list[Kernel] = []
    probe, *_ = text.batch(middle, middle + 1)
    setup_s = machine.once(
        lambda: kernels.append(choose_kernel(decoder, probe, dtype, device)), device
    )
    kernel = kernels[0]
    if kernel.note:
        sys.exit(f"the fast path was not used: {kernel.note}")
    batch = choose_batch_size(kernel, decoder.n_blocks, *text.batch(middle, middle + 1))
    if on_gpu and not quick:
        groups = window_groups(text.windows, batch)
    else:
        groups = [(middle, middle + batch)]
    n_timed = sum(end - first for first, end in groups)
    n_all = len(text.windows)

    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    cold_s = machine.once(lambda: sweep_sums(kernel, decoder, text, groups), device)
    warm_sweeps_s = sorted(
        machine.once(lambda: sweep_sums(kernel, decoder, text, groups), device)
        for _ in range(WARM_SWEEPS)
    )
    warm_s = warm_sweeps_s[len(warm_sweeps_s) // 2]
    ours_s = warm_s * n_all / n_timed
    compared = compared_share(
        lambda measures: sweep_sums(kernel, decoder, text, groups, measures), device
    )
    peak = machine.peak_bytes(device)
    rates = part_rates(kernel, text, batch, counts)
    ceilings = ceiling_before | machine.matmul_ceiling(device, dtype)
    ceiling = ceilings.any.rate
    executed = executed_operations(decoder, plans, text, groups)
    alternating = alternate(
        kernel, ceilings.any, lambda used: sweep_sums(used, decoder, text, groups), executed
    )
    usual_windows = 16 if on_gpu else 2
    usual_s = usual_seconds(decoder, text, usual_windows, n_all)
    batched_s = batched_seconds(in_format(decoder, dtype, device), text, batch, n_all)
    # a CPU in float32 needs minutes for long windows: there the random model reads short ones
    short = Text(text.tokens, sliding_windows(257, 256, 128))
    close = (text, [(middle, middle + 8)]) if on_gpu else (short, [(0, 1)])
    return {
        "machine": machine.name(device),
        "torch": torch.__version__,
        "kernel": kernel.name,
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "plans": len(plans),
        "windows": n_all,
        "windows_timed": n_timed,
        "usual_windows_timed_per_size": usual_windows,
        "batch_windows": batch,
        "usual_s": usual_s,
        "batched_same_dtype_s": batched_s,
        "ours_s": ours_s,
        "ours_of_each_sweep_s": [took_s * n_all / n_timed for took_s in warm_sweeps_s],
        "with_kl_and_agreement_more": compared,
        "setup_s": setup_s,
        "cold_extra_s": cold_s - warm_s,
        "speedup_vs_usual": usual_s / ours_s,
        "speedup_vs_batched_same_dtype": batched_s / ours_s,
        "executed_pflop": executed * n_all / n_timed / 1e15,
        "matmul_ceiling_tflops": ceiling / 1e12,
        "library_matmul_ceiling_tflops": ceilings.library.rate / 1e12,
        "copy_ceiling_gb_per_s": copy / 1e9,
        "achieved_tflops": executed / warm_s / 1e12,
        "achieved_share_of_ceiling": executed / warm_s / ceiling,
        **alternating,
        "achieved_share_of_library_ceiling": executed / warm_s / ceilings.library.rate,
        **{f"{part}_share_of_ceiling": rate / ceiling for part, rate in rates.items()},
        "peak_bytes": peak,
        "agreement_random": agreement(kernel, decoder, *close),
        "agreement_demo": demo_agreement(device, dtype),
    }


def table(found: dict[str, Any]) -> str:
    """The result for a person."""
    rows = [
        ("the usual way, float32", found["usual_s"], 1.0),
        (
            "batched, no sharing, same format",
            found["batched_same_dtype_s"],
            found["usual_s"] / found["batched_same_dtype_s"],
        ),
        ("the kit, warm", found["ours_s"], found["speedup_vs_usual"]),
    ]
    sweeps = ", ".join(f"{took_s:,.2f}" for took_s in found["ours_of_each_sweep_s"])
    lines = [
        f"{found['plans']} plans, {found['windows']} windows of {CONTEXT}/{STRIDE}, "
        f"{found['machine']}, TF32 {'on' if found['tf32'] else 'off'}",
        f"kernel: {found['kernel']}; {found['windows_timed']} windows timed "
        f"(usual way: {found['usual_windows_timed_per_size']} for each number of blocks)",
        *(f"  {what:<34}{took:>10.2f} s {speedup:>8.1f} x" for what, took, speedup in rows),
        f"  the kit's warm sweeps: {sweeps} s",
        f"  with KL and agreement {100 * found['with_kl_and_agreement_more']:+.1f} %",
        f"  set-up and probe {found['setup_s']:.1f} s, first sweep {found['cold_extra_s']:.1f} s "
        "longer",
        f"  {found['achieved_tflops']:.3g} of {found['matmul_ceiling_tflops']:.3g} TFLOP/s: "
        f"{found['achieved_share_of_ceiling']:.0%} (block {found['block_share_of_ceiling']:.0%}, "
        f"leaf block {found['leaf_block_share_of_ceiling']:.0%}, "
        f"head {found['head_share_of_ceiling']:.0%}); peak {found['peak_bytes'] / 2**30:.2f} GiB",
        f"  {found['achieved_share_of_library_ceiling']:.0%} of the "
        f"{found['library_matmul_ceiling_tflops']:.3g} TFLOP/s of the library's best product",
        f"  by turns with the fastest product: {found['alternating_sweep_tflops']:.3g} of "
        f"{found['alternating_products_tflops']:.3g} TFLOP/s: {found['alternating_share']:.0%}",
    ]
    for name in ("random", "demo"):
        row = found[f"agreement_{name}"]
        lines.append(
            f"  {name} weights, worst plan {row['worst_plan']}: {row['nll_error_nats']:.1e} nats, "
            f"row {row['row_error_relative']:.1e} from float32 "
            f"(no block left: {row['no_block_left_nll_error_nats']:.1e} nats)"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--quick", action="store_true", help="one batch of windows on a GPU")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    dtype = options.dtype or ("float16" if device.type == "cuda" else "float32")
    found = measure(device, getattr(torch, dtype), options.quick)
    print(table(found))
    print(json.dumps({"dtype": dtype, **found}))


if __name__ == "__main__":
    main()
