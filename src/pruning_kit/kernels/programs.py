"""Programs for the fused head, in Triton: tiles of states times tiles of the vocabulary.

Shapes: N scored positions (rows), V vocabulary (columns), a padded vocabulary of whole tiles.
"""
# mypy: disable-error-code="import-not-found, no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def sum_exp_kernel(
    states,
    weights,
    bias_ptr,
    sums_ptr,
    maxima_ptr,
    n_rows,
    n_tiles,
    tiles_per_split,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    WITH_MAXIMA: tl.constexpr,
):
    """Sums of exponentials over a split of the vocabulary, and the largest logits if asked for."""
    row = tl.program_id(0) * ROWS
    split = tl.program_id(1)
    sums = tl.zeros((ROWS,), tl.float32)
    maxima = tl.zeros((ROWS,), tl.float32)  # centred logits average to zero
    stop = tl.minimum((split + 1) * tiles_per_split, n_tiles)
    for tile in tl.range(split * tiles_per_split, stop, flatten=True):
        logits = tl.zeros((ROWS, COLUMNS), tl.float32)
        for k in range(0, WIDTH, DEPTH):
            weight = weights.load([tile * COLUMNS, k])
            logits = tl.dot(states.load([row, k]), weight.T, logits)
        bias = tl.load(bias_ptr + tile * COLUMNS + tl.arange(0, COLUMNS))
        if WITH_MAXIMA:
            maxima = tl.maximum(maxima, tl.max(logits + bias[None, :], axis=1))
        sums += tl.sum(tl.exp2((logits + bias[None, :]) * LOG2_E), axis=1)
    rows = row + tl.arange(0, ROWS)
    tl.store(sums_ptr + split * n_rows + rows, sums, mask=rows < n_rows)
    if WITH_MAXIMA:
        tl.store(maxima_ptr + split * n_rows + rows, maxima, mask=rows < n_rows)


@triton.jit
def shares_kernel(
    states,
    weights,
    bias_ptr,
    log_sums_ptr,
    maxima_ptr,
    shares_ptr,
    tops_ptr,
    n_rows,
    n_tiles,
    tiles_per_split,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    SCALE: tl.constexpr,
):
    """The prediction times a scale, stored, and the place of the largest logit."""
    row = tl.program_id(0) * ROWS
    split = tl.program_id(1)
    rows = row + tl.arange(0, ROWS)
    inside = rows < n_rows
    log_sums = tl.load(log_sums_ptr + rows, mask=inside, other=0.0)
    least = tl.load(maxima_ptr + rows, mask=inside, other=0.0) * 0.999999
    tops = tl.zeros((ROWS,), tl.int32)
    stop = tl.minimum((split + 1) * tiles_per_split, n_tiles)
    for tile in tl.range(split * tiles_per_split, stop):
        logits = tl.zeros((ROWS, COLUMNS), tl.float32)
        for k in range(0, WIDTH, DEPTH):
            weight = weights.load([tile * COLUMNS, k])
            logits = tl.dot(states.load([row, k]), weight.T, logits)
        columns = tile * COLUMNS + tl.arange(0, COLUMNS)
        logits += tl.load(bias_ptr + columns)[None, :]
        tops = tl.maximum(
            tops, tl.max(tl.where(logits >= least[:, None], columns[None, :], 0), axis=1)
        )
        shares = tl.exp2((logits - log_sums[:, None]) * LOG2_E) * SCALE
        places = rows[:, None].to(tl.int64) * (n_tiles * COLUMNS) + columns[None, :]
        tl.store(shares_ptr + places, shares.to(shares_ptr.dtype.element_ty), mask=inside[:, None])
    tl.store(tops_ptr + split * n_rows + rows, tops, mask=inside)


@triton.jit
def finish_kernel(
    states_ptr,
    weights_ptr,
    bias_ptr,
    targets_ptr,
    sums_ptr,
    nll_ptr,
    n_rows,
    n_splits,
    n_padding,
    WIDTH: tl.constexpr,
    WIDTH_PADDED: tl.constexpr,
):
    """From sums of exponentials to the NLL of each target."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, WIDTH_PADDED)
    inside = columns < WIDTH
    target = tl.load(targets_ptr + row)
    state = tl.load(states_ptr + row * WIDTH + columns, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weights_ptr + target * WIDTH + columns, mask=inside, other=0.0).to(tl.float32)
    total = -n_padding
    for split in range(n_splits):
        total += tl.load(sums_ptr + split * n_rows + row)
    target_logit = tl.sum(state * weight) + tl.load(bias_ptr + target)
    tl.store(nll_ptr + row, tl.log(total) - target_logit)


@triton.jit
def compare_kernel(
    states_ptr,
    weights_ptr,
    bias_ptr,
    sums_ptr,
    maxima_ptr,
    tops_ptr,
    mean_rows_ptr,
    log_sums_ptr,
    dots_ptr,
    margins_ptr,
    n_rows,
    n_splits,
    n_padding,
    WIDTH: tl.constexpr,
    WIDTH_PADDED: tl.constexpr,
):
    """Logarithm of the sum, product with the mean row, and how far the top token misses."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, WIDTH_PADDED)
    inside = columns < WIDTH
    top = tl.load(tops_ptr + row)
    state = tl.load(states_ptr + row * WIDTH + columns, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weights_ptr + top * WIDTH + columns, mask=inside, other=0.0).to(tl.float32)
    mean_row = tl.load(mean_rows_ptr + row * WIDTH + columns, mask=inside, other=0.0)
    total = -n_padding
    largest = 0.0
    for split in range(n_splits):
        total += tl.load(sums_ptr + split * n_rows + row)
        largest = tl.maximum(largest, tl.load(maxima_ptr + split * n_rows + row))
    tl.store(log_sums_ptr + row, tl.log(total))
    tl.store(dots_ptr + row, tl.sum(state * mean_row))
    top_logit = tl.sum(state * weight) + tl.load(bias_ptr + top)
    tl.store(margins_ptr + row, (largest - top_logit) / tl.maximum(largest, 1.0))
