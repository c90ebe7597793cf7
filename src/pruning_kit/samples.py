"""Samples: what the whole model and pruned ones write on from a prompt."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from pruning_kit.cutting.surgery import recut
from pruning_kit.errors import WindowError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plan import Plan

NEW_TOKENS = 60


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
            f"{context_limit}. Leave out --samples."
        )
    return context_limit - n_prompt


def best_of_each_size(frame: pd.DataFrame, split: str) -> list[Plan]:
    """The whole model, and of each number of removed blocks the plan with the lowest perplexity.

    Args:
        frame: rows of a run, as `Run.frame` gives them.
        split: the text that plans are chosen on.
    """
    rows = frame[(frame["split"] == split) & (frame["mode"] != "empty")].dropna(subset="ppl")
    return sorted(map(Plan.parse, rows.loc[rows.groupby("blocks")["ppl"].idxmin(), "removed"]))


def write_on(decoder: Decoder, plan: Plan, prompt_ids: Sequence[int], new_tokens: int) -> list[int]:
    """Token ids of the prompt and of a pruned model's continuation; all plans draw alike.

    Raises:
        RuntimeError: by torch, such as where a 16-bit format overflows.
    """
    # Nothing else that a tokenizer gives: GPT-2 would add token types as if they were words.
    ids = torch.tensor([list(prompt_ids)], device=decoder.device)
    with recut(decoder, plan) as model, torch.random.fork_rng():
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
