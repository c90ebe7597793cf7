"""From normed states to the NLL of each target, without ever holding all logits.

The logits of a position may be shifted by a constant; so the mean row is taken off the output
embedding once. Centred logits average to zero, hence their exponentials sum to at least V: the sum
needs no maximum first, cannot vanish, and shows its overflow as an infinite value. In 16 bits the
centred logits also round far less (GPT-2's lie around -100).

Shapes: N scored positions, D hidden width, V vocabulary.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from pruning_kit.kernels.linear import Linear, MakeLinear, weight_and_bias

PIECE_COLUMNS = 12_544
"""A quarter of GPT-2's vocabulary: with 256 rows 12 MB of logits, which stay in the cache."""
CPU_PIECE_ROWS, GPU_PIECE_ROWS = 256, 8192


class Head(Protocol):
    """The output embedding and the negative log-likelihood in one step."""

    def nll(self, normed_ND: Tensor, targets_N: Tensor) -> Tensor:
        """NLL in nats of each target, (N,) float32; not finite where 16 bits overflow."""
        ...


class CentredEmbedding:
    """The output embedding less its mean row, in a number format and on a device."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        weight_VD, bias_V = weight_and_bias(layer)
        weight_VD = weight_VD.to(device).float()
        self.n_vocab = len(weight_VD)
        self.weight_VD = (weight_VD - weight_VD.mean(dim=0)).to(dtype).contiguous()
        self.bias_V: Tensor | None = None
        if bias_V is not None:
            bias_V = bias_V.to(device).float()
            self.bias_V = (bias_V - bias_V.mean()).to(dtype)

    def target_logits(self, normed_ND: Tensor, targets_N: Tensor) -> Tensor:
        """The centred logit of each target, in float32: (N,)."""
        logits = (normed_ND.float() * self.weight_VD[targets_N].float()).sum(dim=1)
        return logits if self.bias_V is None else logits + self.bias_V[targets_N].float()


class PiecewiseHead:
    """Logits by pieces that stay in the cache, for CPUs (and wherever no fused kernel is at hand).

    Exact for any weights: where the plain sum of exponentials overflows, the maxima are taken off.
    """

    def __init__(self, embedding: CentredEmbedding, make_linear: MakeLinear) -> None:
        self._pieces: list[Linear] = []
        for start in range(0, embedding.n_vocab, PIECE_COLUMNS):
            piece = slice(start, start + PIECE_COLUMNS)
            bias = None if embedding.bias_V is None else embedding.bias_V[piece]
            self._pieces.append(make_linear(embedding.weight_VD[piece], bias))
        self._embedding = embedding
        on_cpu = embedding.weight_VD.device.type == "cpu"
        self._piece_rows = CPU_PIECE_ROWS if on_cpu else GPU_PIECE_ROWS

    def nll(self, normed_ND: Tensor, targets_N: Tensor) -> Tensor:
        sums_N = self._sum_exp(normed_ND)
        log_sums_N = sums_N.log() if sums_N.isfinite().all() else self._stable(normed_ND)
        return log_sums_N - self._embedding.target_logits(normed_ND, targets_N)

    def _sum_exp(self, normed_ND: Tensor) -> Tensor:
        sums_N = torch.zeros(len(normed_ND), device=normed_ND.device)
        for piece in self._pieces:
            for rows in self._row_slices(len(normed_ND)):
                sums_N[rows] += piece(normed_ND[rows]).float().exp_().sum(dim=1)
        return sums_N

    def _stable(self, normed_ND: Tensor) -> Tensor:
        log_sums_N = torch.full((len(normed_ND),), -torch.inf, device=normed_ND.device)
        for piece in self._pieces:
            for rows in self._row_slices(len(normed_ND)):
                part = piece(normed_ND[rows]).float().logsumexp(dim=1)
                log_sums_N[rows] = log_sums_N[rows].logaddexp(part)
        return log_sums_N

    def _row_slices(self, n_rows: int) -> list[slice]:
        starts = range(0, n_rows, self._piece_rows)
        return [slice(start, start + self._piece_rows) for start in starts]
