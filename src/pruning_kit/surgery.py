"""Cutting blocks out of a model, for good or for a while.

Removing blocks from the stack is not enough: the key-value cache is indexed by each attention's
own `layer_idx` and sized by the config, and several configs describe every block in a list. Order:
slice the stack, renumber every submodule, set the block count, trim the per-block lists.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from pruning_kit.architectures import Decoder
from pruning_kit.plan import Plan

INDEX_ATTRIBUTES = ("layer_idx", "layer_id", "layer_index", "layer_number")


def cut(model: PreTrainedModel, plan: Plan) -> PreTrainedModel:
    """Remove the plan's blocks from `model` itself and return it, ready to run, cache and save.

    Raises:
        PlanError: if the plan does not fit the model.
        ArchitectureError: if the family is unknown.
    """
    stack = Decoder(model).stack
    kept = plan.check(len(stack)).kept(len(stack))
    trim_config(model.config, kept, len(stack))
    _set_stack(stack, [stack[block] for block in kept])
    return model


@contextmanager
def recut(decoder: Decoder, plan: Plan) -> Iterator[PreTrainedModel]:
    """Lend the decoder's model with the plan's blocks taken out, without copying a weight."""
    model, stack = decoder.model, decoder.stack
    blocks, config = list(stack), copy.deepcopy(model.config.__dict__)
    kept = plan.check(len(blocks)).kept(len(blocks))
    try:
        trim_config(model.config, kept, len(blocks))
        _set_stack(stack, [blocks[block] for block in kept])
        yield model
    finally:
        _set_stack(stack, blocks)
        model.config.__dict__.clear()
        model.config.__dict__.update(config)


def _set_stack(stack: nn.ModuleList, blocks: Sequence[nn.Module]) -> None:
    """Make `blocks` the content of the stack and number all they hold from 0."""
    del stack[:]
    stack.extend(blocks)
    for index, block in enumerate(blocks):
        for module in block.modules():
            for name in INDEX_ATTRIBUTES:
                if isinstance(module.__dict__.get(name), int):
                    setattr(module, name, index)


def trim_config(config: PretrainedConfig, kept: Sequence[int], n_blocks: int) -> None:
    """Make a config of `n_blocks` blocks describe only those in `kept`."""
    for name in per_block_lists(config, n_blocks):
        values = getattr(config, name)
        setattr(config, name, [values[block] for block in kept])
    if getattr(config, "attention_types", None) and config.model_type == "gpt_neo":
        config.attention_types = [[[kind], 1] for kind in config.attention_layers]
    config.num_hidden_layers = len(kept)


def per_block_lists(config: PretrainedConfig, n_blocks: int) -> list[str]:
    """Names of the config's lists that hold one entry for each block."""
    return [
        name
        for name, value in config.to_dict().items()
        if "layer" in name and isinstance(value, list | tuple) and len(value) == n_blocks
    ]


def block_signature(decoder: Decoder, block: int) -> tuple[Any, ...]:
    """What decides a block's work: the kinds its config names and its weights' shapes.

    Blocks of equal signature do the same arithmetic, so their timings can be pooled.
    """
    config = decoder.model.config
    kinds = [
        getattr(config, name)[block] for name in sorted(per_block_lists(config, decoder.n_blocks))
    ]
    shapes = [tuple(weight.shape) for weight in decoder.stack[block].parameters()]
    return (*kinds, *shapes)
