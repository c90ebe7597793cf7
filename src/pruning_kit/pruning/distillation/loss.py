"""The loss: Kullback-Leibler divergence from the whole model, and its gradients, in pieces.

For a state h with logits Wh and the whole model's probabilities p, the gradient with respect to the
logits is softmax(Wh) - p. So a piece of the tokens needs its logits once, for the loss and for all
gradients, and no tensor of all tokens and the whole vocabulary is ever made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PIECE_LOGITS = {"cuda": 2**27, "cpu": 2**23}
"""Of a piece: tokens times vocabulary."""
PADDED_TO = 64
"""Rows of an embedding on a GPU, whose products are slow where rows of logits lie unaligned."""


class Head(NamedTuple):
    """An output embedding, in the format that products are computed in."""

    weight_VD: Tensor
    """Rows beyond the vocabulary may follow."""
    bias_V: Tensor | None
    n_vocab: int

    def logits(self, states_ND: Tensor) -> Tensor:
        """Logits, (N, V), and what stands beyond the vocabulary."""
        return F.linear(states_ND, self.weight_VD, self.bias_V)


def head_of(weight_VD: Tensor, bias_V: Tensor | None, dtype: torch.dtype) -> Head:
    """The head of an output embedding: a copy in another format, padded where that is faster."""
    n_vocab = len(weight_VD)
    beyond = -n_vocab % PADDED_TO if weight_VD.is_cuda else 0
    weight_VD = weight_VD.detach().to(dtype)
    bias_V = None if bias_V is None else bias_V.detach().to(dtype)
    if beyond:
        weight_VD = F.pad(weight_VD, (0, 0, 0, beyond))
        bias_V = None if bias_V is None else F.pad(bias_V, (0, beyond))
    return Head(weight_VD, bias_V, n_vocab)


def divergence(
    states_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    whole_ND: Tensor,
    whole: Head,
) -> Tensor:
    """Sum over tokens of the divergence from the whole model's prediction, in nats; float32.

    Differentiable with respect to states, weight and bias.

    Args:
        states_ND: the pruned model's states before its output embedding.
        weight_VD, bias_V: that embedding.
        whole_ND: the whole model's states of the same tokens.
        whole: its head, in the format that products are computed in.
    """
    total: Tensor = _Divergence.apply(  # type: ignore[no-untyped-call]
        states_ND, weight_VD, bias_V, whole_ND, whole
    )
    return total


class _Divergence(torch.autograd.Function):
    """The gradients are computed with the loss, and scaled when they are asked for."""

    @staticmethod
    def forward(
        ctx: Any,
        states_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        whole_ND: Tensor,
        whole: Head,
    ) -> Tensor:
        head = head_of(weight_VD, bias_V, whole.weight_VD.dtype)
        dtype, device = head.weight_VD.dtype, states_ND.device
        needs_weight, needs_bias = ctx.needs_input_grad[1], ctx.needs_input_grad[2]
        total = torch.zeros((), device=device)
        gradient_ND = torch.empty_like(states_ND)
        # rows beyond the vocabulary get the gradient 0 of logits that nothing reads
        gradient_VD = torch.zeros(head.weight_VD.shape, device=device) if needs_weight else None
        gradient_V = torch.zeros(len(head.weight_VD), device=device) if needs_bias else None
        difference = _difference_on(device)
        size = piece_of(whole.n_vocab, device)
        with torch.autocast(device.type, enabled=False):
            for first in range(0, len(states_ND), size):
                rows = slice(first, first + size)
                states_PD = states_ND[rows].to(dtype)
                own_PV = head.logits(states_PD)
                kl_P, gradient_PV = difference(
                    own_PV, whole.logits(whole_ND[rows].to(dtype)), whole.n_vocab
                )
                total += kl_P.sum()
                gradient_ND[rows] = gradient_PV @ head.weight_VD
                if gradient_VD is not None:
                    gradient_VD += gradient_PV.t() @ states_PD
                if gradient_V is not None:
                    gradient_V += gradient_PV.float().sum(dim=0)
        n_vocab = whole.n_vocab
        ctx.gradients = (
            gradient_ND,
            None if gradient_VD is None else gradient_VD[:n_vocab],
            None if gradient_V is None else gradient_V[:n_vocab],
        )
        return total

    @staticmethod
    def backward(ctx: Any, *scales: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if one is None else one.mul_(scales[0]) for one in ctx.gradients]
        del ctx.gradients  # they hold now, in place, what was asked for
        return (*scaled, None, None)


def piece_of(n_vocab: int, device: torch.device) -> int:
    """Tokens whose logits are computed at a time: a power of two, so that all pieces are alike."""
    most = PIECE_LOGITS.get(device.type, PIECE_LOGITS["cpu"]) // n_vocab
    return max(16, 2 ** (most.bit_length() - 1))


def _difference(own_PV: Tensor, whole_PV: Tensor, n_vocab: int) -> tuple[Tensor, Tensor]:
    """The divergence of each token in nats, and its gradient with respect to the logits."""
    beyond = torch.arange(own_PV.shape[1], device=own_PV.device) >= n_vocab
    own_PV = own_PV.float().masked_fill(beyond, -torch.inf)
    whole_PV = whole_PV.float().masked_fill(beyond, -torch.inf)
    own_P1 = torch.logsumexp(own_PV, dim=1, keepdim=True)
    whole_P1 = torch.logsumexp(whole_PV, dim=1, keepdim=True)
    likely_PV = torch.exp(whole_PV - whole_P1)
    apart_PV = torch.where(beyond, 0.0, (whole_PV - whole_P1) - (own_PV - own_P1))
    kl_P = (likely_PV * apart_PV).sum(dim=1)
    return kl_P, (torch.exp(own_PV - own_P1) - likely_PV)


def _rounded_difference(own_PV: Tensor, whole_PV: Tensor, n_vocab: int) -> tuple[Tensor, Tensor]:
    kl_P, gradient_PV = _difference(own_PV, whole_PV, n_vocab)
    return kl_P, gradient_PV.to(own_PV.dtype)


Difference = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
_compiled: list[Difference] = []


def _difference_on(device: torch.device) -> Difference:
    """Fused on a GPU, where it is bound by memory; compiled once for a process."""
    if device.type != "cuda":
        return _rounded_difference
    if not _compiled:
        _compiled.append(torch.compile(_rounded_difference, dynamic=None))
    return _compiled[0]
