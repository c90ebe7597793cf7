"""`1+2~distilled:2k` in sweeps: rows, table and page; taken from the run by what comes later."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from bridging import plain_nll
from calling import Called, call
from test_recover import interrupted, same_weights
from transformers import AutoModelForCausalLM
from writers import Writer

from pruning_kit.export.recipe import read_recipe
from pruning_kit.pruning.distillation.training import Training
from pruning_kit.runs.recovered import read_recovered
from pruning_kit.runs.results import load_run
from pruning_kit.sweeps.building import open_workbench

FULL, ADAPTERS = "1+2~distilled:2k", "1+2~distilled:2k,lora"
TRIES = ("--try", f"{FULL} {ADAPTERS} 0~distilled:2k", "--no-speed", "--save_results")

pytestmark = pytest.mark.usefixtures("little_text", "blank_figures")


@pytest.fixture(scope="module")
def writer(rounding_writer) -> Writer:
    return rounding_writer


@pytest.fixture(scope="module")
def swept(writer, tmp_path_factory) -> tuple[Path, str]:
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("swept") / "run"
    code, said, _ = call("sweep", *writer.words, *TRIES, "--output", folder)
    assert code == 0, said
    return folder, said


def test_trained_variants_have_rows_behind_their_plan(swept):
    folder, said = swept
    rows = {row["variant"]: row for row in load_run(folder).rows()}
    assert list(rows) == ["none", "0", "0~distilled:2k", "1+2", "1+2~bridged", FULL, ADAPTERS]
    assert rows[FULL]["ppl"] < rows["1+2~bridged"]["ppl"] < rows["1+2"]["ppl"]
    with (folder / "results.csv").open(encoding="utf-8") as file:
        stored = {row["variant"]: float(row["ppl"]) for row in csv.DictReader(file)}
    assert stored == {name: row["ppl"] for name, row in rows.items()}
    assert f"{rows[FULL]['ppl']:.2f}" in said and "Recovered models" in said


def test_the_page_shows_them_as_cut_bridged_and_distilled(swept, tmp_path):
    folder, _ = swept
    code, said, _ = call("report", folder, "--format", "html", "--output", tmp_path / "page.html")
    assert code == 0, said
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for name in ("1+2 bridged", "1+2 distilled:2k", "1+2 distilled:2k,lora", "0 distilled:2k"):
        assert f">{name}<" in page


def test_a_resumed_sweep_takes_the_models_from_the_run(writer, swept, monkeypatch):
    folder, _ = swept
    before = load_run(folder).nll()
    (folder / "rounds" / "000" / "reported-000000.safetensors").unlink()
    monkeypatch.setattr(Training, "go_on", interrupted)
    words = (*writer.words, *TRIES, "--output", folder, "--resume")
    code, said, _ = call("sweep", *words)
    assert code == 0, said
    np.testing.assert_array_equal(load_run(folder).nll(), before)


def prune(writer: Writer, *words: object) -> Called:
    return call("prune", "--model", writer.model, "--device", "cpu", *words)


@pytest.mark.parametrize("variant", [FULL, ADAPTERS, "0~distilled:2k"])
def test_a_trained_row_is_saved_with_the_weights_of_the_run(
    writer, swept, tmp_path, monkeypatch, variant
):
    folder, out = swept[0], tmp_path / "out"
    monkeypatch.setattr(Training, "go_on", interrupted)
    code, said, _ = prune(writer, "--run", folder, "--remove", variant, "--out", out)
    assert code == 0, said
    plan, _, recovery = variant.partition("~")
    assert f"without {plan}, " in said and f"{recovery}, is saved in {out}." in said
    recipe, facts = read_recipe(out), read_recovered(folder)
    (stored,) = [one for name, one in facts.items() if str(name) == variant]
    assert recipe.recovery.recovery == recovery
    assert recipe.recovery.details == stored.details
    assert (recipe.bridges is None) == (plan == "0")
    (row,) = [row for row in load_run(folder).rows() if row["variant"] == variant]
    assert recipe.numbers["perplexity"] == row["ppl"]
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    text = open_workbench(**writer.settings).texts["reported"]
    nats = 0.0
    for window in text.windows:
        ids = torch.from_numpy(text.ids[window.start : window.stop]).long()[None]
        nats += float(plain_nll(model, ids, window.first_output).sum())
    assert nats == pytest.approx(row["nll_nats"], rel=1e-5)


def test_a_recovery_in_the_name_is_the_option_of_that_recovery(writer, swept, tmp_path):
    run = ("--run", swept[0])
    for name, words in (("named", ["1+2~bridged"]), ("option", ["1+2", "--bridge"])):
        code, said, _ = prune(writer, "--remove", *words, *run, "--out", tmp_path / name)
        assert code == 0, said
    assert same_weights(tmp_path / "named", tmp_path / "option")


def test_what_cannot_be_saved_of_a_trained_row_is_refused(writer, swept, tmp_path):
    folder, out = swept[0], ("--out", tmp_path / "out")
    code, said, _ = prune(writer, "--remove", FULL, *out)
    assert code == 2 and said == (
        f"Error: cannot prune by {FULL} alone: it is trained, which takes long. Give a run that "
        "has it with --run, or train it with the command recover."
    )
    code, said, _ = prune(writer, "--run", folder, "--remove", "1+2~distilled:4k", *out)
    assert code == 2 and f"{folder}: it did not measure 1+2~distilled:4k." in said
    code, said, _ = prune(writer, "--run", folder, "--remove", FULL, "--bridge", *out)
    assert code == 2 and said == (
        f"Error: cannot use --bridge or --refit with --remove {FULL}: both say how what is lost "
        "is recovered. Give one."
    )
    for path in (folder / "recoveries" / "weights").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    code, said, _ = prune(writer, "--run", folder, "--remove", FULL, *out)
    assert code == 2 and said == (
        f"Error: cannot take the weights of {FULL} from {folder}: they are gone or damaged. Sweep "
        "again with --resume, or train it with the command recover."
    )
    assert list(tmp_path.iterdir()) == []


def test_the_best_of_each_size_are_distilled_when_all_else_is_measured(writer, tmp_path):
    folder = tmp_path / "run"
    asked = ("--mode", "sequential", "--top", "1", "--tokens", "2k", "--no-speed")
    code, said, _ = call("sweep", *writer.words, *asked, "--output", folder)
    assert code == 0, said
    run = load_run(folder)
    trained = [str(v) for v in run.variants if str(v).endswith("~distilled:2k")]
    last = [facts.variant for facts in run.rounds[-1].variants]
    assert len(trained) == 1 and trained == last
    plans = {row["removed"]: row for row in run.rows() if row["variant"].endswith("~bridged")}
    cheapest = min(plans.values(), key=lambda row: row["ppl"])["removed"] if plans else None
    assert cheapest is None or trained[0].startswith(f"{cheapest}~")


def test_what_will_be_trained_is_refused_before_anything_is_measured(writer, tmp_path):
    words = [word for word in writer.words if word != "--calibrate-on"]
    words.remove(writer.words[writer.words.index("--calibrate-on") + 1])
    asked = ("--mode", "sequential", "--top", "1", "--tokens", "2k", "--no-speed")
    code, said, _ = call("sweep", *words, *asked, "--output", tmp_path / "run")
    assert code == 2 and "cannot distil" in said
    assert not (tmp_path / "run").exists()
