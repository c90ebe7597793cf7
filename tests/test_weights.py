"""Weight files: one decision for reading, hash, stored format and download; nothing else counts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import save_tiny_gpt2

from pruning_kit.errors import ModelError
from pruning_kit.inputs.checkpoints import load_checkpoint
from pruning_kit.inputs.models import find_model, load_model
from pruning_kit.inputs.weights import find_weights, weights_hash

META = {"format": "pt"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_gpt2(tmp_path_factory.mktemp("tiny"), dtype=torch.float16)


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny, tmp_path / "model")


def change_config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def shard(
    folder: Path, first: str = "a.safetensors", rest: str = "b.safetensors"
) -> dict[str, str]:
    """Split the weights over two files and an index; where each tensor is."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    save_file({names[0]: weights[names[0]]}, folder / first, META)
    save_file({name: weights[name] for name in names[1:]}, folder / rest, META)
    where = {name: first if name == names[0] else rest for name in names}
    write_index(folder, where)
    return where


def write_index(folder: Path, where: Any, name: str = "model.safetensors.index.json") -> None:
    content = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / name).write_text(json.dumps(content))


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint("tiny", folder).model.state_dict()


def equal(one: Path, other: Path) -> bool:
    state_of_other = state(other)
    return all(torch.equal(tensor, state_of_other[name]) for name, tensor in state(one).items())


class TestChoice:
    def test_shards_hold_the_same_model_as_one_file_under_another_hash(
        self, tiny: Path, folder: Path
    ) -> None:
        shard(folder)
        files = find_weights("tiny", folder)
        assert files.index == "model.safetensors.index.json"
        assert files.shards == ("a.safetensors", "b.safetensors")
        assert equal(tiny, folder)
        assert weights_hash(folder) != weights_hash(tiny)

    def test_the_single_file_goes_before_the_index(self, tiny: Path, folder: Path) -> None:
        shard(folder)
        shutil.copy(tiny / "model.safetensors", folder)
        assert find_weights("tiny", folder).shards == ("model.safetensors",)

    def test_the_file_that_the_config_names_goes_before_both(
        self, tiny: Path, folder: Path
    ) -> None:
        weights = load_file(folder / "model.safetensors")
        save_file({n: t * 2 for n, t in weights.items()}, folder / "other.safetensors", META)
        change_config(folder, transformers_weights="other.safetensors")
        assert find_weights("tiny", folder).shards == ("other.safetensors",)
        assert not equal(tiny, folder)

    def test_links_into_the_cache_of_the_hub_are_followed(self, tiny: Path, tmp_path: Path) -> None:
        snapshot, blobs = tmp_path / "snapshots" / "1", tmp_path / "blobs"
        shutil.copytree(tiny, blobs)
        snapshot.mkdir(parents=True)
        for file in blobs.iterdir():
            (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
        assert weights_hash(snapshot) == weights_hash(tiny)
        assert equal(tiny, snapshot)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("other.safetensors", b"damaged"),
            ("model.fp16.safetensors", b""),
            ("consolidated.safetensors", b"a copy"),
            ("pytorch_model.bin", b"a pickle"),
            ("model.safetensors.index.json", b"{"),
        ],
    )
    def test_files_beside_the_weights_do_not_count(
        self, tiny: Path, folder: Path, name: str, content: bytes
    ) -> None:
        (folder / name).write_bytes(content)
        loaded = load_model(find_model(str(folder)))
        assert (loaded.stored_dtype, loaded.weights_sha256) == ("float16", weights_hash(tiny))


class TestHash:
    def test_it_changes_with_a_weight_in_any_file_that_is_read(self, folder: Path) -> None:
        shard(folder)
        before = weights_hash(folder)
        weights = load_file(folder / "a.safetensors")
        save_file({name: tensor + 1 for name, tensor in weights.items()}, folder / "a.safetensors")
        assert weights_hash(folder) != before

    def test_it_changes_when_two_files_change_places(self, folder: Path) -> None:
        shard(folder)
        before = weights_hash(folder)
        (folder / "a.safetensors").rename(folder / "c")
        (folder / "b.safetensors").rename(folder / "a.safetensors")
        (folder / "c").rename(folder / "b.safetensors")
        assert weights_hash(folder) != before

    def test_it_changes_with_the_index_and_with_the_config(self, folder: Path) -> None:
        where = shard(folder)
        hashes = {weights_hash(folder)}
        write_index(folder, where | {"more": "a.safetensors"})
        hashes.add(weights_hash(folder))
        change_config(folder, n_ctx=32)
        hashes.add(weights_hash(folder))
        assert len(hashes) == 3


class TestStoredFormat:
    def test_masks_of_old_checkpoints_do_not_decide_it(self, folder: Path) -> None:
        masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 512, 512) for i in range(3)}
        masks |= {f"h.{i}.attn.masked": torch.ones(512, 512, dtype=torch.bool) for i in range(3)}
        file = folder / "model.safetensors"
        save_file(load_file(file) | masks, file, META)
        assert load_checkpoint("tiny", folder).stored_dtype == "float16"


class TestRefusals:
    @pytest.mark.parametrize(
        "name",
        [
            "x.bin",
            "../elsewhere/x.safetensors",
            "sub/x.safetensors",
            "/elsewhere/x.safetensors",
            "..\\x.safetensors",
            "",
            7,
        ],
    )
    def test_an_index_names_only_safetensors_files_of_its_own_folder(
        self, folder: Path, name: Any
    ) -> None:
        where = shard(folder)
        write_index(folder, where | {next(iter(where)): name})
        with pytest.raises(ModelError) as error:
            load_model(find_model(str(folder)))
        assert str(error.value) == (
            f"cannot load model {str(folder)!r}: its model.safetensors.index.json names "
            f"{str(name)!r} as weights, which is no safetensors file in the model's own folder. "
            "Save the model anew with save_pretrained(...)."
        )

    @pytest.mark.parametrize("name", ["adapter_model.bin", "../m.safetensors", "/m.safetensors", 3])
    def test_a_config_names_only_safetensors_files_of_its_own_folder(
        self, folder: Path, name: Any
    ) -> None:
        change_config(folder, transformers_weights=name)
        with pytest.raises(ModelError, match=r"its config\.json names .* which is no safetensors"):
            load_model(find_model(str(folder)))

    def test_a_shard_that_is_not_there_is_named(self, folder: Path) -> None:
        shard(folder)
        (folder / "b.safetensors").unlink()
        with pytest.raises(ModelError) as error:
            find_weights("tiny", folder)
        assert str(error.value) == (
            "cannot load model 'tiny': its model.safetensors.index.json names 'b.safetensors' as "
            "weights, which is not there. Fetch or copy the model whole."
        )

    @pytest.mark.parametrize("where", [{}, [], None, "a.safetensors"])
    def test_an_index_that_names_nothing_is_refused(self, folder: Path, where: Any) -> None:
        shard(folder)
        write_index(folder, where)
        with pytest.raises(
            ModelError, match=r"'tiny': its model\.safetensors\.index\.json has no w"
        ):
            find_weights("tiny", folder)

    def test_a_pointer_of_git_lfs_is_called_by_its_name(self, folder: Path) -> None:
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n"
        (folder / "model.safetensors").write_text(pointer)
        with pytest.raises(ModelError) as error:
            load_model(find_model(str(folder)))
        assert str(error.value) == (
            f"cannot load model {str(folder)!r}: 'model.safetensors' is a git-lfs pointer, not the "
            "weights themselves. Run git lfs pull in the folder that it was cloned to."
        )

    @pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\x80\x04 a pickle"])
    def test_a_file_that_is_no_safetensors_file_is_named(
        self, folder: Path, content: bytes
    ) -> None:
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(ModelError, match=r"'tiny': 'model\.safetensors' cannot be read as "):
            find_weights("tiny", folder)

    def test_a_folder_in_place_of_a_file_is_named(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").mkdir()
        with pytest.raises(ModelError, match=r"cannot be read as safetensors \(it is no file\)"):
            find_weights("tiny", folder)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("pytorch_model.bin", "it has weights only as a pickle ('pytorch_model.bin'), which"),
            ("tiny.Q4_0.gguf", "it has weights only as GGUF ('tiny.Q4_0.gguf'), the format of ll"),
            (
                "model.fp16.safetensors",
                "it has 'model.fp16.safetensors', but no model.safetensors and no "
                "model.safetensors.index.json, from which weights are read. Fetch",
            ),
            ("notes.md", "it has no weights. The folder needs config.json, safetensors weights"),
        ],
    )
    def test_what_lies_there_in_place_of_weights_is_named(
        self, folder: Path, name: str, said: str
    ) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(b"x")
        with pytest.raises(ModelError) as error:
            load_model(find_model(str(folder)))
        assert str(error.value).startswith(f"cannot load model {str(folder)!r}: {said}")

    def test_gguf_without_a_config_is_called_gguf(self, tmp_path: Path) -> None:
        (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
        with pytest.raises(ModelError, match=r"it has weights only as GGUF \('tiny.gguf'\)"):
            load_model(find_model(str(tmp_path)))

    @pytest.mark.parametrize(
        "name", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"]
    )
    @pytest.mark.parametrize("with_config", [True, False])
    def test_an_adapter_is_neither_applied_nor_left_out(
        self, folder: Path, name: str, with_config: bool
    ) -> None:
        (folder / name).write_bytes(b"{}")
        if not with_config:
            (folder / "config.json").unlink()
        with pytest.raises(ModelError) as error:
            load_model(find_model(str(folder)))
        assert str(error.value) == (
            f"cannot load model {str(folder)!r}: it holds a PEFT adapter ({name!r}), which would "
            "be left out. Merge it: load it with peft's AutoPeftModelForCausalLM, call "
            "merge_and_unload() and save_pretrained(...), and give that folder."
        )
