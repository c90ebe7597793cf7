"""The usual way: one really cut model after the other, window by window, with Hugging Face's loss.

Kept as the plain reference of tests and benchmarks; nothing in it is shared, batched or clever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plans.plan import Plan
from pruning_kit.pruning.surgery import recut


@torch.no_grad()
def naive_nll_sums(
    decoder: Decoder, plans: Sequence[Plan], tokens_BT: Tensor, first_output: int
) -> Tensor:
    """NLL of each window under each plan, in nats: (P, B) float64.

    The scored tokens are those after position `first_output`, up to the last one that is read.
    """
    sums = []
    for plan in plans:
        with cut_model(decoder, plan) as model:
            sums.append([window_nll(model, window[None], first_output) for window in tokens_BT])
    return torch.tensor(sums, dtype=torch.float64)


def window_nll(model: PreTrainedModel, tokens_1T: Tensor, first_output: int) -> float:
    """Hugging Face's mean loss over the scored tokens of one window, times their number."""
    labels = tokens_1T.clone()
    labels[:, : first_output + 1] = -100
    n_scored = tokens_1T.shape[1] - 1 - first_output
    return float(model(tokens_1T, labels=labels, use_cache=False).loss.double()) * n_scored


@contextmanager
def cut_model(decoder: Decoder, plan: Plan) -> Iterator[PreTrainedModel]:
    """The model without the plan's blocks, even without any block: the last of all 2**L subsets."""
    if plan.size < decoder.n_blocks:
        with recut(decoder, plan) as model:
            yield model
        return
    blocks = list(decoder.stack)
    del decoder.stack[:]
    try:
        yield decoder.model
    finally:
        decoder.stack.extend(blocks)
