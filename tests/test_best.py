"""The best of each size, distilled: what is asked for, when, and how it is written."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from known_costs import known_costs

from pruning_kit.cli.request import Mode, Request
from pruning_kit.errors import PlanError
from pruning_kit.plans.distilled import Amount, count
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import BRIDGED, Recovery, Variant
from pruning_kit.search.best import BestDistilled
from pruning_kit.search.named import parse
from pruning_kit.search.together import Together


def rounds(text: str, cost, n_blocks: int = 4):
    """What is asked for, round by round, where `cost` tells what a variant costs."""
    asking, prices, found = Together((parse(text),)).propose(n_blocks), {}, []
    asked = next(asking)
    while True:
        found.append(list(asked))
        prices |= {variant: cost(variant) for variant in asked}
        for variant in asked:  # as a sweep measures plans bridged too
            if variant.recovery is None and variant.plan.removed:
                prices[Variant(variant.plan, BRIDGED)] = cost(Variant(variant.plan, BRIDGED))
        try:
            asked = asking.send(known_costs(prices))
        except StopIteration:
            return found


def test_the_best_of_each_size_by_bridged_cost_are_distilled_when_all_is_measured():
    def cost(variant: Variant) -> float:
        as_cut = sum(variant.plan.removed)
        return as_cut if variant.recovery is None else 10.0 - as_cut

    *_, last = rounds("sequential pairs distilled:2,tokens=3000", cost)
    assert [str(variant) for variant in last] == [
        "2~distilled:3k",
        "3~distilled:3k",
        "1+3~distilled:3k",
        "2+3~distilled:3k",
    ]


def test_a_plan_whose_forward_failed_is_not_distilled():
    def cost(variant: Variant) -> float:
        return math.nan if variant.plan == Plan((0,)) else 1.0

    *_, last = rounds("sequential distilled:9", cost)
    assert [variant.plan for variant in last] == [Plan((n,)) for n in (1, 2, 3)]


def test_what_shapley_asks_for_in_rounds_is_waited_for():
    found = rounds("shapley:2 sequential distilled:1", lambda variant: float(variant.plan.size))
    assert all(v.recovery is None for asked in found[:-1] for v in asked)
    assert all(v.recovery is not None for v in found[-1])


def test_of_one_size_alone_where_that_is_named():
    found = rounds("pairs distilled:2,size=2,tokens=3000", lambda v: float(sum(v.plan.removed)))
    assert [v.plan.size for v in found[-1]] == [2, 2]
    assert BestDistilled(2, size=2).bound(6) == 3
    with pytest.raises(PlanError, match=r"cannot remove 9 of 4 blocks: choose 1 to 3\."):
        Together((parse("pairs distilled:2,size=9"),)).check(4)


@pytest.mark.parametrize(
    "text",
    [
        "distilled:3,tokens=2000000",
        "distilled:1,tokens=500000",
        "distilled:3,size=2,tokens=500000",
    ],
)
def test_the_text_form_is_read_back(text: str):
    assert str(parse(text)) == text
    assert parse(str(parse(text))) == parse(text)


def test_the_default_is_written_out():
    assert str(parse("distilled:3")) == "distilled:3,tokens=500000"
    assert parse("distilled:3") == BestDistilled(3)


@pytest.mark.parametrize(
    "text", ["distilled", "distilled:0", "distilled:1,2", "distilled:1,max=2", "distilled:1,size=0"]
)
def test_another_form_is_refused(text: str):
    with pytest.raises(PlanError, match=r"cannot read 'distilled.*write distilled:3 or"):
        parse(text)


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(PlanError, match="cannot distil the best by distilled:3,tokens=500000: no"):
        Together((parse("distilled:3"),)).check(6)


def test_the_options_ask_for_the_same_as_the_word():
    request = Request(Mode.SEQUENTIAL, top=3, tokens="2M")
    assert str(request.proposer) == "distilled:3,tokens=2000000 sequential"
    assert str(request) == "--mode sequential --top 3 --tokens 2M"
    with pytest.raises(PlanError, match="cannot use --tokens 2M here: no plan is distilled"):
        Request(Mode.SEQUENTIAL, tokens="2M")
    with pytest.raises(PlanError, match="cannot read 'many' as a number of tokens: write it such"):
        _ = Request(Mode.SEQUENTIAL, top=3, tokens="many").proposer


@given(st.integers(1024, 10**9), st.booleans())
def test_amounts_are_read_back_from_variants(tokens: int, adapters: bool):
    amount = Amount(tokens, adapters)
    assert Amount.of(amount.recovery) == amount
    assert Recovery.parse(str(amount.recovery)) == amount.recovery


@pytest.mark.parametrize(
    ("tokens", "shown"), [(8_000_000, "8M"), (1_500_000, "1.5M"), (500_000, "500k"), (999, "999")]
)
def test_tokens_are_written_short(tokens: int, shown: str):
    assert count(tokens) == shown


@pytest.mark.parametrize(
    "details", ["", "8m", "M", "0", "1000k", "8M,peft", "lora", "8M,lora,lora"]
)
def test_details_that_are_no_amount_are_refused(details: str):
    named = "distilled" + f":{details}" * bool(details)
    with pytest.raises(PlanError, match=r"cannot recover by 'distilled.*write the tokens to learn"):
        Amount.of(Recovery.parse(named))
