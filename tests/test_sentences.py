"""Sentences, word for word, for runs of every kind.

The runs are made by synthetic_scores.py; after a wanted change of wording,
`python -m tests.test_sentences` prints the summaries anew, to be read before they are copied here.
"""

import math

import pytest

from pruning_kit.findings.analysis import Analysis, analyse_scores
from pruning_kit.findings.choices import PlanLatency
from pruning_kit.findings.scores import Interval, Scores
from pruning_kit.plan import Plan, singles
from pruning_kit.reporting.sentences import section_sentences, summary_sentences
from pruning_kit.reporting.wording import at_least, format_change, format_nats, format_ppl
from tests.synthetic_scores import (
    additive_costs,
    all_plans,
    parameters,
    synthetic_nll,
    synthetic_scores,
)


def analysis_of(plans, costs, pairs=None, latency=None, selection=None, **options) -> Analysis:
    scores = synthetic_scores(plans, additive_costs(costs, pairs), **options)
    chosen_on, title = scores, "Persuasion"
    if selection is not None:
        chosen_on = synthetic_scores(plans, additive_costs(selection), seed=7)
        title = "Northanger Abbey"
    return analyse_scores(
        scores,
        chosen_on,
        len(costs),
        parameters(plans),
        latency or {},
        "demo",
        ("Persuasion", title),
    )


def with_failures() -> Analysis:
    plans = [Plan(), *singles(4)]
    nll, targets = synthetic_nll(plans, additive_costs((1.5, 0.1, 0.3, 0.05)))
    nll[2:4, 7] = math.nan
    scores = Scores.of(plans, nll, targets)
    return analyse_scores(scores, scores, 4, parameters(plans), {})


ANALYSES = {
    "all plans": lambda: analysis_of(
        all_plans(4), (1.5, 0.1, 0.3, 0.05), {(1, 2): 0.2, (2, 3): -0.1}
    ),
    "baseline only": lambda: analysis_of([Plan()], (1, 1, 1, 1)),
    "sequential, two tied": lambda: analysis_of([Plan(), *singles(4)], (1.5, 0.1, 0.3, 0.1)),
    "sequential, all tied": lambda: analysis_of([Plan(), *singles(3)], (0.2, 0.2, 0.2)),
    "chosen plans": lambda: analysis_of(
        [Plan(), Plan((1, 3)), Plan((0, 2)), Plan((1, 2, 3))], (1.5, 0.1, 0.3, 0.05)
    ),
    "one chosen plan": lambda: analysis_of([Plan(), Plan((2,))], (1.5, 0.1, 0.3)),
    "huge perplexities": lambda: analysis_of([Plan(), *singles(3)], (12.0, 0.9, 1.0)),
    "few windows": lambda: analysis_of(
        all_plans(4, empty=False)[:11], (1.5, 0.1, 0.3, 0.05), n_windows=30
    ),
    "two texts": lambda: analysis_of(
        all_plans(4), (1.5, 0.1, 0.3, 0.2), selection=(1.5, 0.15, 0.3, 0.05)
    ),
    "collapse": lambda: analysis_of(
        all_plans(4, empty=False), (2.0, 0.1, 1.2, 1.3), {(1, 2): 0.9, (1, 3): 0.9}
    ),
    "failures": with_failures,
    "one block": lambda: analysis_of([Plan(), Plan((0,))], (4.0,)),
    "no whole model": lambda: analysis_of([Plan((1,)), Plan((2,))], (1, 1, 1, 1)),
}

SUMMARIES = {
    "all plans": [
        "Removed alone, block 0 matters most (perplexity 4.49 times [4.47 to 4.51]), "
        "block 3 least (+5.3 % [+4.7 to +5.9 %]).",
        "Best set of each size, chosen and reported on the same text: 1 removed: 3 (+5.3 "
        "% [+4.7 to +5.9 %]); 2 removed: 1+3 (+16.6 % [+16.1 to +17.1 %]); 3 removed: "
        "1+2+3 (+73.7 % [+73.0 to +74.5 %]).",
        "Do not remove block 0: every measured set of 1 or 2 blocks that does has at "
        "least 4.05 times the perplexity of the best set of its size.",
    ],
    "baseline only": [
        "The whole model (4 blocks) has a perplexity of 27.14 [25.87 to 28.48] on Persuasion.",
        "No plan that removes a block was measured.",
    ],
    "sequential, two tied": [
        "Removed alone, block 0 matters most (perplexity 4.49 times [4.47 to "
        "4.51]), block 3 least (+10.7 % [+10.1 to +11.3 %]), not "
        "distinguishable from 1.",
        "Do not remove block 0: every measured set of 1 block that does has "
        "at least 4.05 times the perplexity of the best set of its size.",
    ],
    "sequential, all tied": [
        "Removed alone, block 1 matters most (perplexity +22.5 % [+21.9 to "
        "+23.1 %]), but no other can be told from it."
    ],
    "chosen plans": [
        "Best measured set of each size, chosen and reported on the same text: 2 "
        "removed: 1+3 (+16.6 % [+16.1 to +17.1 %]); 3 removed: 1+2+3 (+57.2 % [+56.5 "
        "to +57.9 %]).",
        "Worst of the measured sets: 0+2 (6.06 times).",
    ],
    "one chosen plan": ["Without block 2 the perplexity changes by +35.4 % [+34.8 to +36.0 %]."],
    "huge perplexities": [
        "Removed alone, block 0 matters most (perplexity 162,989 times [162,188 "
        "to 163,795]), block 1 least (2.47 times [2.45 to 2.48]).",
        "Do not remove block 0: every measured set of 1 block that does has at "
        "least 66,070 times the perplexity of the best set of its size.",
    ],
    "few windows": [
        "Removed alone, block 0 matters most (perplexity 4.47 times), block 3 least (+5.0 %).",
        "Best set of each size, chosen and reported on the same text: 1 removed: 3 "
        "(+5.0 %); 2 removed: 1+3 (+16.3 %).",
        "Do not remove block 0: every measured set of 1 or 2 blocks that does has at "
        "least 4.05 times the perplexity of the best set of its size.",
        "No interval: 30 windows, at least 50 needed.",
    ],
    "two texts": [
        "Removed alone, block 0 matters most (perplexity 4.49 times [4.47 to 4.51]), "
        "block 1 least (+10.8 % [+10.3 to +11.4 %]).",
        "Best set of each size, chosen on Northanger Abbey, reported on Persuasion: 1 "
        "removed: 3 (+22.3 % [+21.7 to +23.0 %]); 2 removed: 1+3 (+35.5 % [+34.9 to "
        "+36.1 %]); 3 removed: 1+2+3 (+82.6 % [+81.8 to +83.4 %]).",
        "Do not remove block 0: every measured set of 1 or 2 blocks that does has at "
        "least 3.86 times the perplexity of the best set of its size (on Northanger "
        "Abbey).",
    ],
    "collapse": [
        "Removed alone, block 0 matters most (perplexity 7.40 times [7.36 to 7.44]), "
        "block 1 least (+10.8 % [+10.3 to +11.4 %]).",
        "Best set of each size, chosen and reported on the same text: 1 removed: 1 (+10.8 "
        "% [+10.3 to +11.4 %]); 2 removed: 0+1 (8.19 times [8.16 to 8.22]).",
        "With 3 blocks removed even the best set has 66.96 times the perplexity of the "
        "whole model.",
        "Do not remove together 0+3 or 0+2: every measured set of 1 or 2 blocks that does "
        "has at least 2.99 times the perplexity of the best set of its size.",
    ],
    "failures": [
        "Removed alone, block 0 of the 2 measured matters most (perplexity 4.49 times "
        "[4.47 to 4.51]), block 3 least (+5.3 % [+4.7 to +5.9 %]).",
        "Do not remove block 0: every measured set of 1 block that does has at least 4.26 "
        "times the perplexity of the best set of its size.",
        "2 plans failed (not finite) and left out of every statement: 1 and 2.",
    ],
    "one block": [
        "The whole model (1 block) has a perplexity of 27.14 [25.87 to 28.48] on Persuasion.",
        "No plan that removes a block was measured.",
    ],
    "no whole model": ["The whole model was not measured in full, so nothing is relative to it."],
}

SECTIONS = {
    "all plans": {
        "summary": [
            "The whole model (4 blocks) has a perplexity of 27.14 [25.87 to 28.48] on Persuasion.",
            "Without a budget, remove 1+3 (2 of 4 blocks): perplexity 31.65, "
            "+16.6 % [+16.1 to +17.1 %]; 68.00 M parameters, 17.1 % fewer "
            "(chosen and reported on the same text).",
            "Removed alone, block 0 matters most (perplexity 4.49 times [4.47 to "
            "4.51]), block 3 least (+5.3 % [+4.7 to +5.9 %]).",
            "Do not remove block 0: every measured set of 1 or 2 blocks that "
            "does has at least 4.05 times the perplexity of the best set of its "
            "size.",
        ],
        "importance": [
            "Removed alone, block 0 matters most (perplexity 4.49 times [4.47 "
            "to 4.51]), block 3 least (+5.3 % [+4.7 to +5.9 %]).",
            "Hierarchy of single removals: 0 > 2 > 1 > 3 (> differs by a test "
            "that holds for all pairs at once).",
        ],
        "shapley": [
            "Shared out over all orders of removal, block 0 carries most: 1.500 "
            "[1.499 to 1.501] of 2.051 [2.047 to 2.056] nats per token; block 3 "
            "least: 0.000 [−0.003 to 0.002] (Shapley values, exact, from all 16 "
            "plans).",
            "Hierarchy of Shapley values: 0 > 2 > 1 > 3 (> differs by a test "
            "that holds for all pairs at once).",
        ],
        "interactions": [
            "2 of 6 pairs differ clearly from the sum of their single costs.",
            "Blocks 1 and 2 together are worse than their sum: 0.198 [0.193 "
            "to 0.203] nats per token more.",
            "Blocks 2 and 3 together are better than their sum: 0.102 "
            "[0.095 to 0.109] nats per token less.",
        ],
        "sizes": [
            "Best set of each size, chosen and reported on the same text: 1 "
            "removed: 3 (+5.3 % [+4.7 to +5.9 %]); 2 removed: 1+3 (+16.6 % [+16.1 "
            "to +17.1 %]); 3 removed: 1+2+3 (+73.7 % [+73.0 to +74.5 %]).",
            "Cost of each further block (perplexity of the best set relative to "
            "the best with one block less): 1: +5.3 %, 2: +10.7 %, 3: +49.0 %.",
            "Returns diminish sharply after 2 blocks: going on to 3 costs, for "
            "each block, more than 2 times the average of those before.",
            "Thousandths of a nat per token for each million parameters removed, "
            "by blocks removed: 1: 7.38, 2: 10.97, 3: 26.30; cheapest at 1.",
        ],
        "strategies": [
            "Of the fixed strategies (first, last, alternate, contiguous, "
            "random), last does best most often: at 2 of 3 numbers of removed "
            "blocks.",
            "1 removed: best set +5.3 %, median +22.5 %, worst 4.49 times; "
            "best strategy (last) +5.3 %.",
            "2 removed: best set +16.6 %, median 2.94 times, worst 6.06 "
            "times; best strategy (alternate) +16.6 %.",
            "3 removed: best set +73.7 %, median 5.49 times, worst 8.20 "
            "times; best strategy (last and contiguous) +73.7 %.",
        ],
        "front": [
            "On the Pareto front over perplexity and parameters (no measured plan "
            "is better in one and as good in the others): none, 3, 1+3 and 1+2+3."
        ],
        "choices": [
            "Without a budget, remove 1+3 (2 of 4 blocks): perplexity 31.65, "
            "+16.6 % [+16.1 to +17.1 %]; 68.00 M parameters, 17.1 % fewer "
            "(chosen and reported on the same text).",
            "With at most 10 % more perplexity, the smallest measured model is "
            "without 3: perplexity 28.58, +5.3 % [+4.7 to +5.9 %]; 75.00 M "
            "parameters, 8.5 % fewer (chosen and reported on the same text).",
            "With at most 25 or 50 % more perplexity, the smallest measured "
            "model is without 1+3: perplexity 31.65, +16.6 % [+16.1 to +17.1 %]; "
            "68.00 M parameters, 17.1 % fewer (chosen and reported on the same "
            "text).",
            "With at most 100 % more perplexity, the smallest measured model is "
            "without 1+2+3: perplexity 47.15, +73.7 % [+73.0 to +74.5 %]; 61.00 "
            "M parameters, 25.6 % fewer (chosen and reported on the same text).",
        ],
        "avoid": [
            "Do not remove block 0: every measured set of 1 or 2 blocks that does "
            "has at least 4.05 times the perplexity of the best set of its size."
        ],
        "uncertainty": [
            "95 % intervals from a studentised block bootstrap of 200 "
            "windows (blocks of 15, 1,000 resamples), paired between plans.",
            "Chosen and reported on the same text.",
        ],
    },
    "two texts": {
        "summary": [
            "The whole model (4 blocks) has a perplexity of 27.14 [25.87 to 28.48] on Persuasion.",
            "Without a budget, remove 3 (1 of 4 blocks): perplexity 33.21, +22.3 "
            "% [+21.7 to +23.0 %]; 75.00 M parameters, 8.5 % fewer (chosen on "
            "Northanger Abbey, reported on Persuasion).",
            "Removed alone, block 0 matters most (perplexity 4.49 times [4.47 to "
            "4.51]), block 1 least (+10.8 % [+10.3 to +11.4 %]).",
            "Do not remove block 0: every measured set of 1 or 2 blocks that "
            "does has at least 3.86 times the perplexity of the best set of its "
            "size (on Northanger Abbey).",
        ],
        "importance": [
            "Removed alone, block 0 matters most (perplexity 4.49 times [4.47 "
            "to 4.51]), block 1 least (+10.8 % [+10.3 to +11.4 %]).",
            "Hierarchy of single removals: 0 > 2 > 3 > 1 (> differs by a test "
            "that holds for all pairs at once).",
        ],
        "shapley": [
            "Shared out over all orders of removal, block 0 carries most: 1.500 "
            "[1.499 to 1.501] of 2.101 [2.097 to 2.106] nats per token; block 1 "
            "least: 0.101 [0.099 to 0.103] (Shapley values, exact, from all 16 "
            "plans).",
            "Hierarchy of Shapley values: 0 > 2 > 3 > 1 (> differs by a test "
            "that holds for all pairs at once).",
        ],
        "interactions": ["None of the 6 pairs differs clearly from the sum of its single costs."],
        "sizes": [
            "Best set of each size, chosen on Northanger Abbey, reported on "
            "Persuasion: 1 removed: 3 (+22.3 % [+21.7 to +23.0 %]); 2 removed: 1+3 "
            "(+35.5 % [+34.9 to +36.1 %]); 3 removed: 1+2+3 (+82.6 % [+81.8 to "
            "+83.4 %]).",
            "Cost of each further block (perplexity of the best set relative to "
            "the best with one block less): 1: +22.3 %, 2: +10.7 %, 3: +34.8 %.",
            "Returns diminish sharply after 1 block: going on to 2 costs, for each "
            "block, more than 2 times the average of those before (on Northanger "
            "Abbey).",
            "Thousandths of a nat per token for each million parameters removed, "
            "by blocks removed: 1: 28.81, 2: 21.68, 3: 28.68; cheapest at 2.",
            "Optimism of choosing (how far the chosen set's relative perplexity on "
            "Persuasion lies above that on Northanger Abbey), by blocks removed: "
            "1: +16.6 %, 2: +11.3 %, 3: +11.2 %.",
            "In hindsight another set was best on the reported text: 1 removed: 1.",
        ],
        "strategies": [
            "Of the fixed strategies (first, last, alternate, contiguous, "
            "random), last does best most often: at 2 of 3 numbers of removed "
            "blocks (on Northanger Abbey).",
            "1 removed: best set +4.9 %, median +24.8 %, worst 4.48 times; "
            "best strategy (last) +4.9 %.",
            "2 removed: best set +21.7 %, median 2.71 times, worst 6.02 "
            "times; best strategy (alternate) +21.7 %.",
            "3 removed: best set +64.2 %, median 5.89 times, worst 6.99 "
            "times; best strategy (last and contiguous) +64.2 %.",
        ],
        "front": [
            "On the Pareto front over perplexity and parameters (no measured plan "
            "is better in one and as good in the others): none, 3, 1+3 and 1+2+3."
        ],
        "choices": [
            "Without a budget, remove 3 (1 of 4 blocks): perplexity 33.21, +22.3 "
            "% [+21.7 to +23.0 %]; 75.00 M parameters, 8.5 % fewer (chosen on "
            "Northanger Abbey, reported on Persuasion).",
            "With at most 10 % more perplexity, the smallest measured model is "
            "without 3: perplexity 33.21, +22.3 % [+21.7 to +23.0 %]; 75.00 M "
            "parameters, 8.5 % fewer; on the reported text it exceeds the limit "
            "on perplexity (chosen on Northanger Abbey, reported on Persuasion).",
            "With at most 25 % more perplexity, the smallest measured model is "
            "without 1+3: perplexity 36.77, +35.5 % [+34.9 to +36.1 %]; 68.00 M "
            "parameters, 17.1 % fewer; on the reported text it exceeds the limit "
            "on perplexity (chosen on Northanger Abbey, reported on Persuasion).",
            "With at most 50 % more perplexity, the smallest measured model is "
            "without 1+3: perplexity 36.77, +35.5 % [+34.9 to +36.1 %]; 68.00 M "
            "parameters, 17.1 % fewer (chosen on Northanger Abbey, reported on "
            "Persuasion).",
            "With at most 100 % more perplexity, the smallest measured model is "
            "without 1+2+3: perplexity 49.57, +82.6 % [+81.8 to +83.4 %]; 61.00 "
            "M parameters, 25.6 % fewer (chosen on Northanger Abbey, reported on "
            "Persuasion).",
        ],
        "avoid": [
            "Do not remove block 0: every measured set of 1 or 2 blocks that does "
            "has at least 3.86 times the perplexity of the best set of its size "
            "(on Northanger Abbey)."
        ],
        "uncertainty": [
            "95 % intervals from a studentised block bootstrap of 200 "
            "windows (blocks of 15, 1,000 resamples), paired between plans.",
            "Chosen on Northanger Abbey, reported on Persuasion.",
        ],
    },
}


@pytest.mark.parametrize("name", ANALYSES)
def test_the_summary_of_every_kind_of_run(name):
    assert summary_sentences(ANALYSES[name]()) == SUMMARIES[name]


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_of_a_report(name):
    assert section_sentences(ANALYSES[name]()) == SECTIONS[name]


@pytest.mark.parametrize("name", ANALYSES)
def test_every_kind_of_run_has_every_section_and_whole_sentences(name):
    found = section_sentences(ANALYSES[name]())
    assert list(found) == list(SECTIONS["two texts"])
    for sentence in [text for texts in found.values() for text in texts]:
        assert sentence[0].isupper() or sentence[0].isdigit()
        assert sentence.endswith(".") and "nan" not in sentence and "None" not in sentence[1:]


def test_recommendations_name_latency_where_it_was_measured():
    plans = all_plans(4, empty=False)
    latency = {
        plan: PlanLatency(0.1 - 0.02 * plan.size, Interval(1 - 0.2 * plan.size)) for plan in plans
    }
    found = section_sentences(analysis_of(plans, (1.5, 0.1, 0.3, 0.05), latency=latency))
    assert "60 ms, 0.60 times" in found["choices"][0]
    assert "perplexity, parameters and latency" in found["front"][0]


def test_sampled_shapley_values_name_their_error():
    from pruning_kit.permutations import shapley_plans

    analysis = analysis_of(shapley_plans(7, 6), (0.9, 0.1, 0.4, 0.2, 0.3, 0.6, 0.2))
    (first, _) = section_sentences(analysis)["shapley"]
    assert first.startswith("Shared out over all orders of removal, block 0 carries most: 0.9")
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
        (Interval(3.981, 3.8, 4.2), "3.98 times [3.80 to 4.20]"),
        (Interval(4971.0), "4,971 times"),
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


if __name__ == "__main__":
    for name, build in ANALYSES.items():
        print(f"== {name}", *summary_sentences(build()), sep="\n")
