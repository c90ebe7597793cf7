"""From normed states to the NLL of each target, without ever holding all logits.

The logits of a position may be shifted by a constant; so the mean row is taken off the output
embedding once. Centred logits average to zero, hence their exponentials sum to at least V: the sum
needs no maximum first, cannot vanish, and shows its overflow as an infinite value. In 16 bits the
centred logits also round far less (GPT-2's lie around -100).

What rounding takes off the embedding is put back for the mean state (`linear.Bias`): in float16
that takes the trained demo model's worst plan from 2e-4 nats off to 3e-5.

Shapes: N scored positions, D hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruning_kit.kernels.linear import Bias, Linear, MakeLinear, round_off, weight_and_bias

CPU_PIECE, GPU_PIECE = (1024, 2048), (8192, 12_544)
"""Rows and columns of logits at a time; on a CPU they stay in the (shared) cache.

2,048 columns and not 1,024: a product of 1,024 by 1,024 in bfloat16 is one that oneDNN computes on
a single thread on processors with AMX.
"""
STABLE_ROWS = 256
"""Rows at a time where logits must be held: rare, so that memory matters more than speed."""


class Head(Protocol):
    """The output embedding and the negative log-likelihood in one step."""

    def nll(self, normed_ND: Tensor, targets_N: Tensor) -> Tensor:
        """NLL in nats of each target, (N,) float32; not finite where 16 bits overflow."""
        ...


class CentredEmbedding:
    """The output embedding less its mean row, in a number format and on a device."""

    bias_class: ClassVar[type[Bias]] = Bias

    def __init__(self, layer: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
        weight_VD, bias_V = weight_and_bias(layer)
        weight_VD = weight_VD.to(device).float()
        weight_VD = weight_VD - weight_VD.mean(dim=0)
        if bias_V is not None:
            bias_V = bias_V.float() - bias_V.float().mean()
        self.weight_VD, self.bias = round_off(
            weight_VD, bias_V, dtype, device, put_back=True, bias_class=self.bias_class
        )
        self.n_vocab = len(weight_VD)

    def target_logits(self, normed_ND: Tensor, targets_N: Tensor, bias_V: Tensor | None) -> Tensor:
        """The centred logit of each target, in float32: (N,)."""
        logits_N = self._dots(normed_ND, targets_N)
        return logits_N if bias_V is None else logits_N + bias_V[targets_N]

    def _dots(self, normed_ND: Tensor, targets_N: Tensor) -> Tensor:
        rows_ND = F.embedding(targets_N, self.weight_VD)
        return (normed_ND.float() * rows_ND.float()).sum(dim=1)


class PiecewiseHead:
    """Logits by pieces that stay in the cache, for CPUs (and wherever no fused kernel is at hand).

    Exact for any weights: where the plain sum of exponentials is too large (centred logits from 48
    on for oneDNN's layers, from 88 for others), the maxima are taken off.
    """

    def __init__(
        self,
        embedding: CentredEmbedding,
        make_linear: MakeLinear,
        piece: tuple[int, int] | None = None,
    ) -> None:
        if piece is None:
            piece = CPU_PIECE if embedding.weight_VD.is_cpu else GPU_PIECE
        self._piece_rows, n_columns = piece
        starts = range(0, embedding.n_vocab, n_columns)
        self._columns = [slice(start, start + n_columns) for start in starts]
        self._pieces: list[Linear] = [
            make_linear(embedding.weight_VD[columns], None) for columns in self._columns
        ]
        self._embedding = embedding

    def nll(self, normed_ND: Tensor, targets_N: Tensor) -> Tensor:
        bias_V = self._embedding.bias(normed_ND)
        sums_N = torch.zeros(len(normed_ND), device=normed_ND.device)
        for rows, piece, bias_of_piece in self._pieces_of(normed_ND, bias_V, self._piece_rows):
            sums_N[rows] += piece.sum_exp(normed_ND[rows], bias_of_piece)
        log_sums_N = sums_N.log() if sums_N.isfinite().all() else self._stable(normed_ND, bias_V)
        return log_sums_N - self._embedding.target_logits(normed_ND, targets_N, bias_V)

    def _stable(self, normed_ND: Tensor, bias_V: Tensor | None) -> Tensor:
        log_sums_N = torch.full((len(normed_ND),), -torch.inf, device=normed_ND.device)
        for rows, piece, bias_of_piece in self._pieces_of(normed_ND, bias_V, STABLE_ROWS):
            logits = piece(normed_ND[rows], bias_of_piece)
            log_sums_N[rows] = log_sums_N[rows].logaddexp(logits.float().logsumexp(dim=1))
        return log_sums_N

    def _pieces_of(
        self, normed_ND: Tensor, bias_V: Tensor | None, n_rows: int
    ) -> Iterator[tuple[slice, Linear, Tensor | None]]:
        """So many rows, and the layer and bias of some columns: one piece of the logits each."""
        starts = range(0, len(normed_ND), n_rows)
        row_slices = [slice(start, start + n_rows) for start in starts]
        for piece, columns in zip(self._pieces, self._columns, strict=True):
            bias_of_piece = None if bias_V is None else bias_V[columns]
            for rows in row_slices:
                yield rows, piece, bias_of_piece
