"""A stored run read back: what its rows and its report tell beside the figures."""

import csv
import json
import math
import shutil
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest
from msgspec import structs

from pruning_kit.errors import PruningKitError, RunError
from pruning_kit.findings.analysis import analyse
from pruning_kit.plans.costs import Cost, judged_by
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles, strategy_plan
from pruning_kit.plans.variant import Variant
from pruning_kit.reporting.formats import render
from pruning_kit.reporting.tables import provenance_table
from pruning_kit.runs import rows
from pruning_kit.runs.facts import VariantFacts
from pruning_kit.runs.results import load_run, write_csv
from pruning_kit.runs.store import RunFolder
from tests.synthetic_runs import costs_of, facts_of, round_of, write_run

PLANS = [Plan(), *singles(6)]


def test_windows_computed_again_in_float32_are_told_in_rows_and_report(stored_run):
    run = stored_run(plans=PLANS, recomputed=True, failed=[Plan((2,))], selection=True)
    assert run.roles == ("reported", "selection") and run.facts.choosing_role == "selection"
    for role in run.roles:
        assert run.recomputed[role].sum(axis=1).tolist() == [50] * len(PLANS)
    notes = run.frame().set_index(["split", "removed"])["note"]
    assert notes["test", "1"] == "50 of 120 windows recomputed in float32"
    assert notes["test", "2"] == (
        "not finite in 1 of 120 windows; 50 of 120 windows recomputed in float32"
    )
    assert (
        "Computed again",
        "50 of 120 windows of WikiText-2 raw, valid were recomputed in float32 after an overflow "
        "in float16",
    ) in provenance_table(run).rows


def test_a_run_without_overflow_has_nothing_to_tell(stored_run):
    run = stored_run(plans=PLANS)
    assert not run.recomputed["reported"].any()
    assert set(run.frame()["note"]) == {""}
    assert "Computed again" not in dict(provenance_table(run).rows)


@pytest.mark.parametrize("seed", [0, 3])
def test_the_random_strategy_is_that_of_the_seed_the_sweep_was_given(stored_run, seed):
    drawn = strategy_plan("random", 6, 2, seed)
    run = stored_run(plans=[*PLANS, drawn], changes={"proposal.seed": seed})
    two = analyse(run).sizes[1]
    assert two.n_removed == 2 and two.strategies["random"] == drawn
    assert strategy_plan("random", 6, 2, 0) != strategy_plan("random", 6, 2, 3)


TIME_AGAIN = "Delete the file and resume the sweep to time again."


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (
            "{",
            "cannot read {0}: it is no valid JSON (Input data was truncated).",
        ),
        ("[1]", "cannot read {0}: it holds no JSON object."),
        (
            '{"schema": 1}',
            "cannot read the timings in {0}: their schema is 1, this version reads 3.",
        ),
        (
            '{"schema": 3}',
            "cannot read the timings in {0}: they lack n_blocks, or hold it in another form.",
        ),
    ],
)
def test_damaged_timings_are_left_out_with_a_note_and_the_sums_are_kept(tmp_path, content, note):
    folder = write_run(tmp_path / "run", plans=PLANS)
    whole = load_run(folder)
    assert whole.timings is not None and whole.timings_note is None
    (folder / "latency.json").write_text(content)
    run = load_run(folder)
    assert run.timings is None
    said = note.format(folder / "latency.json")
    assert run.timings_note == f"Speeds are left out, because the kit {said} {TIME_AGAIN}"
    kept = ["removed", "ppl", "params_m", "status"]
    assert run.frame()[kept].equals(whole.frame()[kept])
    assert run.frame()["speed_ms"].isna().all()


def test_a_run_that_was_not_timed_needs_no_note(tmp_path):
    run = load_run(write_run(tmp_path / "run", plans=PLANS, timed=False))
    assert run.timings is None and run.timings_note is None


@pytest.mark.parametrize(("bound", "shown"), [(0.9, -10.0), (0.0, None), (math.inf, None)])
def test_a_speed_bound_that_too_few_rounds_left_open_is_empty(bound, shown):
    assert rows._percent_if_known(bound) == (None if shown is None else pytest.approx(shown))


def test_timings_that_do_not_fit_together_are_left_out(tmp_path):
    folder = write_run(tmp_path / "run", plans=PLANS)
    timings = json.loads((folder / "latency.json").read_text())
    timings["pools"][1] = []
    (folder / "latency.json").write_text(json.dumps(timings))
    run = load_run(folder)
    assert run.timings is None and "do not fit together" in run.timings_note


def test_timings_of_another_model_are_left_out(tmp_path):
    folder = write_run(tmp_path / "run", plans=PLANS)
    other = write_run(tmp_path / "other", n_blocks=5)
    shutil.copy(other / "latency.json", folder)
    run = load_run(folder)
    assert run.timings is None
    assert run.timings_note == (
        f"Speeds are left out, because the kit cannot use the timings in {folder / 'latency.json'}:"
        f" they are of a model of 5 blocks, and this run's has 6. {TIME_AGAIN}"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "cannot read {0}: it holds no JSON object."),
        (
            '{"prompt": "x", "texts": {}}',
            "cannot read the samples in {0}: they lack new_tokens, or hold it in another form.",
        ),
        (
            '{"prompt": "x", "new_tokens": 3, "texts": {"x": "a"}}',
            "cannot read the samples in {0}: they lack texts, or hold it in another form.",
        ),
        (
            '{"prompt": "x", "new_tokens": 3, "texts": {"0": "a", "1": 2}}',
            "cannot read the samples in {0}: they lack texts.1, or hold it in another form.",
        ),
    ],
)
def test_damaged_samples_are_named(tmp_path, content, said):
    folder = write_run(tmp_path / "run", plans=PLANS)
    (folder / "samples.json").write_text(content)
    with pytest.raises(RunError) as error:
        load_run(folder)
    again = "Delete the file; `resume` with `samples` writes it again."
    assert str(error.value) == f"{said.format(folder / 'samples.json')} {again}"


def test_samples_come_back(stored_run):
    samples = {Plan((3,)): "It was “night”", Plan(): "It was a day"}
    found = stored_run(plans=PLANS, samples=samples).samples
    assert (found.prompt, found.new_tokens) == ("It was", 60)
    assert list(found.by_variant.items()) == [
        (Variant(), "It was a day"),
        (Variant(Plan((3,))), "It was “night”"),
    ]
    assert stored_run(plans=PLANS).samples is None


def test_rows_are_those_of_all_rounds_the_whole_model_first(stored_run):
    plans = [Plan(), Plan((1, 3)), Plan((5,)), *singles(5)]
    one, three = stored_run(plans=plans), stored_run(plans=plans, n_rounds=3)
    assert len(three.rounds) == 3 and len(one.rounds) == 1
    assert three.plans == one.plans == sorted(plans)
    assert three.variants == [Variant(plan) for plan in three.plans]
    assert three.parameters == one.parameters and list(three.parameters) == three.plans
    np.testing.assert_array_equal(three.nll(), one.nll())
    assert three.frame().equals(one.frame())


def test_what_a_round_left_out_is_no_row_and_not_a_failure(tmp_path):
    run = RunFolder.create(tmp_path / "run", facts_of(2, {"reported": [9], "selection": [7, 4]}))
    chosen = Variant.parse("0~bridged")
    rounds = [round_of([Plan(), Plan((1,))], ("selection",), ("nll", "kl")), round_of([Plan()])]
    rounds[0] = structs.replace(
        rounds[0],
        variants=(VariantFacts(variant=str(chosen), parameters=7), *rounds[0].variants),
    )
    for number, (round_, role, width) in enumerate(
        [(rounds[0], "selection", 2), (rounds[1], "reported", 1)]
    ):
        run.add_round(number, round_)
        rows = [[10.0 * number + row] * width for row in range(len(round_.variants))]
        sums = {measure: np.array(rows) for measure in round_.measures}
        run.write_part(number, role, 0, sums, {})
    run.finish()
    run = load_run(tmp_path / "run")
    assert [str(variant) for variant in run.variants] == ["none", "0~bridged", "1"]
    assert run.plans == [Plan(), Plan((1,))]
    np.testing.assert_array_equal(run.measured("kl", "selection"), [[1, 1], [0, 0], [2, 2]])
    np.testing.assert_array_equal(run.nll(), [[10.0], [np.nan], [np.nan]])
    assert [row["removed"] for row in run.rows()] == ["none"]
    assert [row["variant"] for row in run.rows("selection")] == ["none", "0~bridged", "1"]
    assert {row["status"] for role in run.roles for row in run.rows(role)} == {"ok"}


def cells(path):
    """A CSV file as rows of numbers and texts."""

    def value(cell):
        with suppress(ValueError):
            return pytest.approx(float(cell), rel=1e-6)
        return cell

    return [[value(cell) for cell in row] for row in csv.reader(path.read_text().splitlines())]


def test_the_csv_is_that_of_earlier_versions(stored_run, tmp_path):
    """`goldens/results.csv` was written by the version before rounds were stored."""
    run = stored_run(n_blocks=3, recomputed=True, failed=[Plan((1,))], n_windows=60, selection=True)
    write_csv(run, tmp_path / "results.csv")
    golden = cells(Path(__file__).parent / "goldens" / "results.csv")
    assert len(golden) == 1 + 2 * 8
    written = cells(tmp_path / "results.csv")
    for row, wanted in zip(written, golden, strict=True):
        assert [getattr(cell, "expected", cell) for cell in row][: len(wanted)] == wanted
    assert written[0][len(golden[0]) :] == ["variant", "kl_nats", "agreement", "proposed_by"]


def half_of(cost):
    """What bridges leave of a cost; plans without block 0 have none."""
    return lambda plan: None if not plan.size or 0 in plan.removed else cost(plan) / 2


def test_a_bridged_row_stands_behind_its_row_as_cut_and_is_as_fast(tmp_path):
    folder = write_run(tmp_path / "run", 3, bridged=half_of(costs_of(3)), selection=True)
    run = load_run(folder)
    write_csv(run, folder / "results.csv")
    with (folder / "results.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    order = ["none", "0", "1", "1~bridged", "2", "2~bridged", "0+1", "0+2", "1+2", "1+2~bridged"]
    assert [row["variant"] for row in found] == 2 * [*order, "0+1+2"]
    speed = ["speed_ms", "speed_change_pct", "speed_pooled", "speed_claimed", "decode_ms_per_token"]
    for cut, bridged in pairwise(found):
        if bridged["variant"].endswith("~bridged"):
            assert cut["variant"] == cut["removed"] == bridged["removed"]
            same = ["mode", "blocks", "params_m", "split", "status", *speed]
            assert [cut[name] for name in same] == [bridged[name] for name in same]
            assert float(bridged["speed_ms"]) > 0 and float(bridged["ppl"]) < float(cut["ppl"])
    assert run.plans == [plan for plan in run.parameters if plan.size < 4]


def test_plans_are_judged_bridged_where_they_are_measured_so():
    variants = list(
        map(Variant.parse, ["none", "1~bridged", "2", "1", "2~tempered:2", "0~bridged"])
    )
    assert list(map(str, judged_by(Cost.as_cut, variants))) == ["none", "1", "2"]
    bridged = ["none", "0~bridged", "1~bridged", "2"]
    assert list(map(str, judged_by(Cost.bridged, variants))) == bridged


NASTY = [
    *(0, -1, 1, 10**9, 10**18, 10**30, 1e-300, 1e300, math.nan, math.inf, True, None),
    *("", "'", "\x00", "9" * 5000, [], {}, [[]], "none"),
]


def leaves(value, path=()):
    """The path of everything in a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))


FILES = ["run.json", "latency.json", "rounds/001/variants.json", "finished.json", "samples.json"]


@pytest.mark.parametrize("name", FILES)
def test_no_single_damage_to_a_stored_file_is_more_than_a_sentence(tmp_path, name, monkeypatch):
    monkeypatch.setattr(RunFolder, "_round_sha256", lambda *_: "whatever they say")
    options = {"n_windows": 60, "n_rounds": 2, "samples": {Plan(): "It was"}}
    folder = write_run(tmp_path / "run", plans=PLANS, **options)
    whole = (folder / name).read_text()
    paths = [path for path in leaves(json.loads(whole)) if path]
    random = Random(0)
    for _ in range(40):
        data = json.loads(whole)
        path = random.choice(paths)
        inner = data
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value = random.choice(NASTY)
        (folder / name).write_text(json.dumps(data))
        with suppress(PruningKitError):
            run = load_run(folder)
            if run.timings is not None:
                run.timings.summary(Plan())
            analyse(run), run.frame()
            assert render(run, "md"), (path, value)
