"""Variants with weights of their own: measured, kept, shared and saved like others."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from bridging import plain_nll
from families import N_BLOCKS, random_tokens, tiny_model
from msgspec import structs
from safetensors.torch import load_file, save_file
from shaken import MADE, SHAKEN, shaken_copy
from test_comparing import ALL
from tiny import TEXT, save_tiny_gpt2
from torch.distributed import TCPStore
from transformers import AutoModelForCausalLM

from pruning_kit import load_run, open_workbench, sweep
from pruning_kit.errors import PlanError, RunError
from pruning_kit.export.huggingface import export
from pruning_kit.export.recipe import read_recipe, render_card, write_recipe
from pruning_kit.export.repetition import repeat
from pruning_kit.export.verification import verify_folder
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.weights import weights_hash
from pruning_kit.kernels import choose_kernel
from pruning_kit.plans.paths import as_cut
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning import recovery
from pruning_kit.pruning.material import Method
from pruning_kit.pruning.recovered import Recovered
from pruning_kit.pruning.recovery import RECOVERIES
from pruning_kit.runs.ranks import Ranks
from pruning_kit.runs.recovered import read_recovered
from pruning_kit.runs.store import RunFolder
from pruning_kit.search.named import parse
from pruning_kit.search.together import Together
from pruning_kit.sweeps import workbench as workbench_module
from pruning_kit.sweeps.opening import open_run
from pruning_kit.sweeps.settings import SweepSettings
from pruning_kit.sweeps.shelf import Shelf
from pruning_kit.sweeps.sweep import measure
from pruning_kit.walk.reference import ReferenceKernel
from pruning_kit.walk.sums import window_sums

TOKENS, FIRST_OUTPUT = random_tokens(2, 33), 12
WINDOWS = (TOKENS[:, :32], TOKENS[:, FIRST_OUTPUT + 1 :], FIRST_OUTPUT)
FAMILIES = ["gpt2", "gpt2-untied", "gpt2-inverse", "llama", "gemma2", "phi", "gptj", "opt"]
SHAKE = "1~shaken"


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(RECOVERIES, "shaken", SHAKEN)
    MADE.clear()


def make_bench(folder, dtype=torch.float32):
    (folder / "text.txt").write_text(TEXT * 2, encoding="utf-8")
    model = save_tiny_gpt2(folder / "model", n_blocks=4, dtype=dtype)
    return open_workbench(str(model), str(folder / "text.txt"), device="cpu", threads=1)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return make_bench(tmp_path_factory.mktemp("bench"))


@torch.no_grad()
def log_shares(model):
    logits = model(WINDOWS[0], use_cache=False).logits[:, FIRST_OUTPUT:]
    return logits.double().log_softmax(-1)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("plainly", [False, True])
def test_sums_are_those_of_both_models_own_logits(name, plainly):
    """The head of the variant is its own: neither embedding nor final norm is the whole model's."""
    whole = Decoder(tiny_model(name))
    model = shaken_copy(whole, Variant.parse("1+2~shaken")).model(whole)
    one, other = Decoder(model), whole
    if plainly:
        kernels = [ReferenceKernel(decoder, False) for decoder in (one, other)]
    else:
        kernels = [
            choose_kernel(d, TOKENS, torch.float32, torch.device("cpu")) for d in (one, other)
        ]
    kernel, of_whole = kernels
    path, whole_path = as_cut(Plan(), 2), as_cut(Plan(), N_BLOCKS)
    found = window_sums(kernel, [path], *WINDOWS, ALL, whole_path, of_whole)
    log_p, log_q = log_shares(whole.model), log_shares(model)
    kl = (log_p.exp() * (log_p - log_q)).sum(dim=(1, 2))
    assert float(kl.min()) > 0.1
    torch.testing.assert_close(found["kl"][0], kl, rtol=1e-4, atol=1e-4)
    same = (log_p.argmax(-1) == log_q.argmax(-1)).sum(dim=1).double()
    torch.testing.assert_close(found["agreement"][0], same, rtol=0, atol=0)
    nll = plain_nll(model, TOKENS, FIRST_OUTPUT)
    torch.testing.assert_close(found["nll"][0], nll, rtol=1e-5, atol=0)


def test_logits_are_held_for_few_positions_at_a_time(monkeypatch):
    whole = Decoder(tiny_model("gpt2"))
    model = shaken_copy(whole, Variant.parse("1~shaken")).model(whole)
    kernels = [
        choose_kernel(Decoder(m), TOKENS, torch.float32, torch.device("cpu"))
        for m in (model, whole.model)
    ]
    asked = ([as_cut(Plan(), 3)], *WINDOWS, ALL, as_cut(Plan(), N_BLOCKS), kernels[1])
    at_once = window_sums(kernels[0], *asked)
    monkeypatch.setattr("pruning_kit.walk.sums.LOGIT_CHUNK_BYTES", 1)
    one_by_one = window_sums(kernels[0], *asked)
    for name, sums in at_once.items():
        torch.testing.assert_close(one_by_one[name], sums, rtol=1e-5, atol=1e-5)


def test_a_variant_that_changes_nothing_is_no_further_away_than_the_plan_as_cut(bench, monkeypatch):
    monkeypatch.setitem(RECOVERIES, "shaken", Method(lambda variant, _: Recovered(variant, {})))
    found = bench.measure(["0+1~shaken", "0+1"], measures=ALL)
    for sums in found.sums.values():
        np.testing.assert_allclose(sums[0], sums[1], rtol=1e-4, atol=1e-3)


def test_few_kernels_are_alive_at_once(bench, monkeypatch):
    alive = []
    plainly = workbench_module.choose_kernel

    def count(*asked):
        alive.append(1)
        return plainly(*asked)

    monkeypatch.setattr(workbench_module, "choose_kernel", count)
    bench.measure(["0~shaken", "3~shaken", "none"], batch_size=1)
    assert len(alive) == 2 and MADE == ["0~shaken", "3~shaken"]
    monkeypatch.setattr(recovery, "KERNEL_BYTES", 1)
    bench.measure(["2+3~shaken", "0~shaken", "none"], batch_size=1)
    n_windows = len(bench.texts["reported"].windows)
    assert len(alive) == 2 + 2 * n_windows
    assert len(bench.material.kernels) == 1 and MADE == ["0~shaken", "3~shaken", "2+3~shaken"]


def test_weights_are_measured_as_they_are_saved(tmp_path):
    bench = make_bench(tmp_path, torch.bfloat16)
    bench.measure([SHAKE])
    made = bench.shelf[Variant.parse(SHAKE)]
    for weight in made.weights.values():
        assert torch.equal(weight, weight.to(torch.bfloat16).float())
    model = made.model(bench.decoder)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert "lm_head.weight" not in made.weights


@pytest.fixture(scope="module")
def undisturbed(bench, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECOVERIES, "shaken", SHAKEN)
        return sweep("1~shaken 2", bench, tmp_path_factory.mktemp("runs") / "run")


def test_the_row_stands_behind_its_plan_as_cut_with_all_measures(bench, undisturbed):
    rows = undisturbed.rows()
    assert [row["variant"] for row in rows] == ["none", "1", "1~shaken", "2"]
    assert [row["removed"] for row in rows] == ["none", "1", "1", "2"]
    as_cut_row, row = rows[1:3]
    assert row["kl_nats"] > 0 and 0 <= row["agreement"] <= 1 and row["status"] == "ok"
    assert row["ppl"] != as_cut_row["ppl"] and row["params_m"] == as_cut_row["params_m"]
    assert undisturbed.facts.proposal.text == "2 1~shaken"


def test_the_run_keeps_weights_and_says_how_they_were_made(bench, undisturbed):
    facts = read_recovered(undisturbed.folder)[Variant.parse(SHAKE)]
    assert facts.details == {"size": 0.05} and facts.refused is None
    made = Shelf(undisturbed.folder, torch.float32)[Variant.parse(SHAKE)]
    assert made.sha256 == facts.sha256 == shaken_copy(bench.decoder, made.variant).sha256
    assert undisturbed.recovered[made.variant] == facts


def test_a_stopped_run_takes_what_was_made(bench, undisturbed, monkeypatch, tmp_path):
    folder, left = tmp_path / "run", [1]
    plainly = RunFolder.write_part

    def stop(self, *args):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        plainly(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_part", stop)
        with pytest.raises(KeyboardInterrupt):
            sweep("1~shaken 2", bench, folder)
    assert MADE == [SHAKE]
    run = sweep("1~shaken 2", bench, folder, resume=True)
    assert MADE == [SHAKE]
    for name, sums in undisturbed.sums.items():
        np.testing.assert_array_equal(run.sums[name], sums)


def test_weights_that_are_damaged_are_made_anew_and_a_whole_run_needs_none(
    bench, undisturbed, tmp_path
):
    run = sweep("1~shaken 2", bench, tmp_path / "run")
    (file,) = (run.folder / "recoveries" / "weights").iterdir()
    tensors = load_file(file)
    next(iter(tensors.values())).add_(1)
    save_file(tensors, file)
    shelf = Shelf(run.folder, torch.float32)
    assert Variant.parse(SHAKE) not in shelf
    MADE.clear()
    sweep("1~shaken 2", bench, run.folder, resume=True)
    assert MADE == []
    (run.folder / "rounds" / "000" / "reported-000000.safetensors").unlink()
    again = sweep("1~shaken 2", bench, run.folder, resume=True)
    assert MADE == [SHAKE]
    np.testing.assert_array_equal(again.nll(), undisturbed.nll())


def test_facts_that_are_damaged_are_named(undisturbed, tmp_path):
    (tmp_path / "recoveries").mkdir()
    file = tmp_path / "recoveries" / "recovered.json"
    file.write_text('{"variants": {"1~": {"sha256": null, "details": {}, "refused": null}}}')
    with pytest.raises(RunError) as refused:
        read_recovered(tmp_path)
    assert str(refused.value).startswith(
        f"cannot read run {tmp_path}: its recoveries/recovered.json "
    )


def test_a_recovery_that_gains_nothing_has_no_row_which_is_said_and_kept(
    bench, monkeypatch, tmp_path
):
    said = []
    monkeypatch.setattr(type(bench.observer), "say", lambda self, text: said.append(text))
    run = sweep("1~shaken:worse 2", bench, tmp_path / "run")
    assert list(map(str, run.variants)) == ["none", "1", "2"]
    why = "cannot shake 1: that makes it worse. Leave it out."
    assert f"There is no row of 1~shaken:worse: the kit {why}" in said
    assert run.recovered[Variant.parse("1~shaken:worse")].refused == why
    MADE.clear()
    (run.folder / "rounds" / "000" / "variants.json").unlink()
    for part in (run.folder / "rounds" / "000").iterdir():
        part.unlink()
    sweep("1~shaken:worse 2", bench, run.folder, resume=True)
    assert MADE == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            "1~brewed",
            "cannot recover 1~brewed: no recovery is called 'brewed'. Choose one that is known: ",
        ),
        (
            "none~shaken",
            "cannot recover none~shaken: none removes no block. Name some of them, such as "
            "1~shaken.",
        ),
        (
            "1~bridged:5",
            "cannot recover by 'bridged:5': 'bridged' takes no details. Write bridged.",
        ),
        ("1~bridged", "cannot recover 1~bridged: no text to fit bridges on belongs to "),
    ],
)
def test_what_cannot_be_recovered_is_refused_before_a_folder_is_made(bench, tmp_path, asked, said):
    with pytest.raises(PlanError) as refused:
        sweep(asked, bench, tmp_path / "run")
    assert str(refused.value).startswith(said)
    assert not (tmp_path / "run").exists()


def test_nothing_is_made_of_a_model_without_blocks(bench):
    with pytest.raises(PlanError) as refused:
        bench.measure(["0-3~shaken"])
    assert str(refused.value) == (
        "cannot recover 0+1+2+3~shaken: 0+1+2+3 removes every block. Name some of them, such as "
        "1~shaken."
    )


def test_processes_that_share_a_run_make_it_once_and_agree(bench, undisturbed, tmp_path):
    other = open_workbench(
        undisturbed.facts.model.name, bench.settings.dataset, device="cpu", threads=1
    )
    hosted = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    joined = TCPStore("127.0.0.1", hosted.port, is_master=False, wait_for_workers=False)
    settings, proposer = SweepSettings(output=tmp_path / "run"), Together((parse("1~shaken 2"),))

    def take_part(rank, store, bench):
        ranks = Ranks(rank, 2, store=store)
        run, own = open_run(settings, bench, proposer, ranks)
        measure(run, proposer, own, ranks, goes_on=False)

    follower = threading.Thread(target=take_part, args=(1, joined, other))
    follower.start()
    take_part(0, hosted, bench)
    follower.join()
    assert MADE == [SHAKE]
    np.testing.assert_array_equal(load_run(tmp_path / "run").nll(), undisturbed.nll())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A 16-bit base, what was recovered of it, and the folder."""
    bench = make_bench(tmp_path_factory.mktemp("base"), torch.bfloat16)
    variant, folder = Variant.parse("1+2~shaken"), tmp_path_factory.mktemp("out") / "pruned"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECOVERIES, "shaken", SHAKEN)
        row = bench.measure([variant])
    made = bench.shelf[variant]
    export(bench.loaded, variant.plan, folder, recovered=made)
    return bench, made, folder, row


def test_the_folder_has_the_perplexity_of_the_row(saved):
    bench, _, folder, row = saved
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    text, nats = bench.texts["reported"], []
    for window in text.windows:
        ids = torch.from_numpy(text.ids[window.start : window.stop]).long()[None]
        nats.append(float(plain_nll(model, ids, window.first_output)))
    np.testing.assert_allclose(nats, row.sums["nll"][0], rtol=1e-5)


def test_recipe_and_card_say_what_was_recovered(saved):
    _, made, folder, _ = saved
    recipe = read_recipe(folder)
    assert recipe.recovery is not None and recipe.bridges is None
    assert (recipe.recovery.recovery, recipe.recovery.details) == ("shaken", {"size": 0.05})
    assert recipe.recovery.weights == made.hashes
    card = render_card(recipe)
    assert "blocks removed, then shaken." in card and "no training afterwards" not in card
    assert f"{len(made.weights)} tensors are not those of the base model: it was shaken." in card
    assert "| size | 0.05 |" in card


def test_verify_knows_the_recovered_weights(saved, tmp_path):
    _, made, folder, _ = saved
    checks = {check.name: check for check in verify_folder(folder)}
    assert all(check.passed for check in checks.values())
    assert checks["recipe"].detail.endswith(f", {len(made.weights)} tensors shaken")
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    tensors = load_file(copy / "model.safetensors")
    tensors["transformer.ln_f.weight"] += 1
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    write_recipe(structs.replace(read_recipe(copy), weights_sha256=weights_hash(copy)), copy)
    (check,) = [check for check in verify_folder(copy) if check.name == "recipe"]
    assert check.detail == "transformer.ln_f.weight is not as it was shaken" and not check.passed
    empty = structs.replace(read_recipe(copy).recovery, weights={})
    write_recipe(structs.replace(read_recipe(copy), recovery=empty), copy)
    (check,) = [check for check in verify_folder(copy) if check.name == "recipe"]
    assert "it is shaken, and no weight is its own" in check.detail


def test_it_is_made_again_from_its_base(saved):
    bench, made, folder, _ = saved
    kept, again = repeat(folder, bench.loaded, None, made)
    assert kept.passed and again.passed
    assert (
        again.detail
        == f"made again: {len(made.weights)} tensors at most 0.00% of their change away"
    )
    other = shaken_copy(bench.decoder, made.variant, size=0.06)
    kept, again = repeat(folder, bench.loaded, None, other)
    assert kept.passed and not again.passed and "of its change away (allowed 5%)" in again.detail
    (kept,) = repeat(folder, bench.loaded, None)
    assert kept.passed


def test_in_another_format_it_is_hashed_and_made_again_as_it_is_saved(saved, tmp_path):
    bench = saved[0]
    made = shaken_copy(bench.decoder, Variant.parse("1+2~shaken"), size=0.05)
    assert made.hashes != made.rounded(torch.float16).hashes
    export(bench.loaded, made.variant.plan, tmp_path / "out", recovered=made, save_dtype="float16")
    checks = [*verify_folder(tmp_path / "out"), *repeat(tmp_path / "out", bench.loaded, None, made)]
    assert [check.name for check in checks if not check.passed] == []
    assert checks[-1].detail.endswith("tensors at most 0.00% of their change away")


def test_a_model_of_another_plan_is_refused(saved, tmp_path):
    bench, made, _, _ = saved
    with pytest.raises(PlanError) as refused:
        export(bench.loaded, Plan((0,)), tmp_path / "out", recovered=made)
    assert str(refused.value) == (
        "cannot save 1+2~shaken as the model without 0: its blocks are others. Give that of this "
        "plan."
    )
    assert not (tmp_path / "out").exists()
