"""A stored run read back: what its rows and its report tell beside the figures."""

import json
import math
import shutil
from contextlib import suppress
from random import Random

import pytest

from pruning_kit.errors import PruningKitError, RunError
from pruning_kit.findings.analysis import analyse
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles, strategy_plan
from pruning_kit.reporting.formats import render
from pruning_kit.reporting.tables import provenance_table
from pruning_kit.runs import results
from pruning_kit.runs.results import load_run
from pruning_kit.runs.store import RunFolder
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
            "cannot read the timings in {0}: their schema is 1, this version reads 3.",
        ),
        (
            '{"schema": 3}',
            "cannot read the timings in {0}: they lack n_blocks, protocol, machine and 8 more, or "
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


@pytest.mark.parametrize(("bound", "shown"), [(0.9, -10.0), (0.0, None), (math.inf, None)])
def test_a_speed_bound_that_too_few_rounds_left_open_is_empty(bound, shown):
    assert results._percent_if_known(bound) == (None if shown is None else pytest.approx(shown))


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
    ],
)
def test_damaged_samples_are_named(tmp_path, content, said):
    folder = write_run(tmp_path / "run", plans=PLANS)
    (folder / "samples.json").write_text(content)
    with pytest.raises(RunError) as error:
        load_run(folder)
    again = "Delete the file; --resume with --samples writes it again."
    assert str(error.value) == f"{said.format(folder / 'samples.json')} {again}"


def test_samples_come_back(tmp_path):
    samples = {Plan(): "It was a day", Plan((3,)): "It was “night”"}
    assert load_run(write_run(tmp_path / "run", plans=PLANS, samples=samples)).samples == samples


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


@pytest.mark.parametrize("name", ["run.json", "latency.json"])
def test_no_single_damage_to_a_stored_file_is_more_than_a_sentence(tmp_path, name, monkeypatch):
    monkeypatch.setattr(RunFolder, "facts_sha256", "whatever run.json says")
    folder = write_run(tmp_path / "run", plans=PLANS, n_windows=60)
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
