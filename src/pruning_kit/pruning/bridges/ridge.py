"""Ridge: the solution of gaps for one strength, and how far it is off on tokens it has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pruning_kit.pruning.bridges.moments import Moments, Rows


def solve(
    moments: Moments, strength: float, has_bias: bool, places: Sequence[int] = ()
) -> Tensor | None:
    """The maps of gaps that begin at a block: float64, (G, H, D).

    Args:
        moments: the sums.
        strength: added to the diagonal, relative to its mean.
        has_bias: whether the last coefficient is that of a column of ones, and not penalised.
        places: of the gaps among those of the sums; by default all.

    Returns:
        None where the sums are not finite, or too near to singular for this strength.
    """
    products_HH = moments.products_HH.clone()
    n_penalised = len(products_HH) - has_bias
    diagonal_H = products_HH.diagonal()
    diagonal_H[:n_penalised] += strength * diagonal_H[:n_penalised].mean()
    if has_bias:  # a hair, so that an empty column does no harm
        diagonal_H[n_penalised:] *= 1 + 1e-12
    factor_HH, failed = torch.linalg.cholesky_ex(products_HH)
    if int(failed) or not bool(factor_HH.diagonal().isfinite().all()):
        return None
    sides_GHD = moments.sides_GHD[list(places)] if places else moments.sides_GHD
    n_gaps, n_inputs, width = sides_GHD.shape
    sides_HK = sides_GHD.transpose(0, 1).reshape(n_inputs, n_gaps * width)
    maps_HK = torch.cholesky_solve(sides_HK, factor_HH)
    if not bool(maps_HK.isfinite().all()):
        return None
    return maps_HK.view(n_inputs, n_gaps, width).transpose(0, 1)


def error_of(map_HD: Tensor, rows: Rows, place: int) -> float:
    """The mean squared error of the weighted rows of the gap at a place."""
    return float(
        (rows.inputs_NH @ map_HD.float().to(rows.inputs_NH.device) - rows.targets_NGD[:, place])
        .square()
        .mean()
    )
