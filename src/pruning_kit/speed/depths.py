"""Depths: whether plans of equal work take equal time, and the line through depths. No torch.

Shapes: R rounds, E entries, C contrasts, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pruning_kit.intervals import repeats
from pruning_kit.intervals.repeats import Estimate, Floats
from pruning_kit.plans.plan import Plan

NULL_PAIR = (0, 1)  # entries that are both the whole model


@dataclass(frozen=True, slots=True)
class NullTest:
    """The ratio of the whole model to itself, timed as two entries."""

    ratio: Estimate

    @property
    def passed(self) -> bool:
        """Whether the interval covers 1."""
        return self.ratio.covers(1.0)

    @property
    def resolution(self) -> float:
        """The end of the interval that is farthest from 1, as a share: 0.02 for 1.02 or 1 / 1.02.

        Smaller differences are not claimed, slower or faster.
        """
        if self.ratio.low <= 0:
            return math.inf
        return max(1 / self.ratio.low, self.ratio.high) - 1

    def resolves(self, ratio: Estimate) -> bool:
        """Whether a ratio lies farther from 1 than equal models may."""
        return max(1 / ratio.value, ratio.value) > 1 + self.resolution


@dataclass(frozen=True, slots=True)
class DepthTest:
    """Whether plans of one pool differ. `deviation` is the time of `plan` over its equals' mean.

    Plans that agree to `least`, a share of the time, may be pooled, so a smaller deviation is not
    claimed: `plan` is the one that deviates most clearly among those that deviate clearly by more,
    or among all where none does. `p_value` is the chance of a deviation so clear among equals, all
    timed plans considered; the interval of `deviation` holds for all of them at once.
    """

    p_value: float
    plan: Plan
    deviation: Estimate
    least: float

    @property
    def clear(self) -> bool:
        """Whether equal cost is rejected at the 5 % level."""
        return self.p_value < 1 - repeats.LEVEL

    @property
    def large(self) -> bool:
        """Whether the deviation is over the least that is claimed, as much slower as faster."""
        return abs(math.log(self.deviation.value)) > math.log1p(self.least)

    @property
    def differ(self) -> bool:
        """Whether a difference may be claimed: clear, and large enough."""
        return self.clear and self.large


@dataclass(frozen=True, slots=True)
class Fit:
    """Least squares: latency = `fixed_s` + `per_block_s` × blocks, fitted in every round.

    `fixed_share` is the part of the whole model's latency that removing blocks cannot touch:
    embedding, final norm and head, choice of the token, launch overhead outside the blocks.
    `worst_residual` is the largest distance of a depth from the line, as a share of its latency.
    """

    fixed_s: Estimate
    per_block_s: Estimate
    fixed_share: Estimate
    worst_residual: float


def compare_depths(
    seconds_RE: Floats,
    groups: Sequence[Sequence[int]],
    plans: Sequence[Plan],
    least: float,
) -> DepthTest:
    """Test equal time within each group of entries that do equal work, all groups at once.

    Args:
        seconds_RE: every sample of one quantity.
        groups: numbers of entries that do equal work.
        plans: the plan of each entry.
        least: the smallest deviation that is claimed, as a share: the larger of what the null test
            resolves and the precision asked of ratios.
    """
    log_RE = np.log(seconds_RE)
    deviations_RC = np.concatenate([_from_equals(log_RE[:, group]) for group in groups], axis=1)
    mean_C, error_C = repeats.trimmed_mean(deviations_RC)
    t_BC = repeats.resampled_t(deviations_RC)
    t_C = repeats.absolute_t(mean_C, error_C)
    half_C = repeats.half_widths(t_BC, error_C, together=True)
    p_C = (t_BC.max(axis=1)[:, None] >= t_C).mean(axis=0)
    claimed_C = (np.abs(mean_C) > math.log1p(least)) & (p_C < 1 - repeats.LEVEL)
    clearest = int(np.where(claimed_C, t_C, -1.0).argmax() if claimed_C.any() else t_C.argmax())
    return DepthTest(
        float(p_C[clearest]),
        plans[[entry for group in groups for entry in group][clearest]],
        repeats.exponential(mean_C[clearest], half_C[clearest]),
        least,
    )


def _from_equals(log_RE: Floats) -> Floats:
    """Each column's distance from the mean of the others."""
    n_equal = log_RE.shape[1]
    return (log_RE - log_RE.mean(axis=1, keepdims=True)) * n_equal / (n_equal - 1)


def fit_line(seconds_RE: Floats, kept_E: Sequence[int], n_blocks: int) -> Fit:
    """Fit each round in units of its own whole model, so that drift leaves the line alone."""
    whole_s = float(np.median(seconds_RE[:, NULL_PAIR]))
    whole_R = np.exp(np.log(seconds_RE[:, NULL_PAIR]).mean(axis=1))
    blocks_E = np.array(kept_E, float)
    design = np.stack([np.ones_like(blocks_E), blocks_E], axis=1)
    relative_RE = seconds_RE / whole_R[:, None]
    fixed_R, slope_R = np.linalg.lstsq(design, relative_RE.T, rcond=None)[0]
    fixed, slope = repeats.estimate(fixed_R), repeats.estimate(slope_R)
    level_E, _ = repeats.trimmed_mean(relative_RE)
    residual_E = (level_E - fixed.value - slope.value * blocks_E) / level_E
    return Fit(
        fixed.scaled(whole_s),
        slope.scaled(whole_s),
        repeats.estimate(fixed_R / (fixed_R + slope_R * n_blocks)),
        float(np.abs(residual_E).max()),
    )
