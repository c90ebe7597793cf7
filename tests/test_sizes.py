"""What to choose: sizes, front, budgets, what to avoid."""

import math

import numpy as np
import pytest

from pruning_kit.errors import RunError
from pruning_kit.findings.budgets import (
    Budget,
    Caveat,
    choose,
    recommend,
    turning_point,
    useful_sizes,
)
from pruning_kit.findings.evidence import Interval
from pruning_kit.findings.sizes import PlanLatency, avoid, plan_rows, sizes
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles
from tests.synthetic_scores import additive_costs, all_plans, parameters, synthetic_scores

COSTS = (1.5, 0.1, 0.3, 0.05)
PLANS = all_plans(4)


def latency_of(plans, per_block=0.02):
    return {
        plan: PlanLatency(
            0.1 - per_block * plan.size, Interval(1 - 10 * per_block * plan.size), True
        )
        for plan in plans
    }


def rows_of(scores, selection=None, latency=None):
    return plan_rows(scores, selection or scores, 4, parameters(scores.plans), latency or {})


@pytest.fixture(scope="module")
def scores():
    return synthetic_scores(PLANS, additive_costs(COSTS))


def test_rows_hold_the_true_ratio_within_their_intervals(scores):
    rows = {row.plan: row for row in rows_of(scores)}
    assert Plan((0, 1, 2, 3)) not in rows
    row = rows[Plan((1, 3))]
    assert row.ppl_ratio.low < math.exp(0.15) < row.ppl_ratio.high
    assert row.ppl.value == pytest.approx(
        math.exp(scores.nll_PN[PLANS.index(Plan((1, 3)))].sum() / scores.targets_N.sum())
    )
    assert rows[Plan()].ppl_ratio == Interval(1.0, 1.0, 1.0)
    assert rows[Plan()].adjusted_p is None
    assert row.adjusted_p < 0.05 and row.blocks == 2 and not row.failed


def test_the_front_is_the_best_of_each_size_when_costs_rise(scores):
    front = [row.plan for row in rows_of(scores) if row.on_front]
    assert front == [Plan(), Plan((3,)), Plan((1, 3)), Plan((1, 2, 3))]


def test_latency_can_put_a_plan_on_the_front_or_leave_it_out(scores):
    latency = latency_of(PLANS)
    latency[Plan((0,))] = PlanLatency(0.01, Interval(0.1), True)
    del latency[Plan((1, 3))]
    front = [row.plan for row in rows_of(scores, latency=latency) if row.on_front]
    assert Plan((0,)) in front and Plan((1, 3)) not in front


def test_failed_plans_have_a_row_and_no_figures():
    scores = synthetic_scores(PLANS, additive_costs(COSTS))
    scores.nll_PN[PLANS.index(Plan((3,))), 0] = np.nan
    rows = {row.plan: row for row in rows_of(scores)}
    failed = rows[Plan((3,))]
    assert failed.failed and math.isnan(failed.ppl.value) and not failed.on_front
    assert math.isnan(failed.ppl.value) and failed.adjusted_p is None
    assert sizes(scores, scores, 4, parameters(PLANS), 0)[0].best == Plan((1,))


def test_without_the_whole_model_ratios_are_unknown_and_say_why():
    scores = synthetic_scores(PLANS[1:], additive_costs(COSTS))
    row = rows_of(scores)[0]
    assert math.isnan(row.ppl_ratio.value) and math.isnan(row.selection_ratio)
    assert math.isnan(row.ppl_ratio.value) and row.ppl_ratio.low is None
    assert sizes(scores, scores, 4, parameters(PLANS), 0) == ()


def test_sizes_summarise_what_was_measured(scores):
    one, two, three = sizes(scores, scores, 4, parameters(PLANS), 0)
    assert (one.best, two.best, three.best) == (Plan((3,)), Plan((1, 3)), Plan((1, 2, 3)))
    assert (one.worst, two.worst, three.worst) == (Plan((0,)), Plan((0, 2)), Plan((0, 1, 2)))
    assert [size.n_possible for size in (one, two, three)] == [4, 6, 4] and two.complete
    assert two.group[0] == Plan((1, 3)) and Plan((0, 2)) not in two.group
    assert two.step.low < 0.1 < two.step.high
    assert two.increase.low < 0.15 < two.increase.high
    assert two.per_percent.value == pytest.approx(two.increase.value / (100 * 14 / 82))
    assert two.strategies["last"] == Plan((2, 3)) and two.strategies["first"] == Plan((0, 1))
    assert two.optimism is None and two.text_shift is None and two.best_reported == two.best


def test_tied_plans_are_one_group():
    scores = synthetic_scores(PLANS, additive_costs([0.5, 0.2, 0.2, 0.9]))
    group = sizes(scores, scores, 4, parameters(PLANS), 0)[0].group
    assert sorted(group) == [Plan((1,)), Plan((2,))]


def test_plans_are_chosen_on_one_text_and_reported_on_the_other():
    reported = synthetic_scores(PLANS, additive_costs([1.5, 0.10, 0.3, 0.2]), seed=1)
    selection = synthetic_scores(PLANS, additive_costs([1.5, 0.15, 0.3, 0.05]), seed=2)
    one = sizes(reported, selection, 4, parameters(PLANS), 0)[0]
    assert one.best == Plan((3,)) and one.best_reported == Plan((1,))
    assert one.optimism == pytest.approx(0.15, abs=0.01)
    assert one.text_shift == pytest.approx(0, abs=0.01)  # of 0, -0.05, 0 and 0.15
    assert one.increase.value == pytest.approx(0.2, abs=0.01)
    assert one.selection_increase == pytest.approx(0.05, abs=0.01)
    front = [row.plan for row in rows_of(reported, selection) if row.on_front]
    assert Plan((3,)) in front and Plan((1,)) not in front


def test_sizes_with_a_gap_have_no_step():
    plans = [Plan(), *singles(4), Plan((1, 2, 3))]
    scores = synthetic_scores(plans, additive_costs(COSTS))
    one, three = sizes(scores, scores, 4, {}, 0)
    assert one.step is not None and three.step is None and three.per_percent is None
    assert not three.complete and three.n_measured == 1


def test_a_block_that_is_bad_in_every_plan_is_to_be_avoided(scores):
    (found,) = avoid(scores, 4)
    assert found.blocks == (0,) and found.sizes == (1, 2) and found.n_plans == 4
    assert found.least_factor == pytest.approx(math.exp(1.4), rel=0.02)


def test_a_pair_is_to_be_avoided_where_neither_block_is():
    cost = additive_costs([0.1] * 6, {(1, 4): 1.0})
    (found,) = avoid(synthetic_scores(all_plans(6), cost), 6)
    assert found.blocks == (1, 4) and found.sizes == (1, 2, 3)


def test_a_few_chosen_plans_condemn_no_block():
    plans = [Plan(), Plan((0, 1)), Plan((2, 3)), Plan((0, 4))]
    assert avoid(synthetic_scores(plans, additive_costs([3, 3, 0, 0, 0, 0])), 6) == ()


@pytest.mark.parametrize(
    ("budget", "plan"),
    [
        (Budget(), "none"),
        (Budget(max_params=70_000_000), "1+3"),
        (Budget(max_params=75_000_000), "3"),
        (Budget(max_latency_s=0.081), "3"),
        (Budget(max_latency_s=0.081, max_params=68_000_000), "1+3"),
        (Budget(max_ppl_increase_pct=10), "3"),
        (Budget(max_ppl_increase_pct=20), "1+3"),
        (Budget(max_ppl_increase_pct=0), "none"),
        (Budget(max_ppl_increase_pct=20, max_params=75_000_000), "3"),
    ],
)
def test_the_best_plan_within_a_budget(scores, budget, plan):
    choice = choose(rows_of(scores, latency=latency_of(PLANS)), budget)
    assert str(choice.row.plan) == plan


@pytest.mark.parametrize(
    ("budget", "nearest"),
    [(Budget(max_params=1_000), "1+2+3"), (Budget(max_latency_s=0.001), "1+2+3")],
)
def test_the_nearest_plan_to_a_limit_that_nothing_keeps(scores, budget, nearest):
    choice = choose(rows_of(scores, latency=latency_of(PLANS)), budget)
    assert choice.row is None and str(choice.nearest.plan) == nearest and choice.alone == ()


def test_limits_that_nothing_keeps_together_are_each_answered_alone(scores):
    budget = Budget(max_params=70_000_000, max_ppl_increase_pct=1, max_latency_s=0.001)
    choice = choose(rows_of(scores, latency=latency_of(PLANS)), budget)
    assert choice.row is None and choice.nearest is None
    assert [single.budget for single in choice.alone] == [
        Budget(max_latency_s=0.001),
        Budget(max_params=70_000_000),
        Budget(max_ppl_increase_pct=1),
    ]
    latency, parameters, perplexity = choice.alone
    assert latency.row is None and str(latency.nearest.plan) == "1+2+3"
    assert str(parameters.row.plan) == "1+3"
    assert str(perplexity.row.plan) == "none"


def test_caveats_name_limits_that_hold_only_by_the_estimate(scores):
    row = next(row for row in rows_of(scores) if row.plan == Plan((1, 3)))
    limit = 100 * (row.ppl_ratio.value - 1) + 1e-6
    latency = {plan: PlanLatency(0.1, Interval(1.0, 0.9, 1.1), False) for plan in PLANS}
    rows = rows_of(scores, latency=latency)
    assert choose(rows, Budget(max_ppl_increase_pct=limit)).caveats == (Caveat.PPL_UNSURE,)
    assert choose(rows, Budget(max_latency_s=0.105)).caveats == (Caveat.LATENCY_UNSURE,)
    reported = synthetic_scores(PLANS, additive_costs([1.5, 0.1, 0.3, 0.2]))
    assert choose(rows_of(reported, scores), Budget(max_ppl_increase_pct=10)).caveats == (
        Caveat.PPL_EXCEEDED,
    )


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (
            Budget(max_latency_s=0.005),
            "cannot choose a model of at most 5 ms: this run holds no timings that can be used. "
            "Measure it again with timing switched on, or give another limit.",
        ),
        (
            Budget(max_params=0),
            "cannot use --max-params 0: it needs to be above 0 and below 1,000,000.",
        ),
        (
            Budget(max_latency_s=-0.005),
            "cannot use --max-latency -5: it needs to be above 0 and below 1,000,000,000.",
        ),
        (
            Budget(max_ppl_increase_pct=-1),
            "cannot use --max-ppl-increase -1: it needs to be from 0 to 1,000,000,000.",
        ),
        (
            Budget(max_ppl_increase_pct=math.nan),
            "cannot use --max-ppl-increase nan: it needs to be from 0 to 1,000,000,000.",
        ),
    ],
)
def test_limits_that_make_no_sense_are_refused(scores, budget, message):
    with pytest.raises(RunError) as error:
        choose(rows_of(scores), budget)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("costs", "turning", "recommended"),
    [
        ((0.57, 0.81, 1.59), 2, "none"),  # the published distilgpt2: + 77 %, then four times
        ((0.31, 0.59, 0.97), 2, "best-1"),  # the demo model: + 37 %, then 2.5 times
        ((0.05, 0.06, 0.07), 3, "best-3"),
        ((0.0, 0.03, 0.5), 2, "best-2"),
        ((0.9, 0.9, 0.9), 3, "none"),
        ((-0.1, 0.02, 0.01), 3, "best-3"),
        ((0.01, 0.07, 0.5), 1, "best-2"),  # steep, but within 10 %
        ((0.5, 1.5, -1.7), 3, "best-3"),  # a few chosen plans, the small ones bad
    ],
)
def test_the_recommended_size_lies_before_the_costs_jump(costs, turning, recommended):
    steps = np.cumsum(costs)
    order = {Plan(tuple(range(k))): float(steps[k - 1]) for k in (1, 2, 3)} | {Plan(): 0.0}
    scores = synthetic_scores(list(order), lambda plan: order[plan], noise=0.0)
    found = sizes(scores, scores, 6, {}, 0)
    rows = {row.plan: row for row in plan_rows(scores, scores, 6, {}, {})}
    assert turning_point(found) == turning
    cheapest = min(found, key=lambda size: size.selection_increase)
    assert useful_sizes(found)[0] is cheapest
    plan = recommend(found, rows)
    assert (f"best-{plan.size}" if plan.size else "none") == recommended
