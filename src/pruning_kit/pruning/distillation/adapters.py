"""Adapters: low-rank ones in all linear layers of blocks, trained in place of the weights.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (2021), by the library peft. They are
merged into the weights before anything is measured, so that a checkpoint has the shape of any cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
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


@contextmanager
def as_saved(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Give a model, for a while, the weights that a checkpoint of it would hold.

    Args:
        model: in float32; adapters are merged. Afterwards it is what it was, to the bit.
        dtype: that weights are saved in.
    """
    adapted_layers: list[Any] = [m for m in model.modules() if hasattr(m, "lora_A")]
    before = {}
    if adapted_layers or dtype != torch.float32:
        before = {weight: weight.detach().clone() for weight in model.parameters()}
    try:
        for layer in adapted_layers:
            layer.merge()
        for weight in before:
            weight.data.copy_(weight.data.to(dtype))
        yield
    finally:
        for layer in adapted_layers:
            layer.unmerge()
        for weight, value in before.items():
            weight.data.copy_(value)
