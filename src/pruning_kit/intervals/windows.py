"""Statistics of window sums: intervals, and tests that hold for many plans at once.

Everything here is about a ratio of sums over windows, sum(series) / sum(targets): log perplexity
(nats per token), differences of it between plans, and every weighted sum of it over plans. The
windows stand in text order; how far each series remembers decides what its ratio may be off by.
docs/statistics.md gives definitions and coverage.

Shapes: P plans, C contrasts (series to estimate), N windows, F waves, R draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from pruning_kit.intervals.memory import Array, Errors, waves, weigh

LEVEL = 0.95
MIN_WINDOWS = 50
N_DRAWS = 2000
SLOWEST = 256
"""Waves by which series are compared with each other."""
CHUNK_VALUES = 4_000_000
ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Estimates:
    """What the windows say about each series; NaN where there are too few windows for it.

    `half_width_C` belongs to the 95 % interval `value_C ± half_width_C`. `adjusted_p_C` tests
    each series against zero and holds for all series of the call at once.
    """

    value_C: Array
    half_width_C: Array
    adjusted_p_C: Array
    errors: Errors | None
    """What intervals and tests come from; None where there are too few windows."""


def ratio(series_CN: Array, targets_N: Array) -> Array:
    """sum(series) / sum(targets) for each series: nats per token over all windows."""
    return series_CN.sum(axis=1) / targets_N.sum()


def estimate(series_CN: Array, targets_N: Array, one_sided: bool = False) -> Estimates:
    """Estimate each ratio; the interval is for the ratio over a text many times as long.

    A series that follows the targets but for rounding has a width of zero. The p values
    answer "is it zero?", or with `one_sided` "is it at most zero?". Nothing is random but the
    draws behind p values, which are always the same. Cost: a cosine transform of each series and
    a matrix product (C x N) (N x M), then (R x F) (F x C); memory: three arrays as large as the
    input, and some of at most four million numbers.

    Args:
        series_CN: what is summed, such as NLL or its difference between plans; finite.
        targets_N: scored tokens per window; below 50 windows there are values alone.
        one_sided: what the p values answer.
    """
    value_C = ratio(series_CN, targets_N)
    n_series, n_windows = series_CN.shape
    if n_windows < MIN_WINDOWS or n_series == 0:
        unknown = np.full(n_series, np.nan)
        return Estimates(value_C, unknown, unknown, None)
    residuals_CN = series_CN - value_C[:, None] * targets_N
    rounding_C = ROUNDING * np.abs(series_CN).max(axis=1)
    residuals_CN[np.abs(residuals_CN).max(axis=1) <= rounding_C] = 0.0
    waves_CF = waves(residuals_CN)
    errors = weigh(waves_CF).times(np.sqrt(n_windows) / targets_N.sum())
    score_C = -ndtri(errors.beyond(np.abs(value_C))) * np.sign(value_C)
    adjusted_C = _stepdown(score_C, waves_CF[:, :SLOWEST], one_sided)
    return Estimates(value_C, errors.within(LEVEL), adjusted_C, errors)


def _stepdown(score_C: Array, waves_CF: Array, one_sided: bool) -> Array:
    """p values that hold for all series: each against the largest of itself and all smaller ones.

    Args:
        score_C: standard normal where the truth is zero.
        waves_CF: series that scores correlate like.
        one_sided: whether only large positive scores count.

    Source: Romano & Wolf (2005) for the stepdown.
    """
    statistic_C = score_C if one_sided else np.abs(score_C)
    length_C = np.linalg.norm(waves_CF, axis=1)
    draws_RF = _draws(waves_CF.shape[1])
    adjusted_C = np.empty(len(score_C))
    largest_R = np.full(N_DRAWS, -np.inf)
    order = np.argsort(statistic_C, kind="stable")
    step = max(1, CHUNK_VALUES // N_DRAWS)
    for first in range(0, len(score_C), step):
        chosen = order[first : first + step]
        length_1C = np.where(length_C[chosen] > 0, length_C[chosen], 1.0)
        drawn_RC = draws_RF @ waves_CF[chosen].T / length_1C
        if not one_sided:
            np.abs(drawn_RC, out=drawn_RC)
        np.maximum(drawn_RC[:, 0], largest_R, out=drawn_RC[:, 0])
        np.maximum.accumulate(drawn_RC, axis=1, out=drawn_RC)
        largest_R = drawn_RC[:, -1].copy()
        # The data count as one more draw, so no p value is zero.
        exceeding_C = (drawn_RC >= statistic_C[chosen]).sum(axis=0)
        adjusted_C[chosen] = (1 + exceeding_C) / (N_DRAWS + 1)
    from_largest = order[::-1]
    adjusted_C[from_largest] = np.maximum.accumulate(adjusted_C[from_largest])
    return adjusted_C


@lru_cache(maxsize=4)
def _draws(n_waves: int) -> Array:
    """Standard normal numbers, always the same."""
    return np.random.default_rng(0).standard_normal((N_DRAWS, n_waves))


def not_worse_than_best(series_PN: Array, targets_N: Array) -> NDArray[np.bool_]:
    """Which plans cannot be told from the best one: (P,) booleans, the best always among them.

    A plan is left out when it is worse than the best one by a one-sided test that holds for all
    plans of the call at once, so that the truly best plan stays in with a confidence of 95 %.
    Below 50 windows no plan can be told from another, so all stay in.

    Source: Hsu (1981), multiple comparisons with the best, with the stepdown of `estimate`.
    """
    best = int(np.argmin(ratio(series_PN, targets_N)))
    others = np.delete(np.arange(len(series_PN)), best)
    tested = estimate(series_PN[others] - series_PN[best], targets_N, one_sided=True)
    group = np.ones(len(series_PN), dtype=bool)
    group[others] = ~(tested.adjusted_p_C <= 1 - LEVEL)
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
