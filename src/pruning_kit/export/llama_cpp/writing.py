"""Writing: a model folder as one GGUF file, a tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from filecmp import cmp
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pruning_kit.errors import ExportError
from pruning_kit.export.huggingface import disk_errors_said
from pruning_kit.export.llama_cpp.architectures import (
    Architecture,
    architecture_of,
    arranged,
    slowed_rotations,
)
from pruning_kit.export.llama_cpp.vocabulary import Vocabulary, vocabulary_of
from pruning_kit.inputs.models import ModelInputs, ModelSource, load_inputs
from pruning_kit.inputs.weights import StoredTensor, find_weights
from pruning_kit.machine.disk import being_written, remove_left_overs

FORMATS = {"f32": "F32", "f16": "F16", "q8_0": "Q8_0"}
"""Of the weights, and what gguf calls them."""
LARGEST = {"F32": 3.4e38, "F16": 65504.0, "Q8_0": 127 * 65504.0}
"""That a format holds; Q8_0 has a factor in F16 for each 32 numbers from -127 to 127."""
FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}
ROTATIONS = "rope_freqs.weight"
ALWAYS_F32 = ("position_embd.weight", ROTATIONS)
"""As llama.cpp's own tools have it; so are all tensors of one dimension."""
TIED_HEAD = "lm_head.weight"


@dataclass(frozen=True, slots=True)
class Conversion:
    """How a model becomes a GGUF, decided before anything is computed."""

    inputs: ModelInputs
    architecture: Architecture
    vocabulary: Vocabulary
    format: str
    gguf: Any
    """The library that writes it."""


def conversion_of(inputs: ModelInputs, format: str) -> Conversion:
    """How a model becomes a GGUF.

    Args:
        inputs: config and tokenizer.
        format: `f32`, `f16` or `q8_0`.

    Raises:
        ExportError: if there is no such format, llama.cpp has no such model or tokenizer, or the
            library is not installed.
    """
    if format not in FORMATS:
        raise ExportError(
            f"cannot write a GGUF in {format!r:.40}: the kit writes {', '.join(FORMATS)}. Give one "
            "of these as `gguf`."
        )
    architecture = architecture_of(inputs.config)
    vocabulary = vocabulary_of(inputs.tokenizer, inputs.config)
    return Conversion(inputs, architecture, vocabulary, format, _library())


def _library() -> Any:
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise ExportError(
            "cannot write a GGUF: the package 'gguf' is not installed. Install it: "
            "pip install gguf."
        ) from error
    return gguf


def gguf_beside(folder: Path, format: str) -> Path:
    """Where the GGUF of a folder goes."""
    return folder.with_name(f"{folder.name}-{format}.gguf")


def refuse_taken(target: Path, written: Path | None = None) -> None:
    """Refuse a path that something is at.

    Args:
        target: the path.
        written: what is to be there: a file with the same bytes may be.

    Raises:
        ExportError: naming the path.
    """
    is_there = target.exists() or target.is_symlink()
    is_same = written is not None and target.is_file() and cmp(written, target, shallow=False)
    if is_there and not is_same:
        raise ExportError(
            f"cannot write a GGUF to {str(target)!r}: the path is taken. Move it away, or give "
            "another folder."
        )


def write_gguf(folder: Path, target: Path, format: str, name: str) -> None:
    """Write a model folder as one file for llama.cpp, whole or not at all, over nothing else.

    Args:
        folder: as `export` wrote it.
        target: the file.
        format: of the weights, `f32`, `f16` or `q8_0`; norms, biases and positions are float32.
        name: what the file is to say that it is.

    Raises:
        ExportError: as `conversion_of`, or if a weight does not fit the format, something else is
            at the path, or the disk refuses.
    """
    how = conversion_of(load_inputs(ModelSource(str(folder), folder)), format)
    remove_left_overs(target.parent, target.name)
    with disk_errors_said(target), being_written(target) as partial:
        writer = how.gguf.GGUFWriter(partial, how.architecture.name)
        try:
            _describe(writer, how, name)
            _write_tensors(writer, how, folder)
        finally:
            writer.close()
        refuse_taken(target, partial)


def _describe(writer: Any, how: Conversion, name: str) -> None:
    """What the file says of the model and its tokenizer."""
    writer.add_name(name)
    writer.add_file_type(how.gguf.LlamaFileType[FILE_TYPES[how.format]])
    writer.add_quantization_version(how.gguf.GGML_QUANT_VERSION)
    for key, value in how.architecture.facts(how.inputs.config).items():
        add = writer.add_uint32 if isinstance(value, int) else writer.add_float32
        add(f"{how.architecture.name}.{key}", value)
    words = how.vocabulary
    writer.add_tokenizer_model("gpt2")  # byte-level BPE, whatever its rules
    writer.add_tokenizer_pre(words.rules)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.kinds)
    writer.add_token_merges(words.merges)
    for role, number in words.special.items():
        writer.add_uint32(f"tokenizer.ggml.{role}_token_id", number)
    writer.add_add_bos_token(words.adds_bos)
    if words.chat_template is not None:
        writer.add_chat_template(words.chat_template)


def _write_tensors(writer: Any, how: Conversion, folder: Path) -> None:
    with find_weights(str(folder), folder).open() as stored:
        for name, tensor in _tensors(how, stored):
            kind, shape = _kind(how, name, tensor), tuple(tensor.shape)
            in_bytes = how.gguf.quant_shape_to_byte_shape(shape, kind)
            writer.add_tensor_info(name, in_bytes, np.dtype(np.uint8), prod(in_bytes), kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, tensor in _tensors(how, stored):
            kind = _kind(how, name, tensor)
            _refuse_overflow(how, name, tensor, kind.name)
            writer.write_tensor_data(how.gguf.quants.quantize(tensor.numpy(), kind))


def _tensors(how: Conversion, stored: Mapping[str, StoredTensor]) -> Iterator[tuple[str, Tensor]]:
    """Each tensor as llama.cpp wants it, float32, under llama.cpp's name."""
    config, arch = how.inputs.config, how.gguf.MODEL_ARCH[how.architecture.name.upper()]
    names = how.gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    for old in sorted(stored):
        if old == TIED_HEAD and config.tie_word_embeddings:
            continue
        name = names.get_name(old, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ExportError(
                f"cannot write a GGUF: llama.cpp's {how.architecture.name} has no place for the "
                f"tensor {old!r}. Leave out `gguf`."
            )
        yield name, arranged(stored[old][:], old, how.architecture, config).contiguous()
    divisors = slowed_rotations(config)
    if divisors is not None:
        yield ROTATIONS, divisors


def _kind(how: Conversion, name: str, tensor: Tensor) -> Any:
    """The number format of a tensor in the file."""
    always = tensor.ndim < 2 or name in ALWAYS_F32
    kind = how.gguf.GGMLQuantizationType["F32" if always else FORMATS[how.format]]
    at_once, _ = how.gguf.GGML_QUANT_SIZES[kind]
    if tensor.shape[-1] % at_once:
        raise ExportError(
            f"cannot write a GGUF in {how.format}: the rows of {name} have {tensor.shape[-1]} "
            f"numbers, and the format takes {at_once} at a time. Give `gguf` f16."
        )
    return kind


def _refuse_overflow(how: Conversion, name: str, tensor: Tensor, kind: str) -> None:
    largest, limit = tensor.abs().max().item(), LARGEST[kind]
    if not largest <= limit:
        raise ExportError(
            f"cannot write a GGUF in {how.format}: the largest number in {name} is {largest:,.6g}, "
            f"that of the format {limit:,.6g}. Give `gguf` f32."
        )
