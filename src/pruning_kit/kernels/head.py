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

from collections.abc import Iterable, Iterator
from typing import ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruning_kit.inputs.layers import weight_and_bias
from pruning_kit.kernels.linear import Bias, Linear, MakeLinear, round_off

CPU_PIECE, GPU_PIECE = (1024, 2048), (8192, 12_544)
"""Rows and columns of logits at a time; on a CPU they stay in the (shared) cache.

2,048 columns and not 1,024: a product of 1,024 by 1,024 in bfloat16 is one that oneDNN computes on
a single thread on processors with AMX.
"""
SHARE_SCALE = 1024.0
STABLE_ROWS = 256
"""Rows at a time where logits must be held: rare, so that memory matters more than speed."""


class WholeHead(NamedTuple):
    """What the head makes of the whole model's states: all that a comparison needs of it."""

    log_sums_N: Tensor
    """Logarithm of the sum of exponentials of the centred logits."""
    mean_rows_ND: Tensor
    """The mean row of the centred embedding under the whole model's prediction, float32."""
    dots_N: Tensor
    """Its product with the whole model's own state."""
    tops_N: Tensor
    """The most likely token, int64."""
    mean_shares_V: Tensor
    """The prediction's mean over all positions."""
    bias_V: Tensor | None
    """Added to the products of the states."""


class HeadComparison(NamedTuple):
    """For each position, float32."""

    nll_N: Tensor
    kl_N: Tensor
    agrees_N: Tensor


class Head(Protocol):
    """The output embedding and the negative log-likelihood in one step.

    The divergence from the whole model costs one product of rows for each token, since the head is
    linear: with p of the whole model, its state w and a variant's state h, the sum of p (log p -
    log q) is (w - h) · (sum of p E) - log sum exp(E w) + log sum exp(E h); a bias cancels, but for
    the part that rounding puts back (`linear.Bias`), which is the same for all positions.
    """

    def nll(self, normed_ND: Tensor, targets_N: Tensor) -> Tensor:
        """NLL in nats of each target, (N,) float32; not finite where 16 bits overflow."""
        ...

    def whole(self, normed_ND: Tensor) -> WholeHead:
        """What `compare` needs of the whole model."""
        ...

    def compare(self, normed_ND: Tensor, targets_N: Tensor, whole: WholeHead) -> HeadComparison:
        """The NLL to the bit as `nll` gives it, divergence and agreement."""
        ...

    def logits(self, normed_ND: Tensor) -> Tensor:
        """Centred logits, all of them at once: (N, V) float32."""
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

    def expected_change(self, whole: WholeHead, bias_V: Tensor | None) -> Tensor | float:
        """How much less a bias adds, on average under the whole model, than the whole's own."""
        if bias_V is None or whole.bias_V is None:
            return 0.0
        return (whole.mean_shares_V * (whole.bias_V - bias_V).float()).sum()

    def target_logits(self, normed_ND: Tensor, targets_N: Tensor, bias_V: Tensor | None) -> Tensor:
        """The centred logit of each target, in float32: (N,)."""
        logits_N = self._dots(normed_ND, targets_N)
        return logits_N if bias_V is None else logits_N + bias_V[targets_N]

    def logits(self, normed_ND: Tensor) -> Tensor:
        """All centred logits, in float32: (N, V)."""
        bias_V, weight_DV = self.bias(normed_ND), self.weight_VD.t()
        if normed_ND.is_cuda and normed_ND.dtype != torch.float32:
            logits_NV = torch.mm(normed_ND, weight_DV, out_dtype=torch.float32)
        else:
            logits_NV = normed_ND.float() @ weight_DV.float()
        return logits_NV if bias_V is None else logits_NV.add_(bias_V)

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
        log_sums_N = self._log_sums(normed_ND, bias_V)
        return log_sums_N - self._embedding.target_logits(normed_ND, targets_N, bias_V)

    def whole(self, normed_ND: Tensor) -> WholeHead:
        bias_V = self._embedding.bias(normed_ND)
        log_sums_N = self._log_sums(normed_ND, bias_V)
        logits = self._logits(normed_ND, bias_V, self._piece_rows)
        return whole_head(normed_ND, log_sums_N, logits, self._embedding.weight_VD, bias_V)

    def compare(self, normed_ND: Tensor, targets_N: Tensor, whole: WholeHead) -> HeadComparison:
        embedding = self._embedding
        bias_V = embedding.bias(normed_ND)
        maxima_N = torch.full((len(normed_ND),), -torch.inf, device=normed_ND.device)
        log_sums_N = self._log_sums(normed_ND, bias_V, maxima_N)
        nll_N = log_sums_N - embedding.target_logits(normed_ND, targets_N, bias_V)
        dots_N = (normed_ND.float() * whole.mean_rows_ND).sum(dim=1)
        kl_N = whole.dots_N - dots_N + embedding.expected_change(whole, bias_V)
        tops_N = embedding.target_logits(normed_ND, whole.tops_N, bias_V)
        margin_N = self._pieces[0].error * maxima_N.abs().clamp_min(1)
        agrees_N = (tops_N >= maxima_N - margin_N).float()
        return HeadComparison(nll_N, kl_N + log_sums_N - whole.log_sums_N, agrees_N)

    def logits(self, normed_ND: Tensor) -> Tensor:
        return self._embedding.logits(normed_ND)

    def _log_sums(
        self, normed_ND: Tensor, bias_V: Tensor | None, maxima_N: Tensor | None = None
    ) -> Tensor:
        """Logarithms of the sums of exponentials; the largest logits go into `maxima_N`."""
        sums_N = torch.zeros(len(normed_ND), device=normed_ND.device)
        for rows, _, piece, bias in self._pieces_of(normed_ND, bias_V, self._piece_rows):
            if maxima_N is None:
                sums_N[rows] += piece.sum_exp(normed_ND[rows], bias)
            else:
                found_N, largest_N = piece.sum_and_max(normed_ND[rows], bias)
                sums_N[rows] += found_N
                maxima_N[rows] = maxima_N[rows].maximum(largest_N)
        if sums_N.isfinite().all():
            return sums_N.log()
        if maxima_N is not None:
            maxima_N.fill_(-torch.inf)
        log_sums_N = torch.full((len(normed_ND),), -torch.inf, device=normed_ND.device)
        for rows, _, logits in self._logits(normed_ND, bias_V, STABLE_ROWS):
            log_sums_N[rows] = log_sums_N[rows].logaddexp(logits.logsumexp(dim=1))
            if maxima_N is not None:
                maxima_N[rows] = maxima_N[rows].maximum(logits.amax(dim=1))
        return log_sums_N

    def _logits(
        self, normed_ND: Tensor, bias_V: Tensor | None, n_rows: int
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """Rows, columns and their logits in float32, one piece after the other."""
        for rows, columns, piece, bias in self._pieces_of(normed_ND, bias_V, n_rows):
            yield rows, columns, piece(normed_ND[rows], bias).float()

    def _pieces_of(
        self, normed_ND: Tensor, bias_V: Tensor | None, n_rows: int
    ) -> Iterator[tuple[slice, slice, Linear, Tensor | None]]:
        """So many rows, some columns, their layer and bias: one piece of the logits each."""
        starts = range(0, len(normed_ND), n_rows)
        row_slices = [slice(start, start + n_rows) for start in starts]
        for piece, columns in zip(self._pieces, self._columns, strict=True):
            bias_of_piece = None if bias_V is None else bias_V[columns]
            for rows in row_slices:
                yield rows, columns, piece, bias_of_piece


def whole_head(
    normed_ND: Tensor,
    log_sums_N: Tensor,
    pieces: Iterable[tuple[slice, slice, Tensor]],
    weight_VD: Tensor,
    bias_V: Tensor | None,
) -> WholeHead:
    """What a comparison needs of the whole model, from its logits piece by piece.

    Args:
        normed_ND: the whole model's normed states.
        log_sums_N: logarithms of the sums of exponentials of the logits.
        pieces: rows, columns and their logits in float32, until all were met.
        weight_VD: the centred embedding.
        bias_V: what was added to its products.
    """
    mean_ND = torch.zeros(normed_ND.shape, device=normed_ND.device)
    shares_V = torch.zeros(len(weight_VD), device=normed_ND.device)
    best_N = torch.full_like(log_sums_N, -torch.inf)
    tops_N = torch.zeros_like(log_sums_N, dtype=torch.int64)
    for rows, columns, logits in pieces:
        found_N, places_N = logits.max(dim=1)
        better_N = found_N > best_N[rows]
        best_N[rows] = torch.where(better_N, found_N, best_N[rows])
        tops_N[rows] = torch.where(better_N, places_N + columns.start, tops_N[rows])
        shares = (logits - log_sums_N[rows, None]).exp_()
        shares_V[columns] += shares.sum(dim=0)
        mean_ND[rows] += weighted_rows(shares, weight_VD[columns])
    dots_N = (normed_ND.float() * mean_ND).sum(dim=1)
    return WholeHead(log_sums_N, mean_ND, dots_N, tops_N, shares_V / len(normed_ND), bias_V)


def weighted_rows(shares_NV: Tensor, weight_VD: Tensor) -> Tensor:
    """The sum of the weight's rows by shares, float32: (N, D).

    In 16 bits shares are scaled up, so that small ones do not vanish.
    """
    if weight_VD.dtype == torch.float32:
        return shares_NV @ weight_VD
    scaled_NV = (shares_NV * SHARE_SCALE).to(weight_VD.dtype)
    if weight_VD.is_cuda:
        return torch.mm(scaled_NV, weight_VD, out_dtype=torch.float32) / SHARE_SCALE
    return (scaled_NV @ weight_VD).float() / SHARE_SCALE
