"""What bridging changes: what was put into a run is found in it, and no more."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pruning_kit.errors import PlanError
from pruning_kit.findings.analysis import analyse
from pruning_kit.findings.budgets import Budget
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles
from pruning_kit.plans.variant import Variant
from pruning_kit.reporting.commands import prune_command, values_of
from pruning_kit.reporting.contents import build_document, samples
from pruning_kit.reporting.formats import render
from pruning_kit.reporting.words.bridging import bridging_sentences
from pruning_kit.runs.facts import Samples
from pruning_kit.runs.results import load_run
from tests.synthetic_runs import with_facts, write_run
from tests.synthetic_scores import additive_costs
from tests.test_formats import page_data

COST = additive_costs((2.0, 0.3, 0.2, 0.4), {(1, 2): 0.3})


def left(costs, pairs=None):
    """What bridges leave of costs; sets without block 0 have none."""
    cost = additive_costs((0.0, *costs), pairs)
    return lambda plan: cost(plan) if plan.size and 0 not in plan.removed else None


LEFT = left((0.15, 0.1, 0.05))


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    def get(**options):
        options = {"n_blocks": 4, "cost": COST, "timed": False} | options
        return load_run(write_run(tmp_path_factory.mktemp("run") / "run", **options))

    return get


@pytest.fixture(scope="module")
def run(run_of):
    return run_of(bridged=LEFT, selection=True, comparing=True)


def test_every_choice_goes_by_the_bridged_cost_and_the_cost_as_cut_stays(run):
    found, as_cut = analyse(run), analyse(run, cost="as cut")
    assert found.judged_bridged and not as_cut.judged_bridged
    assert [size.best.short for size in found.sizes] == ["3", "2+3", "1-3"]
    assert [size.best.short for size in as_cut.sizes] == ["2", "2+3", "1-3"]
    row = found.row[Plan((3,))]
    assert row.bridged and row.ppl_ratio.value == pytest.approx(math.exp(0.05), rel=0.01)
    assert row.as_cut.value == pytest.approx(as_cut.row[Plan((3,))].ppl.value)
    assert not as_cut.row[Plan((3,))].bridged
    zero = found.row[Plan((0,))]
    assert not zero.bridged and zero.ppl == zero.as_cut
    assert found.recommended == Plan((1, 2, 3)) and as_cut.recommended == Plan((2,))
    budget = Budget(max_ppl_increase_pct=20)
    assert found.choose(budget).row.plan == Plan((2, 3))
    assert found.importance.ranking.blocks == (0, 1, 2, 3)
    assert as_cut.importance.ranking.blocks == (0, 3, 1, 2)
    assert found.row[Plan((3,))].kl.value == pytest.approx(0.8 * 0.05, rel=0.05)
    assert found.shapley.total == as_cut.shapley.total
    assert found.shapley.values[3].value < as_cut.shapley.values[3].value
    assert {row.plan for row in found.front} >= {Plan((3,)), Plan((2, 3)), Plan((1, 2, 3))}


def test_a_run_without_bridges_is_the_same_by_either_cost(run_of):
    run = run_of()
    found = analyse(run)
    assert found.bridging is None and not found.judged_bridged
    assert found.rows == analyse(run, cost="as cut").rows
    assert bridging_sentences(found) == []


def test_a_cost_that_there_is_not_is_one_sentence(run):
    with pytest.raises(
        PlanError, match=r"^cannot judge plans by 'cut': choose 'as cut' or 'bridged'\.$"
    ):
        analyse(run, cost="cut")


def test_what_is_taken_back_and_how_ranks_change_is_found(run):
    found = analyse(run).bridging
    assert (found.n_plans, len(found.bridged)) == (14, 7)
    one = found.sizes[0]
    assert (one.n_removed, one.n_bridged) == (1, 3)
    assert {ranks.plan.short: (ranks.as_cut, ranks.bridged) for ranks in one.ranks} == {
        "3": (3, 1),
        "2": (1, 2),
        "1": (2, 3),
        "0": (4, 4),
    }
    assert one.taken_back == pytest.approx(1 - 0.05 / 0.4, abs=0.02)
    assert one.median_taken_back == pytest.approx(0.5, abs=0.04)
    assert (one.best_as_cut, one.best) == (Plan((2,)), Plan((3,)))
    assert one.regret.low < 0.05 < one.regret.high and one.is_clear
    assert found.sizes[1].best == found.sizes[1].best_as_cut
    assert found.sizes[1].regret.value == 0 and not found.sizes[1].is_clear
    assert found.moved[0].plan == Plan((3,))


def test_next_to_no_damage_has_no_share_that_is_taken_back(run_of):
    run = run_of(cost=additive_costs((2.0, 0.004, 0.2, 0.4)), bridged=left((0.002, 0.1, 0.05)))
    found = analyse(run).bridging
    assert found.reported.taken_back(Plan((1,))) is None
    assert found.sizes[0].taken_back is None and found.sizes[0].median_taken_back > 0.4
    text = render(run, "md")
    assert "| 1 |" in text


def test_on_each_text_bridged_sets_are_tested_against_the_same_as_cut(run_of):
    worse = left((0.9, 0.1, 0.05))
    run = run_of(
        plans=[Plan(), *singles(4)],
        also_on=[COST],
        bridged={"reported": LEFT, "also-1": worse},
    )
    here, there = analyse(run).bridging.texts
    assert (here.n_bridged, len(here.better), here.worse) == (3, 3, ())
    assert there.text.title == "novel.txt"
    assert (there.better, there.worse) == ((Plan((2,)), Plan((3,))), (Plan((1,)),))
    said = bridging_sentences(analyse(run))
    assert said[1] == (
        "On novel.txt, of 3 bridged sets 2 are clearly better than as cut, 1 clearly worse (1)."
    )


def test_that_nothing_changes_is_said_plainly(run_of):
    run = run_of(bridged=left((0.15, 0.1, 0.2), {(1, 2): 0.15}), selection=True)
    said = bridging_sentences(analyse(run))
    assert said[-2].endswith("1: 1.00, 2: 1.00, 3: 1.00. No set moves far.")
    assert said[-1] == (
        "At every size the best set as cut is the best one bridged (chosen on valid, reported on "
        "test)."
    )


def test_without_intervals_nothing_is_called_clear(run_of):
    run = run_of(bridged=LEFT, n_windows=30)
    said = "\n".join(bridging_sentences(analyse(run)))
    assert "None of the 7 bridged sets was tested against the same as cut" in said
    assert "chosen and reported on the same text); none was tested." in said
    assert "clearly" not in said


def test_a_bridged_forward_that_failed_fails_its_plan(run):
    index = [str(variant) for variant in run.variants].index("3~bridged")
    nll = run.nll().copy()
    nll[index, 5] = np.nan
    broken = replace(run, sums={**run.sums, ("nll", "reported"): nll})
    found = analyse(broken)
    assert [row.plan for row in found.failed] == [Plan((3,))]
    assert found.row[Plan((3,))].as_cut.value > 30
    assert found.sizes[0].best == Plan((2,))
    assert "| 3 |" in render(broken, "md")


def test_a_plan_that_was_measured_bridged_alone_has_no_cost_as_cut(run):
    at = [number for number, variant in enumerate(run.variants) if str(variant) != "3"]
    kept = {variant.variant for one in run.rounds for variant in one.variants} - {"3"}
    rounds = tuple(
        replace_round(one, [v for v in one.variants if v.variant in kept]) for one in run.rounds
    )
    alone = replace(run, rounds=rounds, sums={name: sums[at] for name, sums in run.sums.items()})
    row = analyse(alone).row[Plan((3,))]
    assert row.bridged and row.as_cut is None
    assert Plan((3,)) not in analyse(alone, cost="as cut").row
    assert "| 3 |" in render(alone, "md")


def replace_round(one, variants):
    from msgspec import structs

    return structs.replace(one, variants=tuple(variants))


def test_a_report_says_by_what_it_judges_and_gives_the_command_that_bridges(run):
    document = build_document(run, analyse(run))
    assert ", gaps bridged where that helps, nothing retrained, on " in document.subtitle
    summary = document.sections[0]
    assert summary.code.endswith("--remove 1-3 --bridge --out pruned-1-3")
    as_cut = build_document(run, analyse(run, cost="as cut"))
    assert ", nothing retrained or bridged, on " in as_cut.subtitle
    assert "--bridge" not in as_cut.sections[0].code
    assert "Bridged" not in as_cut.sections[0].table.headings
    assert "bridging" in {section.name for section in as_cut.sections}


@pytest.mark.parametrize(
    "option", ["--calibrate-on 'my notes.txt'", "--calibrate-on='my notes.txt'"]
)
def test_the_command_that_bridges_fits_on_the_text_that_the_run_was_given(run, option):
    other = with_facts(run, {"command": f"pruning-kit sweep {option} --mode sequential"})
    assert prune_command(other, "1", bridged=True) == (
        "pruning-kit prune --model distilgpt2 --remove 1 --bridge --calibrate-on 'my notes.txt' "
        "--out pruned-1"
    )
    assert "--calibrate-on" not in prune_command(other, "1")
    assert values_of("", "--calibrate-on") == []


@pytest.mark.usefixtures("blank_figures")
def test_the_page_holds_both_perplexities_where_plans_are_judged_bridged(run):
    data = page_data(render(run, "html"))
    bridging = [" --bridge " in command for command in data["commands"]]
    assert data["bridged"] and bridging == [False, True]
    plans = data["plans"]
    frame = run.frame().query("split == 'test'").set_index("variant")["ppl"]
    for name, bridged, as_cut, ppl in zip(
        plans["name"], plans["isBridged"], plans["asCut"], plans["bridged"], strict=True
    ):
        variant = str(Plan.parse(name))
        assert as_cut == pytest.approx(frame[variant], rel=1e-5)
        assert (f"{variant}~bridged" in frame) == bool(bridged) == (ppl is not None)
        assert ppl is None or ppl == pytest.approx(frame[f"{variant}~bridged"], rel=1e-5)
    plain = page_data(render(run, "html", analysis=analyse(run, cost="as cut")))
    assert not plain["bridged"] and "asCut" not in plain["plans"]


def test_samples_stand_beside_the_perplexity_of_their_own_form(run):
    texts = {Variant.parse(name): "It was" for name in ("none", "3", "3~bridged")}
    found = samples(replace(run, samples=Samples.of("It", 60, texts)), analyse(run))
    row = analyse(run).row[Plan((3,))]
    assert [one.ppl for one in found[1:]] == [f"{row.as_cut.value:.2f}", f"{row.ppl.value:.2f}"]
    assert [one.title for one in found[1:]] == ["Without block 3", "Without block 3, bridged"]
