"""Comparisons: paired where windows are the same, plain where not; published figures quoted."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from pruning_kit.errors import RunError
from pruning_kit.findings.comparison import (
    NoSpeed,
    Unpaired,
    compare_runs,
    order_agreement,
    why_unpaired,
)
from pruning_kit.findings.published import compare_published, published_rows
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles
from pruning_kit.reporting import formats
from pruning_kit.reporting.comparison import comparison_document, published_document
from pruning_kit.runs.results import load_run
from pruning_kit.speed.stored_timings import from_json, to_json
from tests.synthetic_runs import costs_of, synthetic_timings, write_run

FEW = [Plan(), *singles(6), Plan((1, 3)), Plan((2, 3))]


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    def get(name="run", plans=FEW, **options):
        return load_run(write_run(tmp_path_factory.mktemp("base") / name, plans=plans, **options))

    return get


@pytest.fixture(scope="module")
def run(run_of):
    return run_of("first")


def shifted(run, shift, noise=0.0, seed=0):
    """The same run with `shift` nats per token more for plans without block 2, and noise."""
    generator = np.random.default_rng(seed)
    nll = run.nll().copy()
    more = np.array([shift * (2 in plan.removed) for plan in run.plans])
    nll += (more[:, None] + noise * generator.standard_normal(nll.shape)) * run.targets()
    return replace(run, sums={("nll", "reported"): nll})


def test_a_run_agrees_with_itself_to_the_last_bit(run):
    comparison = compare_runs(run, run)
    assert comparison.largest_difference == 0 and comparison.differences == ()
    assert all(row.ratio.value == 1 and not row.differs for row in comparison.rows)
    text = formats.plain_text(comparison_document(comparison))
    assert "all sums of the 9 plans agree to the last bit" in text
    assert "Nothing that was recorded." in text


def test_further_texts_are_named_where_they_differ(run, run_of):
    other = run_of("also", also_on=[costs_of(6)])
    (difference,) = compare_runs(run, other).differences
    assert (difference.name, difference.first) == ("further texts", "none")
    assert difference.second == f"novel.txt ({'d3' * 6})"
    assert compare_runs(other, other).differences == ()


def test_a_small_change_on_the_same_windows_is_found_and_no_other(run):
    comparison = compare_runs(run, shifted(run, 0.004, noise=0.002))
    assert {row.plan for row in comparison.rows if row.differs} == {Plan((2,)), Plan((2, 3))}
    text = " ".join(formats.plain_text(comparison_document(comparison)).split())
    assert 0.001 < comparison.largest_difference < 0.004
    assert f"at most {comparison.largest_difference:.0e}, relative to their size." in text
    row = next(row for row in comparison.rows if row.plan == Plan((2,)))
    assert row.ratio.low < math.exp(0.004) < row.ratio.high
    width = row.ratio.high - row.ratio.low
    assert width < 0.01 < row.first.ppl * 0.01


def test_turning_two_runs_round_inverts_the_ratios(run):
    other = shifted(run, 0.004, noise=0.002)
    forth, back = compare_runs(run, other), compare_runs(other, run)
    for one, two in zip(forth.rows, back.rows, strict=True):
        assert one.ratio.value * two.ratio.value == pytest.approx(1)
        assert one.ratio.low * two.ratio.high == pytest.approx(1)
        assert one.differs == two.differs


@pytest.mark.parametrize(
    ("options", "changes", "why", "because"),
    [
        ({}, {"texts.reported.sha256": "dd" * 32}, Unpaired.TEXT, "the texts differ"),
        ({}, {"texts.reported.n_tokens": 5}, Unpaired.TOKENIZER, "the tokenizers differ"),
        ({}, {"protocol.stride": 256}, Unpaired.WINDOWS, "context or stride differ"),
        ({}, {"protocol.bos": 3}, Unpaired.BOS, "the windows of one begin with BOS"),
        ({"n_windows": 100}, {}, Unpaired.PART, "different parts of the text were scored"),
    ],
)
def test_other_windows_are_not_paired(run, run_of, options, changes, why, because):
    as_many = {"texts.reported.n_tokens": run.facts.texts["reported"].n_tokens}
    other = run_of("second", changes=as_many | changes, **options)
    assert why_unpaired(run, other) is why
    comparison = compare_runs(run, other)
    assert math.isnan(comparison.largest_difference)
    assert all(row.adjusted_p is None and row.ratio.low is None for row in comparison.rows)
    text = formats.plain_text(comparison_document(comparison))
    assert f"not paired, because {because}" in " ".join(text.split())
    assert "Bits/byte" in text and max(map(len, text.splitlines())) <= 80


def test_bits_per_byte_are_compared_whatever_the_tokens(run):
    side = compare_runs(run, run).rows[0].first
    frame = run.frame().set_index("removed")
    assert side.bits_per_byte == pytest.approx(frame.loc["none", "bits_per_byte"])
    assert side.ppl == pytest.approx(frame.loc["none", "ppl"]) and side.change == 1


def test_bridged_runs_are_compared_as_cut_and_that_is_said(run, run_of):
    bridged = run_of("bridged", bridged=lambda plan: 0.1 if plan.size else None)
    comparison = compare_runs(run, bridged)
    assert comparison.rows == compare_runs(run, run).rows and comparison.n_only_second == 0
    said = "Plans are compared as cut; bridged rows are left out."
    assert said in comparison_document(comparison).notes
    published = compare_published(bridged)
    assert published.rows == compare_published(run).rows
    assert said in published_document(published).notes
    assert said not in published_document(compare_published(run)).notes


def test_with_few_windows_nothing_is_tested_and_that_is_said(run_of):
    run = run_of(n_windows=30)
    text = formats.plain_text(comparison_document(compare_runs(run, shifted(run, 0.1))))
    assert "Nothing was tested (no interval: 30 windows, at least 50 needed)." in text


def test_kl_and_agreement_are_compared_where_both_runs_have_them(run, run_of):
    one = run_of("one", comparing=True)
    other = replace(one, sums=one.sums | {("kl", "reported"): one.sums["kl", "reported"] * 1.5})
    comparison = compare_runs(one, other)
    row = next(row for row in comparison.rows if row.plan == Plan((1, 3)))
    assert row.second.kl == pytest.approx(1.5 * row.first.kl)
    assert row.kl_change.low < row.second.kl - row.first.kl < row.kl_change.high
    (table,) = (s.table for s in comparison_document(comparison).sections if s.name == "kl")
    cells = next(cells for cells in table.rows if cells[0] == "1+3")
    assert cells[1:4] == (
        f"{row.first.kl:.3f}",
        f"{row.second.kl:.3f}",
        f"{row.second.kl - row.first.kl:.3f}",
    )
    assert cells[5:] == (f"{row.first.agreement:.3f}",) * 2
    assert max(map(len, formats.plain_text(comparison_document(comparison)).splitlines())) <= 80
    without = comparison_document(compare_runs(one, run))
    assert [section.name for section in without.sections] == ["summary", "differences", "plans"]


def test_what_differs_is_listed_by_name(run, run_of):
    changes = {"numerics.device_name": "NVIDIA H100"}
    other = run_of("second", model="gpt2", changes=changes)
    found = {d.name: (d.first, d.second) for d in compare_runs(run, other).differences}
    assert found == {
        "model": ("distilgpt2", "gpt2"),
        "device_name": ("AMD EPYC 9B14", "NVIDIA H100"),
    }


def test_plans_of_one_run_alone_and_failed_ones_are_left_out(run, run_of):
    other = run_of("second", [*FEW, Plan((0, 5))], failed=[Plan((1, 3))])
    comparison = compare_runs(run, other)
    assert [row.plan for row in comparison.rows] == [p for p in FEW if p != Plan((1, 3))]
    assert (comparison.n_only_first, comparison.n_only_second) == (1, 1)


def test_the_stack_without_any_block_is_no_plan_of_either_run(run, run_of):
    comparison = compare_runs(run, run_of("second", [*FEW, Plan(tuple(range(6)))]))
    assert (comparison.n_only_first, comparison.n_only_second) == (0, 0)


ALONE = (
    "The runs have only the whole model in common, so nothing can be said here of removing blocks: "
    "sweep the same plans in both. Its perplexity is {} in the first ({} bits per byte) and {} in "
    "the second ({} bits per byte)."
)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "Same windows: all sums of the 1 plan agree to the last bit."),
        (
            {"changes": {"texts.reported.sha256": "dd" * 32}},
            "The runs are not paired, because the texts differ: figures stand side by side and no "
            "difference is tested.",
        ),
    ],
)
def test_runs_with_only_the_whole_model_in_common_say_so_without_a_table(
    run, run_of, options, said
):
    comparison = compare_runs(run, run_of("second", [Plan()], **options))
    document = comparison_document(comparison)
    (row,) = comparison.rows
    ppl, bits = f"{row.first.ppl:.2f}", f"{row.first.bits_per_byte:.3f}"
    assert document.subtitle == "1 plan in common, 8 only in the first, 0 only in the second"
    assert [section.name for section in document.sections] == ["summary", "differences"]
    assert document.sections[0].sentences == (
        ALONE.format(ppl, bits, ppl, bits),
        said,
        "Speed is not compared: no pruned model was timed in both runs.",
    )


def test_a_whole_model_that_differs_is_named_as_that(run_of):
    whole = run_of("whole", [Plan()])
    nll = whole.nll() + 0.01 * whole.targets()
    other = replace(whole, sums={("nll", "reported"): nll})
    sentences = comparison_document(compare_runs(whole, other))
    assert sentences.sections[0].sentences[2] == (
        "1 of 1 plan differs clearly between the runs, by a test that holds for all at once: the "
        "whole model."
    )


def test_runs_without_a_common_plan_are_refused(run, run_of):
    other = run_of("second", [Plan()], failed=[Plan()], timed=False)
    with pytest.raises(RunError, match=r"cannot compare .*first with .*second: they have no"):
        compare_runs(run, other)


def test_a_whole_model_that_failed_leaves_the_other_plans(run_of):
    run = run_of("broken", failed=[Plan()])
    comparison = compare_runs(run, run)
    assert len(comparison.rows) == len(FEW) - 1
    assert comparison_document(comparison).sections[2].table is not None


def test_speed_is_compared_by_ratios(run, run_of):
    text = formats.plain_text(comparison_document(compare_runs(run, run)))
    assert (
        "Speed relative to the whole model of the same run was compared for 2 timed plans "
        "(prefill, decode and end to end): the runs nowhere differ clearly."
    ) in " ".join(text.split())
    data = json.loads(json.dumps(to_json(synthetic_timings(FEW, 6, whole_s=0.1))))
    for turn in data["rounds"]:
        values = turn["samples"]["end_to_end_s"]
        values[2] *= 0.5
    comparison = compare_runs(run, run_of("second", timings=from_json(data)))
    assert comparison.speed.disagreeing == [("end_to_end_s", Plan((0,)))]
    text = " ".join(formats.plain_text(comparison_document(comparison)).split())
    assert (
        "(prefill, decode and end to end): 1 of 6 ratios differs clearly between the runs, by "
        "intervals that hold for all at once: end to end without 0."
    ) in text


def test_why_speed_is_not_compared_is_said(run, run_of):
    untimed = run_of("third", timed=False)
    few = replace(run, timings=synthetic_timings(FEW, 6, n_rounds=5))
    for first, second, because in (
        (run, untimed, "the second run has no timings to compare"),
        (untimed, run, "the first run has no timings to compare"),
        (untimed, untimed, "neither run has timings to compare"),
        (run, few, "the second run was timed for 5 rounds only, and at least 8 are needed"),
        (few, run, "the first run was timed for 5 rounds only, and at least 8 are needed"),
    ):
        comparison = compare_runs(first, second)
        assert isinstance(comparison.speed, NoSpeed)
        said = comparison_document(comparison).sections[0].sentences[-1]
        assert said == f"Speed is not compared: {because}."


def test_timings_that_cannot_be_read_are_noted_above_a_comparison(run, run_of):
    folder = run_of("damaged").folder
    (folder / "latency.json").write_text("{}")
    damaged = load_run(folder)
    assert comparison_document(compare_runs(damaged, run)).notes == (
        f"First run: {damaged.timings_note}",
    )
    assert comparison_document(compare_runs(run, damaged)).notes == (
        f"Second run: {damaged.timings_note}",
    )
    assert comparison_document(compare_runs(run, run)).notes == ()


def test_of_thousands_of_plans_those_that_differ_most_are_shown(run_of):
    run = run_of("many", None, timed=False)
    table = comparison_document(compare_runs(run, shifted(run, 0.1))).sections[2].table
    assert len(table.rows) <= 41 and table.rows[0][0] == "none"
    differing = [row for row in table.rows if row[-1] == "yes"]
    assert len(differing) == 31 and all(2 in Plan.parse(row[0]).removed for row in differing)


@pytest.mark.parametrize(
    ("first", "second", "tau"),
    [([1, 2, 3], [2, 4, 9], 1.0), ([1, 2, 3], [9, 4, 2], -1.0), ([1, 2], [1, 2], None)],
)
def test_the_agreement_of_orders(first, second, tau):
    assert order_agreement(first, second) == tau
    assert order_agreement([1, 1, 1], [1, 2, 3]) is None


# --- the published table ----------------------------------------------------------------------


def test_the_published_table_is_read_as_printed():
    rows = {row.plan: row for row in published_rows()}
    assert len(rows) == 15
    assert rows[Plan()].ppl == 39.29 and rows[Plan()].params_m == 81.91
    assert rows[Plan((1, 3))].ppl == 156.42 and rows[Plan((0, 1))].ppl == 195311.70
    assert rows[Plan((0,))].speed_ms == 460.28


def published_costs():
    """A run that reproduces the published perplexities exactly, but for noise."""
    rows = {row.plan: math.log(row.ppl) - math.log(39.29) for row in published_rows()}
    return rows.__getitem__


def test_a_run_that_reproduces_the_table_has_ratios_near_one(run_of):
    plans = [row.plan for row in published_rows()]
    comparison = compare_published(run_of("same", plans, cost=published_costs(), timed=False))
    ratios = [row.ratio for row in comparison.rows]
    assert np.ptp(np.log(ratios)) < 0.02 and comparison.agreement == 1
    assert [row.params_m for row in comparison.rows][:2] == pytest.approx([81.91, 74.82], abs=0.01)
    text = formats.plain_text(published_document(comparison))
    assert "15 of 15 published plans were measured" in text and "quoted" in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_single_published_row_has_a_single_ratio(run_of):
    run = run_of("whole", [Plan()], timed=False)
    sentences = published_document(compare_published(run)).sections[0].sentences
    assert sentences == (
        "1 of 15 published plans was measured; measured perplexity is 0.70 times the published "
        "one.",
    )


def test_published_rows_that_were_not_measured_stay_empty(run):
    table = published_document(compare_published(run)).sections[1].table
    cells = {row[0]: row for row in table.rows}
    assert cells["1+4"][1:4] == ("187", "", "") and cells["1+3"][2] == "50.10"


def test_other_protocols_are_noted(run_of):
    changes = {"protocol.stride": 256, "texts.reported.part": "first 8 of 561 windows"}
    run = run_of("other", changes=changes)
    text = " ".join(published_document(compare_published(run)).notes)
    assert "Sweep with --dataset wikitext2-published" in text
    assert "the table used 512, this run 256" in text and "first 8 of 561 windows" in text


def test_a_copy_of_distilgpt2_under_another_name_is_recognised_and_said(run_of):
    notes = published_document(compare_published(run_of("copy", model="./my-model"))).notes
    assert "./my-model is taken for distilgpt2 by its blocks and parameters." in notes


def test_another_model_is_refused_with_its_facts(run_of):
    run = run_of("demo", [Plan()], n_blocks=4, model="demo", cost=costs_of(4))
    with pytest.raises(RunError) as caught:
        compare_published(run)
    assert str(caught.value) == (
        f"cannot compare {run.folder} with the published table: the table belongs to distilgpt2 "
        "(6 blocks, 81.91 M parameters), this run measured demo (4 blocks, 81.91 M). Sweep "
        "distilgpt2, or compare two runs."
    )


def test_a_run_without_any_published_plan_is_refused(run_of):
    run = run_of("failed", [Plan()], failed=[Plan()], timed=False)
    with pytest.raises(RunError, match="it measured none of its plans"):
        compare_published(run)
