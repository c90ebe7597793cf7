"""Verification finds each fault that removing blocks the careless way makes."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import tiny_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GenerationConfig

from pruning_kit.errors import ArchitectureError, ModelError, VerificationError
from pruning_kit.export.recipe import Recipe, write_recipe
from pruning_kit.export.verification import Check, _behaviour, require, verify_folder, verify_model
from pruning_kit.inputs.weights import weights_hash
from pruning_kit.plans.plan import Plan
from pruning_kit.pruning.surgery import count_parameters, cut, stored_copy


def slice_only(model: Any, kept: list[int]) -> Any:
    """What a careless script does: the stack is sliced and nothing else."""
    model.transformer.h = nn.ModuleList([model.transformer.h[block] for block in kept])
    return model


def failed(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.detail for check in checks if not check.passed}


class TestModel:
    @pytest.mark.parametrize("name", ["gpt2", "gpt2-inverse", "gemma2", "mpt", "opt-projected"])
    def test_a_model_cut_by_the_kit_passes(self, name: str) -> None:
        checks = verify_model(cut(tiny_model(name), Plan((0, 2))))
        assert not failed(checks)
        assert [check.name for check in checks] == [
            "depth",
            "numbering",
            "cache",
            "generation",
            "reload",
        ]

    def test_slicing_the_stack_alone_fails_twice(self) -> None:
        checks = verify_model(slice_only(tiny_model("gpt2"), [1, 2, 3]))
        assert failed(checks) == {
            "depth": "the model has 3 blocks, but the config's num_hidden_layers says 4",
            "numbering": "3 block numbers are stale (block 0 holds layer_idx=1)",
        }

    def test_a_stale_list_in_the_config_fails(self) -> None:
        model = cut(tiny_model("qwen2"), Plan((0, 2)))
        model.config.layer_types = ["sliding_attention", "full_attention", "full_attention"]
        assert failed(verify_model(model)) == {
            "depth": "the model has 2 blocks, but the config's layer_types says 3"
        }

    def test_positions_that_restart_at_every_token_show_in_the_logits(self) -> None:
        """What stale numbers do without an error: nothing fills the first place of the cache."""
        with torch.no_grad():
            found = failed(_behaviour(slice_only(tiny_model("gpt2"), [1, 2, 3])))
        assert set(found) == {"cache"}  # `generate` counts positions itself
        difference, allowed = re.findall(r"[\d.]+(?:e-\d+)?(?= at most|:)", found["cache"])
        assert float(difference) > 100 * float(allowed)

    def test_one_generated_token_that_is_not_the_best_is_found(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = tiny_model("gpt2")
        generate = model.generate

        def generate_one_wrong(*args: Any, **kwargs: Any) -> torch.Tensor:
            tokens = generate(*args, **kwargs)
            tokens[0, -1] = (tokens[0, -1] + 1) % model.config.vocab_size
            return tokens

        monkeypatch.setattr(model, "generate", generate_one_wrong)
        found = failed(verify_model(model))
        assert set(found) == {"generation"}
        assert found["generation"].startswith("15 of 16 greedy tokens with cache are the best")

    def test_a_config_that_a_reload_reads_otherwise_fails(self) -> None:
        model = cut(tiny_model("gpt2"), Plan((0,)))
        model.config.layer_norm_epsilon = 0.5  # the blocks in memory were built with another
        assert set(failed(verify_model(model))) == {"reload"}

    def test_numbers_that_are_not_numbers_fail(self) -> None:
        model = tiny_model("gpt2")
        with torch.no_grad():
            model.transformer.h[2].mlp.c_proj.bias.fill_(float("nan"))
        found = failed(verify_model(model))
        assert set(found) == {"cache", "generation", "reload"}
        assert "differ by nan" in found["cache"]

    def test_the_models_own_generation_settings_neither_matter_nor_change(self) -> None:
        model = tiny_model("gpt2")
        own = GenerationConfig(
            do_sample=True, temperature=3.0, repetition_penalty=9.0, eos_token_id=list(range(97))
        )
        model.generation_config = own
        assert not failed(verify_model(model))
        assert model.generation_config is own

    def test_half_precision_passes_with_its_own_tolerance(self) -> None:
        for dtype in (torch.float16, torch.bfloat16):
            assert not failed(verify_model(cut(tiny_model("llama"), Plan((1,))).to(dtype)))

    def test_a_short_context_is_enough(self) -> None:
        assert not failed(verify_model(tiny_model("gpt2", n_positions=12)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pruned model of three blocks with its recipe."""
    model = tiny_model("gpt2")
    whole = count_parameters(model)
    path = tmp_path / "pruned"
    stored_copy(cut(model, Plan((0,))), torch.float16).save_pretrained(path)
    recipe = Recipe(
        base="base",
        revision=None,
        base_sha256="0" * 64,
        model_type="gpt2",
        removed=(0,),
        kept=(1, 2, 3),
        whole_parameters=whole,
        parameters=count_parameters(model),
        dtype="float16",
        weights_sha256=weights_hash(path),
        created="2026-01-01T00:00:00+00:00",
        versions={},
        base_license={},
        command=None,
        numbers={},
    )
    write_recipe(recipe, path)
    return path


def edit_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


class TestFolder:
    def test_a_sound_folder_passes(self, folder: Path) -> None:
        checks = verify_folder(folder)
        assert not failed(checks)
        details = {check.name: check.detail for check in checks}
        assert details["weights"] == "the files hold exactly the tensors the config asks for"
        assert details["recipe"].startswith("base without 0: 3 blocks, ")
        assert details["reload"].endswith("logits differ by 0 at most (allowed 0)")

    def test_any_model_folder_can_be_verified(self, folder: Path) -> None:
        (folder / "pruning.json").unlink()
        checks = verify_folder(str(folder))
        assert not failed(checks)
        assert "recipe" not in [check.name for check in checks]

    def test_a_config_deeper_than_the_weights_fails_instead_of_running_random_blocks(
        self, folder: Path
    ) -> None:
        (folder / "pruning.json").unlink()
        edit_json(folder / "config.json", n_layer=4)
        checks = verify_folder(folder)
        assert failed(checks) == {
            "weights": "12 tensors of the config not in the files "
            "(transformer.h.3.attn.c_attn.bias)"
        }
        assert "reload" not in [check.name for check in checks]

    def test_the_folder_of_a_careless_script_fails(self, tmp_path: Path) -> None:
        slice_only(tiny_model("gpt2"), [1, 2, 3]).save_pretrained(tmp_path)
        assert set(failed(verify_folder(tmp_path))) == {"weights"}

    def test_a_config_shallower_than_the_weights_fails(self, folder: Path) -> None:
        edit_json(folder / "config.json", n_layer=2)
        found = failed(verify_folder(folder))
        assert re.match(r"\d+ tensors of the files not in the config \(", found["weights"])
        assert "it keeps 3 blocks, the model has 2; it says 1" in found["recipe"]

    def test_weights_of_another_shape_fail(self, folder: Path) -> None:
        edit_json(folder / "config.json", n_inner=20)
        assert failed(verify_folder(folder))["weights"].startswith("9 tensors of the config not")

    def test_weights_changed_after_the_recipe_fail(self, folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors["transformer.h.1.mlp.c_fc.bias"][0] += 1
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        assert failed(verify_folder(folder)) == {
            "recipe": "config or weights were changed after the recipe was written"
        }

    @pytest.mark.parametrize("how", ["index", "config"])
    def test_weights_swapped_for_others_of_another_name_fail(self, folder: Path, how: str) -> None:
        tensors = load_file(folder / "model.safetensors")
        if how == "index":
            (folder / "model.safetensors").rename(folder / "other.safetensors")
            content = {"weight_map": dict.fromkeys(tensors, "other.safetensors")}
            (folder / "model.safetensors.index.json").write_text(json.dumps(content))
        else:
            other = {name: tensor * 2 for name, tensor in tensors.items()}
            save_file(other, folder / "other.safetensors", metadata={"format": "pt"})
            edit_json(folder / "config.json", transformers_weights="other.safetensors")
        assert failed(verify_folder(folder)) == {
            "recipe": "config or weights were changed after the recipe was written"
        }

    def test_files_beside_the_weights_change_nothing(self, folder: Path) -> None:
        (folder / "stray.safetensors").write_bytes(b"damaged")
        assert not failed(verify_folder(folder))

    def test_a_recipe_that_contradicts_itself_fails(self, folder: Path) -> None:
        edit_json(folder / "pruning.json", removed=[1])
        assert failed(verify_folder(folder)) == {
            "recipe": "kept and removed blocks do not make up the base model"
        }

    def test_a_recipe_that_cannot_be_read_fails(self, folder: Path) -> None:
        (folder / "pruning.json").write_text("{")
        assert failed(verify_folder(folder))["recipe"].startswith("cannot read the recipe")

    def test_a_folder_that_is_not_the_model_in_memory_fails(self, folder: Path) -> None:
        reference = cut(tiny_model("gpt2", seed=5), Plan((0,)))
        assert set(failed(verify_folder(folder, reference=reference))) == {"reload"}

    def test_a_failed_check_is_one_sentence_where_the_caller_asks(self, folder: Path) -> None:
        edit_json(folder / "pruning.json", parameters=5)
        with pytest.raises(
            VerificationError,
            match=r"^pruned fails 1 of 4 checks: recipe: it says 5 parameters, the model has "
            r"\d+,\d+\. Do not use it\.$",
        ):
            require(verify_folder(folder), "pruned")

    def test_checks_that_all_passed_raise_nothing(self, folder: Path) -> None:
        require(verify_folder(folder), "pruned")


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def with_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def only_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    no_weights(folder)


def half_of_the_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


class TestNoModel:
    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (no_config, "holds no config.json"),
            (no_weights, "it has no weights"),
            (with_adapter, "it holds a PEFT adapter"),
            (only_pickle, "it has weights only as a pickle"),
            (half_of_the_weights, "Error while deserializing header"),
            (broken_config, "its config.json cannot be used"),
        ],
    )
    def test_a_folder_that_cannot_be_loaded_is_an_error_with_its_reason(
        self, folder: Path, damage: Callable[[Path], None], reason: str
    ) -> None:
        damage(folder)
        with pytest.raises(ModelError, match=f"cannot load model '{folder}'.*{reason}"):
            verify_folder(folder)

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        for name in ("none", "n" * 300):
            with pytest.raises(ModelError, match=rf"cannot verify '.*/{name}': there is no such f"):
                verify_folder(tmp_path / name)

    def test_another_kind_of_model(self, folder: Path) -> None:
        edit_json(folder / "config.json", model_type="bert")
        with pytest.raises(ArchitectureError, match=r"no adapter for model type 'bert'"):
            verify_folder(folder)

    def test_an_encoder_decoder(self, folder: Path) -> None:
        edit_json(folder / "config.json", model_type="t5", is_encoder_decoder=True)
        with pytest.raises(ModelError, match=r"t5 is an encoder-decoder"):
            verify_folder(folder)

    def test_code_in_the_folder_is_not_run(self, folder: Path, tmp_path: Path) -> None:
        shutil.copytree(folder, other := tmp_path / "other")
        (other / "own.py").write_text("raise SystemExit('ran')")
        edit_json(other / "config.json", model_type="own", auto_map={"AutoConfig": "own.Own"})
        with pytest.raises(ModelError, match=r"its config\.json cannot be used"):
            verify_folder(other)


def test_the_checks_leave_the_model_as_it_was() -> None:
    model = cut(tiny_model("gpt2"), Plan((2,)))
    before = copy.deepcopy(model)
    verify_model(model)
    assert model.config.to_dict() == before.config.to_dict()
    assert all(
        torch.equal(tensor, before.state_dict()[name])
        for name, tensor in model.state_dict().items()
    )
