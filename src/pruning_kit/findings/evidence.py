"""Scores: the NLL of every plan on one text, and intervals for whatever is linear in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pruning_kit.intervals import windows
from pruning_kit.intervals.memory import Array
from pruning_kit.intervals.windows import MIN_WINDOWS, Estimates
from pruning_kit.plans.plan import Plan


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % interval; None where there are too few windows to give one."""

    value: float
    low: float | None = None
    high: float | None = None

    def map(self, increasing: Callable[[float], float]) -> Interval:
        """The same interval on another scale; the function must not turn the order round."""
        if self.low is None or self.high is None:
            return Interval(increasing(self.value))
        return Interval(increasing(self.value), increasing(self.low), increasing(self.high))

    @property
    def negated(self) -> Interval:
        """The interval of minus the value."""
        if self.low is None or self.high is None:
            return Interval(-self.value)
        return Interval(-self.value, -self.high, -self.low)


@dataclass(frozen=True, eq=False)
class Scores:
    """NLL sums of plans on one text.

    `nll_PN` is float64 nats per plan and window in text order, with NaN where a forward failed;
    a plan with a NaN counts as not measured. `targets_N` are the scored tokens per window.
    """

    plans: tuple[Plan, ...]
    nll_PN: Array
    targets_N: Array
    others: Mapping[str, Array]
    """Sums of further measures, in the form of `nll_PN`."""
    bridged: frozenset[Plan] = frozenset()
    """Plans whose sums are those of their bridged variant; those of others are as cut."""

    @classmethod
    def of(
        cls,
        plans: Sequence[Plan],
        nll_PN: Array,
        targets_N: np.ndarray,
        others: Mapping[str, Array] | None = None,
        bridged: Iterable[Plan] = (),
    ) -> Scores:
        """Scores of arrays of any kind of number."""
        targets = np.asarray(targets_N, dtype=np.float64)
        assert nll_PN.shape == (len(plans), len(targets))
        nll = np.asarray(nll_PN, dtype=np.float64)
        return cls(tuple(plans), nll, targets, others or {}, frozenset(bridged))

    @cached_property
    def place(self) -> dict[Plan, int]:
        """Where each plan measured in full stands."""
        finite = np.isfinite(self.nll_PN.sum(axis=1)).tolist()
        return {plan: index for index, plan in enumerate(self.plans) if finite[index]}

    @property
    def n_windows(self) -> int:
        """Windows of the text."""
        return len(self.targets_N)

    @property
    def has_intervals(self) -> bool:
        """Whether there are windows enough for intervals and tests."""
        return self.n_windows >= MIN_WINDOWS

    def series(self, plans: Iterable[Plan]) -> Array:
        """The NLL of these plans, one row each."""
        return self.nll_PN[[self.place[plan] for plan in plans]]

    def log_ppl(self, plan: Plan) -> float:
        """Nats per token: the logarithm of the perplexity."""
        return float(windows.ratio(self.series([plan]), self.targets_N)[0])

    def estimate(self, series_CN: Array, one_sided: bool = False) -> Estimates:
        """Estimates for sums of NLL rows, window by window, hence paired."""
        return windows.estimate(series_CN, self.targets_N, one_sided)

    def intervals(self, estimates: Estimates) -> list[Interval]:
        """The estimates as values with bounds, where there are enough windows."""
        pairs = zip(estimates.value_C.tolist(), estimates.half_width_C.tolist(), strict=True)
        if not self.has_intervals:
            return [Interval(value) for value, _ in pairs]
        return [Interval(value, value - half, value + half) for value, half in pairs]

    def means(self, measure: str, plans: Sequence[Plan]) -> dict[Plan, Interval]:
        """The mean of a further measure over all tokens; nothing for plans without it."""
        if measure not in self.others:
            return {}
        known = [
            plan for plan in plans if np.isfinite(self.others[measure][self.place[plan]]).all()
        ]
        rows_CN = self.others[measure][[self.place[plan] for plan in known]]
        return dict(zip(known, self.intervals(self.estimate(rows_CN)), strict=True))

    def difference(self, plan: Plan, other: Plan) -> Interval:
        """log PPL of one plan minus that of another, in nats per token, paired."""
        rows = self.series([plan, other])
        return self.intervals(self.estimate(rows[:1] - rows[1:]))[0]

    def ppl_ratio(self, plan: Plan, other: Plan) -> Interval:
        """Perplexity of one plan relative to that of another, paired."""
        return self.difference(plan, other).map(exp)


def exp(value: float) -> float:
    """The exponential, infinite where float64 ends."""
    return math.exp(value) if value < 709 else math.inf
