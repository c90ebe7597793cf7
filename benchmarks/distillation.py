"""What distillation gives, beside what others do on the same tokens, and how fast it is.

    python -m benchmarks.distillation [--tokens 2e6] [--device cuda]
    python -m benchmarks.distillation --budgets 100k 500k 2M 8M 32M [--keep FOLDER] [WHAT]
    python -m benchmarks.distillation --peers 2M [WHAT]

where WHAT is [--model demo] [--dataset TEXT] [--calibrate-on TEXT] [--also-on TEXT ...]
[--plans 5 1+5 ...] [--context N] [--stride N] [--max-windows N] [--dtype float32].

The first is of speed: a model of distilgpt2's shape without blocks 1 and 4 learns from the whole
one on random tokens, beside a plain script around the Hugging Face Trainer: the same loss, batches
of 32 sequences of 512, sdpa, bfloat16 products and fused AdamW on both sides (the kit's matrices
by Muon). The script has the largest micro-batch that fits; then both have equal ones, for their
memory.

`--budgets` gives the perplexity of each plan as cut, bridged, and distilled on so many tokens, with
its ratio to the whole model's; `--keep` keeps models there, for a command that is stopped and given
again. `--peers` gives what benchmarks/recipes.py says. The last line of the output is one JSON
object.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, Trainer, TrainingArguments

from benchmarks.budgets import measure_budgets
from benchmarks.recipes import compare_recipes
from benchmarks.sweep import random_model
from pruning_kit import open_workbench
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.corpora import Corpus
from pruning_kit.inputs.texts import PreparedText
from pruning_kit.inputs.windows import sliding_windows
from pruning_kit.machine.devices import choose_device, device_name
from pruning_kit.plans.distilled import NAME, Amount
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Recovery
from pruning_kit.pruning.distillation.mixture import Mixture
from pruning_kit.pruning.distillation.schedule import MOST_SEQUENCES, Shape, schedule_of
from pruning_kit.pruning.distillation.training import Training
from pruning_kit.pruning.surgery import count_parameters, cut
from pruning_kit.sweeps.keeping import Kept
from pruning_kit.sweeps.shelf import Shelf
from pruning_kit.sweeps.workbench import Workbench

PLANS = ("5", "1+5", "1+4+5", "1+2+4+5")
REMOVED = Plan((1, 4))
LENGTH = 512
WARM_UP_STEPS = 4
CEILING_SIZE = 8192


def text_of(n_tokens: int, n_vocab: int) -> PreparedText:
    """Random tokens to be watched."""
    ids = np.random.default_rng(0).integers(0, n_vocab, n_tokens).astype(np.int32)
    windows = sliding_windows(n_tokens, LENGTH, LENGTH // 2)
    return PreparedText(
        Corpus("random", "random", lambda: [""]), ids, None, windows, None, None, 0, False
    )


def kit(
    whole: PreTrainedModel, dtype: torch.dtype, tokens: int, micro: int, compiled: bool
) -> dict[str, float]:
    """Tokens per second and peak memory of the kit's steps after the first few."""
    n_vocab = whole.config.vocab_size
    student = Decoder(cut(copy.deepcopy(whole), REMOVED))
    teacher = Decoder(copy.deepcopy(whole).to(dtype))
    written = np.zeros((0, LENGTH), np.int32)
    mixture = Mixture(text_of(100_000, n_vocab).ids, written, 0.0, 0)
    schedule = schedule_of(tokens, Shape(6, 768, LENGTH), sequences=MOST_SEQUENCES)
    made = Training(student, teacher, schedule, mixture, text_of(1024, n_vocab), compiled=compiled)
    made._micro = micro

    def steps(first: int, end: int) -> None:
        with made._compiled_blocks():
            for step in range(first, end):
                made._step(step)

    start = time.perf_counter()
    steps(0, WARM_UP_STEPS)
    torch.cuda.synchronize()
    warm_up_s = time.perf_counter() - start
    found = timed(lambda: steps(WARM_UP_STEPS, schedule.steps), _beyond(schedule.steps))
    return found | {"warm_up_s": warm_up_s, "micro": made._micro}


def _beyond(steps: int) -> int:
    return (steps - WARM_UP_STEPS) * MOST_SEQUENCES * LENGTH


def timed(call: Callable[[], object], tokens: int) -> dict[str, float]:
    """Tokens per second of a call, and what memory it took in all."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return {
        "tokens_per_s": tokens / seconds,
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
    }


class Script(Trainer):  # type: ignore[misc]
    """What a person writes: the loss over all logits at once."""

    def __init__(self, whole: PreTrainedModel, **settings: Any) -> None:
        super().__init__(**settings)
        self._whole = whole

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Divergence from the whole model, in nats per token."""
        with torch.no_grad():
            whole = self._whole(inputs["input_ids"], use_cache=False).logits
        own = model(inputs["input_ids"], use_cache=False).logits
        return F.kl_div(
            own.float().log_softmax(-1).flatten(0, 1),
            whole.float().log_softmax(-1).flatten(0, 1),
            reduction="batchmean",
            log_target=True,
        )


def script(whole: PreTrainedModel, tokens: int, micro: int) -> dict[str, float] | None:
    """The same of the script; None where its micro-batch does not fit."""
    n_vocab = whole.config.vocab_size
    student = cut(copy.deepcopy(whole), REMOVED).requires_grad_(True)
    steps = tokens // (MOST_SEQUENCES * LENGTH)
    rows = np.random.default_rng(0).integers(0, n_vocab, (MOST_SEQUENCES * steps, LENGTH))
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for n_steps in (WARM_UP_STEPS, steps):
            settings = TrainingArguments(
                folder,
                max_steps=n_steps,
                per_device_train_batch_size=micro,
                gradient_accumulation_steps=MOST_SEQUENCES // micro,
                bf16=True,
                optim="adamw_torch_fused",
                learning_rate=1e-3,
                lr_scheduler_type="cosine",
                warmup_steps=max(1, n_steps // 20),
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            )
            data = [{"input_ids": torch.from_numpy(row)} for row in rows]
            trainer = Script(whole, model=student, args=settings, train_dataset=data)
            try:
                found = timed(trainer.train, n_steps * MOST_SEQUENCES * LENGTH)
            except torch.OutOfMemoryError:
                del trainer
                torch.cuda.empty_cache()
                return None
    return found | {"micro": micro}


def ceiling(dtype: torch.dtype) -> float:
    """TFLOP/s of a large product."""
    a, b = (torch.randn(CEILING_SIZE, CEILING_SIZE, device="cuda", dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    n_products = 20
    found = timed(lambda: [a @ b for _ in range(n_products)], n_products)
    return 2 * CEILING_SIZE**3 * found["tokens_per_s"] / 1e12


def operations_per_token(whole: PreTrainedModel) -> float:
    """Products of one token: forward of the whole, forward and backward of the pruned one."""
    decoder = Decoder(whole)
    block = count_parameters(decoder.stack[0])
    head = whole.get_output_embeddings().weight.numel()
    n_kept = decoder.n_blocks - REMOVED.size
    return 2.0 * (decoder.n_blocks * block + head) + 6.0 * (n_kept * block + head)


def measure_speed(device: torch.device, tokens: int) -> dict[str, Any]:
    """Both sides' tokens per second and memory, printed."""
    whole = random_model(torch.device("cpu")).model.to(device)
    dtype = torch.bfloat16
    found: dict[str, Any] = {"ceiling_tflops": ceiling(dtype)}
    for micro in (32, 16, 8, 4):
        found["script"] = script(whole, tokens, micro)
        if found["script"]:
            break
        print(f"script: {micro} sequences do not fit")
    found["kit_eager"] = kit(whole, dtype, tokens, MOST_SEQUENCES, compiled=False)
    found["kit"] = kit(whole, dtype, tokens, MOST_SEQUENCES, compiled=True)
    found["kit_equal_micro"] = kit(whole, dtype, tokens, int(found["script"]["micro"]), True)
    share = operations_per_token(whole) / found["ceiling_tflops"] / 1e12
    for name in ("script", "kit_eager", "kit", "kit_equal_micro"):
        one = found[name]
        one["share_of_ceiling"] = one["tokens_per_s"] * share
        print(
            f"{name:16} {one['tokens_per_s']:12,.0f} tokens/s  {one['peak_gb']:7.1f} GB  "
            f"{100 * one['share_of_ceiling']:5.1f} % of {found['ceiling_tflops']:.0f} TFLOP/s  "
            f"micro-batch {one['micro']}"
        )
    return found


def opened(asked: argparse.Namespace) -> Workbench:
    """A workbench on what was asked for; what is trained is kept in a folder, if one is named."""
    bench = open_workbench(
        asked.model,
        asked.dataset,
        calibrate_on=asked.calibrate_on,
        also_on=tuple(asked.also_on),
        device=asked.device,
        dtype=asked.dtype,
        context=asked.context,
        stride=asked.stride,
        max_windows=asked.max_windows,
    )
    if asked.keep is None:
        return bench
    shelf = Shelf(asked.keep, bench.loaded.saved_dtype)
    return replace(bench, shelf=shelf, keeping=Kept(asked.keep))


def amount(text: str) -> Amount:
    """Tokens to learn from, such as `2M`."""
    return Amount.of(Recovery(NAME, (text,)))


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--budgets", nargs="+", metavar="TOKENS", type=amount)
    what.add_argument("--peers", metavar="TOKENS", type=amount)
    parser.add_argument("--tokens", type=float, default=2e6)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dataset")
    parser.add_argument("--calibrate-on")
    parser.add_argument("--also-on", action="append", default=[])
    parser.add_argument("--plans", nargs="+", default=PLANS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32", help="in which perplexities are measured")
    parser.add_argument("--context", type=int)
    parser.add_argument("--stride", type=int)
    parser.add_argument("--max-windows", type=int)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    asked = arguments()
    device = choose_device(asked.device)
    found: dict[str, Any] = {"device": device_name(device)}
    print(found["device"])
    plans = [Plan.parse(text) for text in asked.plans]
    if asked.budgets:
        found["budgets"] = measure_budgets(opened(asked), plans, asked.budgets)
    elif asked.peers:
        bench = opened(asked)
        found["peers"] = {str(plan): compare_recipes(bench, plan, asked.peers) for plan in plans}
    else:
        found |= measure_speed(device, int(asked.tokens))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
