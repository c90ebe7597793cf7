"""Who matters: leave-one-out importance, Shapley values, interactions, and honest rankings.

All of these are weighted sums of log perplexities on one text, so their intervals are those of
`intervals.windows.estimate`. log PPL is in nats per token throughout.

Shapes: L blocks, P plans, C contrasts, N windows, M pairs of permutations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, islice, pairwise

import numpy as np
from scipy.special import stdtrit  # scipy.stats takes a second to import

from pruning_kit.bounds import MOST_PERMUTATIONS
from pruning_kit.findings.evidence import Interval, Scores, exp
from pruning_kit.intervals.memory import Array
from pruning_kit.intervals.windows import LEVEL
from pruning_kit.plans.permutations import prefix_plans, shapley_permutations
from pruning_kit.plans.plan import Plan
from pruning_kit.search.shapley import permutations_to_sample

MAX_EXACT_BLOCKS = 20


@dataclass(frozen=True)
class Ranking:
    """Blocks from the one that matters most to the one that matters least.

    `separated[k]` tells whether the blocks at k and k + 1 differ by a test that holds for all
    pairs of blocks at once; None where there are too few windows to test. `most` and `least` hold
    the blocks which that test does not tell from the first or the last one, that one first;
    without a test that one alone.
    """

    blocks: tuple[int, ...]
    separated: tuple[bool, ...] | None
    most: tuple[int, ...]
    least: tuple[int, ...]

    def __str__(self) -> str:
        """`0 > 5 > 1 ≈ 4`: > differs, ≈ cannot be told apart, a comma was not tested."""
        if self.separated is None:
            return ", ".join(map(str, self.blocks))
        signs = [" > " if differs else " ≈ " for differs in self.separated]
        return "".join(
            f"{block}{sign}" for block, sign in zip(self.blocks, [*signs, ""], strict=True)
        )


@dataclass(frozen=True)
class LeaveOneOut:
    """What removing a block alone does; `adjusted_p` holds for all blocks at once."""

    block: int
    increase: Interval
    ppl_ratio: Interval
    adjusted_p: float | None


@dataclass(frozen=True)
class Importance:
    """Leave-one-out importance of the blocks whose single removal was measured."""

    items: tuple[LeaveOneOut, ...]
    ranking: Ranking
    complete: bool


@dataclass(frozen=True)
class Shapley:
    """Shapley values: each block's share of log PPL(no block) - log PPL(whole model).

    `values[i]` belongs to block i. For sampled values the interval covers windows and
    permutations, and `sampling_error` is the standard error from the permutations alone.
    """

    method: str
    values: tuple[Interval, ...]
    total: Interval
    ranking: Ranking
    n_permutations: int | None
    sampling_error: tuple[float, ...] | None


@dataclass(frozen=True)
class NotAvailable:
    """Shapley values that the run does not hold, and what a sweep would measure for them."""

    n_measured: int
    """Sets of blocks measured in full, the empty and the whole one included."""
    missing: Plan | None
    """The set that alone is missing: nothing removed, or everything; None where more are."""
    n_permutations: int | None
    """Sampled orders of the blocks to measure; None: all sets of blocks, where they are few."""


@dataclass(frozen=True)
class Interaction:
    """What removing two blocks costs beyond the sum of their single costs, in log PPL.

    Above zero the two replace each other: together they cost more than their sum.
    """

    first: int
    second: int
    excess: Interval
    adjusted_p: float | None

    @property
    def is_clear(self) -> bool:
        """Whether it differs from zero by a test that holds for all pairs at once."""
        return self.adjusted_p is not None and self.adjusted_p <= 1 - LEVEL


def leave_one_out(scores: Scores, n_blocks: int) -> Importance:
    """Importance of each block whose single removal was measured, in block order."""
    blocks = [block for block in range(n_blocks) if Plan((block,)) in scores.place]
    blocks = [] if Plan() not in scores.place or n_blocks == 1 else blocks
    series_CN = scores.series(Plan((block,)) for block in blocks) - (
        scores.series([Plan()]) if blocks else 0.0
    )
    estimates = scores.estimate(series_CN)
    adjusted = p_values(estimates.adjusted_p_C)
    items = tuple(
        LeaveOneOut(block, interval, interval.map(exp), p)
        for block, interval, p in zip(blocks, scores.intervals(estimates), adjusted, strict=True)
    )
    return Importance(items, rank(scores, blocks, series_CN), len(blocks) == n_blocks)


def rank(scores: Scores, blocks: list[int], series_CN: Array) -> Ranking:
    """Order blocks by their estimate, the largest first, and test which ones differ."""
    values = scores.estimate(series_CN).value_C
    order = sorted(range(len(blocks)), key=lambda index: (-values[index], blocks[index]))
    ranked = tuple(blocks[index] for index in order)
    if not scores.has_intervals:
        return Ranking(ranked, None, ranked[:1], ranked[-1:])
    places = list(combinations(range(len(order)), 2))
    series_in_order = series_CN[order]
    first, second = ([pair[side] for pair in places] for side in (0, 1))
    tested = scores.estimate(series_in_order[first] - series_in_order[second])
    differ = {pair for pair, p in zip(places, tested.adjusted_p_C, strict=True) if p <= 1 - LEVEL}
    last = len(order) - 1
    return Ranking(
        ranked,
        tuple(pair in differ for pair in pairwise(range(len(order)))),
        tuple(block for at, block in enumerate(ranked) if (0, at) not in differ),
        tuple(ranked[at] for at in range(last, -1, -1) if (at, last) not in differ),
    )


def interactions(scores: Scores, n_blocks: int) -> tuple[Interaction, ...]:
    """L(ij) - L(i) - L(j) + L(none) for every pair measured with both its singles."""
    place = scores.place
    pairs = [
        (i, j)
        for i, j in combinations(range(n_blocks), 2)
        if {Plan((i, j)), Plan((i,)), Plan((j,)), Plan()} <= place.keys() and n_blocks > 2
    ]
    if not pairs:
        return ()
    series_CN = (
        scores.series(Plan(pair) for pair in pairs)
        - scores.series(Plan((i,)) for i, _ in pairs)
        - scores.series(Plan((j,)) for _, j in pairs)
        + scores.series([Plan()])
    )
    estimates = scores.estimate(series_CN)
    adjusted = p_values(estimates.adjusted_p_C)
    return tuple(
        Interaction(i, j, interval, p)
        for (i, j), interval, p in zip(pairs, scores.intervals(estimates), adjusted, strict=True)
    )


def shapley_values(scores: Scores, n_blocks: int) -> Shapley | NotAvailable:
    """Exact values where all 2**L plans were measured, sampled ones where permutations were.

    Permutations are recognised in the run: those of `shapley_permutations` are taken in order
    until one needs a plan that the run lacks. Two pairs are the least that show an error.
    """
    empty = Plan(tuple(range(n_blocks)))
    missing = [plan for plan in (Plan(), empty) if plan not in scores.place]
    if missing:
        only = missing[0] if len(scores.place) + len(missing) >= 2**n_blocks else None
        return NotAvailable(len(scores.place), only, permutations_to_sample(n_blocks))
    if n_blocks <= MAX_EXACT_BLOCKS and len(scores.place) == 2**n_blocks:
        return _exact_shapley(scores, n_blocks)
    pairs = _measured_pairs(scores, n_blocks)
    if len(pairs) < 2:
        return NotAvailable(len(scores.place), None, permutations_to_sample(n_blocks))
    return _sampled_shapley(scores, n_blocks, pairs)


def exact_weights(plans: tuple[Plan, ...], n_blocks: int) -> Array:
    """Weights that turn the log PPL of all plans into Shapley values, (L, P)."""
    removed_PL = membership(plans, n_blocks)
    sizes_P = removed_PL.sum(axis=1)
    weight = np.array([1 / (n_blocks * math.comb(n_blocks - 1, k)) for k in range(n_blocks)])
    return np.where(
        removed_PL.T,
        weight[np.maximum(sizes_P - 1, 0)],
        -weight[np.minimum(sizes_P, n_blocks - 1)],
    )


def membership(plans: tuple[Plan, ...], n_blocks: int) -> np.ndarray:
    """Which plan removes which block, booleans (P, L)."""
    removed_PL = np.zeros((len(plans), n_blocks), dtype=bool)
    for index, plan in enumerate(plans):
        removed_PL[index, list(plan.removed)] = True
    return removed_PL


def _exact_shapley(scores: Scores, n_blocks: int) -> Shapley:
    plans = tuple(scores.place)
    series_LN = exact_weights(plans, n_blocks) @ scores.series(plans)
    values = scores.intervals(scores.estimate(series_LN))
    return _shapley("exact", scores, series_LN, values, None, None)


def _shapley(
    method: str,
    scores: Scores,
    series_LN: Array,
    values: list[Interval],
    n_permutations: int | None,
    sampling_error: tuple[float, ...] | None,
) -> Shapley:
    n_blocks = len(values)
    total = scores.difference(Plan(tuple(range(n_blocks))), Plan())
    ranking = rank(scores, list(range(n_blocks)), series_LN)
    return Shapley(method, tuple(values), total, ranking, n_permutations, sampling_error)


def _measured_pairs(scores: Scores, n_blocks: int) -> list[tuple[int, ...]]:
    """The first orders of all pairs whose plans the run holds; the second is the reverse."""
    found: list[tuple[int, ...]] = []
    stream = islice(shapley_permutations(n_blocks), 0, MOST_PERMUTATIONS, 2)
    for order in stream:
        needed = prefix_plans(order) + prefix_plans(order[::-1])
        if not scores.place.keys() >= set(needed):
            break
        found.append(order)
    return found


def _sampled_shapley(scores: Scores, n_blocks: int, pairs: list[tuple[int, ...]]) -> Shapley:
    place = scores.place
    log_ppl_P = scores.nll_PN.sum(axis=1) / scores.targets_N.sum()
    weights_LP = np.zeros((n_blocks, len(scores.plans)))
    values_ML = np.zeros((len(pairs), n_blocks))
    for index, pair in enumerate(pairs):
        for order in (pair, pair[::-1]):
            places = [place[plan] for plan in prefix_plans(order)]
            for block, without, with_block in zip(order, places, places[1:], strict=False):
                values_ML[index, block] += (log_ppl_P[without] - log_ppl_P[with_block]) / 2
                weights_LP[block, without] += 1 / (2 * len(pairs))
                weights_LP[block, with_block] -= 1 / (2 * len(pairs))
    used = sorted(place.values())
    series_LN = weights_LP[:, used] @ scores.nll_PN[used]
    error_L = values_ML.std(axis=0, ddof=1) / math.sqrt(len(pairs))
    factor = float(stdtrit(len(pairs) - 1, (1 + LEVEL) / 2))
    values = [
        _widen(interval, factor * error)
        for interval, error in zip(
            scores.intervals(scores.estimate(series_LN)), error_L.tolist(), strict=True
        )
    ]
    return _shapley("sampled", scores, series_LN, values, 2 * len(pairs), tuple(error_L.tolist()))


def _widen(interval: Interval, half_width: float) -> Interval:
    """Add an independent error to an interval, half widths squared."""
    if interval.low is None:
        return interval
    half = math.hypot(interval.value - interval.low, half_width)
    return Interval(interval.value, interval.value - half, interval.value + half)


def p_values(p_C: Array) -> list[float | None]:
    """p values as plain numbers, None where there is no test."""
    return [None if math.isnan(p) else p for p in p_C.tolist()]
