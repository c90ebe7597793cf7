"""Units, variants and calls: text form and object are inverse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning_kit.errors import PlanError
from pruning_kit.plans.paths import Call, as_cut, parse_path, path_text
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.unit import Unit
from pruning_kit.plans.variant import Recovery, Variant

units = st.builds(Unit, st.integers(0, 99), st.sampled_from(["", "a", "m"]))
plans = st.lists(units, max_size=8).map(Plan.of)
words = st.text("abcdefgh", min_size=1, max_size=5)
recoveries = st.builds(Recovery, words, st.lists(words, max_size=2).map(tuple))
variants = st.builds(Variant, plans, st.none() | recoveries)


@given(units)
def test_text_and_unit_are_inverse(unit):
    assert Unit.parse(str(unit)) == unit


@given(plans)
def test_text_and_plan_of_units_are_inverse(plan):
    assert Plan.parse(str(plan)) == Plan.parse(plan.short) == Plan.of(plan.units) == plan


@given(variants)
def test_text_and_variant_are_inverse(variant):
    assert Variant.parse(str(variant)) == variant


@given(st.lists(variants))
def test_variants_are_ordered_by_plan_and_as_cut_before_recovered(found):
    ordered = sorted(found)
    assert [variant.plan for variant in ordered] == sorted(variant.plan for variant in found)
    assert sorted([Variant(Plan((1,)), Recovery("bridged")), Variant(Plan((1,)))])[0] == Variant(
        Plan((1,))
    )


@pytest.mark.parametrize(
    ("text", "same"),
    [("3a+3m", "3"), ("3+3a", "3"), ("3m+1+3a", "1+3"), ("2m+2m", "2m"), ("3a+1-2", "1+2+3a")],
)
def test_both_sublayers_of_a_block_are_the_block(text, same):
    assert str(Plan.parse(text)) == same


@pytest.mark.parametrize(
    ("text", "path"),
    [("none", "0 1 2 3"), ("1", "0 2 3"), ("1a", "0 1m 2 3"), ("0+2m", "1 2a 3"), ("0-3", "")],
)
def test_the_path_of_a_plan_is_what_it_keeps(text, path):
    found = as_cut(Plan.parse(text), 4)
    assert path_text(found) == path
    assert parse_path(path) == found


@given(st.builds(Call, units, st.none() | st.integers(102, 200)))
def test_text_and_call_are_inverse(call):
    assert Call.parse(str(call)) == call


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [
        (Unit.parse, "3b", "cannot read '3b' as a unit: write the number of a block, such as 3, "),
        (Variant.parse, "1~", "cannot read '' as a recovery: write its name and, after a colon, "),
        (Variant.parse, "1~A:b", "cannot read 'A:b' as a recovery: write its name and, after "),
        (Call.parse, "3>x", "cannot read '3>x' as a call: write a unit, such as 3, or 3>5."),
        (Call.parse, "3>4", "cannot bridge 3>4: nothing is between. Write 3."),
        (
            lambda text: Plan.parse(text).check(6),
            "1+3a",
            "cannot remove 3a alone: only whole blocks can be cut out. Name the block, 3.",
        ),
        (
            lambda text: Plan.parse(text).check(3),
            "3a",
            "cannot remove block 3: the model has 3 blocks, numbered 0 to 2.",
        ),
    ],
)
def test_what_cannot_be_read_or_cut_is_named(read, text, message):
    with pytest.raises(PlanError) as error:
        read(text)
    assert str(error.value).startswith(message)
