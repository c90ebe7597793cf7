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
from itertools import pairwise
from typing import Any

import numpy as np

from pruning_kit.errors import TimingError
from pruning_kit.intervals import repeats
from pruning_kit.intervals.repeats import Estimate, Floats, exponential
from pruning_kit.machine.typed import Number, Place, Seconds
from pruning_kit.plans.plan import Plan
from pruning_kit.speed.depths import NULL_PAIR, DepthTest, Fit, NullTest, compare_depths, fit_line
from pruning_kit.speed.threads import Trial, Wanted

PREFILL, DECODE, END_TO_END = "prefill_s", "decode_s_per_token", "end_to_end_s"
QUANTITIES = (PREFILL, DECODE, END_TO_END)
END_TO_END_PLAIN = "end_to_end_plain_s"  # kept, and told as a doubt; not compared
TARGET_MET, BUDGET_ENDED = "target met", "budget ended"
SAMPLED = (*QUANTITIES, END_TO_END_PLAIN)
MOST_BUDGETS = 6
"""So often the budget may be spent to reach the rounds without which there is no interval."""
Reading = Mapping[str, Number]


@dataclass(frozen=True, slots=True)
class Entry:
    """A timed plan: its pool, and the most bytes alive during its prefill and decode (or None)."""

    plan: Plan
    pool: int
    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """One sample of every entry, `samples[quantity][entry]`, and the order of the turns.

    Quantities that are known well enough rest: they are missing in all further rounds. `reading`
    is the state of the machine after the round.
    """

    order: tuple[Place, ...]
    samples: Mapping[str, tuple[Seconds, ...]]
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


@dataclass(frozen=True)
class Timings:
    """All samples of one timing run. Statistics are derived, nothing derived is stored.

    `pools[p]` lists the plans of pool p; pool 0 is the whole model. `start` is the reading before
    the first round, `batches` runs at further batch sizes, over the whole model and one plan;
    `trials` those from which the number of threads was chosen.
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
    batches: tuple[Timings, ...] = ()
    trials: tuple[Trial, ...] = ()

    def __post_init__(self) -> None:
        assert [self.entries[i].plan for i in NULL_PAIR] == [Plan(), Plan()]
        assert self.pools[0] == (Plan(),)

    @property
    def plans(self) -> list[Plan]:
        """Every plan that `summary` can answer for."""
        return list(self._pool_of)

    def covers(self, plan: Plan) -> bool:
        """Whether `summary` can answer for a plan."""
        return plan in self._pool_of

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
        """All samples of a quantity, shape (R, E), from the rounds in which it did not rest."""
        return np.array(
            [turn.samples[quantity] for turn in self.rounds if quantity in turn.samples]
        )

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

    @cached_property
    def widest(self) -> dict[str, tuple[float, Plan]]:
        """For each quantity the largest half-width of its ratios, the null test's included."""
        return {
            quantity: max(
                (self.null_test[quantity].ratio.half_width, Plan()),
                *(
                    (ratio.half_width, pool[0])
                    for ratio, pool in zip(self.ratios[quantity], self.pools, strict=True)
                ),
            )
            for quantity in QUANTITIES
        }

    @property
    def unknown(self) -> tuple[str, ...]:
        """The quantities of which a ratio is not known to the target yet."""
        target = self.protocol["target"]
        return tuple(q for q in QUANTITIES if not self.widest[q][0] <= target)

    @property
    def wanted(self) -> Wanted:
        """What was asked of the run."""
        return Wanted(self.protocol["budget_s"], len(self.entries), self.protocol["target"])

    @cached_property
    def steps(self) -> dict[tuple[Plan, Plan], Estimate]:
        """End-to-end time of each depth over the one above it, paired, by their first plans.

        Where blocks are of several kinds every pool is compared with those of the size above it.
        """
        log_RP = self.log_ratios(END_TO_END)
        by_size: dict[int, list[int]] = {}
        for index, pool in enumerate(self.pools):
            by_size.setdefault(pool[0].size, []).append(index)
        pairs = [
            (large, small)
            for above, below in pairwise(sorted(by_size))
            for large in by_size[above]
            for small in by_size[below]
        ]
        if not pairs:
            return {}
        larger, smaller = map(list, zip(*pairs, strict=True))
        ratios = _exponentials(log_RP[:, smaller] - log_RP[:, larger])
        plans = [(self.pools[small][0], self.pools[large][0]) for large, small in pairs]
        return dict(zip(plans, ratios, strict=True))

    def summary(self, plan: Plan) -> PlanTiming:
        """What was measured for a plan.

        Raises:
            TimingError: if neither the plan nor one that does the same work was timed.
        """
        if not self.covers(plan):
            raise TimingError(
                f"cannot tell the latency of plan {plan}: this run timed {len(self._pool_of)} "
                "other plans. Measure it too."
            )
        pool = self._pool_of[plan]
        members = self._members[pool]
        latencies = {
            quantity: Latency(
                float(np.median(self.seconds(quantity)[:, members])), self.ratios[quantity][pool]
            )
            for quantity in QUANTITIES
        }
        batch_size, new_tokens = self.protocol["batch_size"], self.protocol["end_to_end_new_tokens"]
        return PlanTiming(
            plan,
            pooled=len(self.pools[pool]) > 1,
            **latencies,
            claimed={quantity: self._claimed(quantity, pool) for quantity in QUANTITIES},
            decode_tokens_per_s=batch_size / latencies[DECODE].median_s,
            end_to_end_tokens_per_s=batch_size * new_tokens / latencies[END_TO_END].median_s,
            peak_bytes=self._peak_bytes(plan, members),
        )

    def timed_for(self, plan: Plan) -> tuple[Plan, ...]:
        """The timed plans whose times stand for a plan of equal work."""
        return tuple(self.entries[index].plan for index in self._members[self._pool_of[plan]])

    def _claimed(self, quantity: str, pool: int) -> bool:
        ratio = self.ratios[quantity][pool]
        return not ratio.covers(1.0) and self.null_test[quantity].resolves(ratio)

    def _peak_bytes(self, plan: Plan, members: Sequence[int]) -> int | None:
        """The plan's own peak where it was timed, else that of its pool's first entry."""
        chosen = [i for i in members if self.entries[i].plan == plan] or members
        return self.entries[chosen[0]].peak_bytes

    @cached_property
    def depth_test(self) -> dict[str, DepthTest]:
        """Whether plans of equal work take equal time; empty where no pool had two entries."""
        groups = [members for members in self._members[1:] if len(members) > 1]
        plans = [entry.plan for entry in self.entries]
        return {
            quantity: compare_depths(
                self.seconds(quantity),
                groups,
                plans,
                max(self.null_test[quantity].resolution, self.protocol["target"]),
            )
            for quantity in QUANTITIES
            if groups
        }

    @cached_property
    def fit(self) -> dict[str, Fit]:
        """The line through the depths, for each quantity; empty where one depth was timed."""
        kept = [self.n_blocks - entry.plan.size for entry in self.entries]
        return {
            quantity: fit_line(self.seconds(quantity), kept, self.n_blocks)
            for quantity in QUANTITIES
            if len(set(kept)) > 1
        }


def _exponentials(log_RC: Floats) -> list[Estimate]:
    """Ratios from paired logarithms, column by column."""
    mean_C, half_C = repeats.intervals(log_RC)
    return [exponential(mean, half) for mean, half in zip(mean_C, half_C, strict=True)]


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
    first_C = _columns(first, [pool for _, pool, _ in shared])
    second_C = _columns(second, [pool for _, _, pool in shared])
    mean_C, half_C = repeats.difference_intervals(second_C, first_C)
    estimates = [exponential(mean, half) for mean, half in zip(mean_C, half_C, strict=True)]
    return Agreement(dict(zip(keys, estimates, strict=True)))


def _columns(timings: Timings, pools: Iterable[int]) -> list[Floats]:
    """The ratios of some pools, round by round: a series for each quantity and pool."""
    wanted = list(pools)
    return [column for q in QUANTITIES for column in timings.log_ratios(q)[:, wanted].T]
