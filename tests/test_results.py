"""A stored run read back: what its rows and its report tell beside the figures."""

import json
import math

import pytest

from pruning_kit.errors import PlanError, RunError
from pruning_kit.findings.analysis import analyse
from pruning_kit.plan import Plan, singles, strategy_plan
from pruning_kit.reporting.document import provenance_table
from pruning_kit.runs import results
from pruning_kit.runs.results import load_run
from tests.synthetic_runs import write_run

PLANS = [Plan(), *singles(6)]


def test_windows_computed_again_in_float32_are_told_in_rows_and_report(tmp_path):
    folder = write_run(
        tmp_path / "run", plans=PLANS, recomputed=True, failed=[Plan((2,))], calibration=True
    )
    run = load_run(folder)
    assert run.recomputed == {"test": 50, "calibration": 50}
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


def test_a_run_without_overflow_has_nothing_to_tell(tmp_path):
    run = load_run(write_run(tmp_path / "run", plans=PLANS))
    assert run.recomputed == {"test": 0}
    assert set(run.frame()["note"]) == {""}
    assert "Computed again" not in dict(provenance_table(run).rows)


@pytest.mark.parametrize("seed", [0, 3])
def test_the_random_strategy_is_that_of_the_seed_the_sweep_was_given(tmp_path, seed):
    drawn = strategy_plan("random", 6, 2, seed)
    changes = {"choice": {"mode": None, "strategies": ["random"], "ratios": [], "seed": seed}}
    run = load_run(write_run(tmp_path / "run", plans=[*PLANS, drawn], changes=changes))
    two = analyse(run).sizes[1]
    assert two.n_removed == 2 and two.strategies["random"] == drawn
    assert strategy_plan("random", 6, 2, 0) != strategy_plan("random", 6, 2, 3)


TIME_AGAIN = "Delete the file and repeat the sweep with --resume to time again."


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (
            "{",
            "cannot read {0}: it is no valid JSON (Expecting property name enclosed in double "
            "quotes: line 1 column 2 (char 1)).",
        ),
        ("[1]", "cannot read {0}: it holds no JSON object."),
        (
            '{"schema": 1}',
            "cannot read the timings in {0}: their schema is 1, this version reads 2.",
        ),
        (
            '{"schema": 2}',
            "cannot read the timings in {0}: they lack n_blocks, protocol, machine and 7 more, or "
            "hold it in another form.",
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


def test_a_plan_that_cannot_be_read_is_named_with_its_file(tmp_path):
    folder = write_run(tmp_path / "run", plans=PLANS)
    info = json.loads((folder / "run.json").read_text())
    info["plans"][1], info["parameters"]["x"] = "x", 1
    (folder / "run.json").write_text(json.dumps(info))
    with pytest.raises(PlanError) as error:
        _ = load_run(folder).plans
    assert str(error.value) == (
        f"cannot read 'x' in {folder / 'run.json'}, plan 'x': write block numbers and ranges, such "
        "as 3,7-9."
    )


@pytest.mark.parametrize(("bound", "shown"), [(0.9, -10.0), (0.0, None), (math.inf, None)])
def test_a_speed_bound_that_too_few_rounds_left_open_is_empty(bound, shown):
    assert results._percent_if_known(bound) == (None if shown is None else pytest.approx(shown))


def test_a_plan_with_a_block_that_the_model_lacks_is_refused(tmp_path):
    folder = write_run(tmp_path / "run", plans=PLANS)
    info = json.loads((folder / "run.json").read_text())
    info["model"]["n_blocks"] = 1
    (folder / "run.json").write_text(json.dumps(info))
    with pytest.raises(RunError, match=r"it names plan .*, and its model has 1 blocks\. Restore"):
        load_run(folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda timings: timings["pools"].__setitem__(1, []),
        lambda timings: timings["machine"].__setitem__("cores", 0),
        lambda timings: timings["rounds"][2]["samples"]["prefill_s"].__setitem__(1, float("nan")),
        lambda timings: timings["rounds"][2]["samples"]["prefill_s"].__setitem__(1, float("inf")),
    ],
)
def test_timings_that_do_not_fit_together_are_left_out(tmp_path, damage):
    folder = write_run(tmp_path / "run", plans=PLANS)
    timings = json.loads((folder / "latency.json").read_text())
    damage(timings)
    (folder / "latency.json").write_text(json.dumps(timings))
    run = load_run(folder)
    assert run.timings is None and "do not fit together" in run.timings_note
