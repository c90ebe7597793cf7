"""Sentences for runs of every kind, word for word (goldens/make.py), and the numbers in them."""

import math

import pytest

from pruning_kit.findings.choices import PlanLatency
from pruning_kit.findings.scores import Interval
from pruning_kit.plan import Plan
from pruning_kit.reporting.sentences import section_sentences
from pruning_kit.reporting.wording import (
    at_least,
    format_change,
    format_nats,
    format_ppl,
    ranges,
    series,
    some_plans,
)
from tests.goldens import make
from tests.goldens.make import ANALYSES, analysis_of
from tests.synthetic_scores import all_plans


@pytest.mark.parametrize("kind", ANALYSES)
def test_the_sentences_of_every_kind_of_run_word_for_word(kind):
    assert make.sentences(kind) == make.stored_sentences(kind)


@pytest.mark.parametrize("name", ANALYSES)
def test_every_kind_of_run_has_every_section_and_whole_sentences(name):
    found = section_sentences(ANALYSES[name]())
    assert list(found) == list(section_sentences(ANALYSES["two texts"]()))
    for sentence in [text for texts in found.values() for text in texts]:
        assert sentence[0].isupper() or sentence[0].isdigit()
        assert sentence.endswith(".") and "nan" not in sentence and "None" not in sentence[1:]


def test_recommendations_name_latency_where_it_was_measured():
    plans = all_plans(4, empty=False)
    latency = {
        plan: PlanLatency(0.1 - 0.02 * plan.size, Interval(1 - 0.2 * plan.size), plan.size != 1)
        for plan in plans
    }
    found = section_sentences(analysis_of(plans, (1.5, 0.1, 0.3, 0.05), latency=latency))
    assert "60 ms, 0.60×" in found["choices"][0]
    (one,) = (text for text in found["choices"] if "the one without block 3:" in text)
    assert "80 ms, not clearly faster" in one
    assert "perplexity, parameters and latency" in found["front"][0]


def test_sampled_shapley_values_name_their_error():
    from pruning_kit.permutations import shapley_plans

    analysis = analysis_of(shapley_plans(7, 6), (0.9, 0.1, 0.4, 0.2, 0.3, 0.6, 0.2))
    (first, _) = section_sentences(analysis)["shapley"]
    assert "block 0 carries most of it, 0.9" in first
    assert f"estimated from {analysis.shapley.n_permutations:,} permutations" in first
    assert f"sampling error at most {max(analysis.shapley.sampling_error):.3f}" in first


@pytest.mark.parametrize(
    ("ppl", "text"),
    [
        (39.29, "39.29"),
        (763.96, "764"),
        (12095.66, "12,096"),
        (1.95e7, "1.95e+07"),
        (math.inf, "inf"),
        (math.nan, "failed"),
    ],
)
def test_perplexities_as_people_write_them(ppl, text):
    assert format_ppl(ppl) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (Interval(1.0706), "+7.1 %"),
        (Interval(0.9801), "−2.0 %"),
        (Interval(1.0001), "0.0 %"),
        (Interval(1.0, 1.0, 1.0), "0.0 %"),
        (Interval(1.05, 0.99, 1.11), "+5.0 % [−1.0 to +11.0 %]"),
        (Interval(3.981, 3.8, 4.2), "3.98× [3.80 to 4.20]"),
        (Interval(4971.0), "4,971×"),
        (Interval(math.nan), "unknown"),
    ],
)
def test_changes_as_people_write_them(ratio, text):
    assert format_change(ratio) == text


def test_nats_have_a_true_minus_and_no_minus_zero():
    assert format_nats(Interval(-0.1, -0.2, -0.0001)) == "−0.100 [−0.200 to 0.000]"


def test_at_least_never_rounds_up():
    assert at_least(2.0499) == "2.04" and at_least(66_070.9) == "66,070"
    assert at_least(math.inf) == "inf"


def test_long_lists_are_cut_and_say_so():
    few = [(number, f"+{number} %") for number in range(1, 4)]
    assert series(few) == "1: +1 %, 2: +2 %, 3: +3 %"
    many = series([(number, "x") for number in range(1, 48)])
    assert many.startswith("1: x, 2: x") and many.endswith("10: x, …, 47: x")
    plans = [Plan(), *(Plan((block,)) for block in range(9))]
    assert some_plans(plans) == "the whole model, 0, 1, 2, 3, 4 and 4 more"


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([1], "1"), ([1, 2], "1 or 2"), ([1, 2, 3], "1 to 3"), ([1, 2, 4], "1, 2 or 4")],
)
def test_numbers_without_a_gap_are_a_range(numbers, text):
    assert ranges(numbers) == text
