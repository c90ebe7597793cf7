"""Checkpoints: a model as its folder gives it, and whether config and weights agree."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.utils import GENERATION_CONFIG_NAME
from transformers.utils import logging as transformers_logging

from pruning_kit.errors import ModelError, first_line
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.families import family_of
from pruning_kit.inputs.weights import (
    CONFIG,
    WeightFiles,
    check_config,
    find_weights,
    listing,
    read_object,
    stored_dtype,
)

SETTINGS_OF_FOLDERS = ("auto_map", "transformers_weights")
"""What a config says of its own folder, code and files, which a saved copy would not have."""

WRAPPERS = {
    "_orig_mod": "torch.compile",
    "module": "DataParallel or DistributedDataParallel",
    "_fsdp_wrapped_module": "FullyShardedDataParallel",
    "_checkpoint_wrapped_module": "activation checkpointing",
}
"""What wrappers of a model put into the names of its tensors, as a part of its own."""
_WRAPPER = re.compile(rf"(?<![^.])({'|'.join(WRAPPERS)})\.")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model as its folder gives it, and how far config and weight files agree."""

    model: PreTrainedModel
    files: WeightFiles
    stored_dtype: str
    """The number format of its weights in the files."""
    missing: list[str]
    """Tensors the config asks for and the files lack, or hold in another shape: random now."""
    unused: list[str]
    """Tensors in the files that the config has no place for."""


def load_checkpoint(
    name: str,
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
) -> Checkpoint:
    """Load a model from a folder, whether or not config and weights agree: no pickle, no code.

    Args:
        name: what the user calls the model, for errors.
        folder: the folder that holds config and weights.
        device: where the weights go.
        dtype: the format the model computes in, whatever its weights are stored in.
        attention: `eager`, `sdpa`, or None for the family's default.

    Raises:
        ModelError: if the folder holds no causal language model that can be loaded.
    """
    _quiet()
    config = read_config(name, folder)
    files = find_weights(name, folder)
    options = {} if attention is None else {"attn_implementation": attention}
    try:
        with files.open() as tensors:
            model, info = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
                None,  # the tensors are all that it is to read
                config=config,
                state_dict=tensors,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # the caller tells about them, in its own words
                **options,
            )
        model.generation_config = _generation_config(folder)
        _keep_own_head(model)
    except MemoryError:
        raise
    except Exception as error:  # a wrong file or setting shows as nearly any kind of error
        raise ModelError(
            f"cannot load model {name!r}: {first_line(error)}. The folder needs config.json, "
            "safetensors weights and a tokenizer."
        ) from error
    mismatched = {tensor for tensor, *_shapes in info["mismatched_keys"]}
    return Checkpoint(
        model.to(device).eval(),
        files,
        stored_dtype(tensors),
        missing=sorted(info["missing_keys"] | mismatched),
        unused=sorted(info["unexpected_keys"]),
    )


def _refuse_no_blocks(name: str, n_blocks: int) -> None:
    if n_blocks < 1:
        raise ModelError(
            f"cannot use model {name!r}: its config.json asks for {n_blocks} blocks. "
            "Give a model that has blocks to remove."
        )


def _quiet() -> None:
    """Keep the libraries' progress bars and advice off the terminal; errors still raise."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def read_config(name: str, folder: Path) -> Any:
    """A model's config, if it is that of a decoder whose family the kit knows; no weight is read.

    Raises:
        ModelError: if the config cannot be used, or asks for no block.
    """
    _check_config_file(name, folder)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the config classes check their values, each in its own way
        raise ModelError(
            f"cannot load model {name!r}: its config.json cannot be used "
            f"({first_line(error)}). Mend the file or give another folder."
        ) from error
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"cannot prune model {name!r}: {config.model_type} is an encoder-decoder. "
            "Use a decoder-only language model such as distilgpt2."
        )
    family_of(config.model_type)
    if getattr(config, "is_heterogeneous", False):
        raise ModelError(
            f"cannot prune model {name!r}: its config.json sets up single blocks by their numbers "
            "(per_layer_config), which change when blocks are removed. Use a model of equal blocks."
        )
    _refuse_no_blocks(name, config.num_hidden_layers)
    for setting in SETTINGS_OF_FOLDERS:
        config.__dict__.pop(setting, None)
    return config


def _check_config_file(name: str, folder: Path) -> None:
    """Refuse a folder without a config, or with one that hands over to another file."""
    check_config(name, str(folder), listing(name, folder))
    if others := read_object(name, folder / CONFIG).get("configuration_files"):
        raise ModelError(
            f"cannot load model {name!r}: its config.json hands over to other files "
            f"(configuration_files: {others!r}). Make the right one config.json."
        )


def _generation_config(folder: Path) -> GenerationConfig:
    """The folder's own; where it has none, what its config says of generation."""
    if (folder / GENERATION_CONFIG_NAME).exists():
        return GenerationConfig.from_pretrained(folder)
    return GenerationConfig.from_pretrained(folder, CONFIG, _from_model_config=True)


def _keep_own_head(model: PreTrainedModel) -> None:
    """Let the config say *tied* only where the head was tied.

    Where the files hold a head that differs from the embedding, the loader leaves it as it is,
    whatever the config says. So it is measured, and so it must be exported.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight is not embedding.weight:
        model.config.tie_word_embeddings = False


def check_agreement(name: str, checkpoint: Checkpoint) -> None:
    """Refuse weights that are not all there, or that hold blocks the config leaves out.

    Other tensors without a place are let be: old checkpoints carry buffers and heads of training.

    Raises:
        ModelError: naming a tensor or blocks, and, where it shows, what went wrong when saving.
    """
    if checkpoint.missing:
        _check_names(name, checkpoint)
        count = len(checkpoint.missing)
        raise ModelError(
            f"cannot use model {name!r}: its weights lack {count} tensor{'s' * (count > 1)} "
            f"that its config asks for (such as {checkpoint.missing[0]}), which would be random. "
            "Mend the checkpoint."
        )
    n_blocks = Decoder(checkpoint.model).n_blocks
    if left_out := _blocks_left_out(checkpoint):
        plural = "s" * (len(left_out) > 1)
        raise ModelError(
            f"cannot use model {name!r}: its weights hold block{plural} "
            f"{', '.join(map(str, left_out))} for which its config.json, which asks for "
            f"{n_blocks}, has no place. Mend the checkpoint."
        )


def _check_names(name: str, checkpoint: Checkpoint) -> None:
    """Refuse tensors that are missing only because a wrapper of the model changed their names."""
    unused = {_WRAPPER.sub("", tensor): tensor for tensor in checkpoint.unused}
    prefix = f"{checkpoint.model.base_model_prefix}."
    for tensor in checkpoint.missing:
        found = unused.get(tensor) or unused.get(tensor.removeprefix(prefix))
        if found is not None:
            marks = list(dict.fromkeys(_WRAPPER.findall(found)))
            raise ModelError(
                f"cannot use model {name!r}: its tensors have {' and '.join(map(repr, marks))} in "
                f"their names (such as {found!r}), as {' and '.join(WRAPPERS[m] for m in marks)} "
                "puts there. Take that out of the names, or save the model that is wrapped."
            )


def _blocks_left_out(checkpoint: Checkpoint) -> list[int]:
    """Numbers of the blocks whose weights lie in the files without a place in the stack."""
    decoder = Decoder(checkpoint.model)
    stack = decoder.family.stack
    names = {stack, stack.removeprefix(f"{checkpoint.model.base_model_prefix}.")}
    pattern = re.compile(rf"(?:{'|'.join(map(re.escape, names))})\.(\d+)\.")
    numbers = {int(match[1]) for name in checkpoint.unused if (match := pattern.match(name))}
    return sorted(number for number in numbers if number >= decoder.n_blocks)
