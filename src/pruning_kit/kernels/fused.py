"""The head fused with the log-sum-exp in Triton, for Hopper GPUs; equal to `head.PiecewiseHead`.

The head's logits never reach memory: a program multiplies a tile of states by one tile of the
vocabulary after the other and adds up exponentials from the accumulators, in float32.

Shapes: N scored positions, D hidden width, V vocabulary.
"""
# mypy: disable-error-code="import-not-found, no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from pruning_kit.kernels.head import (
    SHARE_SCALE,
    CentredEmbedding,
    HeadComparison,
    WholeHead,
)
from pruning_kit.kernels.programs import (
    compare_kernel,
    finish_kernel,
    shares_kernel,
    sum_exp_kernel,
)

ROWS, COLUMNS, DEPTH = 128, 256, 64
"""What one program multiplies at a time: of eight tiles tried on one H100 the fastest."""
WARPS, STAGES = 8, 3
MAX_SPLITS = 8
SHARE_ROWS = 8192
"""Positions of which the whole prediction is held at a time: 0.8 GB for a GPT-2."""
MARGIN = 1e-4
"""By what share the whole model's token may miss the largest logit, both added up in float32."""


class FusedHead:
    """The head as one product whose exponentials are added up before they leave the chip."""

    def __init__(self, embedding: CentredEmbedding) -> None:
        self._embedding = embedding
        self._n_tiles = triton.cdiv(embedding.n_vocab, COLUMNS)
        self._n_padding = self._n_tiles * COLUMNS - embedding.n_vocab

    def nll(self, normed_ND: Tensor, targets_N: Tensor) -> Tensor:
        with torch.cuda.device(normed_ND.device):  # Triton launches on the current one
            return self._nll(normed_ND, targets_N)

    def logits(self, normed_ND: Tensor) -> Tensor:
        return self._embedding.logits(normed_ND)

    def whole(self, normed_ND: Tensor) -> WholeHead:
        with torch.cuda.device(normed_ND.device):
            return self._whole(normed_ND)

    def _whole(self, normed_ND: Tensor) -> WholeHead:
        n_vocab = self._embedding.n_vocab
        # an odd number of shares would be multiplied by a kernel four times as slow
        weight_VD = F.pad(self._embedding.weight_VD, (0, 0, 0, self._n_padding))
        bias_V = self._bias(normed_ND)
        sums_SN, maxima_SN = self._sum_exp(normed_ND, bias_V, with_maxima=True)
        log_sums_N = (sums_SN.sum(dim=0) - self._n_padding).log()
        maxima_N = maxima_SN.amax(dim=0)
        mean_ND = torch.empty(normed_ND.shape, device=normed_ND.device)
        tops_N = torch.empty(len(normed_ND), dtype=torch.int64, device=normed_ND.device)
        mean_shares_V = torch.zeros(len(weight_VD), device=normed_ND.device)
        for start in range(0, len(normed_ND), SHARE_ROWS):
            part = slice(start, start + SHARE_ROWS)
            shares_NV, tops_N[part] = self._shares(
                normed_ND[part], bias_V, log_sums_N[part], maxima_N[part]
            )
            product = torch.mm(shares_NV, weight_VD, out_dtype=torch.float32)
            mean_ND[part] = product / SHARE_SCALE
            ones = shares_NV.new_ones((1, len(shares_NV)))
            mean_shares_V += torch.mm(ones, shares_NV, out_dtype=torch.float32)[0]
        mean_shares_V /= SHARE_SCALE * len(normed_ND)
        dots_N = (normed_ND.float() * mean_ND).sum(dim=1)
        shares_V, bias_V = mean_shares_V[:n_vocab], bias_V[:n_vocab]
        return WholeHead(log_sums_N, mean_ND, dots_N, tops_N, shares_V, bias_V)

    def _shares(
        self, normed_ND: Tensor, bias_V: Tensor, log_sums_N: Tensor, maxima_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The prediction times `SHARE_SCALE` (N, padded V) in the format, and the top token."""
        n_rows, width = normed_ND.shape
        n_columns = self._n_tiles * COLUMNS
        shares_NV = normed_ND.new_empty((n_rows, n_columns))
        n_row_tiles = triton.cdiv(n_rows, ROWS)
        n_splits = count_splits(n_row_tiles, self._n_tiles, _processors(normed_ND.device))
        tops_SN = torch.empty((n_splits, n_rows), dtype=torch.int32, device=normed_ND.device)
        shares_kernel[(n_row_tiles, n_splits)](
            TensorDescriptor.from_tensor(normed_ND, [ROWS, DEPTH]),
            TensorDescriptor.from_tensor(self._embedding.weight_VD, [COLUMNS, DEPTH]),
            bias_V,
            log_sums_N,
            maxima_N,
            shares_NV,
            tops_SN,
            n_rows,
            self._n_tiles,
            tiles_per_split=triton.cdiv(self._n_tiles, n_splits),
            WIDTH=width,
            ROWS=ROWS,
            COLUMNS=COLUMNS,
            DEPTH=DEPTH,
            SCALE=SHARE_SCALE,
            num_warps=WARPS,
            num_stages=STAGES,
        )
        return shares_NV, tops_SN.amax(dim=0).long()

    def compare(self, normed_ND: Tensor, targets_N: Tensor, whole: WholeHead) -> HeadComparison:
        with torch.cuda.device(normed_ND.device):
            return self._compare(normed_ND, targets_N, whole)

    def _compare(self, normed_ND: Tensor, targets_N: Tensor, whole: WholeHead) -> HeadComparison:
        bias_V = self._bias(normed_ND)
        sums_SN, maxima_SN = self._sum_exp(normed_ND, bias_V, with_maxima=True)
        nll_N = self._finish(normed_ND, targets_N, bias_V, sums_SN)
        log_sums_N, dots_N, margins_N = (torch.empty_like(nll_N) for _ in range(3))
        width = normed_ND.shape[1]
        compare_kernel[(len(normed_ND),)](
            normed_ND,
            self._embedding.weight_VD,
            bias_V,
            sums_SN,
            maxima_SN,
            whole.tops_N,
            whole.mean_rows_ND,
            log_sums_N,
            dots_N,
            margins_N,
            n_rows=len(normed_ND),
            n_splits=len(sums_SN),
            n_padding=float(self._n_padding),
            WIDTH=width,
            WIDTH_PADDED=triton.next_power_of_2(width),
        )
        change = self._embedding.expected_change(whole, bias_V[: self._embedding.n_vocab])
        kl_N = whole.dots_N - dots_N + change + log_sums_N - whole.log_sums_N
        return HeadComparison(nll_N, kl_N, (margins_N <= MARGIN).float())

    def _nll(self, normed_ND: Tensor, targets_N: Tensor) -> Tensor:
        bias_V = self._bias(normed_ND)
        sums_SN, _ = self._sum_exp(normed_ND, bias_V)
        return self._finish(normed_ND, targets_N, bias_V, sums_SN)

    def _bias(self, normed_ND: Tensor) -> Tensor:
        """What is added to the logits, zeros for the padding."""
        bias_V = self._embedding.bias(normed_ND)
        assert bias_V is not None, "16 bits always have one"
        return F.pad(bias_V, (0, self._n_padding))

    def _finish(
        self, normed_ND: Tensor, targets_N: Tensor, bias_V: Tensor, sums_SN: Tensor
    ) -> Tensor:
        """From sums of exponentials to the NLL."""
        nll_N = normed_ND.new_empty(len(normed_ND), dtype=torch.float32)
        width = normed_ND.shape[1]
        finish_kernel[(len(normed_ND),)](
            normed_ND,
            self._embedding.weight_VD,
            bias_V,
            targets_N,
            sums_SN,
            nll_N,
            n_rows=len(normed_ND),
            n_splits=len(sums_SN),
            n_padding=float(self._n_padding),
            WIDTH=width,
            WIDTH_PADDED=triton.next_power_of_2(width),
        )
        return nll_N

    def _sum_exp(
        self, normed_ND: Tensor, bias_V: Tensor, with_maxima: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Sums of exponentials over each part of the padded vocabulary, and the largest logits.

        Both (parts, N); without maxima the second is the first.
        """
        n_rows, width = normed_ND.shape
        n_row_tiles = triton.cdiv(n_rows, ROWS)
        n_splits = count_splits(n_row_tiles, self._n_tiles, _processors(normed_ND.device))
        sums_SN = normed_ND.new_empty((n_splits, n_rows), dtype=torch.float32)
        maxima_SN = torch.empty_like(sums_SN) if with_maxima else sums_SN
        sum_exp_kernel[(n_row_tiles, n_splits)](
            TensorDescriptor.from_tensor(normed_ND, [ROWS, DEPTH]),
            TensorDescriptor.from_tensor(self._embedding.weight_VD, [COLUMNS, DEPTH]),
            bias_V,
            sums_SN,
            maxima_SN,
            n_rows,
            self._n_tiles,
            tiles_per_split=triton.cdiv(self._n_tiles, n_splits),
            WIDTH=width,
            ROWS=ROWS,
            COLUMNS=COLUMNS,
            DEPTH=DEPTH,
            WITH_MAXIMA=with_maxima,
            num_warps=WARPS,
            num_stages=STAGES,
        )
        return sums_SN, maxima_SN


def _processors(device: torch.device) -> int:
    """Streaming multiprocessors of a GPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count


def count_splits(n_row_tiles: int, n_tiles: int, slots: int) -> int:
    """Into how many parts to split the vocabulary so that the last wave of programs is full.

    The smallest count of at most MAX_SPLITS that comes within 1 % of the best use of `slots`.
    """

    def use(n_splits: int) -> float:
        longest = -(-n_tiles // n_splits)
        waves = -(-n_row_tiles * n_splits // slots)
        return n_row_tiles * n_tiles / (waves * slots * longest)

    counts = range(1, min(MAX_SPLITS, n_tiles) + 1)
    best = max(use(count) for count in counts)
    return next(count for count in counts if use(count) >= 0.99 * best)
