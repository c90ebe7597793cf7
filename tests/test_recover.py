"""`recover`: from a plan to a trained, measured, checked and saved model; and what stops it."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from bridging import plain_nll
from calling import Called, call
from hypothesis import given
from hypothesis.strategies import floats, integers, tuples
from test_kills import KILLER, fsync_counts  # noqa: F401 - the latter is a fixture
from transformers import AutoModelForCausalLM
from writers import CONTEXT, Writer

from pruning_kit.export.recipe import read_recipe
from pruning_kit.machine import disk
from pruning_kit.plans.distilled import Amount
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.distillation.pace import Pace, amount_within
from pruning_kit.pruning.distillation.training import Alone, State, Training
from pruning_kit.pruning.recovered import pruned_copy
from pruning_kit.runs.intents import Recovery, read_intent
from pruning_kit.runs.ranks import Ranks
from pruning_kit.runs.results import load_run
from pruning_kit.sweeps.building import open_workbench
from pruning_kit.sweeps.keeping import Kept
from pruning_kit.sweeps.observer import SilentObserver
from pruning_kit.sweeps.recover import Goal, Recovering
from pruning_kit.sweeps.recovering import make_or_refuse
from pruning_kit.sweeps.settings import DistillationSettings, SweepSettings
from pruning_kit.sweeps.shelf import Shelf
from pruning_kit.sweeps.workbench import Workbench
from pruning_kit.walk.estimates import WindowCost

FAST = ("--sequences", "4", "--rate", "0.01")
BRIEF = ("--remove", "1+2", "--tokens", "4k", *FAST)
TRAINED = Variant.parse("1+2~distilled:4k")

pytestmark = pytest.mark.usefixtures("little_text", "blank_figures")


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
def done(rounding_writer, tmp_path_factory) -> Done:
    folder = tmp_path_factory.mktemp("done") / "out"
    code, said, _ = recover(rounding_writer, *BRIEF, "--out", folder)
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
        f"{rounding_writer.model} without 1+2, distilled:4k, is saved in {done.folder} ",
        f"The run is saved in {done.folder}-run: results.csv, run.json, ",
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
    code, said, _ = call("verify", done.folder)
    assert code == 0 and "tensors distilled:4k" in said
    code, said, _ = call("verify", done.folder, "--base", rounding_writer.model)
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
    assert details["share written by the whole model"] == details["tokens it wrote"] == 0
    assert (details["seed"], details["sequences in a step"]) == (0, 4)
    assert details["tokens read"] == 4096
    card = (done.folder / "README.md").read_text(encoding="utf-8")
    assert "calibration.txt (fitting part) and calibration.txt (selection part)" in card
    assert "To compare what training left alone with the base model, bit for bit:" in card
    assert "To make it again" not in card


def test_what_the_whole_model_wrote_is_kept_a_line_for_each_sequence(writer, tmp_path):
    words = (*BRIEF, "--text", "self", "--keep-text", tmp_path / "kept.txt")
    code, said, _ = recover(writer, *words, "--out", tmp_path / "out")
    assert code == 0, said
    lines = (tmp_path / "kept.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4096 // CONTEXT
    assert all(len(line.split()) == CONTEXT for line in lines)
    details = read_recipe(tmp_path / "out").recovery.details
    assert details["prompts from"].startswith("calibration.txt (fitting part) and ")
    assert details["share written by the whole model"] == 1.0


def test_where_nothing_had_to_be_written_no_file_is_kept_and_that_is_said(writer, tmp_path):
    kept = tmp_path / "kept.txt"
    code, said, _ = recover(writer, *BRIEF, "--keep-text", kept, "--out", tmp_path / "out")
    assert code == 0, said
    assert not kept.exists()
    assert f"There is no {kept}: the whole model wrote nothing, since the text at hand is" in said


def test_mixed_text_is_written_where_the_text_at_hand_is_short_of_what_is_read():
    mixed, own, other = (DistillationSettings(train_on=name) for name in ("mixed", "self", "x"))
    assert [mixed.share_written(tokens, 100) for tokens in (50, 100, 125, 200, 800)] == [
        *(0.0, 0.0, pytest.approx(0.2), 0.5, 0.5)
    ]
    assert own.share_written(50, 100) == 1.0 and other.share_written(800, 100) == 0.0


@given(
    seconds=floats(0.0, 1e5),
    pace=tuples(floats(1e-7, 1e-2), floats(0.0, 1e-2), floats(0.0, 50.0)),
    at_hand=integers(1, 10**7),
)
def test_a_pace_gives_the_most_tokens_that_fit_into_nine_tenths_of_a_time(seconds, pace, at_hand):
    share = partial(DistillationSettings().share_written, at_hand=at_hand)
    found = Pace(*pace).tokens(seconds, share)
    assert Pace(*pace).seconds(found + 1, share) > 0.9 * seconds
    assert found == 0 or Pace(*pace).seconds(found, share) <= 0.9 * seconds


def test_no_state_of_a_training_is_left_when_it_is_done(done):
    assert files_in(Path(f"{done.folder}-run") / "recoveries" / "trainings") == set()


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
def test_minutes_become_tokens_by_the_pace_here_and_are_stored(writer, tmp_path, monkeypatch):
    """A call of the clock takes a hundredth: so long lasts what is timed between two."""
    goal = Goal.parse(None, 0.025, None, adapters=False)
    monkeypatch.setattr(Training, "go_on", interrupted)
    stored = {}
    for each in (0.02, 0.01):
        with pytest.raises(KeyboardInterrupt):
            begin(writer, tmp_path / str(each), goal, each).carry_out()
        (stored[each],) = read_intent(tmp_path / str(each), Recovery).tokens
    assert stored[0.01] > stored[0.02]


@pytest.mark.usefixtures("_nothing_afterwards")
def test_a_resumed_command_keeps_the_tokens_that_minutes_became(writer, tmp_path, monkeypatch):
    goal, folder = Goal.parse(None, 0.025, None, adapters=False), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Training, "go_on", interrupted)
        with pytest.raises(KeyboardInterrupt):
            begin(writer, folder, goal).carry_out()
    (tokens,) = read_intent(folder, Recovery).tokens
    resumed = begin(writer, folder, goal, each=0.02)
    resumed.settings = SweepSettings(
        **writer.settings, output=folder, resume=True, distillation=resumed.settings.distillation
    )
    assert str(resumed.carry_out()[2]) == f"1+2~distilled:{tokens / 1000:g}k"


def test_minutes_bound_the_windows_that_are_measured_and_a_resumed_command_keeps_them(
    writer, tmp_path, monkeypatch
):
    """A second for a window in all its forms, a fifth of half a minute for them all: six."""
    rows = 2 * 4 + 3 * 2 + 5  # calls of blocks, and heads
    monkeypatch.setattr(Workbench, "cost_per_window", lambda *_: WindowCost(1 / rows, 1 / rows))
    monkeypatch.setattr("pruning_kit.sweeps.recover.MIN_WINDOWS", 2)
    goal, folder = Goal.parse(None, 0.5, None, adapters=False), tmp_path / "run"
    found = Amount(4000), Pace(1e-5, 1e-5, 1e-3)
    monkeypatch.setattr("pruning_kit.sweeps.recover.amount_within", lambda *_: found)
    said = []
    with monkeypatch.context() as patch:
        patch.setattr(Training, "go_on", interrupted)
        stopped = begin(writer, folder, goal)
        patch.setattr(stopped.observer, "say", said.append)
        with pytest.raises(KeyboardInterrupt):
            stopped.carry_out()
    assert said == [
        "The first 6 of 79 windows are measured at the end, so that 0.5 minutes leave time to "
        "train."
    ]
    monkeypatch.setattr(Workbench, "cost_per_window", lambda *_: WindowCost(1.0, 1.0))
    resumed = begin(writer, folder, goal)
    resumed.settings = replace(resumed.settings, resume=True)
    run, _, _ = resumed.carry_out()
    assert run.facts.protocol.max_windows == 6
    assert run.nll().shape[1] == 6


def test_windows_that_were_asked_for_are_all_measured(writer, tmp_path, monkeypatch):
    monkeypatch.setattr("pruning_kit.sweeps.recover.MIN_WINDOWS", 2)
    found = Amount(4000), Pace(1e-5, 1e-5, 1e-3)
    monkeypatch.setattr("pruning_kit.sweeps.recover.amount_within", lambda *_: found)
    recovering = begin(writer, tmp_path / "run", Goal.parse(None, 0.0001, None, adapters=False))
    recovering.settings = replace(recovering.settings, max_windows=9)
    assert recovering.carry_out()[0].facts.protocol.max_windows == 9


class SecondOfTwo(Alone):
    """A process that is told what the first one found."""

    def __init__(self, told: Sequence[float]):
        self.told = iter(told)

    def first(self, value: float) -> float:
        return next(self.told)


def test_processes_that_train_together_take_the_amount_that_the_first_one_finds(writer):
    bench = open_workbench(**writer.settings)
    student = pruned_copy(bench.decoder, Plan.parse("1+2"), {})
    together = SecondOfTwo([60.0, 50_000, 55.0, 43_210])
    learning = replace(bench.learning, together=together)
    amount, _ = amount_within(0.001, learning, student)
    assert amount == Amount(43_000)


def interrupted(*_):
    raise KeyboardInterrupt


def test_too_few_minutes_are_refused_and_leave_nothing(writer, tmp_path):
    code, said, _ = recover(
        writer, "--remove", "1", "--minutes", "0.001", "--out", tmp_path / "out"
    )
    assert code == 2
    assert "cannot distil in what is left of the time: 0 seconds are enough for 0 tokens" in said
    assert "at least 1,024 are needed. Give more minutes, or measure fewer" in " ".join(
        said.split()
    )
    assert list(tmp_path.iterdir()) == []


def test_trainings_double_until_a_perplexity_is_reached(writer, tmp_path, monkeypatch):
    monkeypatch.setattr("pruning_kit.sweeps.recover.FIRST_TOKENS", 1024)
    words = ("--remove", "1+2", *FAST)
    easy, hard = tmp_path / "easy", tmp_path / "hard"
    code, said, _ = recover(writer, *words, "--tokens", "8k", "--until-ppl", "23", "--out", easy)
    assert code == 0, said
    assert read_intent(Path(f"{easy}-run"), Recovery).tokens == (2000, 4000, 8000)
    variants = list(map(str, load_run(f"{easy}-run").recovered))
    assert variants == ["1+2~distilled:2k"]
    assert "not reached" not in said
    code, said, _ = recover(writer, *words, "--tokens", "4k", "--until-ppl", "1.5", "--out", hard)
    assert code == 0, said
    assert len(load_run(f"{hard}-run").recovered) == 2
    assert "The 1.5 that was asked for was not reached." in said


def test_adapters_are_merged_into_a_folder_of_the_usual_shape(writer, tmp_path):
    pytest.importorskip("peft")
    folder = tmp_path / "out"
    code, said, _ = recover(writer, *BRIEF, "--method", "lora", "--out", folder)
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
        pytest.param(
            *("calibration", "read", "calibration.txt (fitting part) and ", 0.0),
            marks=pytest.mark.slow,
        ),
        ("other", "read", "other.txt", 0.0),
    ],
)
def test_the_text_that_is_learnt_from_is_the_one_that_was_named(
    writer, tmp_path, named, key, read, share
):
    text = writer.other if named == "other" else named
    code, said, _ = recover(writer, *BRIEF, "--text", text, "--out", tmp_path / "out")
    assert code == 0, said
    details = read_recipe(tmp_path / "out").recovery.details
    assert details[key].startswith(read)
    assert details["share written by the whole model"] == share


def test_a_training_that_gains_nothing_keeps_the_bridged_model_and_says_so(writer, tmp_path):
    folder = tmp_path / "out"
    words = ("--remove", "1+2", "--tokens", "4k", "--sequences", "4", "--rate", "0.9")
    code, said, _ = recover(writer, *words, "--out", folder)
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
    code, said, _ = recover(writer, *BRIEF, "--out", tmp_path / "out")
    assert code == 0, said
    assert "cannot distil 1+2: it diverged after 1,408 tokens. Take what it began with" in said
    assert read_recipe(tmp_path / "out").recovery is None


def test_a_plan_without_a_block_before_its_gap_is_trained_from_the_cut(writer, tmp_path):
    code, said, _ = recover(writer, "--remove", "0", *BRIEF[2:], "--out", tmp_path / "out")
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
    code, said, _ = recover(writer, *BRIEF, "--out", tmp_path / "out")
    assert code == 0, said
    assert "Gaps are not bridged: into no block of this model: so." in said
    assert read_recipe(tmp_path / "out").recovery.details["begun with"] == "the model as cut"


@pytest.fixture(scope="module")
def swept(writer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("swept") / "run"
    words = ("--mode", "sequential", "--no-speed", "--max-windows", "20", "--output", folder)
    assert call("sweep", *writer.words, *words).code == 0
    return folder


def test_model_texts_and_plan_come_from_a_run(swept, tmp_path):
    ppl = {row["variant"]: row["ppl"] for row in load_run(swept).rows()}
    judged = {b: ppl.get(f"{b}~bridged", ppl[str(b)]) for b in range(4)}
    best = min(judged, key=judged.get)
    words = ("--run", swept, "--size", "1", *BRIEF[2:], "--device", "cpu", "--threads", "1")
    code, said, _ = call("recover", *words, "--out", tmp_path / "out")
    assert code == 0, said
    run, recipe = load_run(f"{tmp_path / 'out'}-run"), read_recipe(tmp_path / "out")
    assert recipe.removed == (best,)
    assert recipe.recovery.details["watched"].startswith("calibration.txt")
    assert run.facts.texts["reported"].title == "reported.txt"


NAMED = ("--remove", "1")
REFUSED = {
    ("--tokens", "abc"): "cannot read 'abc' as a number of tokens: write it such as 500k or 8M.",
    ("--tokens", "500"): "cannot distil on 500 tokens: at least 1,024 are needed. Give more.",
    ("--tokens", "2k", "--minutes", "3"): (
        "cannot use both --tokens 2k and --minutes 3: each says how long. Give one."
    ),
    ("--rate", "2"): "cannot use --rate 2: it needs to be above 0 and below 1.",
    ("--until-ppl", "1"): (
        "cannot use --until-ppl 1: it needs to be above 1 and below 1,000,000,000."
    ),
    ("--minutes", "0"): "cannot use --minutes 0: it needs to be above 0 and below 100,000.",
    ("--size", "2"): (
        "cannot use --size 2 here: it chooses among the plans of --run, where --remove names none. "
        "Leave it out."
    ),
    ("--no-bridges",): (
        "cannot distil: gaps are not bridged (it was not asked for), and the same text tells how a "
        "training goes. Ask for --bridges, and give --calibrate-on a text."
    ),
    ("--text", "{reported}"): (
        "cannot train on '{reported}': figures are taken on it (reported). Give --text another "
        "text, or calibration."
    ),
    ("--text", "{calibration}"): (
        "cannot train on '{calibration}': trainings are watched by a part of it. Give --text "
        "another text, or calibration."
    ),
    ("--text", "{short}"): (
        "cannot distil on '{short}': it has 5 tokens, and one sequence has 32. Give --text a "
        "longer text."
    ),
    ("--calibrate-on", "{other}"): (
        "cannot distil with calibration text '{other}': it has 1 windows that nothing is fitted "
        "on, and at least 2 are needed. Give --calibrate-on a longer text."
    ),
    ("--text", "calibration", "--keep-text", "{kept}"): (
        "cannot keep in {kept} what the whole model writes: it writes nothing with --text "
        "calibration. Leave out --keep-text, or learn from self or mixed text."
    ),
    ("--keep-text", "{folder}"): (
        "cannot write {folder}: it is a folder. Give --keep-text the name of a file."
    ),
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_what_cannot_be_recovered_is_refused_before_anything_is_written(writer, tmp_path, words):
    short = tmp_path / "short.txt"
    short.write_text("w1 w2 w3 w4 w5\n", encoding="utf-8")
    places = {**writer._asdict(), "short": short, "folder": tmp_path, "kept": tmp_path / "kept"}
    asked = [word.format(**places) for word in words]
    code, said, _ = recover(writer, *NAMED, *asked, "--out", tmp_path / "out")
    assert code == 2
    assert said.replace(" ", "") == f"Error: {REFUSED[words].format(**places)}".replace(" ", "")
    assert list(tmp_path.iterdir()) == [short]


def test_a_plan_is_needed_and_has_to_fit(writer, swept, tmp_path):
    out = ("--out", tmp_path / "out")
    code, said, _ = recover(writer, *out)
    assert code == 2 and said == (
        "Error: cannot recover without a plan: nothing says what to remove. Name blocks with "
        "--remove, or a sweep with --run."
    )
    code, said, _ = recover(writer, "--remove", "9", *out)
    assert code == 2
    assert "cannot remove block 9: the model has 4 blocks, numbered 0 to 3." in said
    code, said, _ = recover(writer, "--run", swept, "--size", "3", *out)
    assert code == 2
    assert f"cannot choose a plan of 3 blocks from {swept}: it measured none." in said
    assert "Give --size another number, or name the blocks." in said
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_taken_are_refused(writer, done, tmp_path):
    code, said, _ = recover(writer, *BRIEF, "--out", done.folder)
    assert code == 2 and f"cannot write the pruned model to '{done.folder}': " in said
    code, said, _ = recover(
        writer, *BRIEF, "--out", tmp_path / "out", "--output", f"{done.folder}-run"
    )
    assert code == 2
    assert f"cannot recover into {done.folder}-run: a recovery is already there." in said
    assert "Choose another with --output, or go on with it by --resume." in said
    (tmp_path / "out-run").mkdir()
    (tmp_path / "out-run" / "notes").write_text("mine")
    for words in ((), ("--resume",)):
        code, said, _ = recover(writer, *BRIEF, *words, "--out", tmp_path / "out")
        assert code == 2
        assert f"cannot recover into {tmp_path / 'out-run'}: it is no empty folder" in said


def test_a_model_that_does_something_to_its_logits_is_refused_by_both_commands(
    writer, tmp_path, monkeypatch
):
    monkeypatch.setattr("pruning_kit.pruning.distillation.ends.close", lambda *_: False)
    words = ("--try", "1~distilled:2k", "--no-speed", "--output", tmp_path / "run")
    for code, said, _ in (
        recover(writer, *NAMED, "--out", tmp_path / "out"),
        call("sweep", *writer.words, *words),
    ):
        assert code == 2
        assert "cannot distil a gpt2 model: its logits are not what its output embedding" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tokens", "8k"), "tokens=4000, this one asks for 8000"),
        (("--remove", "2", "--tokens", "4k"), "plan=1+2, this one asks for 2"),
        (("--minutes", "2"), "tokens=4000, this one asks for None"),
        (("--tokens", "4k", "--method", "lora"), "method=full, this one asks for lora"),
        (("--tokens", "4k", "--until-ppl", "20"), "until_ppl=None, this one asks for 20"),
        (("--tokens", "4k", "--text", "self"), "train_on=mixed, this one asks for self"),
        (("--tokens", "4k", "--seed", "1"), "seed=0, this one asks for 1"),
    ],
)
def test_only_the_same_is_gone_on_with(rounding_writer, done, tmp_path, words, said):
    folder = f"{done.folder}-run"
    code, told, _ = recover(
        rounding_writer, "--remove", "1+2", *FAST, *words, "--resume", "--output", folder,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 2
    assert f"cannot resume {folder}: it was begun with {said}. Ask for the same again" in told


def test_a_text_that_has_changed_is_not_gone_on_with(writer, tmp_path):
    text = tmp_path / "text.txt"
    shutil.copy(writer.other, text)
    words = ("--remove", "1", "--tokens", "2k", *FAST, "--text", text)
    assert recover(writer, *words, "--out", tmp_path / "out").code == 0
    shutil.copy(writer.reported, text)
    text.write_text(text.read_text() + "w1\n", encoding="utf-8")
    code, said, _ = recover(
        writer, *words, "--resume", "--output", tmp_path / "out-run", "--out", tmp_path / "again"
    )
    assert code == 2 and f"cannot resume {tmp_path / 'out-run'}: it was begun with text=" in said


def test_a_finished_command_is_resumed_without_training_and_saves_the_same(
    rounding_writer, done, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    shutil.copytree(f"{done.folder}-run", run)
    monkeypatch.setattr(Training, "go_on", interrupted)
    words = (*BRIEF, "--resume", "--output", run, "--out", tmp_path / "out")
    code, said, _ = recover(rounding_writer, *words)
    assert code == 0, said
    assert same_weights(tmp_path / "out", done.folder)


def same_weights(one: Path, other: Path) -> bool:
    name = "model.safetensors"
    return (one / name).read_bytes() == (other / name).read_bytes()


def test_a_command_stopped_at_a_look_goes_on_and_ends_with_the_same_bits(
    rounding_writer, done, tmp_path, monkeypatch
):
    plainly, looks = Kept.save, []

    def stop(self, *kept):
        plainly(self, *kept)
        looks.append(kept)
        raise KeyboardInterrupt

    words = (*BRIEF, "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(Kept, "save", stop)
        code, said, _ = recover(rounding_writer, *words)
    assert code == 130 and len(looks) == 1
    assert f"Stopped. What was learnt is in {tmp_path / 'out'}-run; go on with: " in said
    assert said.endswith(" --resume") and not (tmp_path / "out").exists()
    code, said, _ = recover(rounding_writer, *words, "--resume")
    assert code == 0, said
    assert same_weights(tmp_path / "out", done.folder)
    resumed = Done(tmp_path / "out", said)
    assert [point.nats for point in resumed.curve] == [point.nats for point in done.curve]
    np.testing.assert_array_equal(resumed.run.nll(), done.run.nll())


@pytest.mark.slow
def test_a_training_killed_at_any_operation_ends_with_the_same_bits(writer, tmp_path):
    training = DistillationSettings(sequences=8, rate=0.01)
    bench = open_workbench(**writer.settings, distillation=training)
    variant = Variant.parse("1+2~distilled:1.5k")

    def train(folder: Path) -> Shelf:
        shelf = Shelf(folder, torch.float32)
        kept = bench.in_run(1, shelf, Kept(folder), Ranks())
        vars(kept)["bridging"] = bench.bridging
        make_or_refuse(variant, kept, Ranks())
        return shelf

    whole = train(tmp_path / "whole")[variant]
    for after in itertools.count():
        folder = tmp_path / f"killed-{after}"
        if not KILLER.kill(lambda to=folder: train(to), after, folder):
            break
        made = train(folder)[variant]
        assert made.sha256 == whole.sha256
        assert [point.nats for point in made.curve] == [point.nats for point in whole.curve]
        assert files_in(folder / "recoveries" / "trainings") - left_overs(folder) == {
            "written.safetensors"
        }
    assert after > 12  # folders, written text, two states or more, the model and what is said of it


def left_overs(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if disk.is_left_over(path)}


BEGUN = Variant.parse("1~distilled:2k")


def training_of(writer: Writer, **settings) -> tuple[Training, str]:
    """A training, and all that is asked for when it is gone on with."""
    training = DistillationSettings(sequences=4, rate=0.01, **settings)
    bench = open_workbench(**writer.settings, distillation=training)
    learning = bench.learning
    student = pruned_copy(bench.decoder, BEGUN.plan, {})
    made = learning.training(student, learning.schedule(Amount(2000)))
    return made, learning.identity(made)


def states(writer: Writer, folder: Path) -> tuple[Kept, Variant, str, State]:
    """A training in a folder, at its first look."""
    kept, variant = Kept(folder), BEGUN
    made, identity = training_of(writer)
    state = next(made.go_on(made.begin()))
    kept.save(variant, identity, state)
    return kept, variant, identity, state


def test_a_state_comes_back_whole_or_not_at_all(writer, tmp_path):
    kept, variant, identity, state = states(writer, tmp_path)
    found = kept.load(variant, identity)
    assert found is not None and found.curve == state.curve and found.best == state.best
    for name in ("weights", "optimising", "best_weights"):
        ours, theirs = getattr(found, name), getattr(state, name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert kept.load(Variant.parse("2~distilled:2k"), identity) is None
    (file,) = (tmp_path / "recoveries" / "trainings").iterdir()
    content = file.read_bytes()
    for place in (0, len(content) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        assert kept.load(variant, identity) is None, place
    for length in (0, 5, len(content) - 1):
        file.write_bytes(content[:length])
        assert kept.load(variant, identity) is None, length


def test_a_state_of_another_training_is_not_gone_on_with(writer, tmp_path):
    kept, variant, identity, _ = states(writer, tmp_path)
    for other in ({"seed": 1}, {"train_on": "self"}):
        another = training_of(writer, **other)[1]
        assert another != identity and kept.load(variant, another) is None, other


def test_written_text_is_taken_for_the_same_key_alone_and_not_if_it_is_damaged(tmp_path):
    kept = Kept(tmp_path)
    first, second = (np.full((5, 4), number, np.int32) for number in (1, 2))
    np.testing.assert_array_equal(kept.written("a", 5, lambda: first), first)
    np.testing.assert_array_equal(kept.written("a", 3, lambda: second), first[:3])
    np.testing.assert_array_equal(kept.written("b", 5, lambda: second), second)
    np.testing.assert_array_equal(kept.written("b", 6, lambda: first), first)
    (file,) = (tmp_path / "recoveries" / "trainings").iterdir()
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    np.testing.assert_array_equal(kept.written("b", 5, lambda: second), second)


def test_text_of_another_seed_is_written_anew(writer, tmp_path):
    found = []
    for seed in (0, 1, 0):
        training = DistillationSettings(seed=seed)
        bench = open_workbench(**writer.settings, distillation=training)
        shelf = Shelf(tmp_path, torch.float32)
        found.append(bench.in_run(1, shelf, Kept(tmp_path), Ranks()).learning.write(3, CONTEXT))
    np.testing.assert_array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])
