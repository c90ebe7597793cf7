"""Plans: text form and object are inverse, kept and removed partition the blocks."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning_kit.errors import PlanError
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import (
    STRATEGIES,
    count_for_ratio,
    largest_size,
    singles,
    sizes_within,
    strategy_plan,
    subsets,
)

blocks = st.sets(st.integers(0, 60), max_size=12)


@given(blocks)
def test_text_and_plan_are_inverse(removed):
    plan = Plan(tuple(removed))
    assert Plan.parse(str(plan)) == plan
    assert Plan.parse(plan.short) == plan
    assert len(plan.short) <= len(str(plan))


@pytest.mark.parametrize(
    ("removed", "short"),
    [
        ((), "none"),
        ((1, 3), "1+3"),
        ((1, 2), "1+2"),
        ((1, 2, 3), "1-3"),
        ((0, 3, 4, 5, 9), "0+3-5+9"),
        (range(12, 18), "12-17"),
    ],
)
def test_the_short_form_has_ranges_where_they_are_shorter(removed, short):
    assert Plan(tuple(removed)).short == short


@given(blocks, st.integers(0, 5))
def test_kept_and_removed_partition_the_blocks(removed, more):
    plan = Plan(tuple(removed))
    n_blocks = max(removed, default=0) + 1 + more
    assert sorted((*plan.kept(n_blocks), *plan.removed)) == list(range(n_blocks))


@pytest.mark.parametrize(
    ("text", "removed"),
    [
        ("none", ()),
        ("1+3", (1, 3)),
        ("3,1", (1, 3)),
        ("7-9,3", (3, 7, 8, 9)),
        ("1+1", (1,)),
        (" 2 , 4 ", (2, 4)),
        ("0", (0,)),
    ],
)
def test_every_written_form_is_read(text, removed):
    assert Plan.parse(text).removed == removed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "3,x",
            "cannot read 'x' in --remove '3,x': write block numbers and ranges, such as 3,7-9.",
        ),
        ("3-1", "cannot read '3-1' in --remove '3-1': a range goes upwards. Write 1-3."),
        ("-1", "cannot read '-1' in --remove '-1'"),
        ("1++2", "cannot read '' in --remove '1++2'"),
        ("1.5", "cannot read '1.5'"),
        ("0-99999999", "no model has that many blocks"),
        (
            "1" * 5000,
            f"cannot read '{'1' * 39}…' in --remove '{'1' * 39}…': no model has that many",
        ),
    ],
)
def test_a_malformed_plan_is_named(text, message):
    with pytest.raises(PlanError) as error:
        Plan.parse(text, "--remove")
    assert message in str(error.value)


def test_a_block_that_does_not_exist_is_named():
    with pytest.raises(PlanError) as error:
        Plan((1, 12)).check(12)
    assert str(error.value) == (
        "cannot remove block 12: the model has 12 blocks, numbered 0 to 11."
    )


def test_removing_every_block_is_refused():
    with pytest.raises(PlanError, match="cannot remove all 3 blocks"):
        Plan((0, 1, 2)).check(3)


def test_a_negative_block_is_refused():
    with pytest.raises(PlanError, match="cannot remove block -1"):
        Plan((-1,))


@given(st.integers(1, 9), st.sets(st.integers(0, 9)))
def test_subsets_are_all_sets_of_the_sizes_and_counted_without_listing(n_blocks, sizes):
    plans = list(subsets(n_blocks, sizes))
    assert len(plans) == len(set(plans)) == sum(math.comb(n_blocks, size) for size in sizes)
    assert {plan.size for plan in plans} <= sizes
    assert plans == sorted(plans)


def test_singles_remove_each_block_alone():
    assert [str(plan) for plan in singles(3)] == ["0", "1", "2"]


def test_the_mode_of_a_plan_follows_from_its_size():
    assert [Plan(removed).mode for removed in [(), (4,), (1, 3), (1, 2, 3)]] == [
        "baseline",
        "sequential",
        "combinatorial",
        "combinatorial",
    ]


@given(st.sampled_from(sorted(STRATEGIES)), st.integers(2, 40), st.data())
def test_every_strategy_removes_as_many_blocks_as_asked(name, n_blocks, data):
    count = data.draw(st.integers(1, n_blocks - 1))
    plan = strategy_plan(name, n_blocks, count, seed=3)
    assert plan.check(n_blocks).size == count
    assert plan == strategy_plan(name, n_blocks, count, seed=3)


@pytest.mark.parametrize(
    ("name", "count", "plan"),
    [
        ("first", 2, "0+1"),
        ("last", 2, "4+5"),
        ("alternate", 3, "1+3+5"),
        ("alternate", 1, "3"),
        ("contiguous", 2, "2+3"),
        ("contiguous", 3, "2+3+4"),
    ],
)
def test_strategies_on_six_blocks(name, count, plan):
    assert str(strategy_plan(name, 6, count)) == plan


def test_random_plans_follow_the_seed():
    drawn = {strategy_plan("random", 24, 6, seed) for seed in range(20)}
    assert len(drawn) > 15


def test_an_unknown_strategy_and_an_impossible_count_are_refused():
    with pytest.raises(PlanError, match="cannot use strategy 'middle': the strategies are first"):
        strategy_plan("middle", 6, 2)
    with pytest.raises(PlanError, match="cannot remove 6 of 6 blocks by strategy 'last'"):
        strategy_plan("last", 6, 6)


@pytest.mark.parametrize(("ratio", "count"), [(0.25, 2), (0.5, 3), (0.01, 1), (0.99, 5)])
def test_ratios_are_rounded_to_whole_blocks(ratio, count):
    assert count_for_ratio(ratio, 6) == count


@pytest.mark.parametrize("ratio", [0, 1, -0.5, 1.5])
def test_a_ratio_outside_0_to_1_is_refused(ratio):
    with pytest.raises(PlanError, match="give a ratio between 0 and 1"):
        count_for_ratio(ratio, 6)


def test_sizes_are_those_within_the_bound_ascending_and_once():
    assert sizes_within((4, 2, 2, 5), 4, 6) == [2, 4]
    assert sizes_within((), 4, 6) == []
    assert [largest_size(top, 6) for top in (None, 2)] == [5, 2]
    assert largest_size(None, 1) == 1


@pytest.mark.parametrize(
    ("sizes", "max_removed", "message"),
    [
        ((0, 2), None, "cannot remove 0 of 6 blocks: choose 1 to 5."),
        ((2, 6), None, "cannot remove 6 of 6 blocks: choose 1 to 5."),
        ((2,), 6, "cannot remove 6 of 6 blocks: choose 1 to 5."),
        (
            (3, 4),
            2,
            "cannot remove 3 blocks or more: 2 are allowed at most. Raise max or choose smaller "
            "sizes.",
        ),
    ],
)
def test_sizes_that_cannot_be_or_are_all_above_the_bound_are_refused(sizes, max_removed, message):
    with pytest.raises(PlanError) as error:
        sizes_within(sizes, max_removed, 6)
    assert str(error.value) == message
