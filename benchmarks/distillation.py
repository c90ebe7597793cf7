"""How fast the kit distils, beside a plain script around the Hugging Face Trainer.

    python -m benchmarks.distillation [--tokens 2e6] [--device cuda]

A model of distilgpt2's shape without blocks 1 and 4 learns from the whole one on random tokens:
the same loss, batches of 32 sequences of 512, sdpa, bfloat16 products and fused AdamW on both
sides (the kit's matrices by Muon). The script has the largest micro-batch that fits; then both have
equal ones, for their memory. The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, Trainer, TrainingArguments

from benchmarks.sweep import random_model
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.corpora import Corpus
from pruning_kit.inputs.texts import PreparedText
from pruning_kit.inputs.windows import sliding_windows
from pruning_kit.machine.devices import choose_device, device_name
from pruning_kit.plans.plan import Plan
from pruning_kit.pruning.distillation.mixture import Mixture
from pruning_kit.pruning.distillation.schedule import MOST_SEQUENCES, Shape, schedule_of
from pruning_kit.pruning.distillation.training import Training
from pruning_kit.pruning.surgery import count_parameters, cut

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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=float, default=2e6)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    device = choose_device(args.device)
    whole = random_model(torch.device("cpu")).model.to(device)
    tokens, dtype = int(args.tokens), torch.bfloat16
    found: dict[str, Any] = {"device": device_name(device), "ceiling_tflops": ceiling(dtype)}
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
    print(json.dumps(found))


if __name__ == "__main__":
    main()
