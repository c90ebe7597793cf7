"""The table at the end of a sweep."""

import io
import re

import pytest
from rich.console import Console

from pruning_kit.cli.terminal import TerminalObserver, describe_run, sweep_table
from pruning_kit.findings.analysis import analyse
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles, subsets
from pruning_kit.reporting.elsewhere import texts_table
from pruning_kit.reporting.formats import rich_table
from pruning_kit.reporting.words.bridging import how_bridged
from pruning_kit.runs.facts import NO_TEXT
from pruning_kit.runs.results import load_run
from tests.synthetic_runs import costs_of, synthetic_timings, write_run


def shown(run, mode):
    console = Console(file=io.StringIO(), width=80)
    console.print(rich_table(sweep_table(run, analyse(run), mode, saved=True)))
    return console.file.getvalue()


def names(text):
    rows = [line.split() for line in text.splitlines() if line[:1].isdigit()]
    return [f"{row[0]} *" if row[1] == "*" else row[0] for row in rows]


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    def get(plans, n_blocks=6, **options):
        folder = tmp_path_factory.mktemp("run") / "run"
        return load_run(write_run(folder, n_blocks, plans, **options))

    return get


def test_single_blocks_stand_in_their_order_with_the_best_starred(run_of):
    text = shown(run_of([Plan(), *singles(6)]), "sequential")
    assert names(text) == ["0", "1", "2", "3 *", "4", "5"]
    assert "* lowest perplexity of its size" in " ".join(text.split())


def test_of_many_plans_the_best_of_each_size_are_shown_in_every_mode(run_of):
    run = run_of([Plan(), *singles(12), *subsets(12, [2, 3])], n_blocks=12, timed=False)
    for mode in ("sequential", "combinatorial"):
        found = names(shown(run, mode))
        assert len(found) == 15 and sum(name.endswith("*") for name in found) == 3
        assert [found[i].endswith("*") for i in (0, 5, 10)] == [True] * 3


def test_a_deep_set_is_whole_in_its_row_and_broken_behind_plus_signs_only(run_of):
    scattered, together = Plan(tuple(range(1, 48, 2))), Plan(tuple(range(12, 36)))
    run = run_of([Plan(), *singles(48), scattered, together], n_blocks=48)
    text = shown(run, "combinatorial")
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    assert "\n12-35" in text
    first = [line[:20].split(" ")[0] for line in text.splitlines() if line[:1].isdigit()]
    assert scattered.short in "".join(first)
    assert all(re.fullmatch(r"[\d+-]+", line) for line in first)
    assert "+1\n" not in "\n".join(first[:-1])


def test_the_star_belongs_to_the_text_chosen_on(run_of):
    run = run_of([Plan(), *singles(6)], selection=True)
    text = " ".join(shown(run, "sequential").split())
    assert (
        "* lowest perplexity of its size on WikiText-2 raw, valid, which plans are chosen" in text
    )


def test_what_a_plan_costs_stands_in_its_row_also_against_the_whole_model(run_of):
    run = run_of([Plan(), *singles(6)], comparing=True)
    text = shown(run, "sequential")
    heading = next(line for line in text.splitlines() if line.startswith("Removed"))
    headings = ["Removed", "PPL", "Ratio", "95 % interval", "KL", "Params", "ms", "Ratio"]
    assert re.split("  +", heading) == headings
    frame = run.frame().set_index("removed")
    line = next(line for line in text.splitlines() if line.startswith("3 *"))
    row = frame.loc["3"]
    for value in (f"{row['ppl']:.2f}", f"{row['kl_nats']:.3f}", f"{row['params_m']:.2f}"):
        assert value in line.split()
    assert f"{1 + row['ppl_change_pct'] / 100:.3f}" in line.split()
    assert f" {1 + row['speed_change_pct'] / 100:.3f}" == line[-6:]


def left_by_bridges(plan):
    """Of block 5 next to nothing, of others a third; sets without block 0 have no bridge."""
    kept = Plan(tuple(block for block in plan.removed if block != 5))
    return costs_of(6)(kept) / 3 + 0.01 if plan.size and 0 not in plan.removed else None


def test_the_bridged_perplexity_stands_beside_the_one_as_cut_and_ratios_are_its(run_of):
    run = run_of([Plan(), *singles(6)], comparing=True, bridged=left_by_bridges)
    text = shown(run, "sequential")
    heading = next(line for line in text.splitlines() if line.startswith("Removed"))
    assert heading.split()[:4] == ["Removed", "PPL", "Bridged", "Ratio"]
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    assert names(text) == ["0", "1", "2", "3", "4", "5 *"]
    frame = run.frame().set_index("variant")
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line[:1].isdigit()}
    cells = lines["5"][2:]
    assert cells[:2] == [f"{frame.loc[v, 'ppl']:.2f}" for v in ("5", "5~bridged")]
    assert cells[2] == f"{1 + frame.loc['5~bridged', 'ppl_change_pct'] / 100:.3f}"
    assert cells[6] == f"{frame.loc['5~bridged', 'kl_nats']:.3f}"
    assert lines["0"][1:3] == [f"{frame.loc['0', 'ppl']:.0f}", lines["0"][2]]
    assert float(lines["0"][2]) == pytest.approx(
        1 + frame.loc["0", "ppl_change_pct"] / 100, rel=1e-3
    )
    assert "of the bridged model where there is one" in " ".join(text.split())


def test_what_bridges_were_fitted_on_and_why_there_are_none_is_a_line(run_of):
    plans = [Plan(), *singles(6), Plan((1, 2))]
    (line,) = how_bridged(run_of(plans, bridged=left_by_bridges))
    assert line == (
        "Bridges are fitted on A novel (fitting part), 54,177 tokens; 1 of 7 sets has no bridged "
        "row (1 with no block before a gap to bear it)."
    )
    partly = {plan: left_by_bridges(plan) for plan in (Plan((1,)), Plan((1, 2)))}
    (line,) = how_bridged(run_of(plans, bridged=partly.get))
    assert line.endswith(
        "; 5 of 7 sets have no bridged row (4 would not be better with it, 1 with no block before "
        "a gap to bear it)."
    )
    why = NO_TEXT.format("WikiText-2 raw, test")
    (line,) = how_bridged(run_of(plans, changes={"unbridged": why}))
    assert line == (
        "Gaps are not bridged: no text to fit bridges on belongs to WikiText-2 raw, test. For "
        "bridges name a text to fit them on, which is never reported: `--calibrate-on TEXT`."
    )
    (line,) = how_bridged(run_of(plans, changes={"unbridged": "it was not asked for"}))
    assert line == "Gaps are not bridged: it was not asked for."
    assert how_bridged(run_of(plans)) == []


@pytest.mark.parametrize("bridges", [False, True])
def test_a_wide_table_keeps_to_80_columns(run_of, bridges):
    plans = [Plan(), *singles(48), Plan((0, 3, 5, 9, 20)), Plan(tuple(range(1, 48, 2)))]
    cost = dict(zip(plans, [0, *range(1, 49), 60, 90], strict=True))
    bridged = {plan: cost[plan] / 11 for plan in plans[2:]}.get if bridges else None
    run = run_of(
        plans, n_blocks=48, comparing=True, cost=lambda plan: cost[plan] / 10, bridged=bridged
    )
    text = shown(run, "combinatorial")
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text


def test_milliseconds_of_too_few_rounds_stand_without_a_claim(run_of):
    plans = [Plan(), *singles(6)]
    run = run_of(plans, timings=synthetic_timings(plans, 6, n_rounds=3))
    line = next(line for line in shown(run, "sequential").splitlines() if line.startswith("4"))
    assert line.split()[-1] == "unclear" and "±" not in line
    assert float(line.split()[-2]) == pytest.approx(353, rel=0.05)


@pytest.mark.parametrize("n_texts", [1, 2])
def test_other_texts_have_a_table_of_their_own_with_clear_differences_marked(run_of, n_texts):
    cost = costs_of(6)
    dearer = [lambda plan: cost(plan) + 0.2 * (3 in plan.removed), cost][:n_texts]
    run = run_of([Plan(), *singles(6)], also_on=dearer)
    analysis = analyse(run)
    console = Console(file=io.StringIO(), width=80)
    console.print(rich_table(texts_table(analysis)))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80 and "novel.txt" in text
    rows = {line.split()[0]: line for line in text.splitlines() if line[:1].isdigit()}
    assert list(rows) == [
        str(row.plan) for row in sorted(analysis.rows[1:], key=lambda r: r.selection_ratio)
    ]
    assert [block for block, row in rows.items() if "≠" in row] == ["3"]
    assert "≠ clearly another than on" in " ".join(text.split())
    assert describe_run(run)[2].startswith("Also on: novel.txt; 61,539 tokens scored")


def test_other_texts_without_clear_differences_need_no_mark_explained(run_of):
    console = Console(file=io.StringIO(), width=80)
    run = run_of([Plan(), *singles(6)], also_on=[costs_of(6)] * 2)
    console.print(rich_table(texts_table(analyse(run))))
    assert "≠" not in console.file.getvalue()


def test_progress_that_nobody_looks_at_leaves_no_line():
    console = Console(file=io.StringIO(), width=80)
    for _ in range(3):
        with TerminalObserver(console).track("search, a novel", 2) as advance:
            advance(2)
    assert console.file.getvalue() == ""
