"""Sums over windows, of every variant in one walk."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pruning_kit.plans.plan import Plan
from pruning_kit.walk.kernel import Kernel
from pruning_kit.walk.walk import walk


@torch.no_grad()
def nll_sums(
    kernel: Kernel,
    plans: Sequence[Plan],
    n_blocks: int,
    tokens_BT: Tensor,
    targets_BS: Tensor,
    first_output: int,
) -> Tensor:
    """Sum the NLL of every window under every plan, in one walk.

    Args:
        kernel: how blocks and head are computed.
        plans: the plans to measure; duplicates are computed once.
        n_blocks: number of blocks of the whole model.
        tokens_BT: token ids that the model reads, int64, on any device.
        targets_BS: token ids to predict, int64, likewise.
        first_output: position of the output that predicts `targets_BS[:, 0]`.

    Returns:
        Nats, float64, on the host, shape (P, B), in the order of `plans`. Perplexity is the
        exponential of all sums of a plan over all scored tokens: never a mean of means.
    """
    tokens_BT, targets_BS = tokens_BT.to(kernel.device), targets_BS.to(kernel.device)
    batch = kernel.open(tokens_BT, targets_BS, first_output)
    sums: dict[Plan, Tensor] = {}
    for plan, state in walk(batch.hidden_BTD, batch.block, plans, n_blocks):
        sums[plan] = _sum_float64(batch.nll(state))
        del state
    return torch.stack([sums[plan] for plan in plans]).cpu()


def _sum_float64(nll_BS: Tensor) -> Tensor:
    """Window sums in float64; Apple's MPS has none, so there the sum is made on the host."""
    if nll_BS.device.type == "mps":
        nll_BS = nll_BS.cpu()
    return nll_BS.double().sum(dim=1)
