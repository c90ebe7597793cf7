"""What is said and drawn of recovered models, from runs with known costs."""

import io
from dataclasses import replace
from math import exp, log

import numpy as np
import pytest
from rich.console import Console

from pruning_kit.cli.sweep import _show_recovered
from pruning_kit.findings.analysis import analyse
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles
from pruning_kit.plans.variant import Recovery, Variant
from pruning_kit.pruning.distillation.settings import NATS_OF_WHOLE, WATCHED
from pruning_kit.reporting.card import card_numbers
from pruning_kit.reporting.contents import build_document
from pruning_kit.reporting.figures import perplexity_bridged, training_curves
from pruning_kit.reporting.figures.canvas import image
from pruning_kit.reporting.figures.training import MAX_LINES
from pruning_kit.reporting.formats import rich_table
from pruning_kit.reporting.recovered import recovered_table, reordered_table
from pruning_kit.reporting.words.numbers import format_change, format_ppl
from pruning_kit.reporting.words.recovered import (
    curve_sentences,
    recovered_sentences,
    reordered_sentences,
    won_sentences,
)
from pruning_kit.runs.recovered import PointFacts, RecoveredFacts
from pruning_kit.runs.results import load_run
from tests.synthetic_runs import write_run

DISTILLED = "distilled:2M"
AS_CUT = dict(zip(singles(6), (3.0, 0.3, 0.5, 0.4, 0.2, 1.2), strict=True))
BRIDGED = {Plan((block,)): cost for block, cost in enumerate((0.28, 0.32, 0.30, 0.26, 0.20), 1)}
TRAINED = {Plan((block,)): cost for block, cost in enumerate((0.10, 0.12, 0.14, 0.06, 0.04), 1)}
"""As cut 4 1 3 2 5, bridged 5 4 1 3 2, trained 5 4 1 2 3."""


def run_of(folder, plans=(4, 1, 2, 3, 5), **options):
    measured = [Plan(), *(Plan((block,)) for block in sorted(plans))]
    costs = {
        "cost": lambda plan: AS_CUT.get(plan, 0.0),
        "bridged": lambda plan: BRIDGED.get(plan),
        "recovered": {DISTILLED: lambda plan: TRAINED.get(plan)},
    }
    return load_run(write_run(folder / "run", plans=measured, timed=False, **(costs | options)))


def curve_of(start=50.0, end=40.0, tokens=2_000_000, looks=4, best=None):
    """A curve that falls evenly, and rises again behind its best look."""
    best = looks if best is None else best
    ppls = [start + (end - start) * (best - abs(best - look)) / best for look in range(looks + 1)]
    return tuple(
        PointFacts(
            step=look,
            tokens=tokens * look // looks,
            seconds=30.0 * look,
            divergence=0.3 if look else None,
            nats=log(ppl),
        )
        for look, ppl in enumerate(ppls)
    )


def facts_of(curve=(), refused=None, **details):
    details = {WATCHED: "a novel, 12 windows", NATS_OF_WHOLE: log(33.0), "rate": 0.0042, **details}
    return RecoveredFacts(
        sha256=None if refused else "a0" * 32, details=details, refused=refused, curve=curve
    )


def trained(*blocks):
    return [Variant(Plan((block,)), Recovery.parse(DISTILLED)) for block in blocks]


def with_curves(run, curves):
    return replace(run, recovered={v: facts_of(curve) for v, curve in curves.items()})


def test_what_training_won_is_said_for_each_text_with_its_paired_interval(tmp_path):
    elsewhere = {
        "bridged": dict.fromkeys(("reported", "also-1"), lambda plan: BRIDGED.get(plan)),
        "recovered": {
            DISTILLED: {
                "reported": lambda plan: TRAINED.get(plan),
                "also-1": lambda plan: BRIDGED[plan] + 0.1 if plan in TRAINED else None,
            }
        },
    }
    cost = lambda plan: AS_CUT.get(plan, 0.0)  # noqa: E731
    run = run_of(tmp_path, plans=[4], also_on=[cost], **elsewhere)
    ppl = {row["variant"]: row["ppl"] for row in run.rows()}
    here, there = won_sentences(analyse(run))
    step = ppl["4~distilled:2M"] / ppl["4~bridged"] - 1
    assert step == pytest.approx(exp(-0.2) - 1, abs=0.01)
    assert here.startswith(
        "On WikiText-2 raw, test, perplexity against what each is made from (bridged, or as cut): "
        f"4~distilled:2M −{-100 * step:.1f} % [−"
    )
    assert "On novel.txt, " in there and "4~distilled:2M +10." in there and "no clear" not in there


def test_of_many_models_it_is_said_how_many_gained_and_lost(tmp_path):
    worse = {**TRAINED, Plan((3,)): 0.5}
    run = run_of(tmp_path, recovered={DISTILLED: lambda plan: worse.get(plan)})
    (said,) = won_sentences(analyse(run))
    assert "of 5 models 4 are clearly better, 1 clearly worse, each by its own interval; " in said
    few = run_of(tmp_path / "few", n_windows=20)
    (said,) = won_sentences(analyse(few))
    assert said.endswith("; none was tested.") and "clearly" not in said


def test_a_difference_within_noise_is_not_said_to_be_one(tmp_path):
    run = run_of(tmp_path, plans=[4], recovered={DISTILLED: lambda plan: BRIDGED.get(plan)})
    (said,) = won_sentences(analyse(run))
    assert said.endswith(" (no clear difference).")


def test_a_curve_is_said_from_its_start_to_what_was_kept(tmp_path):
    run = run_of(tmp_path, plans=[4])
    (variant,) = trained(4)
    (said,) = curve_sentences(with_curves(run, {variant: curve_of()}))
    assert said == (
        "4~distilled:2M: perplexity of text that nothing is fitted or trained on 50.00 at the "
        "start, 40.00 after 2,000,000 tokens and 2 min."
    )
    (said,) = curve_sentences(with_curves(run, {variant: curve_of(best=3)}))
    assert said.endswith(
        "40.00 after 1,500,000 tokens and 2 min, the best of 4 looks (the last was after "
        "2,000,000)."
    )


def test_how_alike_models_were_made_is_said_once(tmp_path):
    run = run_of(tmp_path, plans=[4, 5])
    made = {v: facts_of(seconds=number) for number, v in enumerate(trained(4, 5), 1)}
    refused = trained(2)[0], facts_of(refused="cannot distil 2: it diverged. Lower the rate.")
    run = replace(run, recovered={**made, refused[0]: refused[1]})
    said = recovered_sentences(run, analyse(run))
    assert said[-4:] == [
        f"All distilled models: watched: a novel, 12 windows; {NATS_OF_WHOLE}: 3.497; "
        "rate: 0.0042.",
        "4~distilled:2M: seconds: 1.",
        "5~distilled:2M: seconds: 2.",
        "There is no row of 2~distilled:2M: the kit cannot distil 2: it diverged. Lower the rate.",
    ]
    many = {v: facts_of(seconds=v.plan.removed[0]) for v in trained(1, 2, 3, 4)}
    run = replace(run, recovered=many)
    last = recovered_sentences(run, analyse(run))[-1]
    assert last == "What else is known of each is in recoveries/recovered.json."


def test_the_order_of_sets_is_compared_form_by_form(tmp_path):
    analysis = analyse(run_of(tmp_path))
    (found,) = analysis.reordered
    ranks = {plan.short: [place.rank for place in places] for plan, places in found.places.items()}
    assert ranks == {"5": [5, 1, 1], "4": [1, 2, 2], "1": [2, 3, 3], "2": [4, 5, 4], "3": [3, 4, 5]}
    assert found.tau_as_cut == pytest.approx(0.0) and found.tau_bridged == pytest.approx(0.8)
    assert found.best == found.best_bridged == Plan((5,)) and found.regret.value == 1.0
    assert reordered_sentences(analysis) == [
        "Of 5 sets of 1 block, 5 costs least bridged, and distilled:2M too.",
        "Kendall's tau of their order distilled:2M: 0.00 with that as cut and 0.80 with that "
        "bridged (1 the same, 0 no relation).",
    ]
    table = reordered_table(analysis)
    assert [row[0] for row in table.rows] == [f"{block} distilled:2M" for block in (5, 4, 1, 2, 3)]
    assert table.rows[0][2::2] == ("5", "1", "1")


def test_another_choice_is_said_with_what_the_first_one_costs(tmp_path):
    changed = {**TRAINED, Plan((2,)): 0.01}
    run = run_of(tmp_path, selection=True, recovered={DISTILLED: lambda plan: changed.get(plan)})
    analysis = analyse(run)
    (found,) = analysis.reordered
    ppl = {row["variant"]: row["ppl"] for row in run.rows()}
    assert (found.best_bridged, found.best) == (Plan((5,)), Plan((2,)))
    assert found.regret.value == pytest.approx(ppl["5~distilled:2M"] / ppl["2~distilled:2M"])
    assert found.is_clear
    assert reordered_sentences(analysis)[0].startswith(
        "Of 5 sets of 1 block, 5 costs least bridged; distilled:2M, 2 does, and 5 has +3."
    )


def test_of_fewer_than_four_sets_no_order_is_spoken_of_and_of_one_nothing(tmp_path):
    analysis = analyse(run_of(tmp_path / "three", plans=[3, 4, 5]))
    (found,) = analysis.reordered
    assert found.tau_as_cut is found.tau_bridged is None
    assert len(reordered_sentences(analysis)) == 1
    alone = analyse(run_of(tmp_path / "one", plans=[4]))
    assert alone.reordered == () and reordered_table(alone) is None


def test_what_failed_in_one_form_is_not_ranked(tmp_path):
    run = run_of(tmp_path)
    place = run.variants.index(Variant.parse("3~distilled:2M"))
    run.sums["nll", "reported"][place, 0] = np.nan
    (found,) = analyse(run).reordered
    assert set(found.places) == {Plan((block,)) for block in (1, 2, 4, 5)}


def test_the_table_begins_with_the_whole_model(tmp_path):
    run = run_of(tmp_path, plans=[4])
    table = recovered_table(analyse(run))
    assert [row[0] for row in table.rows] == ["none", "4", "4 bridged", "4 distilled:2M"]
    whole = run.rows()[0]["ppl"]
    assert table.rows[0] == ("none", f"{whole:.2f}", "", "", "", "", "")


def test_in_80_columns_a_long_name_is_broken_before_its_recovery(tmp_path):
    plan = Plan((1, 2, 4))
    halved = {plan: 1.0}.get
    run = load_run(
        write_run(
            tmp_path / "run",
            plans=[Plan(), plan],
            comparing=True,
            bridged=halved,
            recovered={"distilled:8M,lora": halved},
        )
    )
    console = Console(width=80, file=io.StringIO())
    console.print(rich_table(recovered_table(analyse(run))))
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    at = lines.index("distilled:8M,lora")
    assert lines[at - 1].startswith("1+2+4  ") and lines[at - 2].startswith("1+2+4 bridged  ")


def test_a_sweep_ends_with_what_was_won_and_whether_the_choice_changes(tmp_path, capsys):
    _show_recovered(analyse(run_of(tmp_path)))
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("Recovered models Removed PPL Ratio ")
    assert "of 5 models 5 are clearly better, 0 clearly worse" in said
    assert "Of 5 sets of 1 block, 5 costs least bridged, and distilled:2M too." in said
    _show_recovered(analyse(run_of(tmp_path / "plain", recovered={})))
    assert capsys.readouterr().out == ""


def test_what_was_trained_is_drawn_behind_the_bridged_one_and_the_best_of_several(tmp_path):
    further = {"distilled:8M": lambda plan: 0.01 if plan == Plan((5,)) else None}
    recovered = {DISTILLED: lambda plan: TRAINED.get(plan), **further}
    run = run_of(tmp_path, recovered=recovered)
    figure = perplexity_bridged(run, analyse(run))
    axes, ppl = figure.axes[0], run.frame().set_index("variant")["ppl"]
    diamonds = axes.collections[-1].get_offsets()[:, 0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    forms = ["distilled:8M" if name == "5" else DISTILLED for name in names]
    wanted = [ppl[f"{name}~{form}"] for name, form in zip(names, forms, strict=True)]
    assert diamonds.tolist() == pytest.approx(wanted)
    first = [ppl["5"], ppl["5~bridged"], ppl["5~distilled:8M"]]
    assert axes.texts[0].get_text().startswith(" → ".join(map(format_ppl, first)))


def test_the_card_of_a_trained_model_has_its_intervals(tmp_path):
    run = run_of(tmp_path, n_windows=60)
    (variant,) = trained(5)
    row = next(row for row in analyse(run).recovered if row.variant == variant)
    numbers = card_numbers(run, variant, run.facts.model.weights_sha256)
    assert numbers["perplexity"] == pytest.approx(row.ppl.value)
    low, high = numbers["perplexity, 95 % interval"].split(" to ")
    assert (float(low), float(high)) == pytest.approx((row.ppl.low, row.ppl.high), rel=1e-3)
    assert numbers["perplexity beside the whole model's"] == format_change(row.ratio)
    assert numbers["perplexity beside what it was made from"] == format_change(row.step)


def test_curves_are_drawn_against_tokens_and_seconds_with_start_and_best_look(tmp_path):
    first, second = trained(4, 5)
    run = with_curves(
        run_of(tmp_path, plans=[4, 5]), {first: curve_of(), second: curve_of(60, 41, best=3)}
    )
    figure = training_curves(run, analyse(run))
    by_tokens, by_seconds, legend = figure.axes
    line, circle, dot = by_tokens.lines[3:6]
    assert list(line.get_xdata()) == [0, 500_000, 1_000_000, 1_500_000, 2_000_000]
    assert list(line.get_ydata()) == pytest.approx([exp(p.nats) for p in curve_of(60, 41, best=3)])
    assert (list(circle.get_xdata()), list(dot.get_xdata())) == ([0], [1_500_000])
    assert list(by_seconds.lines[0].get_xdata()) == [0, 30, 60, 90, 120]
    assert [text.get_text() for text in legend.get_legend().get_texts()] == [
        "4 distilled:2M: 50.00 → 40.00",
        "5 distilled:2M: 60.00 → 41.00",
        "whole model: 33.00",
    ]
    assert "Text: a novel, 12 windows." in figure.get_supxlabel()
    assert image(figure, "png").startswith(b"\x89PNG")


def test_trainings_of_very_different_lengths_have_a_logarithmic_axis(tmp_path):
    first, second = trained(4, 5)
    run = run_of(tmp_path, plans=[4, 5])
    curves = {first: curve_of(tokens=500_000), second: curve_of(tokens=32_000_000)}
    figure = training_curves(with_curves(run, curves), analyse(run))
    assert [axes.get_xscale() for axes in figure.axes[:2]] == ["symlog", "linear"]


def test_of_many_curves_the_best_are_drawn_and_what_overflowed_leaves_a_gap(tmp_path):
    run = run_of(tmp_path, plans=[4])
    overflowed = (*curve_of()[:3], replace_nats(curve_of()[3]), replace_nats(curve_of()[4]))
    curves = {
        Variant.parse(f"4~distilled:{number}M"): curve_of(end=30.0 + number)
        for number in range(1, MAX_LINES + 3)
    }
    curves[Variant.parse("4~distilled:1M")] = overflowed
    figure = training_curves(with_curves(run, curves), analyse(run))
    names = [text.get_text() for text in figure.axes[2].get_legend().get_texts()]
    assert len(names) == MAX_LINES + 1 and names[0].startswith("4 distilled:2M")
    said = figure.get_supxlabel().replace("\n", " ")
    assert f"The best {MAX_LINES} of {MAX_LINES + 2} are drawn." in said
    alone = with_curves(run, {Variant.parse("4~distilled:1M"): overflowed})
    assert len(image(training_curves(alone, analyse(alone)), "png")) > 1000


def replace_nats(point):
    return PointFacts(
        step=point.step, tokens=point.tokens, seconds=point.seconds, divergence=None, nats=None
    )


def test_a_run_without_a_training_has_no_curves(tmp_path):
    run = run_of(tmp_path, plans=[4])
    assert training_curves(run, analyse(run)) is None
    assert training_curves(with_curves(run, {trained(4)[0]: ()}), analyse(run)) is None


def test_the_report_begins_with_what_the_recommended_set_costs_when_recovered(tmp_path):
    run = run_of(tmp_path, plans=[4])
    document = build_document(run, analyse(run))
    ppl = {row["variant"]: row["ppl"] for row in run.rows()}
    cost = 100 * (ppl["4~distilled:2M"] / ppl["none"] - 1)
    (said,) = [text for text in document.sections[0].sentences if "Recovered" in text]
    assert said.startswith(f"Recovered further (distilled:2M), block 4 costs +{cost:.1f} % [+")
    assert "gaps bridged where that helps, 1 of them recovered further, on " in document.subtitle
    plain = run_of(tmp_path / "plain", plans=[4], recovered={})
    document = build_document(plain, analyse(plain))
    assert "where that helps, nothing retrained, on " in document.subtitle
    assert not any("Recovered" in text for text in document.sections[0].sentences)


def test_the_report_has_both_sections(tmp_path):
    run = run_of(tmp_path)
    document = build_document(run, analyse(run))
    sections = {section.name: section for section in document.sections}
    assert sections["recovered"].figures == ("training",)
    assert sections["reordered"].title == "Whether recovery changes the choice"
