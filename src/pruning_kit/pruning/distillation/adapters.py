"""Adapters: low-rank ones in all linear layers of blocks, trained in place of the weights.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (2021), by the library peft. They are
merged into the weights before anything is measured, so that a checkpoint has the shape of any cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from pruning_kit.errors import PlanError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.layers import is_linear_kind

RANK = 16
SCALE = 2
"""Of what an adapter adds, as its usual alpha over rank."""


@contextmanager
def adapted(decoder: Decoder) -> Iterator[PreTrainedModel]:
    """Lend a model with adapters, which alone have gradients; afterwards they are merged into it.

    Raises:
        PlanError: if the library is not installed.
    """
    try:
        from peft import LoraConfig, LoraModel
    except ImportError as error:
        raise PlanError(
            "cannot train low-rank adapters: the library peft is not installed. Install it by "
            "pip install peft, or distil without lora."
        ) from error
    model, blocks = decoder.model, decoder.blocks
    linear = {id(m) for block in blocks for m in block.modules() if is_linear_kind(m)}
    names = [name for name, module in model.named_modules() if id(module) in linear]
    transposed = any(isinstance(m, Conv1D) for block in blocks for m in block.modules())
    config = LoraConfig(
        r=RANK, lora_alpha=RANK * SCALE, target_modules=names, fan_in_fan_out=transposed
    )
    adapters = LoraModel(model, config, "default")
    try:
        yield model
    finally:
        adapters.merge_and_unload()
        model.requires_grad_(False)
