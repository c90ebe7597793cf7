"""Samples: what the whole model and pruned ones write on from a prompt."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from pruning_kit.errors import WindowError, first_line
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.models import LoadedModel
from pruning_kit.machine.devices import using_threads
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.surgery import recut
from pruning_kit.runs.facts import Samples
from pruning_kit.runs.results import load_run, write_samples
from pruning_kit.runs.store import RunFolder
from pruning_kit.speed.workload import PROMPT
from pruning_kit.sweeps.observer import Observer
from pruning_kit.sweeps.workbench import Workbench

NEW_TOKENS = 60


def sample(run: RunFolder, workbench: Workbench) -> None:
    """Keep samples with a finished run: of the whole model and the best plan of each size."""
    stored = load_run(run.folder)
    new_tokens = count_new_tokens(len(workbench.prompt_ids), workbench.loaded.context_limit)
    texts = {}
    for plan in best_of_each_size(stored.rows_as_cut(stored.facts.choosing_role)):
        try:
            with using_threads(workbench.threads):
                ids = write_on(workbench.decoder_as_used, plan, workbench.prompt_ids, new_tokens)
        except RuntimeError as error:
            workbench.observer.warn(f"No sample of plan {plan.short}: {first_line(error)}.")
        else:
            texts[Variant(plan)] = workbench.loaded.tokenizer.decode(ids, skip_special_tokens=True)
    write_samples(run.folder, Samples.of(PROMPT, new_tokens, texts))


def check_samples(loaded: LoadedModel, observer: Observer) -> None:
    """Refuse samples that cannot be, or say that they are shorter, before any work.

    Raises:
        WindowError: if the prompt alone fills the context.
    """
    n_prompt = len(loaded.tokenizer(PROMPT)["input_ids"])
    new_tokens = count_new_tokens(n_prompt, loaded.context_limit)
    if new_tokens < NEW_TOKENS:
        observer.warn(
            f"Samples have {new_tokens} new tokens instead of {NEW_TOKENS}: the model's context "
            f"is {loaded.context_limit}."
        )


def count_new_tokens(n_prompt: int, context_limit: int | None) -> int:
    """Tokens of a sample: `NEW_TOKENS`, or fewer where the model's context ends earlier.

    Raises:
        WindowError: if the prompt alone fills the context.
    """
    if context_limit is None or n_prompt + NEW_TOKENS <= context_limit:
        return NEW_TOKENS
    if n_prompt >= context_limit:
        raise WindowError(
            f"cannot keep samples: their prompt has {n_prompt} tokens, and the model's context is "
            f"{context_limit}. Leave out `samples`."
        )
    return context_limit - n_prompt


def best_of_each_size(rows: Iterable[Mapping[str, Any]]) -> list[Plan]:
    """The whole model, and of each number of removed blocks the plan with the lowest perplexity.

    Args:
        rows: those of the text that plans are chosen on, as `Run.rows_as_cut` gives them.
    """
    best: dict[int, Mapping[str, Any]] = {}
    for row in rows:
        known = row["mode"] != "empty" and not math.isnan(row["ppl"])
        if known and (row["blocks"] not in best or row["ppl"] < best[row["blocks"]]["ppl"]):
            best[row["blocks"]] = row
    return sorted(Plan.parse(row["removed"]) for row in best.values())


def write_on(decoder: Decoder, plan: Plan, prompt_ids: Sequence[int], new_tokens: int) -> list[int]:
    """Token ids of the prompt and of a pruned model's continuation; all plans draw alike.

    Raises:
        RuntimeError: by torch, such as where a 16-bit format overflows.
    """
    # Nothing else that a tokenizer gives: GPT-2 would add token types as if they were words.
    ids = torch.tensor([list(prompt_ids)], device=decoder.device)
    with recut(decoder, plan) as model, torch.random.fork_rng(_gpus(decoder.device)):
        torch.manual_seed(0)
        tokens = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=True,
            top_k=50,
            temperature=0.7,
        )
    return [int(token) for token in tokens[0]]


def _gpus(device: torch.device) -> list[torch.device]:
    """The GPUs whose random numbers a model on this device draws, beside the CPU's."""
    return [device] if device.type == "cuda" else []
