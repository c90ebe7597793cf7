"""Studentised bootstrap of trimmed means over rounds. NumPy only.

Timing noise has a heavy upper tail, so the centre of a series is its 20 % trimmed mean and the
standard error is Yuen's, from the winsorised squares. Rounds are drawn with replacement, the same
rounds for every column, so that columns measured in one round stay together; the quantile of
|t*| = |m* − m| / se* replaces the one of Student's table.

Shapes: R rounds, C columns (statistics computed once a round), B resamples.

Source: Yuen (1974), Biometrika 61; Hall (1992), The Bootstrap and Edgeworth Expansion, ch. 3;
Wilcox (2022), Introduction to Robust Estimation and Hypothesis Testing, ch. 4.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pruning_kit.intervals import MIN_ROUNDS

Floats = NDArray[np.float64]

TRIM = 0.2
LEVEL = 0.95
RESAMPLES = 1999
SEED = 20240229
_MAX_CELLS = 8_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and the two ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval as a share of the value: 0.02 means known to 2 %."""
        return (self.high - self.low) / 2 / abs(self.value) if self.value else float("inf")

    def covers(self, value: float) -> bool:
        """Whether the interval contains `value`."""
        return self.low <= value <= self.high

    def scaled(self, factor: float) -> Estimate:
        """The estimate of `factor` (positive) times the quantity."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


def trimmed_mean(values: Floats) -> tuple[Floats, Floats]:
    """The 20 % trimmed mean along the first axis, and its standard error."""
    n = values.shape[0]
    if n == 1:
        return values[0], np.full(values.shape[1:], np.inf)
    cut = int(TRIM * n)
    ranked = np.sort(values, axis=0)
    middle = ranked[cut : n - cut]
    mean = middle.mean(axis=0)
    winsorised = np.concatenate(
        [np.repeat(middle[:1], cut, axis=0), middle, np.repeat(middle[-1:], cut, axis=0)]
    )
    squares = ((winsorised - winsorised.mean(axis=0)) ** 2).sum(axis=0)
    kept = n - 2 * cut
    return mean, np.sqrt(squares / (kept * (kept - 1)))


def _draws(n: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Numbers of the rounds in each resample, shape (R, B)."""
    return np.random.default_rng(seed).integers(0, n, (n, resamples))


def resampled_t(values_RC: Floats, resamples: int = RESAMPLES) -> Floats:
    """|t*| of every resample and column, shape (B, C); the draw depends on R alone."""
    n, columns = values_RC.shape
    if n < MIN_ROUNDS:
        return np.full((resamples, columns), np.inf)
    draws_RB = _draws(n, resamples, SEED)
    mean_C, _ = trimmed_mean(values_RC)
    t_BC = np.empty((resamples, columns))
    step = max(1, _MAX_CELLS // draws_RB.size)
    for first in range(0, columns, step):
        chunk = slice(first, first + step)
        mean_BC, error_BC = trimmed_mean(values_RC[:, chunk][draws_RB])
        t_BC[:, chunk] = absolute_t(mean_BC - mean_C[chunk], error_BC)
    return t_BC


def absolute_t(difference: Floats, error: Floats) -> Floats:
    """|difference| / error, where no difference over no error counts as 0."""
    difference = np.abs(difference)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(difference == 0, 0.0, difference / error)


def intervals(values_RC: Floats, *, together: bool = False) -> tuple[Floats, Floats]:
    """Trimmed mean of each column and half the width of its 95 % interval.

    With `together` the intervals are simultaneous: all cover at once in 95 % of experiments.
    Below `MIN_ROUNDS` rounds an interval is infinite.
    """
    mean_C, error_C = trimmed_mean(values_RC)
    return mean_C, half_widths(resampled_t(values_RC), error_C, together=together)


def half_widths(t_BC: Floats, error_C: Floats, *, together: bool = False) -> Floats:
    """Half widths from the distribution of |t*|; a column without spread has none."""
    if together:
        t_BC = t_BC.max(axis=1, keepdims=True)
    critical_C = np.quantile(t_BC, LEVEL, axis=0, method="higher")
    with np.errstate(invalid="ignore"):
        return np.where(error_C == 0, 0.0, critical_C * error_C)


def estimate(values: Floats) -> Estimate:
    """Trimmed mean of one series over rounds, with its interval."""
    mean, half = intervals(values[:, None])
    return Estimate(float(mean[0]), float(mean[0] - half[0]), float(mean[0] + half[0]))


def difference_intervals(
    first_C: Sequence[Floats], second_C: Sequence[Floats]
) -> tuple[Floats, Floats]:
    """Differences of trimmed means between two independent experiments, and half widths.

    The intervals are simultaneous over the columns. Experiments and columns may differ in rounds;
    columns of one experiment with as many rounds are drawn together.

    Args:
        first_C: the series of each column.
        second_C: likewise.
    """
    parts = [_centred(columns, SEED + i) for i, columns in enumerate((first_C, second_C))]
    (mean_1, error_1, star_1, spread_1), (mean_2, error_2, star_2, spread_2) = parts
    t_BC = absolute_t(star_1 - star_2, np.hypot(spread_1, spread_2))
    if min(map(len, [*first_C, *second_C])) < MIN_ROUNDS:
        t_BC[:] = np.inf
    return mean_1 - mean_2, half_widths(t_BC, np.hypot(error_1, error_2), together=True)


def _centred(columns: Sequence[Floats], seed: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Mean and error of each series, shape (C,), and of its resamples around it, (B, C)."""
    mean_C, error_C = np.array([trimmed_mean(series) for series in columns]).T
    resampled = [trimmed_mean(series[_draws(len(series), RESAMPLES, seed)]) for series in columns]
    star_CB, spread_CB = map(np.array, zip(*resampled, strict=True))
    return mean_C, error_C, star_CB.T - mean_C, spread_CB.T


def exponential(mean: float, half: float) -> Estimate:
    """The ratio whose logarithm is `mean`, give or take `half`."""
    with np.errstate(over="ignore"):
        value, low, high = np.exp([mean, mean - half, mean + half])
    return Estimate(float(value), float(low), float(high))
