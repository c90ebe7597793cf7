"""Bridged models as folders: what was measured is what is in them, and the recipe says how."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bridging import bridging_over, plain_nll, reference
from families import N_BLOCKS, VOCABULARY, random_tokens, tiny_model
from msgspec import structs
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from pruning_kit.errors import PlanError
from pruning_kit.export.huggingface import export
from pruning_kit.export.recipe import read_recipe, render_card, write_recipe
from pruning_kit.export.repetition import check_base, repeat
from pruning_kit.export.verification import verify_folder
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.models import LoadedModel, find_model, load_model
from pruning_kit.inputs.weights import weights_hash
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import subsets
from pruning_kit.pruning.bridges.bridging import Bridges, Bridging
from pruning_kit.pruning.bridges.folding import folded, form_of, form_sha256
from pruning_kit.walk.sums import window_sums

TOKENS, FIRST_OUTPUT = random_tokens(3, 33, seed=5), 12


@pytest.fixture(scope="module")
def make_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LoadedModel]:
    """Write a tiny model with a tokenizer and load it as a user does."""

    def make(name: str, dtype: torch.dtype) -> LoadedModel:
        folder = tmp_path_factory.mktemp("base")
        tiny_model(name).to(dtype).save_pretrained(folder)
        words = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
        PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
        return load_model(find_model(str(folder)), attention="eager")

    return make


def bridging_of(base: LoadedModel) -> Bridging:
    """All plans judged."""
    found = bridging_over(base.model, base.saved_dtype)
    plans = [*subsets(N_BLOCKS, range(1, N_BLOCKS))]
    assert list(found.fit(plans))
    found.judge(plans)
    return found


def best(found: Bridging, n_gaps: int = 1) -> Bridges:
    """Of a plan with so many bridges at least, that they help."""
    able = (found.bridges(plan) for plan, one in sorted(found.judged.items()) if one.helps)
    return next(bridges for bridges in able if len(bridges.fits) >= n_gaps)


@pytest.fixture(scope="module")
def base(make_base) -> LoadedModel:
    return make_base("gpt2", torch.float16)


@pytest.fixture(scope="module")
def bridges(base) -> Bridges:
    return best(bridging_of(base))


@pytest.fixture(scope="module")
def pruned(base, bridges, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "pruned"
    export(base, bridges.plan, folder, bridges=bridges)
    return folder


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("gpt2", torch.float16),
        ("gpt2-inverse", torch.float32),
        ("llama", torch.bfloat16),
        ("granite", torch.float16),
        pytest.param("falcon", torch.bfloat16, marks=pytest.mark.slow),
        ("qwen2_moe", torch.float32),
        pytest.param("opt", torch.float16, marks=pytest.mark.slow),
    ],
)
def test_the_folder_has_the_perplexity_of_the_row(make_base, name, dtype, tmp_path):
    base = make_base(name, dtype)
    found = bridging_of(base)
    exported = [bridges for bridges in [best(found), *also(found)] if bridges is not None]
    windows = (TOKENS[:, :-1], TOKENS[:, FIRST_OUTPUT + 1 :], FIRST_OUTPUT)
    kernel = reference(base.model)
    for number, bridges in enumerate(exported):
        path = found.path(bridges.plan)
        found.teach(kernel, path)
        row = window_sums(kernel, [path], *windows)["nll"][0]
        export(base, bridges.plan, tmp_path / str(number), bridges=bridges)
        reloaded = AutoModelForCausalLM.from_pretrained(
            tmp_path / str(number), dtype=torch.float32, attn_implementation="eager"
        )
        again = plain_nll(reloaded, TOKENS, FIRST_OUTPUT)
        torch.testing.assert_close(again, row, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_bridges_in_another_format_are_hashed_and_made_again_as_they_are_saved(
    base, bridges, dtype, tmp_path
):
    export(base, bridges.plan, tmp_path / "out", bridges=bridges, save_dtype=dtype)
    checks = [*verify_folder(tmp_path / "out"), *repeat(tmp_path / "out", base, bridges)]
    assert [check.name for check in checks if not check.passed] == []
    stored, own = (read_recipe(tmp_path / "out").bridges, bridges.fits)
    assert stored is not None
    same = {gap: stored.gaps[str(gap)].sha256 == fit.sha256 for gap, fit in own.items()}
    assert set(same.values()) == {dtype == "float32"}  # what 16 bits hold, 32 hold


def also(found: Bridging) -> list[Bridges]:
    """Of the largest plan whose bridges help."""
    helped = [plan for plan, one in sorted(found.judged.items()) if one.helps]
    return [found.bridges(helped[-1])]


def test_it_is_a_checkpoint_of_the_cut_shape_without_a_parameter_more(
    base, bridges, pruned, tmp_path
):
    export(base, bridges.plan, tmp_path / "cut")
    ours, cut = (load_file(folder / "model.safetensors") for folder in (pruned, tmp_path / "cut"))
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in cut.items()
    }
    changed = {name for name, tensor in ours.items() if not torch.equal(tensor, cut[name])}
    kept = bridges.plan.kept(N_BLOCKS)
    assert changed == {
        f"transformer.h.{kept.index(gap.block)}.mlp.c_proj.{part}"
        for gap in bridges.fits
        for part in ("weight", "bias")
    }
    assert (pruned / "config.json").read_text() == (tmp_path / "cut" / "config.json").read_text()


def test_the_base_model_is_what_it_was_also_after_a_failure(base, bridges):
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    modules = [*base.model.modules()]
    with pytest.raises(RuntimeError), folded(Decoder(base.model), bridges.forms):
        assert any(
            not torch.equal(tensor, before[name])
            for name, tensor in base.model.state_dict().items()
        )
        raise RuntimeError
    after = base.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(one is other for one, other in zip(modules, base.model.modules(), strict=True))


def test_bridges_of_another_plan_are_refused(base, bridges, tmp_path):
    other = Plan((0,))
    with pytest.raises(PlanError) as refused:
        export(base, other, tmp_path / "out", bridges=bridges)
    assert str(refused.value) == (
        f"cannot fold the bridges of {bridges.plan.short} into the model without 0: the gaps are "
        "others. Give those of this plan."
    )
    assert not (tmp_path / "out").exists()


def test_the_recipe_holds_texts_and_strengths_and_the_hash_of_what_was_folded(bridges, pruned):
    recipe = read_recipe(pruned).bridges
    assert recipe is not None
    assert {gap: one.strength for gap, one in recipe.gaps.items()} == {
        str(gap): fit.strength for gap, fit in bridges.fits.items()
    }
    fitting = bridges.calibration.fitting
    assert recipe.fitting.sha256 == fitting.corpus.sha256
    assert (recipe.fitting.tokens, recipe.fitting.tokens_sha256) == (48 * 32, fitting.ids_sha256)
    assert (recipe.context, recipe.stride, recipe.bos) == (32, 32, None)
    assert (recipe.nats_as_cut, recipe.nats) == (
        bridges.judgement.nats_as_cut,
        bridges.judgement.nats,
    )
    stack, kept = Decoder(load_model(find_model(str(pruned))).model).stack, read_recipe(pruned).kept
    for gap, form in bridges.forms.items():
        saved = form_of(stack[kept.index(gap.block)].mlp.c_proj)
        assert form_sha256(saved) == recipe.gaps[str(gap)].sha256 == form_sha256(form)


def test_the_card_says_what_was_bridged_and_how_far_it_carries(pruned):
    recipe = read_recipe(pruned)
    assert recipe.bridges is not None
    texts = replace_titles(recipe, "A novel (fitting part)", "A novel (tuning part)")
    card = render_card(texts)
    assert "the gaps bridged in closed form, and no training afterwards" in card
    assert "is as general as that text" in card
    assert "| fitted on | A novel (fitting part): 1,536 tokens |" in card
    assert "No weight was added, and no other was changed." in card
    (gap, one), *_ = recipe.bridges.gaps.items()
    block, to = gap.split(">")
    end = "the final norm" if to == str(N_BLOCKS) else f"block {to}"
    assert f"| {block} | {end} | {one.strength:,.6g} |" in card


def replace_titles(recipe, fitting, tuning):
    bridges = structs.replace(
        recipe.bridges,
        fitting=structs.replace(recipe.bridges.fitting, title=fitting),
        tuning=structs.replace(recipe.bridges.tuning, title=tuning),
    )
    return structs.replace(recipe, bridges=bridges)


def test_the_card_of_a_model_as_cut_has_no_word_of_bridges(pruned):
    card = render_card(structs.replace(read_recipe(pruned), bridges=None))
    assert "ridge" not in card


def test_a_recipe_without_the_field_is_read_as_one_of_a_model_as_cut(base, tmp_path):
    export(base, Plan((0,)), tmp_path / "out")
    file = tmp_path / "out" / "pruning.json"
    content = json.loads(file.read_text())
    assert content.pop("bridges") is None
    file.write_text(json.dumps(content))
    assert read_recipe(tmp_path / "out").bridges is None
    assert all(check.passed for check in verify_folder(tmp_path / "out"))


def test_verify_says_which_gaps_are_bridged(bridges, pruned):
    checks = {check.name: check for check in verify_folder(pruned)}
    assert all(check.passed for check in checks.values())
    assert checks["recipe"].detail.endswith(f", {', '.join(map(str, bridges.fits))} bridged")


def altered(folder: Path, target: Path, change) -> str:
    """The recipe check of a copy of the folder whose recipe was changed."""
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    write_recipe(change(read_recipe(folder)), target)
    (check,) = [check for check in verify_folder(target) if check.name == "recipe"]
    assert not check.passed
    return check.detail


def test_a_recipe_of_bridges_that_cannot_be_is_found(pruned, tmp_path):
    def with_bridges(**changes):
        return lambda recipe: structs.replace(
            recipe, bridges=structs.replace(recipe.bridges, **changes)
        )

    recipe = read_recipe(pruned)
    one = next(iter(recipe.bridges.gaps.values()))
    cases = [
        ({"gaps": {"7>9": one}}, "7>9 is bridged, which is no gap of the plan"),
        ({"gaps": {}}, "no gap is bridged, and the recipe has bridges"),
        ({"gaps": {"x": one}}, "cannot read 'x' as a call"),
        ({"nats": 9.5, "nats_as_cut": 9.25}, "its bridges are said to cost more than none"),
    ]
    for number, (changes, said) in enumerate(cases):
        assert said in altered(pruned, tmp_path / str(number), with_bridges(**changes))


def test_a_projection_that_is_not_the_one_of_the_recipe_is_found(bridges, pruned, tmp_path):
    """Weights and their hash were written anew, the hash of what was folded was not."""
    gap = next(iter(bridges.fits))
    new = bridges.plan.kept(N_BLOCKS).index(gap.block)

    def change(recipe):
        tensors = load_file(tmp_path / "out" / "model.safetensors")
        tensors[f"transformer.h.{new}.mlp.c_proj.weight"][0, 0] += 1
        save_file(tensors, tmp_path / "out" / "model.safetensors", metadata={"format": "pt"})
        return structs.replace(recipe, weights_sha256=weights_hash(tmp_path / "out"))

    assert altered(pruned, tmp_path / "out", change) == (
        f"the projection that bridges {gap} is another one"
    )


def test_repeating_finds_the_same_weights(base, bridges, pruned):
    checks = repeat(pruned, base, bridges)
    assert [check.name for check in checks] == ["kept weights", "bridges"]
    assert all(check.passed for check in checks)
    assert " 0.00% of what it adds away (allowed 5%)" in checks[1].detail


@pytest.mark.parametrize("part", ["mlp.c_fc", "mlp.c_proj"])
def test_repeating_finds_a_weight_that_is_another(base, bridges, pruned, tmp_path, part):
    gap = next(iter(bridges.fits))
    name = f"transformer.h.{bridges.plan.kept(N_BLOCKS).index(gap.block)}.{part}.weight"
    folder = tmp_path / "out"
    shutil.copytree(pruned, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[name] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    kept, folded_in = repeat(folder, base, bridges)
    assert (kept.passed, folded_in.passed) == (part == "mlp.c_proj", part == "mlp.c_fc")
    if part == "mlp.c_fc":
        assert f"tensors are not those of the base ({name})" in kept.detail
    else:
        assert f"fitted again: {gap} " in folded_in.detail


def test_repeating_finds_a_gap_that_is_bridged_in_one_of_both_alone(base, bridges, pruned):
    gap = next(iter(bridges.fits))
    _, folded_in = repeat(pruned, base, replace(bridges, fits={}))
    assert not folded_in.passed and f"{gap} is bridged there alone" in folded_in.detail


def test_repeating_a_model_as_cut_compares_all_of_it(base, tmp_path):
    export(base, Plan((1, 3)), tmp_path / "out")
    (kept,) = repeat(tmp_path / "out", base, None)
    assert kept.passed


def test_the_base_is_known_by_its_hash(base, make_base, pruned):
    recipe = read_recipe(pruned)
    assert check_base(recipe, base).passed
    other = make_base("llama", torch.float32)
    assert not check_base(recipe, other).passed
    assert check_base(recipe, other).detail == (
        f"{other.source.name} has the hash {other.weights_sha256[:8]}, the model was made from one "
        f"of {base.weights_sha256[:8]}"
    )
