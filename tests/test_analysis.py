"""The analysis of a run: laws that hold for any run, and runs of every kind."""

import math

import numpy as np
import pytest

from pruning_kit.findings.analysis import analyse, analyse_scores
from pruning_kit.findings.budgets import Budget
from pruning_kit.findings.evidence import Scores
from pruning_kit.findings.importance import NotAvailable
from pruning_kit.intervals import MIN_ROUNDS
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles
from pruning_kit.reporting.words.sureness import of_the_intervals
from tests.synthetic_runs import synthetic_timings
from tests.synthetic_scores import (
    additive_costs,
    all_plans,
    parameters,
    synthetic_nll,
    synthetic_scores,
)

COSTS = (1.5, 0.1, 0.3, 0.05)


@pytest.fixture
def run_of(stored_run):
    """A run of a model of four blocks whose costs are `COSTS`, or others."""

    def get(plans, n_blocks=4, costs=COSTS, selection=None, n_windows=200, **options):
        return stored_run(
            n_blocks=n_blocks,
            plans=plans,
            cost=additive_costs(costs),
            selection=selection is not None,
            selection_cost=None if selection is None else additive_costs(selection),
            n_windows=n_windows,
            **{"timed": False} | options,
        )

    return get


def test_a_run_with_one_text_chooses_on_it(run_of):
    found = analyse(run_of(all_plans(4)))
    assert (
        not found.two_texts
        and found.selection == found.reported
        and found.selection_scores is found.scores
    )
    assert found.reported.n_windows == 200
    assert found.reported.n_tokens == 1023 + 198 * 512 + 100
    assert found.complete and found.shapley.method == "exact"


def test_a_run_with_two_texts_chooses_on_one_and_reports_on_the_other(run_of):
    run = run_of(all_plans(4), selection=(1.5, 0.04, 0.3, 0.1))
    found = analyse(run)
    assert found.two_texts
    assert (found.reported.role, found.selection.role) == ("reported", "selection")
    assert found.sizes[0].best == Plan((1,)) and found.sizes[0].best_reported == Plan((3,))
    assert found.row[Plan((1,))].selection_ratio == pytest.approx(math.exp(0.04), rel=0.01)
    assert found.row[Plan((1,))].ppl_ratio.value == pytest.approx(math.exp(0.1), rel=0.01)
    assert found.importance.ranking.least == (3,)


def test_short_titles_leave_out_what_two_texts_share():
    scores = synthetic_scores([Plan()], additive_costs((1.0,)))
    other = synthetic_scores([Plan()], additive_costs((1.0,)), seed=1)
    for titles, short in {
        ("Jane Austen, Emma", "Jane Austen, Lady Susan"): ("Emma", "Lady Susan"),
        ("Emma", "Jane Austen, Emma"): ("Emma", "Jane Austen, Emma"),
        ("a, b", "a, b"): ("a, b", "a, b"),
    }.items():
        found = analyse_scores(scores, other, 1, {}, {}, titles=titles)
        assert (found.reported.short, found.selection.short) == short


def test_latency_of_a_pool_belongs_to_all_its_plans(run_of):
    found = analyse(run_of(all_plans(4, empty=False), timed=True))
    latency = found.row[Plan((0, 2))].latency
    assert latency.median_s == pytest.approx(0.4 * 0.65, rel=0.02)
    assert latency.timed == (Plan((0, 1)),) and found.row[Plan((0, 1))].latency.timed == ()
    assert latency.ratio.low < 0.65 < latency.ratio.high
    assert latency.ratio.high - latency.ratio.low < 0.03
    assert [str(row.plan) for row in found.front] == ["none", "3", "1+3", "1+2+3"]


def test_a_latency_from_too_few_rounds_supports_no_choice(run_of):
    plans = all_plans(4, empty=False)
    timings = synthetic_timings(plans, 4, n_rounds=MIN_ROUNDS - 1)
    run = run_of(plans, timed=True, timings=timings)
    assert analyse(run).row[Plan((0, 2))].latency is None


def test_the_order_of_plans_changes_nothing():
    plans = all_plans(4)
    cost = additive_costs(COSTS, {(1, 2): 0.2})
    nll, targets = synthetic_nll(plans, cost)
    order = np.random.default_rng(0).permutation(len(plans))
    first = Scores.of(plans, nll, targets)
    second = Scores.of([plans[i] for i in order], nll[order], targets)
    one, two = (analyse_scores(s, s, 4, parameters(plans), {}) for s in (first, second))
    for left, right in zip(one.rows, two.rows, strict=True):
        assert left.plan == right.plan and left.on_front == right.on_front
        assert left.adjusted_p == right.adjusted_p
        assert left.ppl_ratio.value == pytest.approx(right.ppl_ratio.value)
        assert left.ppl_ratio.low == pytest.approx(right.ppl_ratio.low)
    assert [size.group for size in one.sizes] == [size.group for size in two.sizes]
    assert one.importance.ranking == two.importance.ranking
    assert one.shapley.ranking == two.shapley.ranking
    assert one.recommended == two.recommended
    for left, right in zip(one.interactions, two.interactions, strict=True):
        assert left.excess.value == pytest.approx(right.excess.value)


def test_the_same_run_gives_the_same_analysis_twice(run_of):
    one, two = analyse(run_of(all_plans(4))), analyse(run_of(all_plans(4)))
    assert one.rows == two.rows and one.sizes == two.sizes and one.shapley == two.shapley


def test_any_two_plans_can_be_compared(run_of):
    found = analyse(run_of(all_plans(4)))
    difference = found.difference(Plan((2,)), Plan((1,)))
    assert difference.low < 0.2 < difference.high
    ratio = found.scores.ppl_ratio(Plan((2,)), Plan((1,)))
    assert ratio.value == pytest.approx(math.exp(difference.value))
    back = found.difference(Plan((1,)), Plan((2,)))
    assert back == difference.negated


def test_few_windows_give_values_without_intervals(run_of):
    found = analyse(run_of(all_plans(4), n_windows=49))
    assert not found.tested
    for interval in (
        found.row[Plan((1,))].ppl,
        found.row[Plan((1,))].ppl_ratio,
        found.shapley.values[0],
        found.interactions[0].excess,
        found.sizes[0].increase,
        found.importance.items[0].increase,
    ):
        assert interval.value > 0 and (interval.low, interval.high) == (None, None)
    assert found.sizes[0].n_measured == len(found.sizes[0].group)


def test_strong_autocorrelation_is_said(run_of):
    plans = [Plan(), *singles(4)]
    generator = np.random.default_rng(0)
    walk = np.cumsum(generator.standard_normal(200)) * 0.1
    nll = (3.3 + walk + np.zeros((5, 1))) * 100
    scores = Scores.of(plans, nll, np.full(200, 100))
    found = analyse_scores(scores, scores, 4, parameters(plans), {})
    assert found.autocorrelation > 0.9
    assert "beyond the 0.75 up to which the intervals were checked" in of_the_intervals(found)[1]
    assert len(of_the_intervals(analyse(run_of(all_plans(4))))) == 1


def test_a_baseline_only_run_has_one_row_and_nothing_else(run_of):
    found = analyse(run_of([Plan()]))
    assert [row.plan for row in found.rows] == [Plan()]
    assert found.sizes == found.interactions == found.avoid == ()
    assert found.recommended == Plan() and not found.complete
    assert isinstance(found.shapley, NotAvailable)


def test_a_model_of_one_block_leaves_nothing_to_remove(run_of):
    found = analyse(run_of([Plan(), Plan((0,))], n_blocks=1, costs=(4.0,)))
    assert [row.plan for row in found.rows] == [Plan()]
    assert found.shapley.values[0].value == pytest.approx(4.0, abs=0.01)
    assert found.sizes == () and found.importance.items == ()


def test_a_run_in_which_everything_failed_is_survived(run_of):
    run = run_of(all_plans(4))
    run.nll()[:] = np.nan
    found = analyse(run)
    assert len(found.failed) == 15 and found.front == () and found.sizes == ()
    assert found.choose(Budget(max_ppl_increase_pct=100)).row is None


def test_huge_losses_end_in_infinity_not_in_an_error(run_of):
    plans = [Plan(), *singles(3)]
    found = analyse(run_of(plans, n_blocks=3, costs=(900.0, 0.1, 0.2)))
    assert found.row[Plan((0,))].ppl.value == math.inf
    assert found.importance.ranking.blocks == (0, 2, 1)


def test_all_plans_of_twelve_blocks():
    costs = np.random.default_rng(3).gamma(1, 0.15, 12)
    plans = all_plans(12)
    scores = synthetic_scores(plans, additive_costs(costs), n_windows=300)
    found = analyse_scores(scores, scores, 12, parameters(plans), {})
    assert len(found.rows) == 4095 and found.complete
    total = sum(value.value for value in found.shapley.values)
    assert total == pytest.approx(found.shapley.total.value)
    for value, cost in zip(found.shapley.values, costs, strict=True):
        assert value.value == pytest.approx(cost, abs=0.01)
    order = np.argsort(costs)
    for size in found.sizes:
        cheapest = Plan(tuple(order[: size.n_removed].tolist()))
        assert size.complete and cheapest in size.group
