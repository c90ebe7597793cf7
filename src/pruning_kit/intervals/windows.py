"""Statistics of window sums: resampling, intervals and tests that hold for many plans at once.

Everything here is about a ratio of sums over windows, sum(series) / sum(targets): log perplexity
(nats per token), differences of it between plans, and every weighted sum of it over plans. The
windows stand in text order and neighbours may resemble each other, so blocks of neighbouring
windows are drawn, the same ones for every plan. docs/statistics.md gives definitions and coverage.

Shapes: P plans, C contrasts (series to estimate), N windows, R resamples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVEL = 0.95
MIN_WINDOWS = 50
N_RESAMPLES = 1000
CHUNK_VALUES = 4_000_000
ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Resampling:
    """Blocks of neighbouring windows, drawn once and used for every plan (hence paired).

    `counts_RN[r, n]` tells how often resample r drew the block that starts at window n. Blocks
    run on from the last window to the first (circular), so every window is drawn equally often.
    """

    counts_RN: Array
    block_length: int
    n_drawn: int


@dataclass(frozen=True, eq=False)
class Estimates:
    """What the windows say about each series; NaN where there are too few windows for it.

    `half_width_C` belongs to the 95 % interval `value_C ± half_width_C`. `p_C` tests each series
    alone against zero; `adjusted_p_C` holds for all series of the call at once (Romano-Wolf).
    """

    value_C: Array
    standard_error_C: Array
    half_width_C: Array
    p_C: Array
    adjusted_p_C: Array


def block_length(n_windows: int) -> int:
    """Windows per block, ceil(2.5 N^(1/3)): 15 of 200, 20 of 500.

    The growth is that of the optimal length for a variance (Künsch 1989). The factor was chosen
    by simulation so that intervals keep their coverage up to an autocorrelation of 0.5.
    """
    return math.ceil(2.5 * n_windows ** (1 / 3))


def draw_resampling(
    n_windows: int, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Resampling | None:
    """Draw the blocks, or None where there are fewer than 50 windows; the seed repeats them."""
    if n_windows < MIN_WINDOWS:
        return None
    length = block_length(n_windows)
    n_drawn = round(n_windows / length)
    starts = np.random.default_rng(seed).integers(0, n_windows, (n_resamples, n_drawn))
    counts_RN = np.zeros((n_resamples, n_windows))
    np.add.at(counts_RN, (np.arange(n_resamples)[:, None], starts), 1.0)
    return Resampling(counts_RN, length, n_drawn)


def circular_block_sums(series_CN: Array, length: int) -> Array:
    """Sum of the `length` windows from each window on, running on from the last to the first."""
    n_windows = series_CN.shape[1]
    wrapped = np.concatenate([series_CN, series_CN[:, : length - 1]], axis=1)
    cumulative = np.cumsum(np.pad(wrapped, ((0, 0), (1, 0))), axis=1)
    return cumulative[:, length:] - cumulative[:, :n_windows]


def ratio(series_CN: Array, targets_N: Array) -> Array:
    """sum(series) / sum(targets) for each series: nats per token over all windows."""
    return series_CN.sum(axis=1) / targets_N.sum()


def estimate(
    series_CN: Array, targets_N: Array, resampling: Resampling | None, one_sided: bool = False
) -> Estimates:
    """Estimate each ratio with a studentised circular block bootstrap.

    A series that follows the targets but for rounding has a width of zero. The p values
    answer "is it zero?", or with `one_sided` "is it at most zero?". Cost: three matrix products
    (R x N) (N x C); memory: some arrays of at most four million numbers beside the input.

    Args:
        series_CN: what is summed, such as NLL or its difference between plans; finite.
        targets_N: scored tokens per window.
        resampling: from `draw_resampling` for these N windows; None gives values alone.

    Source: Politis & Romano (1992) for circular blocks; Götze & Künsch (1996) for studentising
    by the spread of the drawn blocks; Hall (1988) for symmetric intervals; Romano & Wolf (2005)
    for the stepdown.
    """
    value_C = ratio(series_CN, targets_N)
    n_series, n_windows = series_CN.shape
    if resampling is None or n_series == 0:
        unknown = np.full(n_series, np.nan)
        return Estimates(value_C, unknown, unknown, unknown, unknown)
    length = resampling.block_length
    targets_sums = circular_block_sums(np.asarray(targets_N, dtype=np.float64)[None], length)[0]
    residuals_CN = series_CN - value_C[:, None] * targets_N
    rounding_C = ROUNDING * np.abs(series_CN).max(axis=1)
    residuals_CN[np.abs(residuals_CN).max(axis=1) <= rounding_C] = 0.0
    residual_sums = circular_block_sums(residuals_CN, length)
    variance = np.square(residual_sums).mean(axis=1) * n_windows / length
    error_C = np.sqrt(variance / (1 - length / n_windows)) / targets_N.sum()
    statistic_C = _divide(value_C, error_C)
    if not one_sided:
        statistic_C = np.abs(statistic_C)
    half_C, p_C, adjusted_C = (np.empty(n_series) for _ in range(3))
    n_resamples = len(resampling.counts_RN)
    largest_R = np.full(n_resamples, -np.inf)
    order = np.argsort(statistic_C, kind="stable")
    step = max(1, CHUNK_VALUES // max(n_resamples, n_windows))
    for first in range(0, n_series, step):
        chosen = order[first : first + step]
        t_RC = _resampled_t(residual_sums[chosen], targets_sums, resampling)
        half_C[chosen] = np.quantile(np.abs(t_RC), LEVEL, axis=0, method="higher")
        if not one_sided:
            np.abs(t_RC, out=t_RC)
        p_C[chosen] = _share_at_least(t_RC, statistic_C[chosen])
        np.maximum(t_RC[:, 0], largest_R, out=t_RC[:, 0])
        np.maximum.accumulate(t_RC, axis=1, out=t_RC)
        largest_R = t_RC[:, -1].copy()
        adjusted_C[chosen] = _share_at_least(t_RC, statistic_C[chosen])
    from_largest = order[::-1]
    adjusted_C[from_largest] = np.maximum.accumulate(adjusted_C[from_largest])
    return Estimates(value_C, error_C, half_C * error_C, p_C, adjusted_C)


def _resampled_t(residual_sums_CN: Array, targets_sums_N: Array, resampling: Resampling) -> Array:
    """Studentised ratios of the resamples, (R, C), centred where the data are."""
    counts, n_drawn = resampling.counts_RN, resampling.n_drawn
    sums_NC = np.ascontiguousarray(residual_sums_CN.T)
    targets_R1 = (counts @ targets_sums_N)[:, None]
    squared_targets_R1 = (counts @ np.square(targets_sums_N))[:, None]
    shift_RC = (counts @ sums_NC) / targets_R1
    squares_RC = counts @ np.square(sums_NC)
    squares_RC -= 2 * shift_RC * (counts @ (sums_NC * targets_sums_N[:, None]))
    squares_RC += np.square(shift_RC) * squared_targets_R1
    np.maximum(squares_RC, 0.0, out=squares_RC)
    error_RC = np.sqrt(squares_RC * (n_drawn / (n_drawn - 1))) / targets_R1
    return _divide(shift_RC, error_RC)


def _divide(numerator: Array, error: Array) -> Array:
    """A difference over its error: 0 for no difference, infinite for one without error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(numerator / error, nan=0.0, posinf=np.inf, neginf=-np.inf)


def _share_at_least(t_RC: Array, statistic_C: Array) -> Array:
    """p values; the data count as one more resample, so none is zero."""
    return (1 + (t_RC >= statistic_C).sum(axis=0)) / (len(t_RC) + 1)


def not_worse_than_best(
    series_PN: Array, targets_N: Array, resampling: Resampling | None
) -> NDArray[np.bool_]:
    """Which plans cannot be told from the best one: (P,) booleans, the best always among them.

    A plan is left out when it is worse than the best one by a one-sided test that holds for all
    plans of the call at once, so that the truly best plan stays in with a confidence of 95 %.
    Without resampling no plan can be told from another, so all stay in.

    Source: Hsu (1981), multiple comparisons with the best, with the stepdown of `estimate`.
    """
    if resampling is None:
        return np.ones(len(series_PN), dtype=bool)
    best = int(np.argmin(ratio(series_PN, targets_N)))
    others = np.delete(np.arange(len(series_PN)), best)
    differences = series_PN[others] - series_PN[best]
    tested = estimate(differences, targets_N, resampling, one_sided=True)
    group = np.ones(len(series_PN), dtype=bool)
    group[others] = tested.adjusted_p_C > 1 - LEVEL
    return group


def autocorrelation(series_N: Array, targets_N: Array) -> float:
    """Correlation of neighbouring windows, after the mean per token is taken out; 0 if constant."""
    residual = series_N - ratio(series_N[None], targets_N)[0] * targets_N
    total = float(np.square(residual).sum())
    return float((residual[1:] * residual[:-1]).sum()) / total if total > 0 else 0.0


def pareto_front(costs_PK: Array) -> NDArray[np.bool_]:
    """Which rows no other row beats: (P,) booleans. Lower is better in every column.

    A row is beaten by one that is at most equal everywhere and lower somewhere; equal rows stay
    together. Rows with NaN are never on the front and beat nothing.
    """
    on_front = np.isfinite(costs_PK.sum(axis=1))
    for index in np.flatnonzero(on_front):
        if on_front[index]:
            at_most_equal = np.all(costs_PK >= costs_PK[index], axis=1)
            on_front &= ~(at_most_equal & np.any(costs_PK > costs_PK[index], axis=1))
    return np.asarray(on_front)
