"""Further texts: what they say of plans is what was put into them, and no more."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pruning_kit.findings.analysis import analyse
from pruning_kit.findings.elsewhere import elsewhere
from pruning_kit.findings.evidence import Scores
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles
from pruning_kit.reporting.words.elsewhere import in_a_column, of_the_choice, title_of
from pruning_kit.runs.results import load_run, write_csv
from tests.goldens.make import analysis_of
from tests.synthetic_runs import changed, costs_of, write_run
from tests.synthetic_scores import additive_costs, all_plans, synthetic_nll

COSTS = (1.5, 0.1, 0.3, 0.2)
PLANS = all_plans(4)


def on(further, **options):
    """What one further text says, by its costs."""
    return analysis_of(PLANS, COSTS, further={"Emma": further}, **options).elsewhere[0]


def test_a_text_with_the_same_costs_shows_no_clear_difference():
    found = on(COSTS)
    assert len(found.ratio) == len(found.adjusted_p) == 14  # neither the whole nor the empty model
    assert found.costlier == found.cheaper == []
    assert found.order_agreement == pytest.approx(1, abs=0.05)
    assert [found.best(size) for size in (1, 2, 3)] == [Plan((1,)), Plan((1, 3)), Plan((1, 2, 3))]


def test_what_costs_more_or_less_there_is_found_and_nothing_else():
    found = on((1.5, 0.15, 0.3, 0.15))
    more = {plan for plan in PLANS if 1 in plan.removed and 3 not in plan.removed}
    less = {plan for plan in PLANS if 3 in plan.removed and 1 not in plan.removed}
    assert (set(found.costlier), set(found.cheaper)) == (more, less)
    for plan in more | less:
        assert found.shift[plan] == pytest.approx(0.05 if plan in more else -0.05, abs=0.01)
    assert found.ratio[Plan((1,))].low < math.exp(0.15) < found.ratio[Plan((1,))].high
    assert found.ppl.low < found.ppl.value < found.ppl.high


def test_swapping_the_texts_turns_every_difference_round():
    forth = on((1.5, 0.15, 0.3, 0.15))
    analysis = analysis_of(PLANS, COSTS, further={"Emma": (1.5, 0.15, 0.3, 0.15)})
    (back,) = elsewhere(forth.scores, [(analysis.reported, analysis.scores)], 4)
    assert back.shift == pytest.approx({plan: -shift for plan, shift in forth.shift.items()})
    assert back.adjusted_p == pytest.approx(forth.adjusted_p)


def test_the_tests_of_several_texts_hold_at_once():
    further = (*COSTS[:3], COSTS[3] + 0.02)
    alone = on(further)
    both = analysis_of(PLANS, COSTS, further={"Emma": further, "letters": further}).elsewhere[0]
    assert both.shift == alone.shift
    assert all(both.adjusted_p[plan] >= p for plan, p in alone.adjusted_p.items())
    assert any(both.adjusted_p[plan] > p for plan, p in alone.adjusted_p.items())


def test_false_differences_are_rarer_than_one_family_in_twenty():
    plans, generator = [Plan(), *singles(6)], np.random.default_rng(3)

    def scores(n_windows):
        noise_PN = 0.1 * generator.standard_normal((len(plans), n_windows))
        return Scores.of(plans, (3 + noise_PN) * 512, np.full(n_windows, 512))

    text = analysis_of(PLANS, COSTS).reported
    wrong = 0
    for _ in range(100):
        (found,) = elsewhere(scores(150), [(text, scores(60))], 6)
        wrong += bool(found.costlier or found.cheaper)
    assert wrong <= 11  # of 5 at most expected, three standard errors more


def test_few_windows_on_either_text_leave_all_untested():
    for here, there in ((200, 49), (49, 200)):
        reported, further = (
            Scores.of(PLANS, *synthetic_nll(PLANS, additive_costs(COSTS), count, seed=count))
            for count in (here, there)
        )
        text = analysis_of(PLANS, COSTS).reported
        (found,) = elsewhere(reported, [(text, further)], 4)
        assert found.adjusted_p == {} and len(found.ratio) == 14
        assert (found.ratio[Plan((1,))].low is None) == (there < 50)


def test_plans_that_failed_on_a_text_are_left_out_there(tmp_path):
    run = load_run(write_run(tmp_path / "run", 4, also_on=[costs_of(4)], timed=False))
    nll = run.nll("also-1").copy()
    nll[run.plans.index(Plan((2,))), 3] = np.nan
    failed = replace(run, sums={**run.sums, ("nll", "also-1"): nll})
    (found,) = analyse(failed).elsewhere
    assert Plan((2,)) not in found.ratio and Plan((1,)) in found.ratio
    nll[0] = np.nan
    (found,) = analyse(replace(run, sums={**run.sums, ("nll", "also-1"): nll})).elsewhere
    assert (found.ppl, found.ratio, found.order_agreement) == (None, {}, None)


def test_a_run_without_further_texts_says_nothing_of_them(tmp_path):
    analysis = analyse(load_run(write_run(tmp_path / "run", 4, selection=True)))
    assert analysis.elsewhere == () and of_the_choice(analysis) == []


def test_further_texts_change_no_row_and_no_column_of_the_others(tmp_path):
    for name, further in {"with": [costs_of(3), costs_of(3)], "without": []}.items():
        run = load_run(write_run(tmp_path / name, 3, selection=True, also_on=further))
        write_csv(run, tmp_path / f"{name}.csv")
    with_them = (tmp_path / "with.csv").read_text(encoding="utf-8").splitlines()
    without = (tmp_path / "without.csv").read_text(encoding="utf-8").splitlines()
    assert with_them[: len(without)] == without and len(without) == 1 + 2 * 8
    column = without[0].split(",").index("split")
    assert [line.split(",")[column] for line in with_them[len(without) :]] == [
        *["also-1"] * 8,
        *["also-2"] * 8,
    ]
    assert [line.split(",")[1] for line in with_them[-8:]] == [
        line.split(",")[1] for line in without[1:9]
    ]


def test_texts_that_are_called_alike_are_told_apart(tmp_path):
    run = load_run(write_run(tmp_path / "run", 3, also_on=[costs_of(3), costs_of(3)], timed=False))
    facts = changed(run.facts, {"texts.also-2.title": "novel.txt"})
    analysis = analyse(replace(run, facts=facts))
    titles = [title_of(analysis, one) for one in analysis.elsewhere]
    assert titles == ["novel.txt (also-1)", "novel.txt (also-2)"]


def test_a_long_title_keeps_its_ends_in_a_table():
    assert in_a_column("novel.txt") == "novel.txt"
    assert in_a_column("a" * 30 + "1.txt") == "aaaaaaaaaaa…aaaaaa1.txt"
    assert len(in_a_column("x" * 300, 9)) == 9


def test_that_the_set_to_take_costs_more_elsewhere_stands_in_short():
    analysis = analysis_of(PLANS, COSTS, further={"Emma": (1.5, 0.3, 0.3, 0.2), "letters": COSTS})
    (said,) = of_the_choice(analysis)
    assert analysis.recommended == Plan((1, 3))
    assert said.startswith("Blocks 1+3 cost clearly more on Emma, +64.")
