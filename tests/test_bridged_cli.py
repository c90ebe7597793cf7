"""The commands `prune --bridge` and `verify --base`: the folder is what the sweep measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bridging import plain_nll
from transformers import AutoModelForCausalLM

from pruning_kit.cli import app as cli
from pruning_kit.inputs import corpora
from pruning_kit.runs.results import Run, load_run
from pruning_kit.sweeps.building import open_workbench
from pruning_kit.sweeps.sweep import sweep

FEW = {"max_windows": 6}

pytestmark = pytest.mark.usefixtures("little_text")


@pytest.fixture(scope="module")
def swept(writer, tmp_path_factory) -> Run:
    bench = open_workbench(**writer.settings, **FEW)
    return sweep("3 0", bench, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Call the command line in this process: exit code, and what it said in one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*words):
        code = cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, " ".join((captured.out + captured.err).split())

    return call


@pytest.fixture(scope="module")
def pruned(swept, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "pruned"
    words = ("prune", "--remove", "3", "--bridge", "--run", swept.folder, "--device", "cpu")
    assert cli.main([*map(str, words), "--out", str(folder)]) == 0
    return folder


def test_the_folder_has_the_perplexity_of_the_row_by_a_loop_of_transformers_alone(
    writer, swept, pruned
):
    model = AutoModelForCausalLM.from_pretrained(pruned, dtype=torch.float32)
    (row,) = [row for row in swept.rows() if row["variant"] == "3~bridged"]
    text = open_workbench(**writer.settings, bridges=False, **FEW).texts["reported"]
    nats = 0.0
    for window in text.windows:
        ids = torch.from_numpy(text.ids[window.start : window.stop]).long()[None]
        nats += float(plain_nll(model, ids, window.first_output).sum())
    assert nats == pytest.approx(row["nll_nats"], rel=1e-5)
    recipe = json.loads((pruned / "pruning.json").read_text())
    assert recipe["numbers"]["perplexity"] == row["ppl"]
    as_cut = {row["variant"]: row["ppl"] for row in swept.rows()}["3"]
    assert recipe["numbers"]["perplexity as cut"] == as_cut


def test_the_same_weights_are_folded_in_that_the_run_measured(swept, pruned):
    recipe = json.loads((pruned / "pruning.json").read_text())["bridges"]
    assert swept.bridges is not None
    stored = swept.bridges.gaps["2>4"]
    assert recipe["gaps"] == {"2>4": {"strength": stored.strength, "sha256": stored.sha256}}
    assert recipe["fitting"]["sha256"] == swept.bridges.fitting.sha256


def test_verify_makes_the_folder_again_from_its_base_and_fetches_nothing(
    run, writer, pruned, monkeypatch
):
    def fetched(*_):
        raise AssertionError("no text but the one that is fitted on is needed")

    monkeypatch.setattr(corpora, "_wikitext", fetched)
    code, said = run("verify", pruned, "--base", writer.model)
    assert code == 0
    assert f"recipe: {writer.model} without 3: 3 blocks, 11,408 parameters, 2>4 bridged" in said
    assert "tensors are those of the base, bit for bit" in said
    assert "bridges: fitted again: 2>4 0.00% of what it adds away (allowed 5%)" in said


def test_bridges_are_told_of_and_a_run_of_other_strengths_is_said(run, writer, swept, tmp_path):
    copy = tmp_path / "copy"
    for path in (path for path in swept.folder.rglob("*") if path.is_file()):
        target = copy / path.relative_to(swept.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    file = copy / "recoveries" / "bridges.json"
    content = json.loads(file.read_text())
    here = content["gaps"]["2>4"]["strength"]
    content["gaps"]["2>4"]["strength"] = 0.5
    file.write_text(json.dumps(content))
    words = ("--remove", "3", "--bridge", "--run", copy, "--device", "cpu", "--out", "out")
    code, said = run("prune", *words)
    assert code == 0
    assert "Bridges were fitted on calibration.txt (fitting part), 2," in said
    assert (
        f"copy bridged 2>4 with strength 0.5 and not, as here, strength {here:g}: its numbers are "
        "not quite those of this folder."
    ) in said
    assert f"{writer.model} without 3, 2>4 bridged, is saved in out." in said


def test_what_cannot_be_bridged_is_one_sentence_with_the_way_out(run, swept, tmp_path):
    def refused(*words):
        code, said = run("prune", *words, "--out", tmp_path / "out")
        assert code == 2 and not (tmp_path / "out").exists()
        return said.removeprefix("Error: ")

    bridged = ("--model", "demo", "--device", "cpu", "--bridge")
    assert refused("--remove", "0", *bridged) == (
        "cannot bridge the gaps of 0: no kept block stands before a removed one. Prune with "
        "--bridge left out."
    )
    assert refused("--remove", "7", *bridged).startswith("cannot remove block 7: the model has 6")
    assert refused("--remove", "1", "--model", "demo", "--calibrate-on", "calibration") == (
        "cannot use --calibrate-on without --bridge or --refit: it says how bridges are fitted. "
        "Give both, or neither."
    )
    assert refused("--remove", "3", "--device", "cpu") == (
        "cannot use --device without --bridge or --refit: it says how bridges are fitted. Give "
        "both, or neither."
    )
    assert "it did not measure 0~bridged" in refused(
        "--remove", "0", "--bridge", "--run", swept.folder
    )
    other = tmp_path / "other.txt"
    other.write_text("A line of some length, again and again.\n" * 600)
    assert refused(
        "--remove", "3", "--bridge", "--run", swept.folder, "--calibrate-on", other
    ).startswith(
        "cannot fit the same bridges again: they were fitted on calibration.txt "
        f"(fitting part) (hash {swept.bridges.fitting.sha256[:8]}), and this is other.txt "
    )


def test_a_run_without_bridges_has_none_to_fold(run, writer, tmp_path):
    bench = open_workbench(**writer.settings, bridges=False, **FEW)
    plain = load_run(sweep("3", bench, tmp_path / "plain").folder)
    code, said = run("prune", "--remove", "3", "--bridge", "--run", plain.folder, "--out", "out")
    assert code == 2
    assert f"cannot take numbers from {plain.folder}: it did not measure 3~bridged." in said


def test_verify_names_a_base_that_is_not_the_one(run, pruned, tmp_path):
    code, said = run("verify", pruned, "--base", pruned)
    assert code == 1
    assert "base: " in said and ", the model was made from one of " in said
    code, said = run("verify", pruned, "--calibrate-on", "calibration")
    assert code == 2
    assert said == (
        "Error: cannot use --calibrate-on without --base: it says how bridges are fitted again. "
        "Give both, or neither."
    )
