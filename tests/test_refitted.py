"""`1+3~refitted` in sweeps, in reports, as a folder: a row where it gains by more than chance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bridging import plain_nll
from transformers import AutoModelForCausalLM

from pruning_kit.cli import app as cli
from pruning_kit.errors import NoGainError
from pruning_kit.findings.analysis import analyse
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.refit.refitted import _refuse_chance
from pruning_kit.reporting.contents import build_document
from pruning_kit.runs.results import Run
from pruning_kit.sweeps.building import open_workbench
from pruning_kit.sweeps.sweep import sweep

FEW = {"max_windows": 2, "context": 128, "threads": 1, "device": "cpu"}
REFITTED, CHANCE = Variant.parse("4~refitted"), Variant.parse("5~refitted")

pytestmark = pytest.mark.usefixtures("little_text")


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Run:
    """Without 4 a refit gains much; without 5, which no block follows, no more than chance."""
    folder = tmp_path_factory.mktemp("run") / "run"
    return sweep("4~refitted 5~refitted 0~refitted", open_workbench("demo", **FEW), folder)


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
    words = ("prune", "--remove", "4", "--refit", "--run", swept.folder, "--device", "cpu")
    assert cli.main([*map(str, words), "--out", str(folder)]) == 0
    return folder


def test_a_refit_has_a_row_behind_the_bridged_one_if_it_gains_by_more_than_chance(swept):
    rows = {row["variant"]: row for row in swept.rows()}
    assert list(rows) == ["none", "0", "4", "4~bridged", "4~refitted", "5", "5~bridged"]
    assert max(rows["4~refitted"]["ppl"], rows["4~bridged"]["ppl"]) < rows["4"]["ppl"]
    assert 0 < rows["4~refitted"]["kl_nats"] < rows["4"]["kl_nats"]
    facts = swept.recovered[REFITTED]
    before, after = (
        facts.details[f"nats per token there, {how}"] for how in ("bridged", "refitted")
    )
    assert 0 < facts.details["gain there at least (95 %)"] < before - after
    assert "5a" in facts.details["projections fitted anew"].split()
    assert facts.details["judged on"] == "Jane Austen, Northanger Abbey (tuning part), second half"
    assert swept.recovered[Variant.parse("0~refitted")].refused == (
        "cannot refit 0: it has no bridges to begin with (no kept block stands before a removed "
        "one). Leave 0~refitted out."
    )
    why = swept.recovered[CHANCE].refused
    assert why is not None and why.startswith("cannot refit 5: 3.")
    assert why.endswith(" that may be chance. Take 5~bridged.")


def test_the_report_shows_each_form_of_the_plan_and_what_is_not_to_be_had(swept):
    document = build_document(swept, analyse(swept))
    (section,) = [one for one in document.sections if one.name == "recovered"]
    assert section.table is not None
    assert [row[0] for row in section.table.rows] == ["none", "4", "4 bridged", "4 refitted"]
    said = " ".join(section.sentences)
    assert "4~refitted: projections fitted anew: " in said
    assert "There is no row of 5~refitted: the kit cannot refit 5: 3." in said
    ppl = {row["variant"]: row["ppl"] for row in swept.rows()}
    steps = [row.step for row in analyse(swept).recovered]
    assert steps[0] is None
    assert steps[1].value == pytest.approx(ppl["4~bridged"] / ppl["4"])
    assert steps[2].value == pytest.approx(ppl["4~refitted"] / ppl["4~bridged"])


def test_the_folder_has_the_perplexity_of_the_row_by_a_loop_of_transformers_alone(swept, pruned):
    model = AutoModelForCausalLM.from_pretrained(pruned, dtype=torch.float32)
    (row,) = [row for row in swept.rows() if row["variant"] == "4~refitted"]
    text = open_workbench("demo", bridges=False, **FEW).texts["reported"]
    nats = 0.0
    for window in text.windows:
        ids = torch.from_numpy(text.ids[window.start : window.stop]).long()[None]
        nats += float(plain_nll(model, ids, window.first_output).sum())
    assert nats == pytest.approx(row["nll_nats"], rel=1e-5)
    recipe = json.loads((pruned / "pruning.json").read_text())
    assert recipe["numbers"]["perplexity"] == row["ppl"]
    assert recipe["recovery"]["recovery"] == "refitted"
    assert set(recipe["bridges"]["gaps"]) == {"3>5"}
    assert len(recipe["recovery"]["weights"]) >= 4


@pytest.mark.slow
def test_verify_makes_the_folder_again_from_its_base(run, pruned):
    code, said = run("verify", pruned, "--base", "demo", "--device", "cpu")
    assert code == 0, said
    assert "3>5 bridged, " in said and " tensors refitted" in said
    assert "recovery: made again: " in said and "of their change away" in said


def test_what_cannot_be_refitted_is_one_sentence_with_the_way_out(run, swept, tmp_path):
    def refused(*words):
        code, said = run("prune", "--refit", *words, "--out", tmp_path / "out")
        assert code == 2 and not (tmp_path / "out").exists()
        return said.removeprefix("Error: ")

    assert refused("--remove", "0", "--model", "demo", "--device", "cpu").startswith(
        "cannot bridge the gaps of 0: no kept block stands before a removed one."
    )
    assert "it did not measure 5~refitted." in refused("--remove", "5", "--run", swept.folder)


def test_a_refit_that_may_be_chance_is_refused_with_its_interval():
    generator = np.random.default_rng(0)
    before = torch.from_numpy(generator.normal(3.0, 1.0, 400))
    noise = torch.from_numpy(generator.normal(0.0, 0.5, 400))
    nats, least = _refuse_chance(REFITTED, before, before - 0.5 + noise)
    assert 0.3 < least < 0.5 and nats == pytest.approx(2.5, abs=0.2)
    for after in (before + noise - noise.mean(), before, before + 0.5, before * torch.nan):
        with pytest.raises(NoGainError) as refused:
            _refuse_chance(REFITTED, before, after)
        assert str(refused.value).startswith(
            f"cannot refit 4: {float(after.mean()):.4f} nats per token of unseen text refitted, "
            f"{float(before.mean()):.4f} bridged, a gain of "
        )
