"""Sentences for runs of every kind, word for word (goldens/make.py), and the numbers in them."""

import math
import re

import numpy as np
import pytest

from pruning_kit.findings.evidence import Interval
from pruning_kit.findings.sizes import PlanLatency
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles
from pruning_kit.reporting.words.facts import time_saved
from pruning_kit.reporting.words.front import what_is_the_front
from pruning_kit.reporting.words.numbers import (
    at_least,
    format_change,
    format_nats,
    format_ppl,
    format_ratio,
    ranges,
    series,
    significant,
    some_plans,
)
from pruning_kit.reporting.words.sections import section_sentences
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
    analysis = analysis_of(plans, (1.5, 0.1, 0.3, 0.05), latency=latency)
    one, two, *_ = section_sentences(analysis)["summary"]
    assert one.startswith("Block 3 can be removed at little cost: perplexity ")
    assert one.endswith(" fewer parameters, not clearly faster.")
    assert two.startswith("If more must go, take blocks 1+3: perplexity ")
    assert two.endswith(" fewer parameters, 40.0 % less time.")
    assert "perplexity, parameters and latency" in what_is_the_front(analysis)


def test_time_is_less_or_more_with_its_interval():
    assert time_saved(PlanLatency(1, Interval(0.873, 0.865, 0.881), True)) == (
        "12.7 % less time [11.9 to 13.5 %]"
    )
    assert time_saved(PlanLatency(1, Interval(1.05, 1.02, 1.08), True)) == (
        "5.0 % more time [2.0 to 8.0 %]"
    )


@pytest.mark.parametrize("seed", range(24))
def test_what_is_said_of_the_price_holds_for_every_plan(seed):
    """Random costs on two texts, of all plans, of single blocks or of some."""
    generator = np.random.default_rng(seed)
    scale = (0.05, 0.15, 0.3, 0.6)[seed % 4]
    costs, chosen_by = scale * generator.random((2, 4)) * (0.5 + generator.random((2, 4)))
    plans = [all_plans(4), [Plan(), *singles(4)], all_plans(4)[: 4 + seed]][seed % 3]
    analysis = analysis_of(plans, costs.tolist(), selection=chosen_by.tolist(), n_windows=60)
    said = section_sentences(analysis)["summary"]
    rows = [row for row in analysis.rows if row.plan != Plan()]
    on_both = {row.plan: max(row.ppl_ratio.value, row.selection_ratio) for row in rows}
    first = said[0]
    if found := re.match(r"Blocks? ([\d+-]+) can be removed at little cost", first):
        assert on_both[Plan.parse(found[1])] <= 1.1
    elif "can be removed at little cost" in first:
        assert min(row.ppl_ratio.value for row in rows) > 1.1
        assert first.startswith("No block") == (len(rows) == 14)
    elif first.startswith("No set that is best on"):
        assert all(on_both[size.best] > 1.1 for size in analysis.sizes)
    else:
        assert first.startswith("Keep the whole model")
        assert min(row.selection_ratio for row in rows) > 1.5
    if found := re.search(r"must go, take blocks? ([\d+-]+):", " ".join(said)):
        assert Plan.parse(found[1]) == analysis.recommended
    for sure in (text for text in said if "clearly the cheapest" in text):
        size = next(s for s in analysis.sizes if sure.split()[1] == s.best.short)
        assert size.group == (size.best,)
        assert ("too" in sure) == (size.best == size.best_reported)


def test_orders_are_called_different_only_where_they_are():
    same = analysis_of(all_plans(4), (1.5, 0.1, 0.3, 0.05))
    other = analysis_of(all_plans(4), (1.5, 0.1, 0.3, 0.05), {(1, 3): 0.9})
    assert "Choose by the first" not in " ".join(section_sentences(same)["importance"])
    assert other.shapley.ranking.blocks != other.importance.ranking.blocks
    said = " Choose by the first: Shapley values count nearly empty models too."
    assert section_sentences(other)["importance"][1].endswith(said)


def test_pairs_with_a_block_that_ruins_the_model_are_left_out_of_the_advice():
    analysis = analysis_of(
        all_plans(4), (3.0, 0.1, 0.3, 0.05), {(0, 1): -1.0, (1, 2): 0.2, (2, 3): -0.1}
    )
    found = section_sentences(analysis)["interactions"]
    assert found[0] == (
        "Of 3 pairs without ruinous block 0, 1 clearly costs more than the sum, 1 less."
    )
    assert found[1].startswith("Farthest above it: 1+2, by ")
    assert found[2].startswith("Farthest below it: 2+3, by ")


def test_sampled_shapley_values_name_their_error():
    from pruning_kit.plans.permutations import shapley_plans

    analysis = analysis_of(shapley_plans(7, 6), (0.9, 0.1, 0.4, 0.2, 0.3, 0.6, 0.2))
    first = section_sentences(analysis)["importance"][1]
    assert f"from {analysis.shapley.n_permutations:,} sampled orders" in first
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


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(1.0706, "1.071"), (3.981, "3.98"), (4971.2, "4,971"), (math.nan, "unknown")],
)
def test_ratios_in_tables_are_on_one_scale(ratio, text):
    assert format_ratio(ratio) == text


def test_numbers_of_three_digits_are_written_out():
    assert [significant(value) for value in (0.7334, 39.94, 401.2, 1413.0, 1e6)] == [
        "0.733",
        "39.9",
        "401",
        "1,410",
        "1,000,000",
    ]
    assert significant(104.0, 2) == "100" and significant(math.inf) == "inf"


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
