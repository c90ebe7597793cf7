"""Who matters: the axioms of Shapley, exactness, honest rankings."""

import math
from itertools import islice, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning_kit.findings.evidence import Scores
from pruning_kit.findings.importance import (
    NotAvailable,
    Ranking,
    interactions,
    leave_one_out,
    shapley_values,
)
from pruning_kit.plans.permutations import prefix_plans, shapley_permutations, shapley_plans
from pruning_kit.plans.plan import Plan
from tests.synthetic_scores import additive_costs, all_plans, synthetic_scores

few = settings(max_examples=20, deadline=None)


def scores_of(log_ppl, n_windows=60):
    """Scores whose log PPL per plan is exactly what is given."""
    plans = sorted(log_ppl)
    values = np.array([log_ppl[plan] for plan in plans])
    targets = np.full(n_windows, 100)
    wave = 1 + 0.01 * np.sin(np.arange(n_windows))
    return Scores.of(plans, values[:, None] * targets * (wave / wave.mean()), targets)


def random_game(n_blocks, seed):
    generator = np.random.default_rng(seed)
    return {plan: float(generator.uniform(1, 8)) for plan in all_plans(n_blocks)}


@few
@given(st.integers(1, 6), st.integers(0, 10_000))
def test_shapley_values_sum_to_the_total_difference(n_blocks, seed):
    game = random_game(n_blocks, seed)
    found = shapley_values(scores_of(game), n_blocks)
    total = game[Plan(tuple(range(n_blocks)))] - game[Plan()]
    assert sum(value.value for value in found.values) == pytest.approx(total)
    assert found.total.value == pytest.approx(total)
    assert found.method == "exact" and found.sampling_error is None


@pytest.mark.parametrize("seed", range(3))
def test_exact_values_are_the_mean_over_all_orders(seed):
    game = random_game(4, seed)
    wanted = np.zeros(4)
    for order in permutations(range(4)):
        steps = [game[plan] for plan in prefix_plans(order)]
        for block, without, with_block in zip(order, steps, steps[1:], strict=False):
            wanted[block] += (without - with_block) / math.factorial(4)
    found = shapley_values(scores_of(game), 4)
    np.testing.assert_allclose([value.value for value in found.values], wanted)


@few
@given(st.integers(0, 10_000))
def test_blocks_that_play_the_same_part_have_the_same_value(seed):
    values = np.random.default_rng(seed).uniform(1, 8, (3, 4, 4))
    game = {
        plan: values[
            len({0, 1} & set(plan.removed)), int(2 in plan.removed), int(3 in plan.removed)
        ]
        for plan in all_plans(4)
    }
    found = shapley_values(scores_of(game), 4).values
    assert found[0].value == pytest.approx(found[1].value)


@few
@given(st.integers(0, 10_000))
def test_a_block_that_changes_nothing_has_no_value(seed):
    game = random_game(4, seed)
    game = {plan: game[Plan(tuple(set(plan.removed) - {2}))] for plan in game}
    assert shapley_values(scores_of(game), 4).values[2].value == pytest.approx(0, abs=1e-9)


def test_the_values_of_additive_costs_are_the_costs():
    costs = [0.9, 0.1, 0.4, 0.2]
    scores = synthetic_scores(all_plans(4), additive_costs(costs))
    found = shapley_values(scores, 4)
    for value, cost in zip(found.values, costs, strict=True):
        assert value.low < cost < value.high
    assert str(found.ranking) == "0 > 2 > 3 > 1"


def test_sampled_values_agree_with_exact_ones_and_know_their_error():
    cost = additive_costs([0.9, 0.1, 0.4, 0.2, 0.3, 0.6, 0.2], {(0, 5): 1.0, (1, 2): 0.4})
    exact = shapley_values(synthetic_scores(all_plans(7), cost, noise=0.0), 7)
    plans = shapley_plans(7, 12)
    sampled = shapley_values(synthetic_scores(plans, cost, noise=0.0), 7)
    assert sampled.method == "sampled" and sampled.n_permutations >= 12
    assert len(plans) < 2**7
    for value, want, error in zip(
        sampled.values, exact.values, sampled.sampling_error, strict=True
    ):
        assert abs(value.value - want.value) <= 4 * error + 1e-9
        assert value.high - value.value >= error
    total = sum(value.value for value in sampled.values)
    assert total == pytest.approx(sampled.total.value)


def test_sampled_plans_are_those_of_permutations_and_their_reverses():
    first, second = islice(shapley_permutations(5, seed=2), 2)
    assert second == first[::-1]
    plans = shapley_plans(5, 1, seed=2)
    assert plans == sorted({*prefix_plans(first), *prefix_plans(second)})
    assert plans[0] == Plan() and plans[-1] == Plan((0, 1, 2, 3, 4))
    assert shapley_plans(5, 2, seed=2) == plans
    assert set(plans) <= set(shapley_plans(5, 8, seed=2))


@pytest.mark.parametrize(
    ("plans", "lack"),
    [
        (all_plans(4, empty=False), NotAvailable(15, Plan((0, 1, 2, 3)), None)),
        (all_plans(4)[1:], NotAvailable(15, Plan(), None)),
        ([Plan((0,))], NotAvailable(1, None, None)),
        ([Plan(), Plan((0,)), Plan((0, 1, 2, 3))], NotAvailable(3, None, None)),
    ],
)
def test_without_the_plans_it_is_known_what_would_have_to_be_measured(plans, lack):
    scores = synthetic_scores(plans, additive_costs([1, 1, 1, 1]))
    assert shapley_values(scores, 4) == lack


def test_of_many_blocks_sampled_orders_are_named_instead_of_all_plans():
    scores = synthetic_scores([Plan()], additive_costs([1] * 9))
    assert shapley_values(scores, 9).n_permutations == 144


def test_interactions_are_the_cost_beyond_the_sum():
    cost = additive_costs([0.5, 0.1, 0.2, 0.3], {(0, 3): 0.4, (1, 2): -0.1})
    found = {
        (pair.first, pair.second): pair
        for pair in interactions(synthetic_scores(all_plans(4), cost), 4)
    }
    assert len(found) == 6
    assert found[0, 3].excess.low < 0.4 < found[0, 3].excess.high
    assert found[1, 2].excess.low < -0.1 < found[1, 2].excess.high
    assert found[0, 3].is_clear and found[1, 2].is_clear
    assert not found[0, 1].is_clear


def test_interactions_need_the_pair_and_both_its_singles():
    plans = [Plan(), Plan((0,)), Plan((1,)), Plan((0, 1)), Plan((1, 2))]
    found = interactions(synthetic_scores(plans, additive_costs([1, 1, 1])), 3)
    assert [(pair.first, pair.second) for pair in found] == [(0, 1)]
    assert interactions(synthetic_scores(plans[:3], additive_costs([1, 1, 1])), 3) == ()


def test_the_ranking_says_which_neighbours_cannot_be_told_apart():
    scores = synthetic_scores(all_plans(4), additive_costs([0.2, 0.5, 0.2, 0.05]))
    found = leave_one_out(scores, 4)
    assert str(found.ranking) in ("1 > 0 ≈ 2 > 3", "1 > 2 ≈ 0 > 3")
    assert found.ranking.most == (1,) and found.ranking.least == (3,)
    assert found.complete
    tied = leave_one_out(synthetic_scores(all_plans(3), additive_costs([0.2, 0.5, 0.2])), 3)
    assert sorted(tied.ranking.least) == [0, 2]


def test_without_intervals_the_order_stands_and_nothing_is_separated():
    scores = synthetic_scores(all_plans(3), additive_costs([0.2, 0.5, 0.1]), n_windows=30)
    found = leave_one_out(scores, 3)
    assert found.ranking == Ranking((1, 0, 2), None, (1,), (2,))
    assert str(found.ranking) == "1, 0, 2"
    assert found.ranking.most == (1,) and found.ranking.least == (2,)
    assert [item.adjusted_p for item in found.items] == [None] * 3
    assert found.items[0].increase.low is None and found.items[0].increase.high is None


def test_failed_blocks_are_left_out_of_the_ranking():
    scores = synthetic_scores(all_plans(3), additive_costs([0.2, 0.5, 0.1]))
    scores.nll_PN[scores.plans.index(Plan((1,))), 5] = np.nan
    found = leave_one_out(scores, 3)
    assert [item.block for item in found.items] == [0, 2]
    assert not found.complete


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_without_singles_there_is_no_importance(n_blocks):
    plans = [Plan(), Plan(tuple(range(n_blocks)))]
    found = leave_one_out(synthetic_scores(plans, additive_costs([1] * n_blocks)), n_blocks)
    assert found.items == () and found.ranking.blocks == ()
