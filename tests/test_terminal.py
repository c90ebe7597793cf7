"""The table at the end of a sweep."""

import io
import re

import pytest
from rich.console import Console

from pruning_kit.cli.terminal import describe_run, sweep_table
from pruning_kit.findings.analysis import analyse
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles, subsets
from pruning_kit.reporting.elsewhere import texts_table
from pruning_kit.reporting.formats import rich_table
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


def test_a_wide_table_keeps_to_80_columns(run_of):
    plans = [Plan(), *singles(48), Plan((0, 3, 5, 9, 20)), Plan(tuple(range(1, 48, 2)))]
    cost = dict(zip(plans, [0, *range(1, 49), 60, 90], strict=True))
    run = run_of(plans, n_blocks=48, comparing=True, cost=lambda plan: cost[plan] / 10)
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
