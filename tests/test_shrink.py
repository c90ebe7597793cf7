"""`shrink`: from a model to a smaller one in one command; how far, how long, and what stops it."""

from __future__ import annotations

import hashlib
import re
from functools import partial
from pathlib import Path

import pytest
from calling import Called, call
from synthetic_runs import synthetic_timings
from transformers import AutoModelForCausalLM
from writers import Writer

from pruning_kit.cli.shrink import choose, choose_bridged
from pruning_kit.errors import ArchitectureError, PlanError
from pruning_kit.export.recipe import read_recipe
from pruning_kit.export.verification import verify_folder
from pruning_kit.plans.distilled import Amount, is_trained
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.distillation.pace import Pace
from pruning_kit.reporting.words.numbers import format_ppl
from pruning_kit.reporting.words.shrunk import shrunk_lines
from pruning_kit.runs.intents import Shrinking, read_intent
from pruning_kit.runs.results import LATENCY_FILE, load_run
from pruning_kit.speed import stored_timings
from pruning_kit.speed.protocol import LatencyProtocol
from pruning_kit.sweeps import courses as courses_module
from pruning_kit.sweeps import recover as recover_module
from pruning_kit.sweeps import shrink as shrink_module
from pruning_kit.sweeps.building import open_workbench
from pruning_kit.sweeps.choosing import best_of
from pruning_kit.sweeps.courses import LEAST_WINDOWS, Planner
from pruning_kit.sweeps.recover import Recovering
from pruning_kit.sweeps.targets import Target
from pruning_kit.sweeps.workbench import Workbench
from pruning_kit.walk.estimates import WindowCost

FAST = ("--sequences", "4", "--rate", "0.01", "--minutes", "10")
QUICK, SLOW = WindowCost(1e-5, 1e-5), WindowCost(10.0, 10.0)
MEDIUM = WindowCost(0.03, 0.03)
"""There is time for some fifty windows of each candidate."""
TO_TRY, NO_TIME_TO_TRY = Pace(1e-6, 1e-6, 1e-6), Pace(1.0, 1.0, 1.0)

pytestmark = pytest.mark.usefixtures("little_text", "blank_figures")


@pytest.fixture(autouse=True)
def _paces(monkeypatch):
    """Nothing hangs on how fast this machine is."""
    set_paces(monkeypatch)


def set_paces(
    patch, cost: WindowCost = MEDIUM, tokens: int = 4_000, trying: Pace = NO_TIME_TO_TRY
) -> None:
    found = Amount(tokens), Pace(1e-5, 1e-5, 1e-3)
    patch.setattr(Workbench, "cost_per_window", lambda *_: cost)
    patch.setattr(recover_module, "amount_within", lambda *_: found)
    patch.setattr(courses_module, "pace_of", lambda *_: trying)


def shrink(writer: Writer, *words: object, timed: bool = False) -> Called:
    return call("shrink", *writer.words, *FAST, *("--no-speed",) * (not timed), *words)


def hashes_in(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def done(writer, tmp_path_factory) -> tuple[Path, Called]:
    folder = tmp_path_factory.mktemp("done") / "out"
    with pytest.MonkeyPatch.context() as patch:
        set_paces(patch)
        called = shrink(writer, "--size", "2", "--out", folder)
    assert called.code == 0, called.said
    return folder, called


def test_it_ends_with_six_lines_that_are_those_of_its_run(done):
    folder, called = done
    run = load_run(folder.with_name("out-run") / "recovery")
    removed, ppl, parameters, per_token, place, load = called.lines[-6:]
    variant = run.variants[-1]
    rows = {row["variant"]: row for row in run.rows()}
    assert str(variant.recovery) == "distilled:4k"
    assert removed == (
        f"Removed: blocks {variant.plan.short} of 4 blocks, distilled:4k; the best of 6 sets of "
        "that size on calibration.txt (selection part)."
    )
    before, after = (format_ppl(rows[name]["ppl"]) for name in ("none", str(variant)))
    assert ppl.startswith(f"Perplexity: {before} before, {after} after, ")
    assert re.search(r"\[.* to .*\], on reported.txt\.$", ppl)
    assert parameters.startswith(
        f"Parameters: {rows['none']['params_m']:.2f} M before, "
        f"{rows[str(variant)]['params_m']:.2f} M after, −"
    )
    assert per_token == "Time per token: not timed."
    assert place == f"Model: {folder}; report: {run.folder / 'report.html'}"
    assert load == f"Load: transformers.AutoModelForCausalLM.from_pretrained({str(folder)!r})"


def test_the_folder_loads_passes_its_checks_and_says_how_it_was_made(done):
    folder, _ = done
    assert AutoModelForCausalLM.from_pretrained(folder).config.num_hidden_layers == 2
    assert all(check.passed for check in verify_folder(folder))
    recipe = read_recipe(folder)
    assert recipe.recovery is not None and recipe.recovery.recovery == "distilled:4k"
    assert recipe.command.startswith("pruning-kit shrink ")


def test_sets_are_chosen_on_the_calibration_text_and_the_best_one_is_taken(done):
    folder, _ = done
    searched = load_run(folder.with_name("out-run") / "search")
    assert searched.facts.choosing_role == "selection"
    assert searched.facts.proposal.text == "pairs"
    best = best_of(searched, 2)
    result = load_run(folder.with_name("out-run") / "recovery")
    assert result.plans == [Plan(), best] and result.roles == ("reported",)
    assert (searched.folder / "report.html").exists() and (result.folder / "report.html").exists()


def interrupted(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("where", "name", "tokens"),
    [
        (shrink_module, "open_run", 4_000),
        pytest.param(shrink_module.Shrinker, "_recover", 4_000, marks=pytest.mark.slow),
        (Recovering, "_train", 8_000),
    ],
)
def test_a_stopped_one_goes_on_to_the_same_folder(
    writer, done, tmp_path, monkeypatch, where, name, tokens
):
    folder, _ = done
    with monkeypatch.context() as patch:
        patch.setattr(where, name, interrupted)
        stopped = shrink(writer, "--size", "2", "--out", tmp_path / "out")
    assert stopped.code == 130
    assert f"Stopped. What was done is in {tmp_path / 'out-run'}; go on with: " in stopped.said
    assert not (tmp_path / "out").exists()
    set_paces(monkeypatch, QUICK, tokens)  # what was decided stays decided
    resumed = shrink(writer, "--size", "2", "--out", tmp_path / "out", "--resume")
    assert resumed.code == 0, resumed.said
    weights = "model.safetensors"
    assert hashes_in(tmp_path / "out")[weights] == hashes_in(folder)[weights]
    assert resumed.lines[-6:-2] == done[1].lines[-6:-2]


def test_another_target_does_not_go_on_with_it(writer, done, tmp_path):
    folder, _ = done
    run, out = folder.with_name("out-run"), tmp_path / "other"
    taken = shrink(writer, "--size", "2", "--out", out, "--output", run)
    assert taken.code == 2
    assert taken.said == (
        f"Error: cannot shrink into {run}: a shrinking is already there. Choose another with "
        "--output, or go on with it by --resume."
    )
    other = shrink(writer, "--size", "1", "--out", out, "--output", run, "--resume")
    assert other.code == 2
    assert other.said == (
        f"Error: cannot resume {run}: it was begun with target=size=2, this one asks for size=1. "
        "Ask for the same again, or give another --output."
    )


def test_without_time_to_train_the_bridged_model_is_taken_and_that_stays(
    writer, tmp_path, monkeypatch
):
    def too_short(*_):
        raise PlanError("cannot distil in what is left of the time: 3 seconds. Give more minutes.")

    monkeypatch.setattr(recover_module, "amount_within", too_short)
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(shrink_module, "measure", stop_after_the_first(shrink_module.measure))
        assert shrink(writer, "--size", "1", "--out", out).code == 130
    stored = read_intent(tmp_path / "out-run", Shrinking)
    assert stored is not None and stored.untrained is not None and "3 seconds" in stored.untrained
    set_paces(monkeypatch)
    called = shrink(writer, "--size", "1", "--out", out, "--resume")
    assert called.code == 0, called.said
    assert (
        "Not distilled: the kit cannot distil in what is left of the time: 3 seconds. Give more "
        "minutes."
    ) in called.said
    kept = load_run(tmp_path / "out-run" / "recovery").variants[-1]
    assert str(kept.recovery or "as cut") in called.lines[-6]
    assert read_recipe(out).recovery is None


def stop_after_the_first(plainly):
    calls = []

    def measure(*words, **named):
        calls.append(words)
        if len(calls) > 1:
            raise KeyboardInterrupt
        plainly(*words, **named)

    return measure


def test_with_time_to_try_the_best_few_are_distilled_and_the_best_of_them_goes_on(
    writer, tmp_path, monkeypatch
):
    set_paces(monkeypatch, trying=TO_TRY)
    monkeypatch.setattr(courses_module, "TOKENS", 2_000)
    monkeypatch.setattr(Pace, "tokens", lambda *_: 2_999)
    words = ("--size", "2", "--out", tmp_path / "out")
    dry = shrink(writer, *words, "--dry-run")
    assert "2. distil the best 3 of them on 2k tokens each: about 1 s (alone: sweep --top 3)" in (
        dry.said
    )
    assert "3. distil the best of them: about " in dry.said and "alone" not in dry.lines[-2]
    with monkeypatch.context() as patch:
        patch.setattr(shrink_module.Shrinker, "_recover", interrupted)
        assert shrink(writer, *words).code == 130
    set_paces(monkeypatch)  # what was decided stays decided
    called = shrink(writer, *words, "--resume")
    assert called.code == 0, called.said
    searched = load_run(tmp_path / "out-run" / "search")
    assert searched.facts.proposal.text == "distilled:3,size=2,tokens=2000 pairs"
    tried = [variant for variant in searched.variants if is_trained(variant)]
    assert len(tried) == 3 and {str(variant.recovery) for variant in tried} == {"distilled:2k"}
    nll = searched.sums_of(tried, "nll", "selection").sum(axis=1)
    best = tried[int(nll.argmin())].plan
    assert load_run(tmp_path / "out-run" / "recovery").plans == [Plan(), best]
    assert called.lines[-6].endswith("(selection part), 3 of them distilled to choose.")
    assert called.lines[-6].startswith(f"Removed: blocks {best.short} of 4 blocks, distilled:4k")


def test_a_dry_run_says_the_stages_and_writes_nothing(writer, tmp_path, monkeypatch):
    set_paces(monkeypatch, QUICK)
    called = shrink(writer, "--ratio", "0.5", "--out", tmp_path / "out", "--dry-run")
    assert called.code == 0, called.said
    assert "1. measure candidates as cut and bridged: about 1 s (alone: sweep)" in called.said
    assert re.search(r"2\. distil the best of them: about 10 min \(alone: recover\)", called.said)
    assert "Candidates: --try pairs, on at most " in called.said
    assert (
        "Distilled: the best by bridged cost alone. To try several, each would need 500k tokens "
        "within a quarter of the time for distilling."
    ) in called.said
    assert "All of it: 10 minutes. Nothing was written." in called.said
    assert list(tmp_path.iterdir()) == []


def test_too_few_minutes_are_refused_with_those_that_would_do(writer, tmp_path, monkeypatch):
    set_paces(monkeypatch, SLOW)
    called = shrink(writer, "--out", tmp_path / "out")
    assert called.code == 2
    found = re.fullmatch(
        r"Error: cannot shrink in 10 minutes: measuring, timing and saving alone take about "
        r"([\d.]+) here\. Give --minutes that many at least\.",
        called.said,
    )
    assert found and float(found[1]) > 10, called.said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--size", "2", "--max-params", "6"),
            "cannot shrink to two targets, --size 2 and --max-params 6,000,000: each says how "
            "far. Give one of them.",
        ),
        (("--size", "4"), "cannot remove 4 of 4 blocks: choose 1 to 3."),
        (("--ratio", "1.5"), "cannot use --ratio 1.5: it needs to be above 0 and below 1."),
        (
            ("--max-params", "60"),
            "cannot shrink to 60,000,000 parameters: the model has 14,688, which is no more. Give "
            "--max-params a smaller number.",
        ),
        (
            ("--max-params", "0.001"),
            "cannot shrink to 1,000 parameters: with a single block the model still has 4,848. "
            "Give --max-params at least 0.005 (millions).",
        ),
        (
            ("--max-latency", "2"),
            "cannot use --max-latency 2 with --no-speed: nothing is timed then. Leave one out.",
        ),
    ],
)
def test_targets_that_cannot_be_met_are_refused_and_leave_nothing(writer, tmp_path, words, said):
    called = shrink(writer, *words, "--out", tmp_path / "out")
    assert (called.code, called.said) == (2, f"Error: {said}")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_taken_is_refused_before_anything_is_measured(writer, tmp_path):
    (tmp_path / "file").write_text("mine")
    called = shrink(writer, "--out", tmp_path)
    assert called.code == 2
    assert "the folder is not empty" in called.said


def test_a_limit_on_perplexity_that_no_set_keeps_to_names_the_cheapest(writer, tmp_path):
    words = ("--max-ppl-increase", "0", "--minutes", "30")
    called = shrink(writer, *words, "--out", tmp_path / "out")
    assert called.code == 2
    assert re.search(
        r"cannot shrink by what was measured in .*search: with at most 0 % more perplexity.*keep "
        r"the whole model.*the cheapest to remove, would cost \+.*Give another limit, or a "
        r"--size\.",
        called.said,
    ), called.said


@pytest.fixture
def _short_timing(monkeypatch):
    """That fits a context of 32 tokens, and a test."""
    short = partial(LatencyProtocol, prompt_tokens=8, new_tokens=4, end_to_end_tokens=28, threads=1)
    monkeypatch.setattr(shrink_module, "LatencyProtocol", lambda **_: short(budget_s=0.2))


@pytest.mark.usefixtures("_short_timing")
def test_whole_and_result_are_timed_beside_each_other(writer, tmp_path):
    called = shrink(writer, "--size", "1", "--out", tmp_path / "out", timed=True)
    assert called.code == 0, called.said
    timings = load_run(tmp_path / "out-run" / "recovery").timings
    assert timings is not None and len(timings.plans) == 2
    assert re.match(r"Time per token: [\d.]+ ms before, [\d.]+ ms after, ", called.lines[-3])


@pytest.mark.usefixtures("_short_timing")
@pytest.mark.parametrize(
    ("limit", "said"),
    [
        pytest.param(
            "0.000001",
            "none of the 11 measured models keeps to at most",
            marks=pytest.mark.slow,
        ),
        ("1000000", "keep the whole model"),
    ],
)
def test_a_limit_on_time_is_held_against_the_candidates_timed(
    writer, tmp_path, monkeypatch, limit, said
):
    def timed(run, plans, bench, _) -> None:
        stored_timings.write(run.folder / LATENCY_FILE, synthetic_timings(plans, bench.n_blocks))

    monkeypatch.setattr(shrink_module, "time_plans", timed)
    words = ("--max-latency", limit, "--minutes", "30")
    called = shrink(writer, *words, "--out", tmp_path / "out", timed=True)
    assert called.code == 2
    assert said in called.said, called.said
    assert not (tmp_path / "out").exists()


# How far

FOUR = [100, 100, 100, 100]


@pytest.mark.parametrize(
    ("target", "sizes"),
    [
        (Target(), [1]),
        (Target(size=3), [3]),
        (Target(ratio=0.5), [2]),
        (Target(max_params=900), [1]),
        (Target(max_params=899), [2]),
        (Target(max_params=700), [3]),
        (Target(max_latency=2.0), [1, 2]),
        (Target(max_ppl_increase=15), [1, 2]),
    ],
)
def test_a_target_asks_for_the_sizes_that_may_meet_it(target, sizes):
    assert target.sizes(1000, FOUR) == sizes


def test_limits_choose_within_what_was_measured_and_a_size_the_best_of_it(stored_run):
    run = stored_run(plans=[Plan(), *singles(6)])
    best = choose(run, Target(size=1))
    assert best == min(run.plans[1:], key=lambda plan: run.nll()[run.plans.index(plan)].sum())
    whole = run.timings.summary(Plan())
    whole_ms = 1e3 * whole.end_to_end_s.median_s
    assert choose(run, Target(max_latency=0.99 * whole_ms)) == best
    with pytest.raises(PlanError, match="none of the 7 measured models keeps to at most"):
        choose(run, Target(max_latency=0.01 * whole_ms))


def test_the_cheapest_of_those_distilled_to_choose_and_the_best_bridged_is_taken(stored_run):
    costs = {Plan((1,)): 0.02, Plan((2,)): 0.01}
    run = stored_run(plans=[Plan(), *singles(6)], recovered={"distilled:2k": costs.get})
    parameters = run.parameters[Plan((2,))]
    for target in (Target(size=1), Target(max_params=parameters)):
        assert choose_bridged(run, target) not in costs
        assert choose(run, target) == Plan((2,))
    dear = stored_run(plans=[Plan(), *singles(6)], recovered={"distilled:2k": lambda _: 3.0})
    assert choose(dear, Target(size=1)) == choose_bridged(dear, Target(size=1))


def test_times_per_token_are_those_of_a_continuation_from_end_to_end(stored_run):
    run = stored_run(plans=[Plan(), *singles(6)])
    timed = [run.timings.summary(plan) for plan in (Plan(), Plan((1,)))]
    before, after = (f"{1e3 / one.end_to_end_tokens_per_s:.2f} ms" for one in timed)
    lines = shrunk_lines(run, run, Variant(Plan((1,))), Path("out"), Path("report.html"))
    assert lines[3].startswith(f"Time per token: {before} before, {after} after, −")
    assert lines[0].startswith("Removed: block 1 of 6 blocks, as cut; the best of 6 sets of ")


# How the time is spent


@pytest.fixture(scope="module")
def bench(writer) -> Workbench:
    return open_workbench(**writer.settings, select_on=str(writer.calibration))


def course(bench, patch, cost: float, seconds: float = 240.0, sizes=(2,), trying=NO_TIME_TO_TRY):
    set_paces(patch, WindowCost(cost, cost), trying=trying)
    return Planner(bench, sizes, seconds, None, times_all=False).course()


def test_with_time_enough_all_sets_are_measured_on_all_windows(bench, monkeypatch):
    found = course(bench, monkeypatch, 1e-6)
    longest = max(len(text.windows) for text in bench.texts.values())
    assert found.candidates.text == "pairs"
    assert found.candidates.n_windows == found.result_windows == longest


def test_with_less_time_fewer_windows_are_and_the_stages_take_what_there_is(bench, monkeypatch):
    longest = max(len(text.windows) for text in bench.texts.values())
    found = course(bench, monkeypatch, 6e-3)
    assert LEAST_WINDOWS <= found.candidates.n_windows < longest
    assert sum(stage.seconds for stage in found.stages) == pytest.approx(240.0)


def test_the_best_few_are_distilled_where_a_quarter_of_the_time_for_it_is_enough(
    bench, monkeypatch
):
    found = course(bench, monkeypatch, 1e-6, trying=TO_TRY)
    assert found.trials is not None and found.trials.asked.top == 3
    assert found.trials.asked.tokens % 500_000 == 0
    assert found.searched == f"pairs {found.trials.asked}"
    first, tried, best, *_ = found.stages
    assert (first.alone, tried.alone, best.alone) == ("sweep", "sweep --top 3", "recover")
    assert 0 < tried.seconds <= (tried.seconds + best.seconds) / 4
    assert sum(stage.seconds for stage in found.stages) == pytest.approx(240.0)


@pytest.mark.parametrize(
    ("cost", "sizes", "trying"),
    [
        (1e-6, [2], NO_TIME_TO_TRY),
        (2e-3, [2], TO_TRY),  # a walk tells that no training is fast enough: none is timed
        (1e-6, [1, 2], TO_TRY),  # which size it will be is not known yet
    ],
)
def test_else_the_best_alone_is_distilled(bench, monkeypatch, cost, sizes, trying):
    found = course(bench, monkeypatch, cost, sizes=sizes, trying=trying)
    assert found.trials is None and found.searched == found.candidates.text
    assert [stage.alone for stage in found.stages[:2]] == ["sweep", "recover"]


def test_a_model_that_cannot_be_trained_is_not_tried(bench, monkeypatch):
    def refuse(*_):
        raise ArchitectureError("cannot distil a gpt2 model: its logits are others.")

    set_paces(monkeypatch)
    monkeypatch.setattr(courses_module, "pace_of", refuse)
    assert Planner(bench, [2], 240.0, None, times_all=False).course().trials is None


def test_candidates_are_measured_on_few_windows_of_texts_that_nothing_is_chosen_on(done):
    folder, _ = done
    searched = load_run(folder.with_name("out-run") / "search")
    result = load_run(folder.with_name("out-run") / "recovery")
    n_windows = {role: len(facts.targets) for role, facts in searched.facts.windows.items()}
    assert n_windows["reported"] == LEAST_WINDOWS < n_windows["selection"]
    assert len(result.facts.windows["reported"].targets) > LEAST_WINDOWS
    assert searched.facts.texts["reported"].part.startswith(f"first {LEAST_WINDOWS} of ")


def test_where_sets_are_many_the_best_are_searched_for(bench, monkeypatch):
    monkeypatch.setattr("pruning_kit.sweeps.courses.MOST_SETS", 5)
    found = course(bench, monkeypatch, 1e-4)
    assert re.fullmatch(r"search:2,evaluations=\d+", found.candidates.text)
