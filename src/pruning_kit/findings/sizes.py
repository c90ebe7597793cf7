"""What there is to choose from: every plan, each size, the Pareto front, and what to avoid.

Plans are chosen by their perplexity relative to the whole model on the *selection* scores and
reported by the *reported* scores; these are the same where a run holds one text only. The stack
without any block is never a choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pruning_kit.findings.evidence import Interval, Scores, exp
from pruning_kit.findings.importance import membership, p_values
from pruning_kit.intervals import windows
from pruning_kit.intervals.memory import Array
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import STRATEGIES, strategy_plan

AVOID_FACTOR = 2.0


@dataclass(frozen=True)
class PlanLatency:
    """End-to-end latency of one plan: the median, and its ratio to the whole model's.

    `claimed` tells whether the difference to the whole model is larger than the machine's noise.
    `timed` are the plans of equal work that were timed in its place; empty where it was itself.
    """

    median_s: float
    ratio: Interval
    claimed: bool
    timed: tuple[Plan, ...] = ()


@dataclass(frozen=True)
class PlanRow:
    """One plan with everything known of it, in the form that it is judged by.

    `ppl_ratio` is relative to the whole model and paired with it; `adjusted_p` tests the
    difference from the whole model for all plans of the run at once. `selection_ratio` is the
    same ratio on the text chosen on. A failed plan has NaN values.
    """

    plan: Plan
    blocks: int
    parameters: int | None
    bridged: bool
    """Whether that form is its bridged variant; else it is as cut."""
    as_cut: Interval | None
    """Perplexity as cut, NaN where that failed; None where it was not measured."""
    ppl: Interval
    ppl_ratio: Interval
    adjusted_p: float | None
    selection_ratio: float
    latency: PlanLatency | None
    on_front: bool
    failed: bool
    kl: Interval | None
    """Divergence of its predictions from the whole model's, nats per token; None if unknown."""
    agreement: Interval | None
    """Share of tokens on which both find the same one most likely; None if unknown."""


@dataclass(frozen=True)
class Size:
    """The measured plans that remove `n_removed` blocks.

    `best`, `group`, `median_ratio` and `worst` are by the selection text; `group` holds the plans
    not distinguishable from the best one, the best first. `selection_increase` is the log PPL that
    the best plan costs on the text chosen on, `increase` on the reported text; `step` is what it
    costs beyond the best plan of one block less, `per_percent` the increase for each per cent of
    the parameters removed. `optimism` is how much better, in log PPL relative to the whole model,
    the best plan looked on the text it was chosen on, `text_shift` the median of the same over all
    plans of the size, which is the texts' own difference; None without such a text.
    `best_reported` is the best plan in hindsight, by the reported text.
    """

    n_removed: int
    n_measured: int
    n_possible: int
    best: Plan
    group: tuple[Plan, ...]
    worst: Plan
    median_ratio: float
    selection_increase: float
    strategies: Mapping[str, Plan | None]
    increase: Interval
    step: Interval | None
    per_percent: Interval | None
    optimism: float | None
    text_shift: float | None
    best_reported: Plan

    @property
    def complete(self) -> bool:
        """Whether every plan of this size was measured."""
        return self.n_measured == self.n_possible


@dataclass(frozen=True)
class Avoid:
    """A block, or a pair of blocks, that every measured plan without it pays dearly for.

    Of the measured plans that remove as many blocks as one of `sizes` says, `n_plans` remove
    `blocks`; each has at least `least_factor` times the perplexity of the best plan of its size.
    """

    blocks: tuple[int, ...]
    sizes: tuple[int, ...]
    n_plans: int
    least_factor: float


def plan_rows(
    reported: Scores,
    selection: Scores,
    n_blocks: int,
    parameters: Mapping[Plan, int],
    latency: Mapping[Plan, PlanLatency],
    as_cut: Scores | None = None,
) -> tuple[PlanRow, ...]:
    """One row per plan, smaller sets first; the stack without any block is left out.

    `as_cut` are the reported scores of plans as cut, where `reported` are others.
    """
    plans = sorted({plan for plan in reported.plans if plan.size < n_blocks})
    good = [plan for plan in plans if plan in reported.place]
    ppl = _perplexities(reported)
    cut = ppl if as_cut is None else _perplexities(as_cut)
    ratios, adjusted = _ratios(reported, good)
    chosen_on = selection_ratios(selection, good)
    front = pareto_plans(good, chosen_on, parameters, latency)
    unknown = Interval(math.nan)
    kl, agreement = (reported.means(name, good) for name in ("kl", "agreement"))
    return tuple(
        PlanRow(
            plan=plan,
            blocks=n_blocks - plan.size,
            parameters=parameters.get(plan),
            bridged=plan in reported.bridged,
            as_cut=cut.get(plan),
            ppl=ppl[plan],
            ppl_ratio=ratios.get(plan, unknown),
            adjusted_p=adjusted.get(plan),
            selection_ratio=chosen_on.get(plan, math.nan),
            latency=latency.get(plan),
            on_front=plan in front,
            failed=plan not in reported.place,
            kl=kl.get(plan),
            agreement=agreement.get(plan),
        )
        for plan in plans
    )


def _perplexities(scores: Scores) -> dict[Plan, Interval]:
    """Of every plan, NaN where it failed."""
    intervals = scores.intervals(scores.estimate(scores.series(scores.place)))
    known = {plan: one.map(exp) for plan, one in zip(scores.place, intervals, strict=True)}
    return dict.fromkeys(scores.plans, Interval(math.nan)) | known


def _ratios(
    scores: Scores, plans: list[Plan]
) -> tuple[dict[Plan, Interval], dict[Plan, float | None]]:
    """PPL relative to the whole model, and p values that hold for all plans at once."""
    if Plan() not in scores.place:
        return {plan: Interval(math.nan) for plan in plans}, {}
    pruned = [plan for plan in plans if plan != Plan()]
    estimates = scores.estimate(scores.series(pruned) - scores.series([Plan()]))
    intervals = [interval.map(exp) for interval in scores.intervals(estimates)]
    ratios = dict(zip(pruned, intervals, strict=True))
    return ratios | {Plan(): Interval(1.0, 1.0, 1.0)}, dict(
        zip(pruned, p_values(estimates.adjusted_p_C), strict=True)
    )


def selection_ratios(selection: Scores, plans: list[Plan]) -> dict[Plan, float]:
    """PPL relative to the whole model on the text chosen on, where both were measured."""
    if Plan() not in selection.place:
        return {}
    known = [plan for plan in plans if plan in selection.place]
    series_PN = selection.series(known) - selection.series([Plan()])
    values = windows.ratio(series_PN, selection.targets_N)
    return {plan: exp(value) for plan, value in zip(known, values.tolist(), strict=True)}


def pareto_plans(
    plans: list[Plan],
    selection_ratio: Mapping[Plan, float],
    parameters: Mapping[Plan, int],
    latency: Mapping[Plan, PlanLatency],
) -> set[Plan]:
    """Plans that no other beats in perplexity, parameters and, where measured, latency.

    Where only some plans were timed, the others cannot be on the front of a timed run.
    """
    columns = [
        [selection_ratio.get(plan, math.nan) for plan in plans],
        [parameters.get(plan, plan.size * -1.0) for plan in plans],
    ]
    if latency:
        columns.append(
            [latency[plan].ratio.value if plan in latency else math.nan for plan in plans]
        )
    costs_PK = np.array(columns, dtype=np.float64).T.reshape(len(plans), len(columns))
    on_front = windows.pareto_front(costs_PK)
    return {plan for plan, good in zip(plans, on_front.tolist(), strict=True) if good}


def sizes(
    reported: Scores,
    selection: Scores,
    n_blocks: int,
    parameters: Mapping[Plan, int],
    random_seed: int,
) -> tuple[Size, ...]:
    """A summary of each number of removed blocks that was measured, from one block on."""
    if Plan() not in reported.place or Plan() not in selection.place:
        return ()
    found: list[Size] = []
    for n_removed in range(1, n_blocks):
        both = reported.place.keys() & selection.place.keys()
        plans = sorted(plan for plan in both if plan.size == n_removed)
        if plans:
            before = Plan() if n_removed == 1 else None
            if found and found[-1].n_removed == n_removed - 1:
                before = found[-1].best
            found.append(
                _size(reported, selection, n_blocks, parameters, random_seed, plans, before)
            )
    return tuple(found)


def _size(
    reported: Scores,
    selection: Scores,
    n_blocks: int,
    parameters: Mapping[Plan, int],
    random_seed: int,
    plans: list[Plan],
    before: Plan | None,
) -> Size:
    n_removed = plans[0].size
    rows_PN = selection.series(plans)
    costs = windows.ratio(rows_PN, selection.targets_N) - selection.log_ppl(Plan())
    order = np.argsort(costs, kind="stable").tolist()
    in_group = windows.not_worse_than_best(rows_PN, selection.targets_N)
    best = plans[order[0]]
    increase = reported.difference(best, Plan())
    seen = windows.ratio(reported.series(plans), reported.targets_N)
    shifts = seen - reported.log_ppl(Plan()) - costs
    two_texts = selection is not reported
    return Size(
        n_removed=n_removed,
        n_measured=len(plans),
        n_possible=math.comb(n_blocks, n_removed),
        best=best,
        group=tuple(plans[index] for index in order if in_group[index]),
        worst=plans[order[-1]],
        median_ratio=exp(float(np.median(costs))),
        selection_increase=float(costs[order[0]]),
        strategies={
            name: _measured(strategy_plan(name, n_blocks, n_removed, random_seed), plans)
            for name in STRATEGIES
        },
        increase=increase,
        step=None if before is None else reported.difference(best, before),
        per_percent=_per_percent(increase, parameters, best),
        optimism=float(shifts[order[0]]) if two_texts else None,
        text_shift=float(np.median(shifts)) if two_texts else None,
        best_reported=plans[int(np.argmin(seen))],
    )


def _measured(plan: Plan, plans: list[Plan]) -> Plan | None:
    return plan if plan in plans else None


def _per_percent(increase: Interval, parameters: Mapping[Plan, int], best: Plan) -> Interval | None:
    if Plan() not in parameters or best not in parameters:
        return None
    removed_pct = 100 * (1 - parameters[best] / parameters[Plan()])
    return increase.map(lambda value: value / removed_pct) if removed_pct > 0 else None


def avoid(selection: Scores, n_blocks: int) -> tuple[Avoid, ...]:
    """Single blocks, then pairs, that at least double the perplexity in every plan without them.

    The comparison is with the best measured plan of the same size, over sizes of which at least
    half of all plans were measured and which leave at least half of the model, since beyond that
    every plan is bad. A pair is named only if neither of its blocks is; the worst come first.
    """
    by_size: dict[int, list[Plan]] = {}
    for plan in selection.place:
        if 1 <= plan.size <= max(1, n_blocks // 2) and plan.size < n_blocks:
            by_size.setdefault(plan.size, []).append(plan)
    well_covered = {
        size: plans
        for size, plans in by_size.items()
        if len(plans) >= max(2, math.comb(n_blocks, size) / 2)
    }
    if not well_covered:
        return ()
    sizes_found = tuple(sorted(well_covered))
    plans = tuple(plan for size in sizes_found for plan in well_covered[size])
    excess_P = np.concatenate([_excess(selection, well_covered[size]) for size in sizes_found])
    removed_PL = membership(plans, n_blocks)
    found: list[Avoid] = []
    for count in (1, 2):
        named = [set(item.blocks) for item in found]
        candidates = [
            blocks
            for blocks in combinations(range(n_blocks), count)
            if not any(less <= set(blocks) for less in named)
        ]
        items = []
        for blocks in candidates:
            excess = excess_P[removed_PL[:, list(blocks)].all(axis=1)]
            if len(excess) and excess.min() >= math.log(AVOID_FACTOR):
                items.append(Avoid(blocks, sizes_found, len(excess), exp(float(excess.min()))))
        found += sorted(items, key=lambda item: (-item.least_factor, item.blocks))
    return tuple(found)


def _excess(selection: Scores, plans: list[Plan]) -> Array:
    """log PPL above the best of these plans."""
    log_ppl_P = windows.ratio(selection.series(plans), selection.targets_N)
    return log_ppl_P - log_ppl_P.min()
