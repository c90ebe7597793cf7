"""Timings: every raw latency sample of a run, and what the samples say. No torch.

Words: an *entry* is a plan that was timed; a *round* times every entry once, in a random order of
its own; a *pool* holds the plans that do the same work (as many blocks of each kind), for which
one entry stands. Entries 0 and 1 are both the whole model: the null test.

Ratios are paired. In each round, a pool's time is divided by the whole model's in that round (the
geometric mean of the null test's two), so what slows a whole round cancels. The ratio is the
20 % trimmed mean of the logarithms over rounds with a studentised bootstrap interval.

Shapes: R rounds, E entries, C contrasts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pruning_kit.errors import TimingError
from pruning_kit.plan import Plan
from pruning_kit.speed import bootstrap
from pruning_kit.speed.bootstrap import Estimate, Floats

SCHEMA = 1  # 1: first version
PREFILL, DECODE, END_TO_END = "prefill_s", "decode_s_per_token", "end_to_end_s"
QUANTITIES = (PREFILL, DECODE, END_TO_END)
NULL_PAIR = (0, 1)
TARGET_MET, BUDGET_ENDED = "target met", "budget ended"

Reading = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Entry:
    """A timed plan: its pool, and the most bytes alive during its prefill and decode (or None)."""

    plan: Plan
    pool: int
    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """One sample of every entry: `samples[quantity][entry]`, in the order they were taken.

    `reading` is the state of the machine after the round.
    """

    order: tuple[int, ...]
    samples: Mapping[str, tuple[float, ...]]
    reading: Reading


@dataclass(frozen=True, slots=True)
class Latency:
    """One quantity of one plan, in seconds, and its ratio to the whole model."""

    median_s: float
    ratio: Estimate


@dataclass(frozen=True, slots=True)
class PlanTiming:
    """What was measured for a plan, by itself or (`pooled`) for the plans that do the same work.

    `claimed` says of each quantity whether the difference to the whole model may be claimed: its
    interval excludes 1 and it is larger than what the null test shows between equal models.
    """

    plan: Plan
    pooled: bool
    prefill_s: Latency
    decode_s_per_token: Latency
    end_to_end_s: Latency
    claimed: Mapping[str, bool]
    decode_tokens_per_s: float
    end_to_end_tokens_per_s: float
    peak_bytes: int | None


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
        """The farthest end of the interval from 1: smaller differences are not claimed."""
        return max(abs(self.ratio.low - 1), abs(self.ratio.high - 1))


@dataclass(frozen=True, slots=True)
class DepthTest:
    """Whether plans of one pool differ. `largest` is the deviation of `plan` from its pool.

    `p_value` is the chance of a deviation so clear among equals, all `n_plans` plans considered;
    the interval of `largest` holds for all of them at once.
    """

    p_value: float
    plan: Plan
    largest: Estimate
    n_plans: int

    @property
    def differ(self) -> bool:
        """Whether equal cost is rejected at the 5 % level."""
        return self.p_value < 1 - bootstrap.LEVEL


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


@dataclass(frozen=True)
class Timings:
    """All samples of one timing run. Statistics are derived, nothing derived is stored.

    `pools[p]` lists the plans of pool p; pool 0 is the whole model. `start` is the reading before
    the first round.
    """

    n_blocks: int
    protocol: Mapping[str, Any]
    machine: Mapping[str, Any]
    pools: tuple[tuple[Plan, ...], ...]
    entries: tuple[Entry, ...]
    start: Reading
    rounds: tuple[Round, ...]
    stopped_because: str
    elapsed_s: float

    def __post_init__(self) -> None:
        assert [self.entries[i].plan for i in NULL_PAIR] == [Plan(), Plan()]
        assert self.pools[0] == (Plan(),)

    @property
    def plans(self) -> list[Plan]:
        """Every plan that `summary` can answer for."""
        return list(self._pool_of)

    @cached_property
    def _pool_of(self) -> dict[Plan, int]:
        return {plan: index for index, pool in enumerate(self.pools) for plan in pool}

    @cached_property
    def _members(self) -> list[list[int]]:
        """The entries of each pool."""
        members: list[list[int]] = [[] for _ in self.pools]
        for index, entry in enumerate(self.entries):
            members[entry.pool].append(index)
        return members

    def seconds(self, quantity: str) -> Floats:
        """All samples of a quantity, shape (R, E)."""
        return np.array([turn.samples[quantity] for turn in self.rounds])

    def log_ratios(self, quantity: str) -> Floats:
        """Logarithm of each pool's time over the whole model's, round by round: (R, pools)."""
        log_RE = np.log(self.seconds(quantity))
        pools = [log_RE[:, members].mean(axis=1) for members in self._members]
        return np.stack(pools, axis=1) - pools[0][:, None]

    @cached_property
    def ratios(self) -> dict[str, list[Estimate]]:
        """Ratio of each pool to the whole model, for each quantity."""
        return {quantity: _exponentials(self.log_ratios(quantity)) for quantity in QUANTITIES}

    @cached_property
    def null_test(self) -> dict[str, NullTest]:
        """The whole model against itself, for each quantity."""
        tests = {}
        for quantity in QUANTITIES:
            first, second = np.log(self.seconds(quantity)[:, NULL_PAIR]).T
            tests[quantity] = NullTest(_exponentials((second - first)[:, None])[0])
        return tests

    @property
    def widest(self) -> tuple[float, str, Plan]:
        """The largest half-width of all ratios, the null test's included; its quantity and plan."""
        tests = [(self.null_test[q].ratio.half_width, q, Plan()) for q in QUANTITIES]
        ratios = [
            (ratio.half_width, quantity, self.pools[pool][0])
            for quantity in QUANTITIES
            for pool, ratio in enumerate(self.ratios[quantity])
        ]
        return max(tests + ratios)

    def summary(self, plan: Plan) -> PlanTiming:
        """What was measured for a plan.

        Raises:
            TimingError: if neither the plan nor one that does the same work was timed.
        """
        if plan not in self._pool_of:
            raise TimingError(
                f"cannot tell the latency of plan {plan}: this run timed {len(self._pool_of)} "
                "other plans. Measure it with --plans."
            )
        pool = self._pool_of[plan]
        members = self._members[pool]
        latencies = {
            quantity: Latency(
                float(np.median(self.seconds(quantity)[:, members])), self.ratios[quantity][pool]
            )
            for quantity in QUANTITIES
        }
        batch, new_tokens = self.protocol["batch_size"], self.protocol["end_to_end_new_tokens"]
        return PlanTiming(
            plan,
            pooled=len(self.pools[pool]) > 1,
            **latencies,
            claimed={quantity: self._claimed(quantity, pool) for quantity in QUANTITIES},
            decode_tokens_per_s=batch / latencies[DECODE].median_s,
            end_to_end_tokens_per_s=batch * new_tokens / latencies[END_TO_END].median_s,
            peak_bytes=self._peak_bytes(plan, members),
        )

    def _claimed(self, quantity: str, pool: int) -> bool:
        ratio = self.ratios[quantity][pool]
        resolution = self.null_test[quantity].resolution
        return not ratio.covers(1.0) and abs(ratio.value - 1) > resolution

    def _peak_bytes(self, plan: Plan, members: Sequence[int]) -> int | None:
        """The plan's own peak where it was timed, else that of its pool's first entry."""
        chosen = [i for i in members if self.entries[i].plan == plan] or members
        return self.entries[chosen[0]].peak_bytes

    @cached_property
    def depth_test(self) -> dict[str, DepthTest]:
        """Whether plans of equal work take equal time; empty where no pool had two entries."""
        groups = [members for members in self._members[1:] if len(members) > 1]
        return {quantity: self._depth_test(quantity, groups) for quantity in QUANTITIES if groups}

    def _depth_test(self, quantity: str, groups: Sequence[Sequence[int]]) -> DepthTest:
        log_RE = np.log(self.seconds(quantity))
        deviations_RC = np.concatenate(
            [log_RE[:, group] - log_RE[:, group].mean(axis=1, keepdims=True) for group in groups],
            axis=1,
        )
        mean_C, error_C = bootstrap.trimmed_mean(deviations_RC)
        t_BC = bootstrap.resampled_t(deviations_RC)
        t_C = bootstrap.absolute_t(mean_C, error_C)
        half_C = bootstrap.half_widths(t_BC, error_C, together=True)
        worst = int(t_C.argmax())
        return DepthTest(
            float((t_BC.max(axis=1) >= t_C[worst]).mean()),
            self.entries[[entry for group in groups for entry in group][worst]].plan,
            _exponential(mean_C[worst], half_C[worst]),
            len(t_C),
        )

    @cached_property
    def fit(self) -> dict[str, Fit]:
        """The line through the depths, for each quantity; empty where one depth was timed."""
        depths = {self.n_blocks - entry.plan.size for entry in self.entries}
        return {quantity: self._fit(quantity) for quantity in QUANTITIES if len(depths) > 1}

    def _fit(self, quantity: str) -> Fit:
        """Fit each round in units of its own whole model, so that drift leaves the line alone."""
        seconds_RE = self.seconds(quantity)
        whole_s = float(np.median(seconds_RE[:, NULL_PAIR]))
        whole_R = np.exp(np.log(seconds_RE[:, NULL_PAIR]).mean(axis=1))
        blocks_E = np.array([self.n_blocks - entry.plan.size for entry in self.entries], float)
        design = np.stack([np.ones_like(blocks_E), blocks_E], axis=1)
        relative_RE = seconds_RE / whole_R[:, None]
        fixed_R, slope_R = np.linalg.lstsq(design, relative_RE.T, rcond=None)[0]
        fixed, slope = bootstrap.estimate(fixed_R), bootstrap.estimate(slope_R)
        level_E, _ = bootstrap.trimmed_mean(relative_RE)
        residual_E = (level_E - fixed.value - slope.value * blocks_E) / level_E
        return Fit(
            fixed.scaled(whole_s),
            slope.scaled(whole_s),
            bootstrap.estimate(fixed_R / (fixed_R + slope_R * self.n_blocks)),
            float(np.abs(residual_E).max()),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers for `json.dump`; `from_json` is the inverse."""
        return {
            "schema": SCHEMA,
            "n_blocks": self.n_blocks,
            "protocol": dict(self.protocol),
            "machine": dict(self.machine),
            "pools": [[str(plan) for plan in pool] for pool in self.pools],
            "entries": [
                {"plan": str(entry.plan), "pool": entry.pool, "peak_bytes": entry.peak_bytes}
                for entry in self.entries
            ],
            "start": dict(self.start),
            "rounds": [
                {
                    "order": list(turn.order),
                    "samples": {name: list(values) for name, values in turn.samples.items()},
                    "reading": dict(turn.reading),
                }
                for turn in self.rounds
            ],
            "stopped_because": self.stopped_because,
            "elapsed_s": self.elapsed_s,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Timings:
        """Read what `to_json` wrote.

        Raises:
            TimingError: if the schema is not this version's.
        """
        if data.get("schema") != SCHEMA:
            raise TimingError(
                f"cannot read timings of schema {data.get('schema')!r}: this version reads "
                f"{SCHEMA}. Time the plans again."
            )
        return cls(
            n_blocks=data["n_blocks"],
            protocol=data["protocol"],
            machine=data["machine"],
            pools=tuple(tuple(Plan.parse(text) for text in pool) for pool in data["pools"]),
            entries=tuple(
                Entry(Plan.parse(entry["plan"]), entry["pool"], entry["peak_bytes"])
                for entry in data["entries"]
            ),
            start=data["start"],
            rounds=tuple(_round_from_json(turn) for turn in data["rounds"]),
            stopped_because=data["stopped_because"],
            elapsed_s=data["elapsed_s"],
        )


def _round_from_json(data: Mapping[str, Any]) -> Round:
    samples = {name: tuple(values) for name, values in data["samples"].items()}
    return Round(tuple(data["order"]), samples, data["reading"])


def _exponentials(log_RC: Floats) -> list[Estimate]:
    """Ratios from paired logarithms, column by column."""
    mean_C, half_C = bootstrap.intervals(log_RC)
    return [_exponential(mean, half) for mean, half in zip(mean_C, half_C, strict=True)]


def _exponential(mean: float, half: float) -> Estimate:
    with np.errstate(over="ignore"):
        value, low, high = np.exp([mean, mean - half, mean + half])
    return Estimate(float(value), float(low), float(high))


@dataclass(frozen=True, slots=True)
class Agreement:
    """Ratio of two runs' ratios, by quantity and plan; the intervals hold all at once."""

    differences: Mapping[tuple[str, Plan], Estimate]

    @property
    def disagreeing(self) -> list[tuple[str, Plan]]:
        """Where the two runs contradict each other."""
        return [key for key, ratio in self.differences.items() if not ratio.covers(1.0)]


def compare(first: Timings, second: Timings) -> Agreement:
    """Whether two runs agree on every ratio that both measured, by simultaneous intervals.

    Raises:
        TimingError: if the runs share no plan but the whole model.
    """
    shared = [
        (pool[0], index, second._pool_of[pool[0]])
        for index, pool in enumerate(first.pools)
        if index and pool[0] in second._pool_of
    ]
    if not shared:
        raise TimingError("cannot compare two timing runs: they share no plan but the whole model.")
    keys = [(quantity, plan) for quantity in QUANTITIES for plan, _, _ in shared]
    first_RC = _columns(first, [pool for _, pool, _ in shared])
    second_RC = _columns(second, [pool for _, _, pool in shared])
    mean_C, half_C = bootstrap.difference_intervals(second_RC, first_RC)
    estimates = [_exponential(mean, half) for mean, half in zip(mean_C, half_C, strict=True)]
    return Agreement(dict(zip(keys, estimates, strict=True)))


def _columns(timings: Timings, pools: Iterable[int]) -> Floats:
    wanted = list(pools)
    return np.concatenate([timings.log_ratios(q)[:, wanted] for q in QUANTITIES], axis=1)
