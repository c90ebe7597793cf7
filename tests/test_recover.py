"""`recover`: from a plan to a trained, measured, checked and saved model; and what stops it."""

from __future__ import annotations

import io
import itertools
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from bridging import little_text, plain_nll
from transformers import AutoModelForCausalLM
from writers import CONTEXT, Writer, save_writer

from pruning_kit.cli import app as cli
from pruning_kit.export.recipe import read_recipe
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.distillation.training import Training
from pruning_kit.runs.intents import read_intent
from pruning_kit.runs.ranks import Ranks
from pruning_kit.runs.results import load_run
from pruning_kit.sweeps.building import open_workbench
from pruning_kit.sweeps.observer import SilentObserver
from pruning_kit.sweeps.recover import Goal, Recovering
from pruning_kit.sweeps.settings import DistillationSettings, SweepSettings

FAST = ("--sequences", "4", "--rate", "0.01")
BRIEF = ("--remove", "1+2", "--tokens", "4k", *FAST)
TRAINED = Variant.parse("1+2~distilled:4k")


@pytest.fixture(autouse=True, scope="module")
def _little_text():
    with little_text():
        yield


@pytest.fixture(scope="module")
def writer(tmp_path_factory) -> Writer:
    return save_writer(tmp_path_factory.mktemp("writer"))


class Called(NamedTuple):
    """How a command ended."""

    code: int
    said: str
    """In one line."""


def call(*words: object) -> Called:
    """Call the command line in this process."""
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(told), redirect_stderr(told):
        patch.setenv("COLUMNS", "120")
        code = cli.main([str(word) for word in words])
    return Called(code, " ".join(told.getvalue().split()))


def recover(writer: Writer, *words: object) -> Called:
    return call("recover", *writer.words, *words)


class Done(NamedTuple):
    """A command that went well, and what it left."""

    folder: Path
    said: str

    @property
    def run(self):
        return load_run(f"{self.folder}-run")

    @property
    def curve(self):
        return self.run.recovered[TRAINED].curve


@pytest.fixture(scope="module")
def rounding_writer(tmp_path_factory) -> Writer:
    """Its checkpoints hold few digits."""
    return save_writer(tmp_path_factory.mktemp("writer16"), torch.bfloat16)


@pytest.fixture(scope="module")
def done(rounding_writer, tmp_path_factory) -> Done:
    folder = tmp_path_factory.mktemp("done") / "out"
    kept = folder.with_name("kept.txt")
    code, said = recover(rounding_writer, *BRIEF, "--keep-text", kept, "--out", folder)
    assert code == 0, said
    return Done(folder, said)


def nats_of(folder: Path, text) -> list[float]:
    """NLL of each window by a loop of transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = []
    for window in text.windows:
        ids = torch.from_numpy(text.ids[window.start : window.stop]).long()[None]
        found.append(float(plain_nll(model, ids, window.first_output)))
    return found


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_a_run_and_a_table_come_of_one_command(done, rounding_writer):
    assert {"model.safetensors", "tokenizer.json", "pruning.json", "README.md"} <= files_in(
        done.folder
    )
    assert {"run.json", "results.csv", "perplexity.png"} <= files_in(Path(f"{done.folder}-run"))
    rows = {row["variant"]: row for row in done.run.rows()}
    assert list(rows) == ["none", "1+2", "1+2~bridged", "1+2~distilled:4k"]
    ppl = {name: row["ppl"] for name, row in rows.items()}
    assert ppl["1+2~distilled:4k"] < ppl["1+2~bridged"] < ppl["1+2"]
    first, best = done.curve[0].nats, min(point.nats for point in done.curve)
    for part in (
        f"1+2 distilled:4k {ppl['1+2~distilled:4k']:.2f}",
        "passed recipe: ",
        f"Perplexity of unseen calibration text: {np.exp(first):.2f} at the start, "
        f"{np.exp(best):.2f} after ",
        f"{rounding_writer.model} without 1+2, distilled:4k, is saved in {done.folder}; the run, "
        f"with its curve, in {done.folder}-run.",
    ):
        assert part in done.said


def test_the_folder_has_the_perplexity_of_the_row_by_a_loop_of_transformers_alone(
    done, rounding_writer
):
    (row,) = [row for row in done.run.rows() if row["variant"] == str(TRAINED)]
    text = open_workbench(**rounding_writer.settings).texts["reported"]
    assert sum(nats_of(done.folder, text)) == pytest.approx(row["nll_nats"], rel=1e-5)
    assert read_recipe(done.folder).numbers["perplexity"] == row["ppl"]


def test_the_folder_is_no_worse_than_its_start_on_the_text_that_was_watched(done, rounding_writer):
    """The weights are judged as they are saved, not as they are trained."""
    watched = open_workbench(**rounding_writer.settings).learning.watched
    nats = sum(nats_of(done.folder, watched)) / sum(w.n_targets for w in watched.windows)
    assert nats == pytest.approx(min(point.nats for point in done.curve), rel=1e-6)
    assert nats < done.curve[0].nats


def test_what_is_saved_passes_its_checks_also_against_its_base(done, rounding_writer):
    code, said = call("verify", done.folder)
    assert code == 0 and "tensors distilled:4k" in said
    code, said = call("verify", done.folder, "--base", rounding_writer.model)
    assert code == 0, said
    assert "passed base: " in said and "tensors are those of the base, bit for bit" in said


def test_recipe_and_card_say_what_was_trained_on_what(done):
    recipe = read_recipe(done.folder)
    assert recipe.recovery is not None and recipe.recovery.recovery == "distilled:4k"
    details = recipe.recovery.details
    assert details["loss"] == "Kullback-Leibler divergence from the whole model, temperature 1"
    assert details["begun with"] == "bridges"
    assert details["read"] == "calibration.txt (fitting part) and calibration.txt (selection part)"
    assert details["watched"] == "calibration.txt (tuning part), 16 windows"
    assert details["share written by the whole model"] == 0.5
    assert (details["seed"], details["sequences in a step"]) == (0, 4)
    assert details["tokens read"] == 4096 and details["tokens it wrote"] == 2048
    card = (done.folder / "README.md").read_text(encoding="utf-8")
    assert "calibration.txt (fitting part) and calibration.txt (selection part)" in card
    assert "To compare what training left alone with the base model, bit for bit:" in card
    assert "To make it again" not in card


def test_what_the_whole_model_wrote_is_kept_a_line_for_each_sequence(done):
    lines = done.folder.with_name("kept.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2048 // CONTEXT
    assert all(len(line.split()) == CONTEXT for line in lines)


def test_no_state_of_a_training_is_left_when_it_is_done(done):
    left = files_in(Path(f"{done.folder}-run") / "recoveries" / "trainings")
    assert left == {"written.safetensors"}


class Ticking:
    """Seconds that pass by themselves."""

    def __init__(self, each: float = 0.01):
        self._ticks = itertools.count()
        self._each = each

    def __call__(self) -> float:
        return next(self._ticks) * self._each


@pytest.fixture
def _nothing_afterwards(monkeypatch):
    """What follows a training is timed by what it really takes; here it takes nothing."""
    monkeypatch.setattr(Recovering, "_afterwards_s", lambda *_: 0.0)


def begin(writer: Writer, folder: Path, goal: Goal, each: float = 0.01, **settings) -> Recovering:
    training = DistillationSettings(sequences=4, rate=0.01, **settings)
    asked = SweepSettings(**writer.settings, output=folder, distillation=training)
    clock = Ticking(each)
    plan = Plan.parse("1+2")
    return Recovering(plan, goal, asked, SilentObserver(), Ranks(), clock(), clock)


@pytest.mark.usefixtures("_nothing_afterwards")
def test_minutes_become_tokens_by_the_pace_here_and_are_stored(writer, tmp_path):
    """A call of the clock takes a hundredth: so long lasts what is timed between two."""
    goal = Goal.parse(None, 0.025, None, adapters=False)
    slow, fast = (
        begin(writer, tmp_path / str(each), goal, each).carry_out()[2] for each in (0.02, 0.01)
    )
    stored = {each: read_intent(tmp_path / str(each)).tokens for each in (0.02, 0.01)}
    for variant, each in ((slow, 0.02), (fast, 0.01)):
        (tokens,) = stored[each]
        assert str(variant) == f"1+2~distilled:{tokens / 1000:g}k"
    assert stored[0.01] > stored[0.02]


@pytest.mark.usefixtures("_nothing_afterwards")
def test_a_resumed_command_keeps_the_tokens_that_minutes_became(writer, tmp_path, monkeypatch):
    goal, folder = Goal.parse(None, 0.025, None, adapters=False), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Training, "go_on", interrupted)
        with pytest.raises(KeyboardInterrupt):
            begin(writer, folder, goal).carry_out()
    (tokens,) = read_intent(folder).tokens
    resumed = begin(writer, folder, goal, each=0.02)
    resumed.settings = SweepSettings(
        **writer.settings, output=folder, resume=True, distillation=resumed.settings.distillation
    )
    assert str(resumed.carry_out()[2]) == f"1+2~distilled:{tokens / 1000:g}k"


def interrupted(*_):
    raise KeyboardInterrupt


def test_too_few_minutes_are_refused_and_leave_nothing(writer, tmp_path):
    code, said = recover(writer, "--remove", "1", "--minutes", "0.001", "--out", tmp_path / "out")
    assert code == 2
    assert "cannot distil in what is left of the time: 0 seconds are enough for 0 tokens" in said
    assert "at least 1,024 are needed. Give more minutes." in said
    assert list(tmp_path.iterdir()) == []


def test_trainings_double_until_a_perplexity_is_reached(writer, tmp_path, monkeypatch):
    monkeypatch.setattr("pruning_kit.sweeps.recover.FIRST_TOKENS", 1024)
    words = ("--remove", "1+2", "--tokens", "8k", *FAST)
    easy, hard = tmp_path / "easy", tmp_path / "hard"
    code, said = recover(writer, *words, "--until-ppl", "23", "--out", easy)
    assert code == 0, said
    assert read_intent(Path(f"{easy}-run")).tokens == (2000, 4000, 8000)
    variants = list(map(str, load_run(f"{easy}-run").recovered))
    assert variants == ["1+2~distilled:2k"]
    assert "not reached" not in said
    code, said = recover(writer, *words, "--until-ppl", "1.5", "--out", hard)
    assert code == 0, said
    assert len(load_run(f"{hard}-run").recovered) == 3
    assert "The 1.5 that was asked for was not reached." in said


def test_adapters_are_merged_into_a_folder_of_the_usual_shape(writer, tmp_path):
    pytest.importorskip("peft")
    folder = tmp_path / "out"
    code, said = recover(writer, *BRIEF, "--method", "lora", "--out", folder)
    assert code == 0, said
    assert "without 1+2, distilled:4k,lora, is saved in" in said
    details = read_recipe(folder).recovery.details
    assert "learning rate of adapters" in details and details["learning rate of others"] == 0
    (row,) = [r for r in load_run(f"{folder}-run").rows() if r["variant"].endswith(",lora")]
    text = open_workbench(**writer.settings).texts["reported"]
    assert sum(nats_of(folder, text)) == pytest.approx(row["nll_nats"], rel=1e-5)


@pytest.mark.parametrize(
    ("named", "key", "read", "share"),
    [
        ("self", "prompts from", "calibration.txt (fitting part) and ", 1.0),
        ("calibration", "read", "calibration.txt (fitting part) and ", 0.0),
        ("other", "read", "other.txt", 0.0),
    ],
)
def test_the_text_that_is_learnt_from_is_the_one_that_was_named(
    writer, tmp_path, named, key, read, share
):
    text = writer.other if named == "other" else named
    code, said = recover(writer, *BRIEF, "--text", text, "--out", tmp_path / "out")
    assert code == 0, said
    details = read_recipe(tmp_path / "out").recovery.details
    assert details[key].startswith(read)
    assert details["share written by the whole model"] == share


def test_a_training_that_gains_nothing_keeps_the_bridged_model_and_says_so(writer, tmp_path):
    folder = tmp_path / "out"
    words = ("--remove", "1+2", "--tokens", "4k", "--sequences", "4", "--rate", "0.9")
    code, said = recover(writer, *words, "--out", folder)
    assert code == 0, said
    assert "There is no row of 1+2~distilled:4k: the kit cannot distil 1+2: " in said
    assert "The model bridged is kept: the kit cannot distil 1+2: " in said
    assert "Take what it began with, or give --rate a lower value." in said
    assert "without 1+2, bridged, is saved in" in said
    assert read_recipe(folder).recovery is None and read_recipe(folder).bridges is not None


def test_a_training_that_diverges_keeps_the_bridged_model_and_says_so(
    writer, tmp_path, monkeypatch
):
    plainly = Training._step
    monkeypatch.setattr(Training, "_step", lambda self, step: plainly(self, step) * torch.nan)
    code, said = recover(writer, *BRIEF, "--out", tmp_path / "out")
    assert code == 0, said
    assert "cannot distil 1+2: it diverged after 1,408 tokens. Take what it began with" in said
    assert read_recipe(tmp_path / "out").recovery is None


def test_a_plan_without_a_block_before_its_gap_is_trained_from_the_cut(writer, tmp_path):
    code, said = recover(writer, "--remove", "0", *BRIEF[2:], "--out", tmp_path / "out")
    assert code == 0, said
    recipe = read_recipe(tmp_path / "out")
    assert recipe.bridges is None and recipe.recovery.details["begun with"] == "the model as cut"
    assert [row["variant"] for row in load_run(f"{tmp_path / 'out'}-run").rows()] == [
        "none", "0", "0~distilled:4k",
    ]  # fmt: skip


def test_a_family_that_has_no_bridges_is_trained_from_the_cut(writer, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "pruning_kit.sweeps.workbench.bridging_of", lambda *_: "into no block of this model: so"
    )
    code, said = recover(writer, *BRIEF, "--out", tmp_path / "out")
    assert code == 0, said
    assert "Gaps are not bridged: into no block of this model: so." in said
    assert read_recipe(tmp_path / "out").recovery.details["begun with"] == "the model as cut"


def test_model_texts_and_plan_come_from_a_run(writer, tmp_path):
    swept = tmp_path / "swept"
    words = ("--mode", "sequential", "--no-speed", "--max-windows", "20", "--output", swept)
    assert call("sweep", *writer.words, *words).code == 0
    ppl = {row["variant"]: row["ppl"] for row in load_run(swept).rows()}
    judged = {b: ppl.get(f"{b}~bridged", ppl[str(b)]) for b in range(4)}
    best = min(judged, key=judged.get)
    words = ("--run", swept, "--size", "1", *BRIEF[2:], "--device", "cpu", "--threads", "1")
    code, said = call("recover", *words, "--out", tmp_path / "out")
    assert code == 0, said
    run, recipe = load_run(f"{tmp_path / 'out'}-run"), read_recipe(tmp_path / "out")
    assert recipe.removed == (best,)
    assert recipe.recovery.details["watched"].startswith("calibration.txt")
    assert run.facts.texts["reported"].title == "reported.txt"
