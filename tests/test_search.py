"""Proposers: what they ask for, their text forms, their union, and searches of several rounds."""

import random
from itertools import combinations

import pytest
from examples.peel import Peel
from hypothesis import given, settings
from hypothesis import strategies as st
from known_costs import known_costs

from pruning_kit.errors import PlanError
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import STRATEGIES
from pruning_kit.plans.variant import Variant
from pruning_kit.search import named, parse
from pruning_kit.search.baseline import Baseline
from pruning_kit.search.chosen import Chosen
from pruning_kit.search.combinatorial import Combinatorial
from pruning_kit.search.proposer import next_round
from pruning_kit.search.sequential import Sequential
from pruning_kit.search.shapley import ShapleyOrders, permutations_to_sample
from pruning_kit.search.strategies import Strategies
from pruning_kit.search.together import Together

sizes = st.sets(st.integers(1, 5), max_size=3).map(tuple)
sized = (
    sizes.map(lambda some: (some, None))
    | st.integers(1, 5).map(lambda top: ((), top))
    | st.just(((1, 4), 3))
)
seeds = st.integers(-3, 3)
names = st.lists(st.sampled_from(list(STRATEGIES)), min_size=1, max_size=3).map(tuple)
ratios = st.sets(st.floats(0, 1, exclude_min=True, exclude_max=True), max_size=3).map(tuple)
plans = st.sets(st.integers(0, 5), max_size=4).map(lambda blocks: Plan(tuple(blocks)))
single = st.one_of(
    st.just(Baseline()),
    st.just(Sequential()),
    sized.map(lambda some: Combinatorial(*some)),
    st.builds(
        lambda *some: Strategies(some[0], some[1][0], (), some[1][1], some[2]), names, sized, seeds
    ),
    st.builds(lambda *some: Strategies(some[0], (), some[1], None, some[2]), names, ratios, seeds),
    st.builds(ShapleyOrders, st.integers(1, 9), seeds),
    st.builds(Chosen, st.lists(plans, max_size=3).map(tuple)),
)
several = st.lists(single, min_size=1, max_size=4).map(tuple)

few = settings(max_examples=50, deadline=None)


def rounds_of(proposer, n_blocks, cost=len):
    """All rounds of a proposer, its variants costing what a function of their blocks says."""
    asking = proposer.propose(n_blocks)
    prices, rounds = {Variant(): cost(())}, []
    asked = next_round(asking)
    while asked is not None:
        rounds.append(asked)
        prices |= {variant: cost(variant.plan.removed) for variant in asked}
        asked = next_round(asking, known_costs(prices))
    return rounds


def texts(proposer, n_blocks):
    (asked,) = rounds_of(proposer, n_blocks)
    return [str(variant) for variant in asked]


def test_baseline_is_the_whole_model():
    assert texts(Baseline(), 6) == ["none"]


def test_sequential_is_the_whole_model_and_each_single_block():
    assert texts(Sequential(), 6) == ["none", "0", "1", "2", "3", "4", "5"]


def test_combinatorial_measures_all_64_sets_of_six_blocks():
    every = [
        "+".join(map(str, blocks)) or "none"
        for size in range(7)
        for blocks in combinations(range(6), size)
    ]
    assert texts(Combinatorial(), 6) == every and len(every) == 64


def test_sizes_narrow_the_combinations_and_leave_the_empty_stack_out():
    (asked,) = rounds_of(Combinatorial((2,)), 6)
    assert [variant.plan.size for variant in asked] == [0] + 6 * [1] + 15 * [2]


def test_max_removed_bounds_the_combinations():
    (asked,) = rounds_of(Combinatorial(max_removed=3), 6)
    assert max(variant.plan.size for variant in asked) == 3


def test_strategies_at_ratios():
    assert texts(Strategies(("first", "last"), ratios=(0.5,)), 6) == ["none", "0+1+2", "3+4+5"]


def test_strategies_without_size_or_ratio_are_measured_at_every_size():
    assert texts(Strategies(("last",)), 4) == ["none", "3", "2+3", "1+2+3"]


def test_chosen_plans_come_with_the_whole_model_in_their_order():
    chosen = Chosen((Plan((1, 3)), Plan((2,)), Plan((1, 3))))
    assert texts(chosen, 4) == ["none", "2", "1+3"]
    assert chosen == Chosen((Plan((2,)), Plan(), Plan((1, 3))))
    assert texts(Chosen(()), 4) == texts(Chosen((Plan(),)), 4) == ["none"]


def test_sampled_orders_meet_the_whole_model_and_the_empty_stack():
    listed = texts(ShapleyOrders(2), 4)
    assert listed[0] == "none" and listed[-1] == "0+1+2+3" and len(listed) == 8
    assert listed != texts(ShapleyOrders(2, seed=1), 4)


def test_max_removed_bounds_sizes_ratios_and_strategies():
    assert texts(Strategies(("first",), max_removed=2), 6) == ["none", "0", "0+1"]
    assert texts(Strategies(("first",), ratios=(0.3, 0.9), max_removed=2), 6) == ["none", "0+1"]


@pytest.mark.parametrize(
    ("proposer", "message"),
    [
        (
            Combinatorial((3, 4), 2),
            "cannot remove 3 blocks or more: 2 are allowed at most. Raise max or choose smaller "
            "sizes.",
        ),
        (
            Strategies(("first",), ratios=(0.9,), max_removed=2),
            "cannot remove 5 blocks or more: 2 are allowed at most. Raise max or choose smaller "
            "ratios.",
        ),
        (Combinatorial((6,)), "cannot remove 6 of 6 blocks: choose 1 to 5."),
        (Combinatorial((1, 6)), "cannot remove 6 of 6 blocks: choose 1 to 5."),
        (Combinatorial((0,)), "cannot remove 0 of 6 blocks: choose 1 to 5."),
        (Combinatorial(max_removed=6), "cannot remove 6 of 6 blocks: choose 1 to 5."),
        (Strategies(("last",), (6,)), "cannot remove 6 of 6 blocks: choose 1 to 5."),
        (
            Chosen((Plan((9,)),)),
            "cannot remove block 9: the model has 6 blocks, numbered 0 to 5.",
        ),
    ],
)
def test_what_does_not_fit_the_model_is_refused_before_it_is_listed(proposer, message):
    for asked in (proposer, Together((proposer, Baseline()))):
        with pytest.raises(PlanError) as error:
            asked.check(6)
        assert str(error.value) == message


@pytest.mark.parametrize(
    "proposer",
    [
        Sequential(),
        Combinatorial(),
        Combinatorial((2,)),
        Combinatorial(max_removed=1),
        Strategies(("first",), ratios=(0.5,)),
    ],
)
def test_a_model_of_one_block_cannot_lose_it(proposer):
    with pytest.raises(PlanError, match=r"cannot remove the only block.* two blocks or more"):
        proposer.check(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Strategies(("middle",)),
            "cannot use strategy 'middle': the strategies are first, last, alternate, contiguous, "
            "random.",
        ),
        (lambda: Strategies(()), "cannot use strategy ''"),
        (
            lambda: Strategies(("last",), ratios=(1.5,)),
            "cannot remove a share of 1.5 of the blocks: give a ratio between 0 and 1, such as "
            "0.25.",
        ),
        (
            lambda: Strategies(("first",), (2,), (0.5,)),
            "cannot remove 2 blocks and a share of 0.5 by one strategy: both say how many. Leave "
            "one out.",
        ),
        (
            lambda: ShapleyOrders(0),
            "cannot sample 0 orders of the blocks: give a number from 1 to 10,000.",
        ),
        (lambda: ShapleyOrders(10_001), "cannot sample 10001 orders of the blocks"),
    ],
)
def test_a_proposer_that_cannot_be_is_refused_when_it_is_made(make, message):
    with pytest.raises(PlanError) as error:
        make()
    assert message in str(error.value)


@few
@given(several)
def test_a_union_is_never_counted_beyond_all_sets_of_the_blocks(proposers):
    assert Together(proposers).bound(6) <= 2**6


@few
@given(st.integers(2, 9), sizes)
def test_combinations_are_counted_without_listing_them(n_blocks, some_sizes):
    proposer = Combinatorial(tuple(size for size in some_sizes if size < n_blocks))
    assert proposer.bound(n_blocks) == len(texts(proposer, n_blocks))


@few
@given(several)
def test_what_is_counted_is_never_less_than_what_is_listed(proposers):
    for proposer in (*proposers, Together(proposers)):
        (asked,) = rounds_of(proposer, 6)
        assert len(asked) <= proposer.bound(6)
        assert proposer.most_removed(6) == max(variant.plan.size for variant in asked)


@few
@given(several)
def test_together_ask_for_the_union_sorted_with_the_whole_model_first(proposers):
    (asked,) = rounds_of(Together(proposers), 6)
    assert asked == sorted({variant for one in proposers for variant in rounds_of(one, 6)[0]})
    assert asked[0] == Variant()


@few
@given(several)
def test_text_and_proposer_are_inverse(proposers):
    for proposer in proposers:
        assert parse(str(proposer)) == proposer
    union = Together(proposers)
    assert str(parse(str(union))) == str(union)
    if len(union.proposers) > 1:
        assert parse(str(union)) == union


@few
@given(several, st.randoms(use_true_random=False))
def test_neither_order_nor_nesting_of_proposers_matters(proposers, rng):
    mixed = rng.sample(proposers, len(proposers))
    assert Together(proposers) == Together((Together(tuple(mixed[:2])), *mixed[2:], mixed[0]))


@pytest.mark.parametrize(
    ("text", "proposer"),
    [
        ("baseline", Baseline()),
        ("sequential", Sequential()),
        ("pairs", Combinatorial((2,))),
        ("combinatorial:2,3", Combinatorial((2, 3))),
        ("combinatorial:max=3", Combinatorial(max_removed=3)),
        ("first:0.25", Strategies(("first",), ratios=(0.25,))),
        ("first,random:2,3,max=4,seed=-1", Strategies(("random", "first"), (3, 2), (), 4, -1)),
        ("shapley:160", ShapleyOrders(160)),
        ("shapley:8,seed=3", ShapleyOrders(8, 3)),
        ("1+3", Chosen((Plan((1, 3)),))),
        ("none", Chosen((Plan(),))),
        ("pairs shapley:4 2 1+3", Together((parse("1+3 2"), ShapleyOrders(4), parse("pairs")))),
    ],
)
def test_the_text_form_is_short(text, proposer):
    assert parse(text) == proposer and str(proposer) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot choose plans by '': it names none. Write baseline or 1+3."),
        (
            "sideways",
            "cannot read 'sideways' as a way to choose plans: write blocks, such as 1+3, or one of "
            "baseline, sequential, combinatorial, pairs, first, last, alternate, contiguous, "
            "random, shapley, search, spans, greedy, beam, evolution, quadratic, swaps, "
            "influence, angular, magnitude, taylor, distilled, none.",
        ),
        ("baseline:2", "cannot read 'baseline:2' as a way to choose plans: write baseline."),
        ("sequential,first", "cannot read 'sequential,first' as a way to choose plans: write seq"),
        ("pairs:3", "cannot read 'pairs:3' as a way to choose plans: write pairs."),
        (
            "combinatorial:0.5",
            "cannot read 'combinatorial:0.5' as a way to choose plans: write combinatorial, "
            "combinatorial:2,3, combinatorial:max=3 or pairs.",
        ),
        ("combinatorial:least=3", "cannot read 'combinatorial:least=3'"),
        (
            "shapley",
            "cannot read 'shapley' as a way to choose plans: write shapley:160.",
        ),
        ("shapley:4,5", "cannot read 'shapley:4,5'"),
        ("shapley:4,seed=1,seed=2", "cannot read 'shapley:4,seed=1,seed=2'"),
        (
            "first:x",
            "cannot read 'first:x' as a way to choose plans: write first, "
            "first,last:2,3, alternate:0.25 or random:max=4,seed=1.",
        ),
        ("first:" + "1" * 5000, f"cannot read 'first:{'1' * 53} as a way"),
        ("random:seed=1234567890123456789", "cannot read 'random:seed=1234567890123456789' as a"),
        (
            "first:1.5",
            "cannot remove a share of 1.5 of the blocks: give a ratio between 0 and 1, such as "
            "0.25.",
        ),
        ("first,middle:2", "cannot use strategy 'middle'"),
        ("1+x", "cannot read 'x' in a plan '1+x'"),
    ],
)
def test_a_text_that_cannot_be_read_is_named(text, message):
    with pytest.raises(PlanError) as error:
        parse(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("proposer", "n_blocks", "message"),
    [
        (
            Together((Combinatorial(),)),
            16,
            "cannot measure 65,536 plans of 16 blocks: that is more than 5,000. Choose fewer, or "
            "raise max_plans to 65536.",
        ),
        (
            Together((ShapleyOrders(120),)),
            48,
            "cannot measure 5,480 plans of 48 blocks: that is more than 5,000, in 61,016 block "
            "calls for each window. Choose fewer, or raise max_plans to 5480.",
        ),
        (
            Together((Combinatorial(),), max_plans=10**9),
            25,
            "cannot measure all that was asked for of 25 blocks: that is more than 1,048,576 "
            "plans, and a sweep holds no more. Choose fewer.",
        ),
        (Combinatorial((8,)), 48, "of 48 blocks: that is more than 1,048,576 plans"),
        (
            Together((Peel(3), Sequential()), max_plans=9),
            6,
            "cannot measure 22 plans of 6 blocks: that is more than 9. Choose fewer, or raise "
            "max_plans to 22.",
        ),
    ],
)
def test_more_plans_than_allowed_are_refused_without_an_option_name(proposer, n_blocks, message):
    with pytest.raises(PlanError) as error:
        proposer.check(n_blocks)
    assert message in str(error.value) and "--" not in str(error.value)


def test_plans_that_are_asked_for_twice_count_once():
    Together((Combinatorial(), ShapleyOrders(9)), max_plans=64).check(6)
    with pytest.raises(PlanError, match="cannot measure 64 plans of 6 blocks: that is more than 6"):
        Together((Combinatorial(), ShapleyOrders(9)), max_plans=63).check(6)


def test_mode_and_seed_of_a_union_are_those_of_its_proposers():
    union = Together((Combinatorial(), Strategies(("random",), seed=3), ShapleyOrders(4)))
    assert (union.mode, union.seed) == ("combinatorial", 3)
    assert Together((Baseline(), Sequential())).mode is None
    assert (Together((Chosen(()),)).mode, Together(()).seed) == (None, 0)
    assert Together(()) == Together((Baseline(),))


def test_sampled_orders_are_advised_for_deep_models_only():
    assert [permutations_to_sample(n) for n in (8, 9, 48, 6000)] == [None, 144, 106, 4]


# --- searches of several rounds ----------------------------------------------------------------

PRICES = {0: 9.0, 1: 3.0, 2: 1.0, 3: 2.5, 4: 1.5}


def priced(removed):
    """Costs by a table; blocks 2 and 4 replace each other."""
    return sum(PRICES[block] for block in removed) + 2.0 * ({2, 4} <= set(removed))


@pytest.fixture
def peel(monkeypatch):
    monkeypatch.setitem(named.SEARCHES, "peel", Peel)
    return parse("peel:3")


def test_a_registered_search_is_read_by_its_name(peel):
    assert peel == Peel(3) and str(peel) == "peel:3"
    with pytest.raises(PlanError, match="cannot read 'peel' as a way to choose plans: write pe"):
        parse("peel")


def test_a_search_is_sent_the_costs_of_what_it_asked_for(peel):
    rounds = [[str(variant) for variant in asked] for asked in rounds_of(peel, 5, priced)]
    assert rounds == [
        ["0", "1", "2", "3", "4"],
        ["0+2", "1+2", "2+3", "2+4"],
        ["0+2+3", "1+2+3", "2+3+4"],
    ]
    assert 1 + sum(map(len, rounds)) == peel.bound(5) and peel.most_removed(5) == 3


def test_searches_together_share_rounds_and_measure_nothing_twice(peel):
    union = Together((peel, parse("2+3"), Peel(1)))
    rounds = [[str(variant) for variant in asked] for asked in rounds_of(union, 5, priced)]
    assert rounds == [
        ["none", "0", "1", "2", "3", "4", "2+3"],
        ["0+2", "1+2", "2+4"],
        ["0+2+3", "1+2+3", "2+3+4"],
    ]


def test_a_search_goes_on_where_a_round_has_nothing_new(peel):
    union = Together((peel, parse("pairs")))
    first, second = rounds_of(union, 5, priced)
    assert len(first) == 16 and str(second[0]) == "0+2+3"


@given(st.integers(0, 2), st.integers(0, 10**6))
def test_a_replay_with_stored_costs_asks_for_the_same(n_stored, seed):
    prices = random.Random(seed)
    table = {}

    def cost(removed):
        return table.setdefault(removed, prices.random())

    undisturbed = rounds_of(Together((Peel(3), ShapleyOrders(2))), 5, cost)
    stored = {v: cost(v.plan.removed) for asked in undisturbed[:n_stored] for v in asked}
    asking = Together((Peel(3), ShapleyOrders(2))).propose(5)
    asked, n_rounds = next_round(asking), 0
    while asked is not None and stored.keys() >= set(asked):
        asked, n_rounds = next_round(asking, known_costs(stored)), n_rounds + 1
    assert n_rounds == n_stored and asked == undisturbed[n_stored]
