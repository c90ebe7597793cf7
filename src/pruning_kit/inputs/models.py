"""Models: which one to use, loading it, and what identifies it in a result."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from pruning_kit.errors import DeviceError, ModelError, first_line
from pruning_kit.inputs import hub
from pruning_kit.inputs.architectures import Decoder, family_of

DEFAULT_MODEL = "distilgpt2"
DEFAULT_MODEL_ALIASES = (DEFAULT_MODEL, "distilbert/distilgpt2")
DEMO_FOLDER = Path(__file__).parents[1] / "demo"
MAX_DEFAULT_CONTEXT = 2048


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from, decided before anything is loaded."""

    name: str
    folder: Path
    revision: str | None = None
    note: str | None = None
    """What was substituted and why; None if the model is the one asked for."""


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """A model as its folder gives it, and how far config and weight files agree."""

    model: PreTrainedModel
    missing: list[str]
    """Tensors the config asks for and the files lack, or hold in another shape: random now."""
    unused: list[str]
    """Tensors in the files that the config has no place for."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run, its tokenizer, and the facts that identify it."""

    model: PreTrainedModel
    tokenizer: Any
    source: ModelSource
    stored_dtype: str
    weights_sha256: str

    @property
    def context_limit(self) -> int | None:
        """Longest sequence the model's positions allow; None if they set no limit."""
        return context_limit(self.model.config)

    @property
    def default_context(self) -> int:
        """The model's own context, at most 2,048 tokens."""
        return min(self.context_limit or 1024, MAX_DEFAULT_CONTEXT)


def context_limit(config: Any) -> int | None:
    """Longest sequence that a config's positions allow; None if it sets no limit."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        limit = getattr(config, name, None)
        if isinstance(limit, int):
            return limit
    return None


def find_model(name: str | None) -> ModelSource:
    """Decide what `--model` means: `demo`, a local folder, a Hub id, or nothing (the default).

    Only the default falls back to the embedded demo model; a model asked for never does.

    Raises:
        ModelError: if the model is neither here nor on the Hub, or the Hub does not answer.
    """
    if name is None:
        return _default_model()
    if name == "demo":
        return ModelSource("demo", DEMO_FOLDER)
    if name and os.path.isdir(name):  # noqa: PTH112 - Path.is_dir raises for very long names
        return ModelSource(name, Path(name))
    if os.path.isfile(name):  # noqa: PTH113
        raise ModelError(
            f"cannot load model {name!r}: it is a file. "
            "Give the folder that holds config.json, weights and tokenizer."
        )
    if not hub.is_repo_id(name):
        remedy = _near_miss(name) or "Give a folder, a Hugging Face Hub id, or demo."
        raise ModelError(
            f"cannot load model {name!r}: there is no such folder, and no model on the Hub can "
            f"have that name. {remedy}"
        )
    return _hub_model(name)


def _default_model() -> ModelSource:
    for alias in DEFAULT_MODEL_ALIASES:
        folder = hub.cached_model(alias)
        if folder:
            return ModelSource(DEFAULT_MODEL, folder, folder.name)
    reason = hub.refusal(DEFAULT_MODEL)
    if reason is None:
        try:
            folder = hub.download_model(DEFAULT_MODEL)
            return ModelSource(DEFAULT_MODEL, folder, folder.name)
        except OSError as error:
            reason = f"the download failed ({first_line(error)})"
    return ModelSource(
        "demo", DEMO_FOLDER, note=f"distilgpt2 is not in the local cache and {reason}"
    )


def _near_miss(name: str) -> str:
    """A question, if a name is nearly one that the kit itself knows; else empty."""
    if name in DEFAULT_MODEL_ALIASES:
        return ""
    near = difflib.get_close_matches(name.lower(), ("demo", DEFAULT_MODEL), n=1, cutoff=0.7)
    return f"Did you mean --model {near[0]}?" if near else ""


def _hub_model(name: str) -> ModelSource:
    folder = hub.cached_model(name)
    if folder is None:
        reason = hub.refusal(name)
        if reason:
            remedy = _near_miss(name) or "Check the name or the network, or use --model demo."
            raise ModelError(
                f"cannot load model {name!r}: there is no folder of that name, it is not in the "
                f"local cache, and {reason}. {remedy}"
            )
        try:
            folder = hub.download_model(name)
        except OSError as error:
            raise ModelError(
                f"cannot download model {name!r}: {first_line(error)}. "
                "Check the network and the disk, or use --model demo."
            ) from error
    return ModelSource(name, folder, folder.name)


def choose_device(name: str) -> torch.device:
    """The device for `--device`: `auto` is the first GPU if CUDA has one, else the CPU.

    Raises:
        DeviceError: if the device is unknown or this machine lacks it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.split(":")[0] not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"cannot use device {name!r}: choose auto, cpu, cuda or mps.")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(
            f"cannot use device {name!r}: {first_line(error)}. Use --device cpu."
        ) from None
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format for `--dtype`: `auto` is float16 on CUDA and float32 elsewhere.

    Raises:
        DeviceError: if the format is not one of float32, float16, bfloat16, or float16 on a CPU.
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    formats = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name not in formats:
        raise DeviceError(f"cannot compute in {name!r}: choose auto, float32, float16 or bfloat16.")
    if name == "float16" and device.type == "cpu":
        raise DeviceError("cannot compute in float16 on the CPU: use float32 or bfloat16.")
    return formats[name]


def dtype_name(dtype: torch.dtype) -> str:
    """A number format as `--dtype` and results name it: `float16`."""
    return str(dtype).removeprefix("torch.")


def load_model(
    source: ModelSource,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
) -> LoadedModel:
    """Load a model and its tokenizer from a folder: safetensors only, no remote code.

    Args:
        source: from `find_model`.
        device: where the weights go.
        dtype: the format the model computes in, whatever its weights are stored in.
        attention: `eager`, `sdpa`, or None for the family's default.

    Raises:
        ModelError: if the folder holds no usable causal language model.
    """
    weights = load_weights(source, device, dtype, attention)
    _check_agreement(source, weights)
    return LoadedModel(
        weights.model,
        _load_tokenizer(source),
        source,
        stored_dtype=_stored_dtype(source.folder),
        weights_sha256=weights_hash(source.folder),
    )


def load_weights(
    source: ModelSource,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
) -> LoadedWeights:
    """Load a model without its tokenizer, whether or not config and weight files agree.

    Raises:
        ModelError: if the folder holds no causal language model that can be loaded.
    """
    _quiet()
    config = _read_config(source)
    options = {} if attention is None else {"attn_implementation": attention}
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            source.folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the caller tells about them, in its own words
            **options,
        )
    except Exception as error:  # a wrong file or setting shows as nearly any kind of error
        raise _unusable(source, error) from error
    mismatched = {name for name, *_shapes in info["mismatched_keys"]}
    return LoadedWeights(
        model.to(device).eval(),
        missing=sorted(info["missing_keys"] | mismatched),
        unused=sorted(info["unexpected_keys"]),
    )


def _check_agreement(source: ModelSource, weights: LoadedWeights) -> None:
    """Refuse weights that are not all there, or that hold blocks the config leaves out.

    Other tensors without a place are let be: old checkpoints carry buffers and heads of training.
    """
    if weights.missing:
        count = len(weights.missing)
        raise ModelError(
            f"cannot use model {source.name!r}: its weights lack {count} tensor{'s' * (count > 1)} "
            f"that its config asks for (such as {weights.missing[0]}), which would be random. "
            "Mend the checkpoint."
        )
    n_blocks = Decoder(weights.model).n_blocks
    if n_blocks == 0:
        raise ModelError(
            f"cannot use model {source.name!r}: its config.json asks for 0 blocks. "
            "Give a model that has blocks to remove."
        )
    if left_out := _blocks_left_out(weights):
        plural = "s" * (len(left_out) > 1)
        raise ModelError(
            f"cannot use model {source.name!r}: its weights hold block{plural} "
            f"{', '.join(map(str, left_out))} for which its config.json, which asks for "
            f"{n_blocks}, has no place. Mend the checkpoint."
        )


def _blocks_left_out(weights: LoadedWeights) -> list[int]:
    """Numbers of the blocks whose weights lie in the files without a place in the stack."""
    decoder = Decoder(weights.model)
    stack = decoder.family.stack
    names = {stack, stack.removeprefix(f"{weights.model.base_model_prefix}.")}
    pattern = re.compile(rf"(?:{'|'.join(map(re.escape, names))})\.(\d+)\.")
    numbers = {int(match[1]) for name in weights.unused if (match := pattern.match(name))}
    return sorted(number for number in numbers if number >= decoder.n_blocks)


def _load_tokenizer(source: ModelSource) -> Any:
    """The tokenizer of a model folder, one that can tell where in the text its tokens lie."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False)
    except Exception as error:  # the libraries raise many kinds, also a bare Exception
        raise ModelError(
            f"cannot load model {source.name!r}: its tokenizer cannot be used "
            f"({first_line(error)}). Save the model's own there, as tokenizer.json."
        ) from error
    # Where files are missing, the library makes a tokenizer that knows only its special tokens.
    if set(tokenizer.get_vocab()) <= set(tokenizer.get_added_vocab()):
        raise ModelError(
            f"cannot load model {source.name!r}: its folder holds no tokenizer. "
            "Save the model's own there, as tokenizer.json."
        )
    if not tokenizer.is_fast:
        raise ModelError(
            f"cannot load model {source.name!r}: {type(tokenizer).__name__} cannot tell where in "
            "the text its tokens lie. Save a fast tokenizer there, as tokenizer.json."
        )
    return tokenizer


def _unusable(source: ModelSource, error: Exception) -> ModelError:
    return ModelError(
        f"cannot load model {source.name!r}: {first_line(error)}. The folder needs "
        "config.json, safetensors weights and a tokenizer."
    )


def _quiet() -> None:
    """Keep the libraries' progress bars and advice off the terminal; errors still raise."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _read_config(source: ModelSource) -> Any:
    """The model's config, if it is that of a decoder whose family the kit knows."""
    if not (source.folder / "config.json").exists():
        raise ModelError(
            f"cannot load model {source.name!r}: {source.folder} holds no config.json. "
            "Give a folder that a Hugging Face model was saved to."
        )
    try:
        config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False)
    except Exception as error:  # the config classes check their values, each in its own way
        raise ModelError(
            f"cannot load model {source.name!r}: its config.json cannot be used "
            f"({first_line(error)}). Mend the file or give another folder."
        ) from error
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"cannot prune model {source.name!r}: {config.model_type} is an encoder-decoder. "
            "Use a decoder-only language model such as distilgpt2."
        )
    family_of(config.model_type)
    return config


def _stored_dtype(folder: Path) -> str:
    """The most frequent number format in the folder's weight files, by bytes."""
    sizes: dict[str, int] = {}
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                sizes[entry["dtype"]] = sizes.get(entry["dtype"], 0) + end - begin
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
    stored = max(sizes, key=lambda dtype: sizes[dtype])
    return names.get(stored, stored)


def weights_hash(folder: Path) -> str:
    """SHA-256 over config and safetensors files, in the order of their names."""
    digest = hashlib.sha256()
    for file in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
