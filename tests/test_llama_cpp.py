"""GGUF: what is in the file, and what cannot be written. That llama.cpp runs it: tests/compat."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGUFReader
from llama_like import save_small
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, MptConfig, PreTrainedTokenizerFast

from pruning_kit.cli import app as cli
from pruning_kit.errors import ExportError
from pruning_kit.export.llama_cpp.vocabulary import RULES, vocabulary_of
from pruning_kit.export.llama_cpp.writing import conversion_of, gguf_beside, write_gguf
from pruning_kit.inputs.models import DEMO_FOLDER, ModelSource, load_inputs


def written(folder: Path, format: str = "f32") -> GGUFReader:
    target = gguf_beside(folder, format)
    write_gguf(folder, target, format, "the name")
    return GGUFReader(target)


def value(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    assert field is not None, key
    return field.contents()


def arrays(reader: GGUFReader) -> dict[str, np.ndarray]:
    return {tensor.name: np.asarray(tensor.data) for tensor in reader.tensors}


class TestFile:
    def test_it_holds_gpt2s_weights_with_its_linear_layers_the_other_way_round(
        self, tmp_path: Path
    ) -> None:
        folder = save_small(tmp_path / "small", "gpt2-untied")
        reader, stored = written(folder), load_file(folder / "model.safetensors")
        found = arrays(reader)
        assert len(found) == len(stored)
        for ours, theirs, turned in [
            ("token_embd.weight", "transformer.wte.weight", False),
            ("position_embd.weight", "transformer.wpe.weight", False),
            ("output.weight", "lm_head.weight", False),
            ("output_norm.bias", "transformer.ln_f.bias", False),
            ("blk.2.attn_qkv.weight", "transformer.h.2.attn.c_attn.weight", True),
            ("blk.2.attn_qkv.bias", "transformer.h.2.attn.c_attn.bias", False),
            ("blk.0.ffn_down.weight", "transformer.h.0.mlp.c_proj.weight", True),
        ]:
            expected = stored[theirs].numpy()
            np.testing.assert_array_equal(found[ours], expected.T if turned else expected)

    def test_it_says_what_llama_cpp_asks_for(self, tmp_path: Path) -> None:
        reader = written(save_small(tmp_path / "small", "gpt2-untied"))
        assert value(reader, "general.architecture") == "gpt2"
        assert value(reader, "general.name") == "the name"
        told = {key: value(reader, f"gpt2.{key}") for key in ("block_count", "context_length")}
        assert told == {"block_count": 3, "context_length": 64}
        assert value(reader, "gpt2.feed_forward_length") == 160
        assert value(reader, "gpt2.attention.layer_norm_epsilon") == pytest.approx(1e-5)

    def test_a_tied_head_is_left_out(self, tmp_path: Path) -> None:
        for kind in ("gpt2", "llama-tied-biased"):
            found = arrays(written(save_small(tmp_path / kind, kind)))
            assert "output.weight" not in found and "token_embd.weight" in found

    def test_it_holds_the_tokenizer(self, tmp_path: Path) -> None:
        folder = save_small(tmp_path / "small", "gpt2")
        reader, tokenizer = written(folder), AutoTokenizer.from_pretrained(folder)
        tokens = value(reader, "tokenizer.ggml.tokens")
        assert tokens[:-2] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        assert tokens[-2:] == ["[PAD6144]", "[PAD6145]"]
        assert value(reader, "tokenizer.ggml.token_type")[-4:] == [1, 3, 5, 5]
        assert value(reader, "tokenizer.ggml.pre") == "gpt-2"
        assert value(reader, "tokenizer.ggml.eos_token_id") == tokenizer.eos_token_id == 6143
        assert value(reader, "tokenizer.ggml.add_bos_token") is False
        assert len(value(reader, "tokenizer.ggml.merges")) > 5000

    @pytest.mark.parametrize(("kind", "architecture"), [("llama", "llama"), ("mistral", "llama")])
    def test_rotated_rows_of_llamas_are_interleaved(
        self, tmp_path: Path, kind: str, architecture: str
    ) -> None:
        folder = save_small(tmp_path / kind, kind)
        reader, stored = written(folder), load_file(folder / "model.safetensors")
        assert value(reader, "general.architecture") == architecture
        assert value(reader, f"{architecture}.rope.freq_base") == 10000.0
        for ours, theirs, n_heads in [("attn_q", "q_proj", 4), ("attn_k", "k_proj", 2)]:
            found = arrays(reader)[f"blk.1.{ours}.weight"]
            expected = stored[f"model.layers.1.self_attn.{theirs}.weight"].numpy()
            for head in range(n_heads):
                for pair in range(8):
                    for half in range(2):
                        new, old = 16 * head + 2 * pair + half, 16 * head + 8 * half + pair
                        np.testing.assert_array_equal(found[new], expected[old])

    def test_those_of_qwen_stay_as_they_are(self, tmp_path: Path) -> None:
        folder = save_small(tmp_path / "qwen", "qwen2")
        found, stored = arrays(written(folder)), load_file(folder / "model.safetensors")
        expected = stored["model.layers.1.self_attn.q_proj.weight"].numpy()
        np.testing.assert_array_equal(found["blk.1.attn_q.weight"], expected)

    def test_llama_3s_frequencies_are_divided(self, tmp_path: Path) -> None:
        divisors = arrays(written(save_small(tmp_path / "llama3", "llama3")))["rope_freqs.weight"]
        # wavelengths below 32 / 4 stay, those above 32 are 4 times as long, between them a mixture
        wavelengths = 2 * np.pi * 10000.0 ** (np.arange(8) / 8)
        assert divisors[wavelengths < 8] == pytest.approx(1)
        assert divisors[wavelengths > 32] == pytest.approx(4)
        between = divisors[(wavelengths > 8) & (wavelengths < 32)]
        assert len(between) and ((between > 1) & (between < 4)).all()

    def test_only_matrices_are_shortened(self, tmp_path: Path) -> None:
        folder = save_small(tmp_path / "small", "gpt2")
        exact = arrays(written(folder))
        for format, kind in [("f16", "F16"), ("q8_0", "Q8_0")]:
            reader = written(folder, format)
            kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
            kept = {name for name, one in kinds.items() if one == "F32"}
            assert set(kinds.values()) == {"F32", kind}
            one_dimension = {name for name, array in exact.items() if array.ndim == 1}
            assert kept == one_dimension | {"position_embd.weight"}
            for tensor in reader.tensors:
                again = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
                largest = np.abs(exact[tensor.name]).max()
                assert np.abs(again - exact[tensor.name]).max() <= largest / 127


def split_by(regex: str, normalizer: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(regex), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return tokenizer


def in_digits() -> Tokenizer:
    tokenizer = split_by("x")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False),
        ]
    )
    return tokenizer


# As the tokenizer.json of Llama 3 and of Qwen 2 have it, in one piece.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def conversion(tokenizer: Tokenizer, **special: Any) -> Any:
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{"eos_token": "ab", **special})
    config = load_inputs(ModelSource("demo", DEMO_FOLDER)).config
    return vocabulary_of(fast, config)


class TestTokenizer:
    @pytest.mark.parametrize(
        ("tokenizer", "rules"),
        [
            (in_digits(), "smollm"),
            (split_by(LLAMA3), "llama-bpe"),
            (split_by(QWEN2, normalizers.NFC()), "qwen2"),
        ],
    )
    def test_it_is_known_by_how_it_parts_text(self, tokenizer: Tokenizer, rules: str) -> None:
        found = conversion(tokenizer)
        assert (found.rules, found.merges) == (rules, ("a b",))
        assert found.special == {"eos": 2}

    def test_a_first_token_that_is_put_before_every_text_is_told(self) -> None:
        from tokenizers.processors import TemplateProcessing

        tokenizer = in_digits()
        assert conversion(tokenizer, bos_token="ab").adds_bos is False
        tokenizer.post_processor = TemplateProcessing("ab $A", special_tokens=[("ab", 2)])
        assert conversion(tokenizer, bos_token="ab").adds_bos is True

    @pytest.mark.parametrize(
        ("tokenizer", "what"),
        [
            (split_by(r"\w+|\s+"), "BPE with Sequence"),
            (split_by(LLAMA3, normalizers.Lowercase()), "BPE with Sequence"),
            (Tokenizer(models.WordLevel({"ab": 0}, unk_token="ab")), "WordLevel with no"),
            (Tokenizer(models.BPE({"ab": 0}, [], byte_fallback=True)), "BPE with no"),
        ],
    )
    def test_others_are_refused(self, tokenizer: Tokenizer, what: str) -> None:
        with pytest.raises(ExportError) as error:
            conversion(tokenizer)
        assert str(error.value) == (
            f"cannot write a GGUF: the tokenizer is a {what} pre-tokenizer, by rules that the kit "
            f"does not find among those of llama.cpp that it knows ({', '.join(RULES)}). Leave out "
            "`gguf`, or use llama.cpp's own converter on the folder."
        )

    def test_one_that_ends_no_text_is_refused(self) -> None:
        fast = PreTrainedTokenizerFast(tokenizer_object=in_digits())
        config = load_inputs(ModelSource("demo", DEMO_FOLDER)).config
        config.eos_token_id = None
        with pytest.raises(ExportError, match=r"llama\.cpp would take token 11\. Set eos_token"):
            vocabulary_of(fast, config)


class TestRefusal:
    @pytest.mark.parametrize(
        ("kind", "settings", "reason"),
        [
            ("gpt2", {"activation_function": "relu"}, "activation_function='relu', with which"),
            (
                "gpt2",
                {"scale_attn_by_inverse_layer_idx": True},
                "scale_attn_by_inverse_layer_idx=True, with which llama.cpp would not compute the "
                "same (gpt2 there has False). Leave out `gguf`.",
            ),
            ("mistral", {"sliding_window": 8}, "sliding_window=8, with which llama.cpp"),
            ("llama", {"mlp_bias": True}, "mlp_bias=True, with which"),
            (
                "llama",
                {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
                "rope_type='dynamic', with which llama.cpp would not compute the same (llama there "
                "has 'default' or 'linear' or 'llama3').",
            ),
        ],
    )
    def test_what_llama_cpp_would_compute_otherwise_is_named(
        self, tmp_path: Path, kind: str, settings: dict[str, Any], reason: str
    ) -> None:
        folder = save_small(tmp_path / "small", kind, **settings)
        said = re.escape(f"cannot write a GGUF: the config has {reason}")
        with pytest.raises(ExportError, match=said):
            write_gguf(folder, tmp_path / "x.gguf", "f32", "name")
        assert [path.name for path in tmp_path.iterdir()] == ["small"]

    def test_a_family_without_a_form_and_a_format_that_is_none(self) -> None:
        inputs = load_inputs(ModelSource("demo", DEMO_FOLDER))
        with pytest.raises(
            ExportError,
            match=r"a GGUF in 'q4': the kit writes f32, f16, q8_0\. Give one of these as `gguf`\.",
        ):
            conversion_of(inputs, "q4")
        inputs = dataclasses.replace(inputs, config=MptConfig())
        with pytest.raises(
            ExportError,
            match=r"a GGUF of a mpt model: the kit writes gpt2, llama, mistral, qwen2, qwen3\.",
        ):
            conversion_of(inputs, "f32")

    def test_a_width_that_q8_0_does_not_divide(self, tmp_path: Path) -> None:
        folder = save_small(tmp_path / "small", "gpt2", n_embd=36)
        with pytest.raises(ExportError) as error:
            write_gguf(folder, tmp_path / "x.gguf", "q8_0", "name")
        assert str(error.value) == (
            "cannot write a GGUF in q8_0: the rows of blk.0.attn_qkv.weight have 36 numbers, and "
            "the format takes 32 at a time. Give `gguf` f16."
        )
        assert [path.name for path in tmp_path.iterdir()] == ["small"]

    def test_a_weight_that_f16_cannot_hold(self, tmp_path: Path) -> None:
        folder = save_small(tmp_path / "small", "gpt2", initializer_range=1e5)
        with pytest.raises(
            ExportError,
            match=r"in f16: the largest number in blk\.0\.attn_qkv\.weight is \d\d\d,\d\d\d, that "
            r"of the format 65,504\. Give `gguf` f32\.",
        ):
            write_gguf(folder, tmp_path / "x.gguf", "f16", "name")
        assert [path.name for path in tmp_path.iterdir()] == ["small"]

    def test_a_file_with_the_same_bytes_stays_and_another_one_is_not_written_over(
        self, tmp_path: Path
    ) -> None:
        folder = save_small(tmp_path / "small", "gpt2")
        target, half = tmp_path / "x.gguf", tmp_path / ".x.gguf.0a1b2c3d.part"
        half.write_text("of a writer that was killed")
        write_gguf(folder, target, "f16", "name")
        first = target.read_bytes()
        write_gguf(folder, target, "f16", "name")
        assert target.read_bytes() == first
        with pytest.raises(ExportError, match=r"x\.gguf': the path is taken\. Move it away, or"):
            write_gguf(folder, target, "f16", "another name")
        assert target.read_bytes() == first
        assert sorted(path.name for path in tmp_path.iterdir()) == ["small", "x.gguf"]

    def test_a_missing_library_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "gguf", None)
        with pytest.raises(
            ExportError, match=r"the package 'gguf' is not installed\. Install it: pip install gguf"
        ):
            conversion_of(load_inputs(ModelSource("demo", DEMO_FOLDER)), "f32")

    def test_a_full_disk_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*args: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        folder = save_small(tmp_path / "small", "gpt2")
        monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full)
        with pytest.raises(ExportError, match=r"x\.gguf': No space left on device\. Make room"):
            write_gguf(folder, tmp_path / "x.gguf", "f32", "name")
        assert [path.name for path in tmp_path.iterdir()] == ["small"]


class TestCommand:
    @pytest.fixture
    def run(self, capsys, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)

        def call(*words: str) -> tuple[int, str]:
            code = cli.main(["prune", "--model", "demo", "--remove", "4", *words])
            captured = capsys.readouterr()
            return code, " ".join((captured.out + captured.err).split())

        return call

    def test_it_writes_a_file_beside_the_folder(self, run, tmp_path) -> None:
        code, said = run("--gguf", "q8_0", "--out", "pruned")
        assert code == 0
        assert said.endswith("For llama.cpp it is pruned-q8_0.gguf (8.0 MB, q8_0).")
        reader = GGUFReader(tmp_path / "pruned-q8_0.gguf")
        assert value(reader, "general.name") == "demo without 4"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["pruned", "pruned-q8_0.gguf"]

    def test_what_cannot_be_is_refused_before_anything_is_written(self, run, tmp_path) -> None:
        (tmp_path / "p-f16.gguf").write_text("mine")
        assert run("--gguf", "f16", "--out", "p") == (
            2,
            "Error: cannot write a GGUF to 'p-f16.gguf': the path is taken. Move it away, or give "
            "another folder.",
        )
        code, said = run("--gguf", "q4_0", "--out", "p")
        assert code == 2 and said.endswith("Give one of these as --gguf.")
        assert [path.name for path in tmp_path.iterdir()] == ["p-f16.gguf"]
