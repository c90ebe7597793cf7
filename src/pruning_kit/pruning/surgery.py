"""Cutting blocks out of a model, for good or for a while, and making it ready to be saved.

Removing blocks from the stack is not enough: the key-value cache is indexed by each attention's
own `layer_idx` and sized by the config, and several configs describe every block in a list. Order:
slice the stack, renumber every submodule, trim the per-block lists, set the block count.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plans.plan import Plan

INDEX_ATTRIBUTES = ("layer_idx", "layer_id", "layer_index", "layer_number")

PER_BLOCK_LISTS = ("attention_layers", "layer_types", "mlp_layer_types", "no_rope_layers")
"""Config lists with one entry a block. By name: other lists may happen to have that length."""


def cut(model: PreTrainedModel, plan: Plan) -> PreTrainedModel:
    """Remove the plan's blocks from `model` itself and return it, ready to run and to cache.

    To save it, use `export.export`, or `stored_copy`: some models need their weights adapted.

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
    """Lend the decoder's model with the plan's blocks taken out, without copying a weight.

    Afterwards, also after an exception, stack, numbering and config are what they were.
    """
    model, stack = decoder.model, decoder.stack
    blocks, config = list(stack), dict(model.config.__dict__)
    numbering = list(block_numbers(stack))
    kept = plan.check(len(blocks)).kept(len(blocks))
    try:
        trim_config(model.config, kept, len(blocks))
        _set_stack(stack, [blocks[block] for block in kept])
        yield model
    finally:
        _set_stack(stack, blocks)
        for module, name, number in numbering:
            setattr(module, name, number)
        model.config.__dict__.clear()
        model.config.__dict__.update(config)


def _set_stack(stack: nn.ModuleList, blocks: Sequence[nn.Module]) -> None:
    """Make `blocks` the content of the stack and number all they hold from 0."""
    del stack[:]
    stack.extend(blocks)
    for index, block in enumerate(blocks):
        for module, name, _ in block_numbers([block]):
            setattr(module, name, index)


def block_numbers(blocks: Sequence[nn.Module] | nn.ModuleList) -> Iterator[tuple[Any, str, int]]:
    """Every place inside the blocks that holds a block number: (module, attribute, number)."""
    for block in blocks:
        for module in block.modules():
            for name in INDEX_ATTRIBUTES:
                number = module.__dict__.get(name)
                if isinstance(number, int):
                    yield module, name, number


def trim_config(config: PretrainedConfig, kept: Sequence[int], n_blocks: int) -> None:
    """Make a config of `n_blocks` blocks describe only those in `kept`.

    The lists are written out, so settings from which a config would build them anew when they are
    absent (`sliding_window_pattern`, `no_rope_layer_interval`) do not apply on reload.
    """
    for name in per_block_lists(config, n_blocks):
        values = getattr(config, name)
        setattr(config, name, [values[block] for block in kept])
    if config.model_type == "gpt_neo":  # it rebuilds attention_layers from the shorthand
        config.attention_types = [[[kind], 1] for kind in config.attention_layers]
    if config.model_type in ("qwen2_moe", "qwen3_moe"):
        _renumber_dense_blocks(config, kept)
    config.num_hidden_layers = len(kept)


def _renumber_dense_blocks(config: PretrainedConfig, kept: Sequence[int]) -> None:
    """Name the kept blocks without experts by their new numbers.

    Such a config gives experts to every `decoder_sparse_step`-th block that `mlp_only_layers`, a
    list of block numbers, does not name. Both go by numbers that a cut moves; the list alone can
    say the same of any blocks, with a step of 1.
    """
    step, dense = config.decoder_sparse_step, config.mlp_only_layers
    config.mlp_only_layers = [
        new for new, old in enumerate(kept) if old in dense or (old + 1) % step
    ]
    config.decoder_sparse_step = 1


def per_block_lists(config: PretrainedConfig, n_blocks: int) -> list[str]:
    """Names of the config's lists that hold an entry for each block (spare ones may follow)."""
    return [
        name
        for name in PER_BLOCK_LISTS
        if isinstance(values := getattr(config, name, None), list | tuple)
        and len(values) >= n_blocks
    ]


def block_signature(decoder: Decoder, block: int) -> tuple[Any, ...]:
    """What decides a block's work: the kinds its config names and its weights' shapes.

    Blocks of equal signature do the same arithmetic, so their timings can be pooled.
    """
    config = decoder.model.config
    kinds = [getattr(config, name)[block] for name in per_block_lists(config, decoder.n_blocks)]
    shapes = [tuple(weight.shape) for weight in decoder.stack[block].parameters()]
    return (*kinds, *shapes)


def count_parameters(module: nn.Module) -> int:
    """Number of parameters; weights that are tied count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def predicted_parameters(decoder: Decoder, plan: Plan) -> int:
    """Parameters left when the plan's blocks are removed, without removing them.

    Raises:
        PlanError: if the plan does not fit the model.
    """
    return parameters_by_plan(decoder, [plan.check(decoder.n_blocks)])[plan]


def parameters_by_plan(decoder: Decoder, plans: Iterable[Plan]) -> dict[Plan, int]:
    """`predicted_parameters` of many plans, also of the one that removes every block."""
    whole, of_blocks = parameters_of(decoder)
    return {plan: whole - sum(of_blocks[i] for i in plan.removed) for plan in plans}


def parameters_of(decoder: Decoder) -> tuple[int, list[int]]:
    """Of the model, and of each of its blocks."""
    return count_parameters(decoder.model), [count_parameters(block) for block in decoder.stack]


@torch.no_grad()
def stored_copy(
    model: PreTrainedModel, dtype: torch.dtype, own: Mapping[str, Tensor] | None = None
) -> PreTrainedModel:
    """A model on the CPU to call `save_pretrained` on: the weights of `model` as `dtype`.

    It is built anew from the config, so a config that does not describe the weights fails here.
    Weights that need no change are shared with `model`, not copied; `model` is not changed.

    Args:
        model: on any device.
        dtype: of the copy.
        own: weights to have in place of the model's, by name, as `named_parameters` has them.
    """
    with torch.device("meta"):
        fresh = type(model)(copy.deepcopy(model.config))
    weights = {**_unfrozen(model, fresh), **(own or {})}
    state = {name: _stored(tensor, dtype) for name, tensor in weights.items()}
    fresh.load_state_dict(state, strict=True, assign=True)
    fresh.tie_weights()
    fresh.generation_config = copy.deepcopy(model.generation_config)
    return fresh.eval()


def standalone(model: PreTrainedModel, own: Mapping[str, Tensor]) -> PreTrainedModel:
    """A model in float32 on the host that runs as its saved folder would, apart from `model`.

    Weights that need no change are shared.

    Args:
        model: a model that is cut, also one that is only lent by `recut`.
        own: as of `stored_copy`.
    """
    stored = stored_copy(model, torch.float32, own)
    weights = dict(stored.named_parameters())
    shared: dict[int, Any] = {id(one): weights[name] for name, one in model.named_parameters()}
    made = copy.deepcopy(model, shared)
    if getattr(model.config, "scale_attn_by_inverse_layer_idx", False):
        for name, attention in made.named_modules():
            if isinstance(getattr(attention, "scaling", None), float):
                attention.scaling = stored.get_submodule(name).scaling
    return made.eval()


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to("cpu", dtype if tensor.is_floating_point() else tensor.dtype)


def _unfrozen(model: PreTrainedModel, fresh: PreTrainedModel) -> dict[str, Tensor]:
    """The state of `model`, adapted to scalings that a fresh build of its config will have.

    With `scale_attn_by_inverse_layer_idx` a GPT-2 attention fixes its scaling, 1 / (number + 1),
    when it is built. A block that moved from number i to j keeps 1 / (i + 1) in memory and gets
    1 / (j + 1) on reload, so its saved queries are multiplied by (j + 1) / (i + 1).
    """
    state = dict(model.state_dict())
    if not getattr(model.config, "scale_attn_by_inverse_layer_idx", False):
        return state
    for name, attention in model.named_modules():
        if isinstance(getattr(attention, "scaling", None), float):
            # In cross-attention c_attn makes keys and values only.
            layer = "q_attn" if hasattr(attention, "q_attn") else "c_attn"
            factor = attention.scaling / fresh.get_submodule(name).scaling
            for key in (f"{name}.{layer}.weight", f"{name}.{layer}.bias"):
                state[key] = _scale_queries(state[key], attention.embed_dim, factor)
    return state


def _scale_queries(weight: Tensor, width: int, factor: float) -> Tensor:
    """The first `width` columns, which make the queries, times `factor`."""
    scaled = weight.cpu().to(torch.float64, copy=True)
    scaled[..., :width] *= factor
    return scaled.to(weight.dtype)
