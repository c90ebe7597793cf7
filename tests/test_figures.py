"""Figures: what they show, for ordinary and for extreme runs. Looks are checked by eye."""

import math
from dataclasses import replace

import matplotlib.colors
import numpy as np
import pytest

from pruning_kit.findings.analysis import analyse
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles
from pruning_kit.reporting.figures import (
    OF_EVERY_SWEEP,
    bars,
    interaction_matrix,
    pair_heatmap,
    perplexity_bars,
    perplexity_bridged,
    perplexity_by_removed_block,
    perplexity_by_size,
    save_figures,
    scales,
    shapley_values,
    speed_against_perplexity,
)
from pruning_kit.reporting.figures.canvas import image
from pruning_kit.reporting.figures.catalogue import FIGURES, draw_all
from pruning_kit.reporting.figures.front import colour_scale, quantities_across
from pruning_kit.reporting.words.numbers import format_ppl
from pruning_kit.runs.results import load_run
from tests.synthetic_runs import costs_of, write_run

FEW = [Plan(), *singles(6), Plan((1, 3)), Plan((2, 3))]


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    def get(**options):
        return load_run(write_run(tmp_path_factory.mktemp("run") / "run", **options))

    return get


@pytest.fixture(scope="module")
def full(run_of):
    return run_of()


@pytest.fixture(scope="module")
def analysis(full):
    return analyse(full)


@pytest.fixture(scope="module")
def bridged(run_of):
    """Bridges leave a third of each cost, and next to nothing of that of the last block."""

    def left(plan):
        kept = Plan(tuple(block for block in plan.removed if block != 5))
        return costs_of(6)(kept) / 3 + 0.01 if plan.size and 0 not in plan.removed else None

    return run_of(bridged=left)


def lengths(figure):
    return [patch.get_width() for patch in figure.axes[0].patches]


def labels(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def caption(figure):
    return figure.get_supxlabel().replace("\n", " ")


def test_bars_have_the_length_of_the_perplexities_and_say_them(run_of):
    run = run_of(plans=FEW, cost=lambda plan: 0.1 * plan.size)
    figure = perplexity_bars(run)
    frame = run.frame().sort_values(["blocks", "ppl"], ascending=[False, True])
    assert lengths(figure) == pytest.approx(frame["ppl"].tolist())
    assert ticks(figure.axes[0].yaxis)[0] == "whole model"
    assert labels(figure)[0] == f"{frame['ppl'].iloc[0]:.2f}"
    assert "(+10." in labels(figure)[1] and figure.axes[0].get_xscale() == "linear"


def test_exploding_perplexities_get_a_logarithmic_axis_with_bars_from_the_whole_model(full):
    axes = perplexity_bars(full).axes[0]
    assert axes.get_xscale() == "log"
    base = full.frame().set_index("removed").loc["none", "ppl"]
    assert {round(patch.get_x(), 6) for patch in axes.patches} == {round(base, 6)}


def test_of_many_plans_the_singles_and_the_best_of_each_size_are_shown(full):
    names = ticks(perplexity_bars(full).axes[0].yaxis)
    assert 18 <= len(names) <= bars.MAX_BARS
    assert set(map(str, range(6))) < set(names) and {"1+3", "1-5"} < set(names)
    assert "and every single block, out of 63 plans" in caption(perplexity_bars(full))


@pytest.mark.parametrize("n_blocks", [30, 80])
def test_deep_models_have_every_single_block_in_a_panel_of_its_own(run_of, n_blocks):
    deep = Plan(tuple(range(1, n_blocks - 1)))
    run = run_of(n_blocks=n_blocks, plans=[Plan(), *singles(n_blocks), deep], timed=False)
    figure = perplexity_bars(run)
    above, below = figure.axes
    frame = run.frame().set_index("removed")["ppl"]
    centres = [patch.get_x() + patch.get_width() / 2 for patch in above.patches]
    tops = [patch.get_y() + patch.get_height() for patch in above.patches]
    assert centres == pytest.approx(range(n_blocks))
    assert tops == pytest.approx([frame[str(block)] for block in range(n_blocks)])
    assert f"{frame['0']:,.0f}" in [text.get_text() for text in above.texts]
    assert ticks(below.yaxis) == ["whole model", "5", f"1-{n_blocks - 2}"]
    assert "and every single block" not in caption(figure) or "best plans" in caption(figure)


def test_single_blocks_alone_need_no_second_panel(run_of):
    figure = perplexity_bars(run_of(n_blocks=30, plans=[Plan(), *singles(30)], timed=False))
    (axes,) = figure.axes
    assert len(axes.patches) == 30 and "best plan" not in caption(figure)


def test_of_more_sizes_than_bars_the_smallest_are_shown_and_said(run_of):
    first = [Plan(tuple(range(1, 1 + size))) for size in range(2, 40)]
    figure = perplexity_bars(run_of(n_blocks=48, plans=[Plan(), *singles(48), *first]))
    assert len(ticks(figure.axes[1].yaxis)) == bars.MAX_BARS
    assert "The best plan of each of the 24 smallest sizes and every single block" in caption(
        figure
    )


def test_a_failed_plan_has_a_name_and_no_bar(run_of):
    run = run_of(plans=FEW, failed=[Plan((0,))])
    figure = perplexity_bars(run)
    at = ticks(figure.axes[0].yaxis).index("0")
    assert lengths(figure)[at] == 0 and labels(figure)[at] == "failed: not finite"
    scatter = speed_against_perplexity(run, analyse(run))
    assert "1 failed plans are not drawn." in caption(scatter)


@pytest.mark.parametrize(
    ("removed", "label"),
    [
        ("none", "whole model"),
        ("1+3", "1+3"),
        ("0+1+2+3", "0-3"),
        ("1+2+3+5+6+8+9+10", "1-3+5+6+8-10"),
        (
            "0+2+4+6+8+10+12+14+16+18+20+22+24",
            "0+2+4+6+8+10+12+14+16+\n18+20+22+24",
        ),
    ],
)
def test_plans_are_written_whole_and_with_ranges(removed, label):
    assert bars.plan_label(removed) == label


def test_colours_are_those_of_the_sizes_that_occur(run_of):
    run = run_of(n_blocks=80, plans=[Plan(), *singles(80), Plan((3, 9)), Plan(tuple(range(40)))])
    figure = speed_against_perplexity(run, analyse(run))
    points, legend = figure.axes[0].collections[0], figure.axes[1]
    colours = {tuple(points.cmap(points.norm(size))) for size in (0, 1, 2, 40)}
    assert len(colours) == 4
    apart = [matplotlib.colors.rgb_to_hsv(c[:3])[2] for c in sorted(colours)]
    assert max(apart) - min(apart) > 0.5
    assert ticks(legend.yaxis) == ["0", "1", "2", "40"]
    slope = colour_scale(range(3, 60))
    assert (slope(3), slope(59)) == (0, 1)


def test_a_long_name_beside_a_point_gives_way_to_the_number_of_blocks(run_of):
    scattered = Plan(tuple(range(1, 48, 2)))
    run = run_of(
        n_blocks=48,
        plans=[Plan(), Plan((4,)), Plan((4, 5, 6)), scattered, Plan(tuple(range(1, 42)))],
    )
    axes = speed_against_perplexity(run, analyse(run)).axes[0]
    assert {"24 blocks", "4-6"} <= {text.get_text() for text in axes.texts}


def test_the_scatter_rings_the_front_with_its_intervals(full, analysis):
    axes = speed_against_perplexity(full, analysis).axes[0]
    ringed = [tuple(point) for point in axes.collections[-1].get_offsets()]
    front = [(1e3 * row.latency.median_s, row.ppl.value) for row in analysis.front]
    assert np.array(sorted(ringed)) == pytest.approx(np.array(sorted(front)))
    assert len(front) == 6
    assert "whole model" in [text.get_text() for text in axes.texts]
    assert axes.get_xlabel() == "Latency, end to end (ms)"
    assert len(axes.lines) == 1 + 2 * len(front)  # the step, and two intervals of each


def test_the_scatter_rings_what_was_chosen_on_the_other_text_and_says_so(run_of):
    """Blocks 1 and 3 change places on the text chosen on."""
    run = run_of(selection=True)
    order = [run.plans.index(plan) for plan in run.plans]
    one, three = run.plans.index(Plan((1,))), run.plans.index(Plan((3,)))
    order[one], order[three] = three, one
    run = replace(run, sums=run.sums | {("nll", "selection"): run.nll("selection")[order]})
    analysis = analyse(run)
    figure = speed_against_perplexity(run, analysis)
    ringed = {round(float(y), 6) for _, y in figure.axes[0].collections[-1].get_offsets()}
    assert ringed == {round(row.ppl.value, 6) for row in analysis.front}
    assert Plan((1,)) in {row.plan for row in analysis.front}
    assert analysis.row[Plan((1,))].ppl.value > analysis.row[Plan((3,))].ppl.value
    assert (
        "The front was chosen on valid and is drawn at the perplexity on test, so a plan on it "
        "need not lie lowest."
    ) in caption(figure)


def test_without_timings_the_scatter_is_of_parameters_and_says_so(run_of):
    run = run_of(plans=FEW, timed=False)
    figure = speed_against_perplexity(run, analyse(run))
    assert figure.axes[0].get_xlabel() == "Parameters (millions)"
    assert "no latency was measured" in figure.get_suptitle()


@pytest.mark.parametrize("plans", [[Plan()], [Plan(), *singles(6)]])
def test_plans_that_nothing_tells_apart_but_perplexity_have_no_scatter(run_of, plans):
    run = run_of(plans=plans, timed=False)
    analysis = analyse(run)
    assert quantities_across(analysis) == []
    assert speed_against_perplexity(run, analysis) is None
    assert (perplexity_bars(run) is None) == (len(plans) == 1)


def test_captions_name_model_text_and_protocol_and_what_was_substituted(run_of):
    changes = {"texts.reported.part": "first 8 of 561 windows"}
    run = run_of(plans=FEW, model="demo", changes=changes)
    text = caption(perplexity_bars(run))
    assert "Model: demo (6 blocks). Text: WikiText-2 raw, test, first 8 of 561 windows;" in text
    assert "61,539 tokens scored, context 1024, stride 512." in text
    assert "not distilgpt2" in text


@pytest.mark.parametrize("name", ["a_{b}$c^$d", "<b>&amp;", "模型", "x" * 300])
def test_any_name_can_be_drawn(run_of, name):
    run = run_of(plans=FEW, model=name)
    assert image(perplexity_bars(run), "svg").startswith(b"<?xml")
    assert name[:20] in caption(perplexity_bars(run))


def test_figures_are_written_whole_as_png_and_svg_and_always_the_same(run_of, tmp_path):
    run = run_of(plans=FEW)
    analysis = analyse(run)
    paths = save_figures(run, analysis, tmp_path, OF_EVERY_SWEEP)
    names = ["perplexity.png", "perplexity.svg", "speed.png", "speed.svg"]
    assert [path.name for path in paths] == names == sorted(f.name for f in tmp_path.iterdir())
    first = [path.read_bytes() for path in paths]
    assert first[0].startswith(b"\x89PNG") and b"<svg" in first[1]
    assert [
        path.read_bytes() for path in save_figures(run, analysis, tmp_path, OF_EVERY_SWEEP)
    ] == first
    alone = run_of(plans=[Plan()], timed=False)
    assert save_figures(alone, analyse(alone), tmp_path, OF_EVERY_SWEEP) == []
    assert list(tmp_path.iterdir()) == []  # none that shows what results.csv no longer holds


@pytest.mark.parametrize(
    "options",
    [
        {"plans": [Plan()], "timed": False},
        {"plans": FEW, "failed": FEW, "timed": False},
        {"plans": FEW, "cost": lambda plan: 800.0 * plan.size},
        {"plans": FEW, "n_windows": 20},
        {"n_blocks": 1},
    ],
)
def test_extreme_runs_are_drawn_without_a_warning(run_of, options):
    run = run_of(**options)
    analysis = analyse(run)
    drawn = draw_all(run, analysis).values()
    assert all(len(image(figure, "png")) > 1000 for figure in drawn)


def test_a_full_run_has_every_figure_and_a_bare_one_none(full, analysis, bridged, run_of):
    elsewhere = {"training", "search"}  # see test_recovered_report.py and test_screening.py
    drawn = [name for name in FIGURES if name not in elsewhere]
    assert list(draw_all(bridged, analyse(bridged))) == drawn
    assert set(FIGURES) - draw_all(full, analysis).keys() == {"bridging", *elsewhere}
    bare = run_of(plans=[Plan()], timed=False)
    assert draw_all(bare, analyse(bare)) == {}


def test_what_bridging_changes_is_drawn_from_as_cut_to_bridged_with_both_numbers(bridged):
    analysis = analyse(bridged)
    figure = perplexity_bridged(bridged, analysis)
    axes = figure.axes[0]
    sizes = analysis.bridging.sizes
    names = ["5", *(size.best.short for size in sizes[1:])]
    assert ticks(axes.yaxis)[0] == "5" and ticks(axes.yaxis)[5:] == names[1:]
    assert set(ticks(axes.yaxis)[:5]) == set("12345")
    circles, dots = (points.get_offsets()[:, 0] for points in axes.collections[1:3])
    frame = bridged.frame().set_index("variant")["ppl"]
    for name, cut, after, label in zip(
        ticks(axes.yaxis), circles, dots, labels(figure), strict=False
    ):
        plan = Plan.parse(name)
        assert cut == pytest.approx(frame[str(plan)])
        assert after == pytest.approx(frame[f"{plan}~bridged"])
        assert label.startswith(f"{format_ppl(cut)} → {format_ppl(after)}")
    assert labels(figure)[0].endswith(", rank 5 → 1")
    assert labels(figure)[-1] == f"whole model {format_ppl(frame['none'])}"
    assert axes.get_xscale() == "log"


def test_figures_of_bridged_plans_say_so_and_bars_that_they_are_as_cut(bridged):
    analysis = analyse(bridged)
    assert perplexity_bars(bridged).get_suptitle().endswith(", as cut")
    for name, figure in draw_all(bridged, analysis).items():
        said = "Gaps are bridged where that helps." in caption(figure)
        assert said == (name not in ("perplexity", "bridging")), name
    heights = [
        patch.get_height()
        for patch in perplexity_by_removed_block(bridged, analysis).axes[0].patches
    ]
    whole = analysis.row[Plan()].ppl.value
    assert heights[5] + whole == pytest.approx(
        bridged.frame().set_index("variant")["ppl"]["5~bridged"]
    )
    as_cut = analyse(bridged, cost="as cut")
    assert "bridged" not in caption(perplexity_by_removed_block(bridged, as_cut))


def test_single_removals_are_drawn_with_their_intervals(full, analysis):
    axes = perplexity_by_removed_block(full, analysis).axes[0]
    tops = [patch.get_y() + patch.get_height() for patch in axes.patches]
    assert tops == pytest.approx([analysis.row[Plan((b,))].ppl.value for b in range(6)])
    ends = [line.get_ydata() for line in axes.lines if len(set(line.get_xdata())) == 1]
    expected = [[r.low, r.high] for b in range(6) for r in [analysis.row[Plan((b,))].ppl]]
    assert np.array(ends) == pytest.approx(np.array(expected))


def test_the_heat_map_holds_singles_and_pairs_and_leaves_the_rest_blank(full, analysis):
    axes = pair_heatmap(full, analysis).axes[0]
    shown = np.ma.filled(axes.images[0].get_array().astype(float), math.nan)
    assert np.isnan(shown[np.triu_indices(6, 1)]).all()
    assert shown[3, 1] == pytest.approx(analysis.row[Plan((1, 3))].ppl.value)
    assert shown[2, 2] == pytest.approx(analysis.row[Plan((2,))].ppl.value)
    assert isinstance(axes.images[0].norm, matplotlib.colors.LogNorm)


def test_the_interaction_matrix_frames_what_is_clear(full, analysis):
    axes = interaction_matrix(full, analysis).axes[0]
    at = {(round(p.get_x() + 0.46), round(p.get_y() + 0.46)): p for p in axes.patches}
    framed = {pair for pair, patch in at.items() if not patch.get_fill()}
    grey = {pair for pair, patch in at.items() if patch.get_fill()}
    clear = {(p.first, p.second) for p in analysis.interactions if p.is_clear}
    assert analysis.ruinous == (0,) and grey == {(0, other) for other in range(1, 6)}
    assert framed == clear - grey and (1, 2) in framed
    texts = {text.get_text(): text.get_color() for text in axes.texts}
    assert texts["+1.50"] == scales.GREY and texts["+0.15"] != scales.GREY


def test_fewer_than_three_pairs_make_no_matrix(run_of):
    run = run_of(plans=FEW)
    assert {"pairs", "interactions"} & set(draw_all(run, analyse(run))) == set()


def test_shapley_bars_stand_in_their_order_with_intervals(full, analysis):
    figure = shapley_values(full, analysis)
    order = analysis.shapley.ranking.blocks
    assert ticks(figure.axes[0].yaxis) == [str(block) for block in order]
    assert lengths(figure) == pytest.approx([analysis.shapley.values[b].value for b in order])
    assert "Exact, from all plans." in caption(figure)


def test_sizes_are_drawn_from_the_text_chosen_on(run_of):
    run = run_of(selection=True)
    analysis = analyse(run)
    figure = perplexity_by_size(run, analysis)
    best = next(line for line in figure.axes[0].lines if line.get_color() == scales.BLUE)
    expected = [1.0, *(analysis.row[size.best].selection_ratio for size in analysis.sizes)]
    assert list(best.get_ydata()) == pytest.approx(expected)
    assert "Text: WikiText-2 raw, valid; 61,539 tokens scored" in caption(figure)
    assert figure.get_suptitle() == "Perplexity on valid by number of blocks removed"
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["first", "last", "alternate", "contiguous", "random"]


def test_sizes_of_one_measured_set_each_are_not_drawn(run_of):
    run = run_of(plans=[Plan(), Plan((1,)), Plan((1, 2)), Plan((1, 2, 3))])
    assert perplexity_by_size(run, analyse(run)) is None


def test_fixed_strategies_stand_beside_each_other(full, analysis):
    axes = perplexity_by_size(full, analysis).axes[0]
    marked = [line for line in axes.lines if line.get_color() == scales.GREEN]
    aside = [round(float(line.get_xdata()[0]) - 1, 6) for line in marked]
    assert aside == [-0.2, -0.1, 0, 0.1, 0.2]


def test_thousands_of_plans_stay_a_small_file(run_of):
    run = run_of(n_blocks=12, cost=costs_of(12))
    scatter = speed_against_perplexity(run, analyse(run))
    assert len(image(scatter, "svg")) < 400_000
