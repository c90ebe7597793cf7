"""Checkpoints: config and weights that do not tell one model are refused or kept as they are."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from families import tiny_model
from safetensors.torch import load_file, save_file
from tiny import save_tiny_gpt2
from transformers import AutoModelForCausalLM

from pruning_kit.errors import ModelError
from pruning_kit.export.huggingface import export
from pruning_kit.export.verification import verify_folder
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.checkpoints import load_checkpoint
from pruning_kit.inputs.models import find_model, load_model
from pruning_kit.plans.plan import Plan
from pruning_kit.pruning.surgery import recut

TOKENS = torch.arange(20)[None]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_gpt2(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny, tmp_path / "model")


def change_weights(folder: Path, change: Any) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


def change_config(folder: Path, name: str = "config.json", **changes: Any) -> None:
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def same_logits(one: Any, other: Any) -> bool:
    with torch.no_grad():
        return torch.equal(one(TOKENS).logits, other(TOKENS).logits)


class TestHeads:
    def test_a_head_of_its_own_under_a_config_that_says_tied_is_measured_and_exported(
        self, tiny: Path, folder: Path
    ) -> None:
        head = torch.randn_like(load_file(folder / "model.safetensors")["transformer.wte.weight"])
        change_weights(folder, lambda weights: weights | {"lm_head.weight": head})
        loaded = load_model(find_model(str(folder)))
        assert same_logits(loaded.model, AutoModelForCausalLM.from_pretrained(folder))
        assert not same_logits(loaded.model, load_model(find_model(str(tiny))).model)
        export(loaded, Plan((1,)), folder.parent / "pruned")
        pruned = load_model(find_model(str(folder.parent / "pruned")))
        assert pruned.model.config.tie_word_embeddings is False
        assert torch.equal(pruned.model.lm_head.weight, head)
        with recut(Decoder(loaded.model), Plan((1,))) as measured:
            assert same_logits(pruned.model, measured)
        assert all(check.passed for check in verify_folder(folder))

    def test_a_head_that_is_a_copy_of_the_embedding_stays_tied(self, folder: Path) -> None:
        change_weights(
            folder,
            lambda weights: weights | {"lm_head.weight": weights["transformer.wte.weight"].clone()},
        )
        model = load_model(find_model(str(folder))).model
        assert model.config.tie_word_embeddings is True
        assert model.lm_head.weight is model.transformer.wte.weight

    def test_a_config_that_says_untied_without_a_head_in_the_file_is_refused(
        self, folder: Path
    ) -> None:
        change_config(folder, tie_word_embeddings=False)
        with pytest.raises(ModelError, match=r"lack 1 tensor that .* \(such as lm_head.weight\)"):
            load_model(find_model(str(folder)))


class TestNames:
    @pytest.mark.parametrize(
        ("rename", "marks", "wrappers", "example"),
        [
            (
                lambda name: f"_orig_mod.{name}",
                "'_orig_mod'",
                "torch.compile",
                "_orig_mod.transformer.h.0.attn.c_attn.weight",
            ),
            (
                lambda name: f"module._orig_mod.{name.removeprefix('transformer.')}",
                "'module' and '_orig_mod'",
                "DataParallel or DistributedDataParallel and torch.compile",
                "module._orig_mod.h.0.attn.c_attn.weight",
            ),
            (
                lambda name: name.replace(".attn.", "._fsdp_wrapped_module.attn."),
                "'_fsdp_wrapped_module'",
                "FullyShardedDataParallel",
                "transformer.h.0._fsdp_wrapped_module.attn.c_attn.weight",
            ),
        ],
    )
    def test_names_that_a_wrapper_changed_are_told_with_the_wrapper(
        self, folder: Path, rename: Any, marks: str, wrappers: str, example: str
    ) -> None:
        change_weights(folder, lambda weights: {rename(n): t for n, t in weights.items()})
        with pytest.raises(ModelError) as error:
            load_model(find_model(str(folder)))
        assert str(error.value) == (
            f"cannot use model {str(folder)!r}: its tensors have {marks} in their names (such as "
            f"{example!r}), as {wrappers} puts there. Take that out of the names, or save the "
            "model that is wrapped."
        )


class TestConfigs:
    def test_a_config_that_hands_over_to_another_file_is_refused(self, folder: Path) -> None:
        shutil.copy(folder / "config.json", folder / "config.5.0.0.json")
        change_config(folder, configuration_files=["config.5.0.0.json"])
        with pytest.raises(ModelError) as error:
            load_model(find_model(str(folder)))
        assert str(error.value) == (
            f"cannot load model {str(folder)!r}: its config.json hands over to other files "
            "(configuration_files: ['config.5.0.0.json']). Make the right one config.json."
        )

    def test_a_config_that_sets_up_single_blocks_by_number_is_refused(self, tmp_path: Path) -> None:
        tiny_model("llama").save_pretrained(tmp_path)
        change_config(tmp_path, per_layer_config={"1": {"intermediate_size": 12}})
        with pytest.raises(ModelError) as error:
            load_checkpoint("mixed", tmp_path)
        assert str(error.value) == (
            "cannot prune model 'mixed': its config.json sets up single blocks by their numbers "
            "(per_layer_config), which change when blocks are removed. Use a model of equal blocks."
        )

    def test_an_export_names_no_code_that_it_does_not_hold(self, folder: Path) -> None:
        code = {"AutoModelForCausalLM": "modeling_x.X", "AutoConfig": "configuration_x.X"}
        change_config(folder, auto_map=code)
        change_config(
            folder, "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_x.X", None]}
        )
        export(load_model(find_model(str(folder))), Plan((1,)), folder.parent / "pruned")
        for file in (folder.parent / "pruned").glob("*.json"):
            assert "auto_map" not in file.read_text(), file

    def test_an_export_names_its_own_weights(self, folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "other.safetensors")
        change_config(folder, transformers_weights="other.safetensors")
        export(load_model(find_model(str(folder))), Plan((1,)), folder.parent / "pruned")
        AutoModelForCausalLM.from_pretrained(folder.parent / "pruned")

    def test_the_generation_config_is_the_folders_own(self, folder: Path) -> None:
        change_config(folder, "generation_config.json", top_k=7)
        assert load_checkpoint("tiny", folder).model.generation_config.top_k == 7
        (folder / "generation_config.json").unlink()
        config = load_checkpoint("tiny", folder).model.generation_config
        assert config.eos_token_id == load_checkpoint("tiny", folder).model.config.eos_token_id


class TestFuture:
    @pytest.mark.parametrize(
        ("name", "attention", "changes"),
        [
            ("gemma", "sdpa", {"use_bidirectional_attention": True}),
            ("gemma3_text", "eager", {"use_bidirectional_attention": True}),
            ("gemma3_text", "sdpa", {"use_bidirectional_attention": True}),
            ("llama", "eager", {"is_causal": False}),
            ("llama", "sdpa", {"is_causal": False}),
        ],
    )
    def test_a_model_with_bidirectional_attention_is_seen(
        self, name: str, attention: str, changes: dict[str, Any]
    ) -> None:
        assert not Decoder(tiny_model(name, attention)).sees_the_future(16)
        assert Decoder(tiny_model(name, attention, **changes)).sees_the_future(16)

    def test_it_is_refused(self, folder: Path, tmp_path: Path) -> None:
        tokenizer = [file for file in folder.iterdir() if "tokenizer" in file.name]
        model = tiny_model("gemma3_text", vocab_size=6144, use_bidirectional_attention=True)
        model.save_pretrained(tmp_path / "both")
        for file in tokenizer:
            shutil.copy(file, tmp_path / "both")
        with pytest.raises(ModelError) as error:
            load_model(find_model(str(tmp_path / "both")))
        assert str(error.value) == (
            f"cannot measure model {str(tmp_path / 'both')!r}: its predictions change with later "
            "tokens, so it sees what it is to predict (its attention is bidirectional). Use a "
            "causal language model."
        )

    def test_numbers_that_are_none_do_not_count_as_seeing(self) -> None:
        model = copy.deepcopy(tiny_model("gpt2"))
        with torch.no_grad():
            model.transformer.ln_f.bias.fill_(float("nan"))
        assert not Decoder(model).sees_the_future(16)
