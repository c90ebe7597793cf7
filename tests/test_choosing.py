"""Which plans the modes measure, and how many block calls they cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning_kit.errors import PlanError
from pruning_kit.plans.plan import Plan
from pruning_kit.search.choice import Mode, PlanChoice


def test_baseline_is_the_whole_model():
    assert PlanChoice(mode=Mode.BASELINE).resolve(6) == [Plan()]


def test_sequential_is_the_whole_model_and_each_single_block():
    plans = PlanChoice(mode=Mode.SEQUENTIAL).resolve(6)
    assert [str(plan) for plan in plans] == ["none", "0", "1", "2", "3", "4", "5"]


def test_combinatorial_measures_all_64_sets_of_six_blocks():
    plans = PlanChoice(mode=Mode.COMBINATORIAL).resolve(6)
    assert len(plans) == len(set(plans)) == 64
    assert plans[-1] == Plan(tuple(range(6)))
    assert sum(2 <= plan.size <= 5 for plan in plans) == 56


def test_sizes_narrow_the_combinations_and_leave_the_empty_stack_out():
    plans = PlanChoice(mode=Mode.COMBINATORIAL, sizes=(2,)).resolve(6)
    assert {plan.size for plan in plans} == {0, 1, 2}
    assert len(plans) == 1 + 6 + 15


def test_max_removed_bounds_the_combinations():
    plans = PlanChoice(mode=Mode.COMBINATORIAL, max_removed=3).resolve(6)
    assert max(plan.size for plan in plans) == 3


def test_strategies_at_ratios():
    plans = PlanChoice(strategies=("first", "last"), ratios=(0.5,)).resolve(6)
    assert plans == sorted([Plan(), Plan((0, 1, 2)), Plan((3, 4, 5))])


def test_strategies_without_size_or_ratio_are_measured_at_every_size():
    plans = PlanChoice(strategies=("last",)).resolve(4)
    assert [str(plan) for plan in plans] == ["none", "3", "2+3", "1+2+3"]


@pytest.mark.parametrize(("mode", "more"), [(Mode.BASELINE, []), (Mode.SEQUENTIAL, list("0123"))])
def test_chosen_plans_are_measured_besides_those_of_the_mode(mode, more):
    plans = PlanChoice(mode=mode, plans=(Plan((1, 3)),)).resolve(4)
    assert [str(plan) for plan in plans] == ["none", *more, "1+3"]


def test_chosen_plans_are_checked():
    with pytest.raises(PlanError, match="cannot remove block 9"):
        PlanChoice(plans=(Plan((9,)),)).resolve(6)


@pytest.mark.parametrize("choice", [{"sizes": (6,)}, {"sizes": (1, 6)}, {"max_removed": 6}])
def test_an_impossible_size_is_refused(choice):
    with pytest.raises(PlanError, match="of 6 blocks: choose 1 to 5"):
        PlanChoice(mode=Mode.COMBINATORIAL, **choice).resolve(6)


@pytest.mark.parametrize(
    "choice",
    [
        {"mode": Mode.SEQUENTIAL},
        {"mode": Mode.COMBINATORIAL},
        {"mode": Mode.COMBINATORIAL, "sizes": (2,)},
        {"mode": Mode.COMBINATORIAL, "max_removed": 1},
        {"strategies": ("first",), "ratios": (0.5,)},
    ],
)
def test_a_model_of_one_block_cannot_lose_it(choice):
    with pytest.raises(PlanError, match=r"cannot remove the only block.* two blocks or more"):
        PlanChoice(**choice).resolve(1)


@given(st.integers(2, 9), st.sets(st.integers(2, 8), max_size=4))
def test_plans_are_counted_without_listing_them(n_blocks, sizes):
    sizes = {size for size in sizes if size < n_blocks}
    choice = PlanChoice(mode=Mode.COMBINATORIAL, sizes=tuple(sizes))
    listed = choice.resolve(n_blocks)
    assert choice.bound(n_blocks) == len(listed)


@given(
    st.integers(2, 8),
    st.sampled_from([None, Mode.SEQUENTIAL, Mode.COMBINATORIAL]),
    st.integers(0, 9),
    st.sampled_from([(), ("first",), ("first", "random")]),
    st.integers(1, 7),
)
def test_what_is_counted_is_never_less_than_what_is_listed(
    n_blocks, mode, permutations, strategies, max_removed
):
    sized = mode is Mode.COMBINATORIAL or strategies
    choice = PlanChoice(
        mode=mode,
        shapley_permutations=permutations,
        strategies=strategies,
        max_removed=min(max_removed, n_blocks - 1) if sized else None,
    )
    assert len(choice.resolve(n_blocks)) <= choice.bound(n_blocks) <= 2**n_blocks


def test_max_removed_bounds_sizes_ratios_and_strategies():
    bounded = {"strategies": ("first",), "max_removed": 2}
    every = PlanChoice(**bounded).resolve(6)
    assert [str(plan) for plan in every] == ["none", "0", "0+1"]
    some = PlanChoice(**bounded, ratios=(0.3, 0.9)).resolve(6)
    assert [str(plan) for plan in some] == ["none", "0+1"]
    with pytest.raises(PlanError, match="cannot remove 3 blocks or more: --max-removed allows 2"):
        PlanChoice(**bounded, sizes=(3, 4)).resolve(6)


@pytest.mark.parametrize(
    ("choice", "option"),
    [
        ({"sizes": (2,)}, "--sizes"),
        ({"mode": Mode.SEQUENTIAL, "max_removed": 2}, "--max-removed"),
        ({"mode": Mode.COMBINATORIAL, "ratios": (0.5,)}, "--ratios"),
        ({"strategies": ("last",), "ratios": (0.5,), "sizes": (2,)}, "--ratios together with"),
    ],
)
def test_a_modifier_that_nothing_uses_is_refused(choice, option):
    with pytest.raises(PlanError, match=f"cannot use {option}"):
        PlanChoice(**choice)


def test_a_mode_may_be_given_by_its_word_and_an_unknown_one_is_refused():
    assert PlanChoice(mode="sequential").resolve(3) == PlanChoice(mode=Mode.SEQUENTIAL).resolve(3)
    with pytest.raises(PlanError, match="cannot measure in mode 'sideways'"):
        PlanChoice(mode="sideways")
