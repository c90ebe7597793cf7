"""Export: the folder is an ordinary one, tells what it is, and appears whole or not at all."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
import subprocess
import textwrap
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from families import CONTEXT, N_BLOCKS, VOCABULARY, random_tokens, tiny_model
from msgspec import structs
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from pruning_kit.errors import ExportError, ModelError, PlanError, VerificationError
from pruning_kit.export import huggingface as export_module
from pruning_kit.export.huggingface import export
from pruning_kit.export.recipe import Recipe, block_map, read_recipe, render_card, write_recipe
from pruning_kit.export.repetition import repeat
from pruning_kit.export.verification import Check, verify_folder
from pruning_kit.inputs.models import LoadedModel, ModelSource, find_model, load_model
from pruning_kit.inputs.weights import weights_hash
from pruning_kit.plans.plan import Plan
from pruning_kit.pruning.surgery import count_parameters, recut, stored_copy

COMMAND = "pruning-kit prune --model base --remove 1,3 --out pruned"
NUMBERS = {"perplexity": 61.234567, "perplexity of the whole model": 41.9, "text": "a | b"}


@pytest.fixture(scope="module")
def make_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LoadedModel]:
    """Write a tiny model with tokenizer and generation config, and load it as a user does."""

    def make(name: str = "gpt2", dtype: torch.dtype = torch.float16) -> LoadedModel:
        folder = tmp_path_factory.mktemp("base")
        model = tiny_model(name).to(dtype)
        model.generation_config.do_sample = True
        model.generation_config.top_k = 7
        model.save_pretrained(folder)
        words = {f"w{index}": index for index in range(VOCABULARY)}
        tokenizer = Tokenizer(WordLevel(words, unk_token="w0"))
        tokenizer.pre_tokenizer = WhitespaceSplit()
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w0").save_pretrained(folder)
        return load_model(find_model(str(folder)), attention="eager")

    return make


@pytest.fixture(scope="module")
def base(make_base: Callable[..., LoadedModel]) -> LoadedModel:
    return make_base()


@pytest.fixture(scope="module")
def pruned(base: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "deep" / "pruned"
    export(base, Plan((1, 3)), folder, NUMBERS, COMMAND)
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(random_tokens(), use_cache=False).logits


class TestFolder:
    def test_plain_transformers_open_it_with_the_logits_of_the_model_in_memory(
        self, base: LoadedModel, pruned: Path
    ) -> None:
        reloaded = AutoModelForCausalLM.from_pretrained(
            pruned, dtype=torch.float32, attn_implementation="eager"
        )
        with recut(export_module.Decoder(base.model), Plan((1, 3))) as smaller:
            assert torch.equal(logits(reloaded), logits(smaller))

    def test_weights_are_saved_as_they_were_stored_not_as_they_run(
        self, base: LoadedModel, pruned: Path
    ) -> None:
        assert base.model.dtype == torch.float32
        tensors = load_file(pruned / "model.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
        assert json.loads((pruned / "config.json").read_text())["dtype"] == "float16"
        stored = load_file(base.source.folder / "model.safetensors")
        for new, old in enumerate((0, 2)):
            name = "transformer.h.{}.attn.c_attn.weight"
            assert torch.equal(tensors[name.format(new)], stored[name.format(old)])

    def test_it_holds_tokenizer_generation_config_and_no_pickle(self, pruned: Path) -> None:
        assert sorted(file.name for file in pruned.iterdir()) == [
            "README.md",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "pruning.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
        assert AutoTokenizer.from_pretrained(pruned)("w5 w7")["input_ids"] == [5, 7]
        assert json.loads((pruned / "generation_config.json").read_text())["top_k"] == 7

    def test_whoever_may_read_the_config_may_read_the_weights(self, pruned: Path) -> None:
        assert len({file.stat().st_mode for file in pruned.iterdir()}) == 1

    def test_gpt2s_context_has_the_name_that_other_programs_read(self, pruned: Path) -> None:
        config = json.loads((pruned / "config.json").read_text())
        assert config["n_ctx"] == config["n_positions"] == CONTEXT

    def test_vllm_finds_what_its_gpt2_asks_for(self, pruned: Path) -> None:
        """Source: vllm/model_executor/models/gpt2.py."""
        config = json.loads((pruned / "config.json").read_text())
        assert config["architectures"] == ["GPT2LMHeadModel"]
        for name in ("add_cross_attention", "scale_attn_by_inverse_layer_idx"):
            assert config[name] is False
        assert config["reorder_and_upcast_attn"] is False and config["tie_word_embeddings"] is True
        names = load_file(pruned / "model.safetensors")
        assert all(name.startswith("transformer.") for name in names)

    def test_all_checks_pass_and_are_returned(self, base: LoadedModel, tmp_path: Path) -> None:
        checks = export(base, Plan((0,)), tmp_path / "out")
        assert all(check.passed for check in checks)
        assert [check.name for check in checks] == [
            "weights",
            "depth",
            "numbering",
            "recipe",
            "cache",
            "generation",
            "reload",
        ]
        assert "logits differ by 0 at most" in checks[-1].detail

    def test_the_base_model_keeps_its_blocks_and_its_logits(
        self, base: LoadedModel, tmp_path: Path
    ) -> None:
        before, config = logits(base.model), base.model.config.to_dict()
        export(base, Plan((0, 2)), tmp_path / "out")
        assert torch.equal(logits(base.model), before)
        assert base.model.config.to_dict() == config

    @pytest.mark.parametrize("name", ["gpt2-inverse", "gpt_neo", "gemma3_text", "llama"])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
    def test_other_families_and_formats_pass_their_checks(
        self,
        make_base: Callable[..., LoadedModel],
        name: str,
        dtype: torch.dtype,
        tmp_path: Path,
    ) -> None:
        base = make_base(name, dtype)
        export(base, Plan((0, 2)), tmp_path / "out")
        again = load_model(find_model(str(tmp_path / "out")))
        assert again.stored_dtype == str(dtype).removeprefix("torch.")
        assert again.model.config.num_hidden_layers == 2

    @pytest.mark.parametrize("stored", [torch.float16, torch.float32])
    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    def test_weights_are_saved_in_the_format_that_is_asked_for(
        self, make_base: Callable[..., LoadedModel], stored: torch.dtype, dtype: str, tmp_path: Path
    ) -> None:
        base, out = make_base(dtype=stored), tmp_path / "out"
        assert all(check.passed for check in export(base, Plan((1, 3)), out, save_dtype=dtype))
        tensors, model = load_file(out / "model.safetensors"), AutoModelForCausalLM
        assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, dtype)}
        assert model.from_pretrained(out).dtype == getattr(torch, dtype)
        recipe, of_base = read_recipe(out), str(stored).removeprefix("torch.")
        assert (recipe.dtype, recipe.base_dtype) == (dtype, of_base)
        card, note = (
            (out / "README.md").read_text(),
            f"; measured with the base model's, in {of_base}",
        )
        assert f"| weights saved as | {dtype}{note * (dtype != of_base)} |" in card
        assert all(check.passed for check in [*verify_folder(out), *repeat(out, base, None)])

    def test_a_recipe_of_another_format_than_the_weights_is_found(
        self, pruned: Path, tmp_path: Path
    ) -> None:
        folder = shutil.copytree(pruned, tmp_path / "copy")
        write_recipe(structs.replace(read_recipe(folder), dtype="bfloat16"), folder)
        (fault,) = [check.detail for check in verify_folder(folder) if not check.passed]
        assert fault == "it says bfloat16 weights, the files hold float16"

    def test_a_weight_that_the_format_cannot_hold_is_named(
        self, make_base: Callable[..., LoadedModel], tmp_path: Path
    ) -> None:
        base = make_base(dtype=torch.float32)
        with torch.no_grad():
            base.model.transformer.h[2].mlp.c_fc.weight[3, 5] = 1e5
        with pytest.raises(ExportError) as error:
            export(base, Plan((1,)), tmp_path / "out", save_dtype="float16")
        assert str(error.value) == (
            "cannot save weights as float16: transformer.h.1.mlp.c_fc.weight holds a number that "
            "is not finite in it (its largest is 65,504). Save them as `save_dtype` bfloat16 or "
            "float32."
        )
        assert not list(tmp_path.iterdir())

    def test_a_pruned_folder_can_be_pruned_again(
        self, base: LoadedModel, pruned: Path, tmp_path: Path
    ) -> None:
        export(load_model(find_model(str(pruned))), Plan((0,)), tmp_path / "again")
        export(base, Plan((0, 1, 3)), tmp_path / "at once")
        models = [
            AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("again", "at once")
        ]
        assert torch.equal(*(logits(model) for model in models))


class TestRecipe:
    def test_it_tells_how_to_repeat_the_cut(self, base: LoadedModel, pruned: Path) -> None:
        recipe = read_recipe(pruned)
        assert recipe.base == str(base.source.folder)
        assert recipe.base_sha256 == base.weights_sha256
        assert recipe.weights_sha256 == weights_hash(pruned)
        assert recipe.removed == (1, 3)
        assert block_map(recipe.kept) == {"0": 0, "1": 2}
        assert recipe.whole_parameters == count_parameters(base.model)
        assert recipe.dtype == "float16"
        assert recipe.command == COMMAND
        assert recipe.numbers == NUMBERS
        assert recipe.versions["torch"] == version("torch")
        assert recipe.contradictions() == []

    def test_the_card_tells_how_to_load_it_and_to_make_it_again(
        self, base: LoadedModel, pruned: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        card = (pruned / "README.md").read_text()
        loading = card.split("no remote code is needed:\n")[1].split("\n|")[0]
        monkeypatch.chdir(pruned)
        names: dict[str, Any] = {}
        exec(textwrap.dedent(loading), names)
        assert names["model"].config.n_layer == 2 and names["tokenizer"]("w5")["input_ids"] == [5]
        assert f"\n    pruning-kit verify . --base {base.source.folder}\n" in card
        of_others = structs.replace(read_recipe(pruned), base="a b'c")
        assert """--base 'a b'"'"'c'\n""" in render_card(of_others)

    def test_the_card_shows_map_numbers_and_command(self, pruned: Path) -> None:
        card = (pruned / "README.md").read_text()
        assert "without blocks 1, 3" in card
        assert "| 1 | 2 |" in card
        assert "| perplexity | 61.2346 |" in card
        assert r"| text | a \| b |" in card
        assert COMMAND in card
        assert not re.search(r"\n\n\n|[{}]", card)

    def test_the_front_matter_names_a_base_model_only_if_it_is_on_the_hub(
        self, pruned: Path
    ) -> None:
        local = read_recipe(pruned)
        assert "base_model" not in front_matter(local)
        hub = structs.replace(local, base="some: one/mo'del", revision="0123abc")
        assert front_matter(hub)["base_model"] == "some: one/mo'del"
        assert front_matter(hub)["tags"] == ["gpt2", "layer-pruning", "pruning-kit"]

    @pytest.mark.parametrize(
        ("head", "carried", "sentence"),
        [
            ("license: apache-2.0", {"license": "apache-2.0"}, "model: apache-2.0."),
            (
                "license: other\nlicense_name: open rail\nlicense_link: https://x.org/rail",
                {
                    "license": "other",
                    "license_name": "open rail",
                    "license_link": "https://x.org/rail",
                },
                "model: open rail.",
            ),
            (
                "license: other\nlicense_name: own\nlicense_link: LICENSE",
                {"license": "other", "license_name": "own"},
                "model: own.",
            ),
            ("language: en", {}, "model."),
            ("license: [no: yaml", {}, "model."),
            ("- a list", {}, "model."),
        ],
    )
    def test_the_licence_is_that_of_the_base_models_card(
        self,
        base: LoadedModel,
        tmp_path: Path,
        head: str,
        carried: dict[str, str],
        sentence: str,
    ) -> None:
        folder = shutil.copytree(base.source.folder, tmp_path / "base")
        (folder / "README.md").write_text(f"---\n{head}\n---\n\nlicense: none\n")
        source = dataclasses.replace(base.source, folder=folder)
        export(dataclasses.replace(base, source=source), Plan((1,)), tmp_path / "out")
        recipe = read_recipe(tmp_path / "out")
        assert recipe.base_license == carried
        _, written, text = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
        told = yaml.safe_load(written)
        assert {name: told[name] for name in told if name.startswith("license")} == carried
        assert text.endswith(f"\nIts licence is that of the base {sentence}\n")

    def test_a_base_model_without_card_leaves_the_licence_to_it(self, pruned: Path) -> None:
        assert "license" not in front_matter(read_recipe(pruned))
        card = (pruned / "README.md").read_text()
        assert card.endswith("\nIts licence is that of the base model.\n")

    def test_the_demo_models_licence_is_known(self, tmp_path: Path) -> None:
        export(load_model(find_model("demo")), Plan((1,)), tmp_path / "out")
        assert front_matter(read_recipe(tmp_path / "out"))["license"] == "apache-2.0"

    def test_nothing_in_a_name_is_read_as_markdown_yaml_or_control(self, pruned: Path) -> None:
        name = 'm"\n---\n# x\x1b[31m|`<script>`\u202e'
        recipe = structs.replace(
            read_recipe(pruned),
            base=name,
            revision="v1|\n",
            base_license={"license": name},
            command=f"kit --model '{name}' ```",
            numbers={name: name},
        )
        card = render_card(recipe)
        assert not any(mark in card for mark in ("\x1b", "\u202e", "\n# x", "\n---\n# "))
        _, head, text = card.split("---\n", 2)
        assert yaml.safe_load(head)["license"] == yaml.safe_load(head)["base_model"] == name
        assert r"# m\"\\x0a---\\x0a# x\\x1b[31m".replace(r"\"", '"') in text
        assert "\n    kit --model $'m\"\\x0a---" in text
        assert not any(line.startswith("```") for line in text.splitlines())
        rows = [line for line in text.splitlines() if line.startswith("| base model |")]
        assert len(rows[-1].replace(r"\|", "").split("|")) == 4

    def test_a_card_without_figures_says_how_to_get_them(self, pruned: Path) -> None:
        card = render_card(structs.replace(read_recipe(pruned), numbers={}, command=None))
        assert "Nothing was measured when this folder was written." in card
        assert "`pruning-kit sweep --try 1+3`" in card

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda text: text[:50], "Input data was truncated"),
            (lambda text: text.replace('"schema": 1', '"schema": 9'), "it has schema 9, this"),
            (lambda text: "[]", "it has schema None, this"),
            (lambda text: "[" * 100_000, "nested too deeply"),
            (lambda text: text.replace('"kept"', '"left"'), "it lacks kept, or holds it in"),
            (lambda text: re.sub(r'"dtype": "\w+",', "", text), "it lacks dtype, or holds it in"),
            (lambda text: text.replace('"kept": [', '"kept": ["0",'), r"it lacks kept\[0\], or"),
            (
                lambda text: text.replace('"kept": [', '"kept": [1000000000,'),
                r"it lacks kept\[0\],",
            ),
            (
                lambda text: re.sub(r'"parameters": \d+', '"parameters": NaN', text),
                "JSON is malformed: invalid character",
            ),
            (
                lambda text: re.sub(r'"parameters": \d+', '"parameters": 0', text),
                "it lacks parameters",
            ),
            (lambda text: text.replace('"base"', '"x": 1, "base"'), "it holds x, which no recipe"),
            (
                lambda text: text.replace('"1": 2', '"1": 3'),
                "it is wrong in block_map: it is not that of",
            ),
        ],
    )
    def test_a_broken_one_is_refused(
        self, pruned: Path, tmp_path: Path, change: Callable[[str], str], reason: str
    ) -> None:
        text = (pruned / "pruning.json").read_text()
        assert change(text) != text
        (tmp_path / "pruning.json").write_text(change(text))
        with pytest.raises(ModelError, match=rf"cannot read the recipe .*pruning\.json': {reason}"):
            read_recipe(tmp_path)


def front_matter(recipe: Recipe) -> dict[str, Any]:
    _, head, _ = render_card(recipe).split("---\n", 2)
    return yaml.safe_load(head)


class TestRefusal:
    def test_a_folder_with_content_is_not_touched(self, base: LoadedModel, tmp_path: Path) -> None:
        (tmp_path / "precious").write_text("mine")
        with pytest.raises(
            ExportError,
            match=rf"cannot write the pruned model to '{tmp_path}': the folder is not empty\.",
        ):
            export(base, Plan((1,)), tmp_path)
        assert [file.name for file in tmp_path.iterdir()] == ["precious"]

    def test_an_empty_folder_is_used(self, base: LoadedModel, tmp_path: Path) -> None:
        folder = tmp_path / "empty"
        folder.mkdir()
        export(base, Plan((1,)), folder)
        assert (folder / "model.safetensors").exists()

    def test_a_file_in_the_way_is_not_touched(self, base: LoadedModel, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(ExportError, match=r"/file': the path is a file\. Give a folder"):
            export(base, Plan((1,)), tmp_path / "file")

    @pytest.mark.parametrize(
        ("name", "reason"), [("a" * 300, "File name too long"), ("file/out", "Not a directory")]
    )
    def test_a_path_that_cannot_be_is_one_sentence(
        self, base: LoadedModel, tmp_path: Path, name: str, reason: str
    ) -> None:
        (tmp_path / "file").write_text("mine")
        with pytest.raises(ExportError) as error:
            export(base, Plan((1,)), tmp_path / name)
        assert str(error.value) == (
            f"cannot write the pruned model to {str(tmp_path / name)!r}: {reason}. "
            "Make room, or choose another folder."
        )

    def test_plans_that_remove_nothing_or_too_much(self, base: LoadedModel, tmp_path: Path) -> None:
        for plan, reason in [
            (Plan(), "cannot prune by an empty plan: it removes no block."),
            (Plan((7,)), "cannot remove block 7: the model has 4 blocks, numbered 0 to 3."),
            (Plan((0, 1, 2, 3)), "cannot remove all 4 blocks"),
        ]:
            with pytest.raises(PlanError, match=re.escape(reason)):
                export(base, plan, tmp_path / "out")
        assert not list(tmp_path.iterdir())

    def test_a_disk_that_is_too_small_is_seen_beforehand(
        self, base: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = shutil.disk_usage(tmp_path)._replace(free=3_000_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(
            ExportError, match=r"it needs about 17 MB, the disk has 3 MB left\. Make room"
        ):
            export(base, Plan((1,)), tmp_path / "out")

    def test_weights_in_a_format_that_cannot_be_written(
        self, base: LoadedModel, tmp_path: Path
    ) -> None:
        said = (
            r"cannot save weights as 'I8': the kit writes float32, float16, bfloat16, float64\. "
            r"Name one of these with `save_dtype`\."
        )
        with pytest.raises(ExportError, match=said):
            export(dataclasses.replace(base, stored_dtype="I8"), Plan((1,)), tmp_path / "out")
        with pytest.raises(ExportError, match=said):
            export(base, Plan((1,)), tmp_path / "out", save_dtype="I8")


def fail_with(error: BaseException) -> Callable[..., None]:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    return fail


class TestNothingHalfWritten:
    @pytest.mark.parametrize(
        ("step", "error", "raised"),
        [
            ("_save_weights", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ExportError),
            ("write_card", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), ExportError),
            ("_save_tokenizer", KeyboardInterrupt(), KeyboardInterrupt),
        ],
    )
    def test_a_failure_while_writing_leaves_nothing(
        self,
        base: LoadedModel,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        step: str,
        error: BaseException,
        raised: type[BaseException],
    ) -> None:
        monkeypatch.setattr(export_module, step, fail_with(error))
        reason = "out': No space left on device. Make room" if raised is ExportError else None
        with pytest.raises(raised, match=reason):
            export(base, Plan((1,)), tmp_path / "out")
        assert not list(tmp_path.iterdir())
        assert len(base.model.transformer.h) == N_BLOCKS

    def test_a_tokenizer_that_meets_a_full_disk_leaves_nothing(
        self, base: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The Rust tokenizers raise a bare Exception for input and output errors.
        full = Exception("No space left on device (os error 28)")
        monkeypatch.setattr(type(base.tokenizer), "save_pretrained", fail_with(full))
        with pytest.raises(ExportError, match=r"out': No space left on device \(os error 28\)\."):
            export(base, Plan((1,)), tmp_path / "out")
        assert not list(tmp_path.iterdir())

    def test_a_model_that_fails_its_checks_is_not_kept(
        self, base: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stored_wrong(model: Any, dtype: torch.dtype, own: Any) -> Any:
            saved = stored_copy(model, dtype, own)
            with torch.no_grad():
                saved.transformer.h[0].mlp.c_fc.weight.neg_()
            return saved

        monkeypatch.setattr(export_module, "stored_copy", stored_wrong)
        with pytest.raises(
            VerificationError,
            match=r"without 1 fails 1 of 7 checks: reload: weights rounded or adapted for saving, "
            r"logits differ by \d.* at most \(allowed 0\.\d+\)\. Do not use it\.",
        ):
            export(base, Plan((1,)), tmp_path / "out")
        assert not list(tmp_path.iterdir())


class TestLeftBehind:
    def test_a_killed_export_leaves_nothing_once_the_next_one_ran(
        self, base: LoadedModel, tmp_path: Path
    ) -> None:
        gone = subprocess.Popen(["true"])
        gone.wait()
        names = {
            "dead": f".out[1].{gone.pid}.partial",
            "ours": f".out[1].{os.getpid()}.partial",
            "alive": f".out[1].{os.getppid()}.partial",
            "of another target": f".out.{gone.pid}.partial",
            "unnumbered": ".out[1].x.partial",
            "no number of a process": f".out[1].{10**25}.partial",
        }
        for name in names.values():
            (tmp_path / name).mkdir()
            (tmp_path / name / "model.safetensors").write_text("half")
        export(base, Plan((1,)), tmp_path / "out[1]")
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {
            "out[1]",
            *(names[who] for who in names if who not in ("dead", "ours")),
        }

    def test_their_room_counts_as_free(
        self, base: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stale = tmp_path / f".out.{os.getpid()}.partial"
        stale.mkdir()
        free = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(
            shutil, "disk_usage", lambda _: free._replace(free=0) if stale.exists() else free
        )
        export(base, Plan((1,)), tmp_path / "out")
        assert (tmp_path / "out" / "model.safetensors").exists()


def test_the_source_of_the_base_is_quoted_as_the_user_gave_it(
    base: LoadedModel, tmp_path: Path
) -> None:
    source = ModelSource("distilgpt2", base.source.folder, "2290a62682d0")
    checks: list[Check] = export(
        dataclasses.replace(base, source=source), Plan((2,)), tmp_path / "out"
    )
    assert "distilgpt2 without 2: 3 blocks" in checks[3].detail
    assert read_recipe(tmp_path / "out").revision == "2290a62682d0"
