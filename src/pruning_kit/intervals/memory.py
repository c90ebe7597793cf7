"""How far a text remembers, and what the mean of some of its windows may therefore be off by.

A window is like the one before it; a chapter is like itself; and in long prose the level drifts
besides, at every length, so that twice the windows are far from twice the evidence. Which of this
holds is asked of each series itself: it is compared with autocovariances of all three kinds, and
each counts as much as it explains the series. docs/statistics.md gives the formulas.

Shapes: C series, N windows, M memories, F = N - 1 waves (cosines of 1, 2, … half waves over all
windows; only the constant is left out).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.special import ndtr

Array = NDArray[np.float64]

SHORT = tuple(step / 10 for step in range(-4, 9))
"""Autocorrelations of neighbours where a window remembers the one before it and no other."""
CHAPTER_WINDOWS = (25, 40)
CHAPTER_SHARES = (0.1, 0.25)
"""Of the variance that lies between chapters."""
BESIDE_CHAPTERS = (0.0, 0.25)
"""Autocorrelations of neighbours within a chapter."""
DRIFT_SHARES = (0.3, 0.5, 0.75, 1.0)
"""Of the variance that drifts."""
BESIDE_DRIFT = (0.0, 0.2)
"""Autocorrelations of neighbours without the drift."""
HURST = 0.85
"""Of the drift: N windows of it are off by N^(HURST - 1), where independent ones are by N^-0.5."""
TIMES_AS_LONG = 20
"""The text whose mean is meant, in lengths of what was measured."""
HALVINGS = 40
NO_ERROR = 1e-200


@dataclass(frozen=True, slots=True)
class Memory:
    """How a series of windows, of variance one, remembers."""

    autocovariance: Callable[[Array], Array]
    """By lags, from 0 on."""
    variance_of_sum: Callable[[int], float]
    """Of so many neighbours, at least the windows of a chapter."""

    def beside(self, other: Memory, share: float) -> Memory:
        """The sum of two series, of which this one has a share of the variance."""
        return Memory(
            lambda lags: (
                share * self.autocovariance(lags) + (1 - share) * other.autocovariance(lags)
            ),
            lambda n: share * self.variance_of_sum(n) + (1 - share) * other.variance_of_sum(n),
        )


def short(rho: float) -> Memory:
    """An autoregressive series of first order."""
    return Memory(
        lambda lags: rho**lags,
        lambda n: n * (1 + rho) / (1 - rho) - 2 * rho * (1 - rho**n) / (1 - rho) ** 2,
    )


def chapters(length: int) -> Memory:
    """A level for every `length` windows."""
    return Memory(
        lambda lags: np.maximum(1 - lags / length, 0),
        lambda n: n * length - (length**2 - 1) / 3,
    )


def drift() -> Memory:
    """Fractional Gaussian noise (Mandelbrot and Van Ness 1968)."""

    def autocovariance(lags: Array) -> Array:
        before, at, after = (np.abs(lags + step) ** (2 * HURST) for step in (-1.0, 0.0, 1.0))
        return np.asarray((before + after) / 2 - at)

    return Memory(autocovariance, lambda n: n ** (2 * HURST))


def kinds() -> tuple[list[Memory], ...]:
    """The memories that a series may have: short, of chapters, and drifting."""
    return (
        [short(rho) for rho in SHORT],
        [
            chapters(length).beside(short(rho), share)
            for length, share, rho in product(CHAPTER_WINDOWS, CHAPTER_SHARES, BESIDE_CHAPTERS)
        ],
        [
            drift().beside(short(rho), share)
            for share, rho in product(DRIFT_SHARES, BESIDE_DRIFT)
            if share < 1 or rho == 0
        ],
    )


@dataclass(frozen=True, eq=False)
class Known:
    """What each memory means for a text of so many windows."""

    power_MF: Array
    """Mean square of each wave, for a variance of one."""
    error_M: Array
    """Standard deviation of sqrt(N) (mean of the windows - mean of the longer text), likewise."""
    log_prior_M: Array
    """The kinds are equally likely, and so are the memories of a kind."""


@lru_cache(maxsize=16)
def known(n_windows: int) -> Known:
    """All memories, for a text of at least as many windows as a chapter has."""
    memories = [(memory, 1 / len(kind)) for kind in kinds() for memory in kind]
    lags = np.arange(n_windows, dtype=np.float64)
    return Known(
        np.array([_power(memory.autocovariance(lags)) for memory, _ in memories]),
        np.array([_error(memory.variance_of_sum, n_windows) for memory, _ in memories]),
        np.log([weight for _, weight in memories]),
    )


def _power(autocovariance_N: Array) -> Array:
    """Mean square of each wave in windows of this autocovariance, exactly.

    The wave f is sqrt(2 / N) cos(x (n + 1/2)) at window n, with x = pi f / N. Its products with
    itself h windows on add up to ((N - h) cos(x h) - sin(x h) / sin(x)) / N.
    """
    n = len(autocovariance_N)
    angles = np.pi * np.arange(1, n) / n
    tapered = autocovariance_N * np.arange(n, 0, -1)
    cosines = 2 * np.fft.rfft(tapered, 2 * n).real[1:n] - tapered[0]
    sines = -2 * np.fft.rfft(autocovariance_N, 2 * n).imag[1:n]
    return np.asarray((cosines - sines / np.sin(angles)) / n)


def _error(variance_of_sum: Callable[[int], float], n: int) -> float:
    """What the mean is off by, on average over the places that the windows may have."""
    longer = TIMES_AS_LONG * n
    return float(np.sqrt(variance_of_sum(n) / n - n * variance_of_sum(longer) / longer**2))


def waves(residuals_CN: Array) -> Array:
    """What each series has of each wave, (C, F): equal sums of squares, slowest first."""
    return np.asarray(dct(residuals_CN, norm="ortho", axis=1)[:, 1:])


@dataclass(frozen=True, eq=False)
class Errors:
    """What an estimate from each series may be off by: normal, with one of several widths."""

    weight_CM: Array
    """How likely each memory is; they sum to one."""
    error_CM: Array

    def times(self, factor: float) -> Errors:
        """The errors of the estimates times a number."""
        return Errors(self.weight_CM, self.error_CM * factor)

    def and_independent(self, other: Errors) -> Errors:
        """The errors of differences to estimates from as many series of another text."""
        weight_CMM = self.weight_CM[:, :, None] * other.weight_CM[:, None]
        error_CMM = np.hypot(self.error_CM[:, :, None], other.error_CM[:, None])
        n_series = len(weight_CMM)
        return Errors(weight_CMM.reshape(n_series, -1), error_CMM.reshape(n_series, -1))

    def beyond(self, distance_C: Array) -> Array:
        """How likely an error is larger than a distance, to one side."""
        score_CM = distance_C[:, None] / np.maximum(self.error_CM, NO_ERROR)
        return np.asarray((self.weight_CM * ndtr(-score_CM)).sum(axis=1))

    def within(self, level: float) -> Array:
        """The distance that errors keep to, on both sides, with a probability; by bisection."""
        low_C, high_C = np.zeros(len(self.error_CM)), 8 * self.error_CM.max(axis=1)
        for _ in range(HALVINGS):
            middle_C = (low_C + high_C) / 2
            too_near_C = self.beyond(middle_C) > (1 - level) / 2
            low_C = np.where(too_near_C, middle_C, low_C)
            high_C = np.where(too_near_C, high_C, middle_C)
        return high_C


def weigh(waves_CF: Array) -> Errors:
    """What sqrt(N) times each mean may be off by, by how well memories explain the waves.

    A memory of power p explains them with the likelihood of independent normal variables of
    variance s p, where s, the variance of the series, is what suits them best.

    Source: Whittle (1953) for the likelihood; Sykulski et al. (2019) for the exact power in it.
    """
    n_waves = waves_CF.shape[1]
    memories = known(n_waves + 1)
    variance_CM = np.square(waves_CF) @ (1 / memories.power_MF).T / n_waves
    constant_C = ~variance_CM.all(axis=1)
    log_variance_CM = np.log(np.where(constant_C[:, None], 1.0, variance_CM))
    log_power_M = np.log(memories.power_MF).sum(axis=1)
    fit_CM = memories.log_prior_M - (n_waves * log_variance_CM + log_power_M) / 2
    weight_CM = np.exp(fit_CM - fit_CM.max(axis=1, keepdims=True))
    weight_CM /= weight_CM.sum(axis=1, keepdims=True)
    return Errors(weight_CM, np.sqrt(variance_CM) * memories.error_M)
