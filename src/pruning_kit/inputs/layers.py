"""Linear layers of checkpoints, and blocks with another one in place of their own.

Shapes: I inputs, O outputs. Weights are given as (O, I), whatever module they come from.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def is_linear(layer: nn.Module) -> bool:
    """Whether `weight_and_bias` reads it: an `nn.Linear` or GPT-2's transposed `Conv1D` itself."""
    return type(layer) in (nn.Linear, Conv1D)


def is_linear_kind(layer: nn.Module) -> bool:
    """Whether it holds its weight as these do; falcon's kind computes the product on its own."""
    return isinstance(layer, nn.Linear | Conv1D)


def weight_and_bias(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """The weight as (O, I) and the bias of an `nn.Linear` or of GPT-2's transposed `Conv1D`."""
    assert isinstance(layer, nn.Linear | Conv1D)
    weight = layer.weight.detach()
    bias = layer.bias.detach() if layer.bias is not None else None
    return (weight.t() if isinstance(layer, Conv1D) else weight), bias


def layer_like(layer: nn.Module, weight_OI: Tensor, bias_O: Tensor | None) -> nn.Module:
    """A layer of the same kind, format and device with another weight and bias."""
    assert isinstance(layer, nn.Linear | Conv1D)
    stored = weight_OI.t() if isinstance(layer, Conv1D) else weight_OI
    made = copy.copy(layer)
    made._parameters = dict(layer._parameters)
    made.weight = _parameter(stored, layer.weight)
    if bias_O is not None:
        made.bias = _parameter(bias_O, layer.weight)
    return made


def _parameter(value: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(like).contiguous(), requires_grad=False)


def with_submodule(module: nn.Module, path: str, part: nn.Module) -> nn.Module:
    """The module with another part at a dotted path; the two share everything else."""
    name, _, rest = path.partition(".")
    changed = copy.copy(module)
    changed._modules = dict(module._modules)
    inner = module.get_submodule(name)
    changed._modules[name] = with_submodule(inner, rest, part) if rest else part
    return changed


def submodule(module: nn.Module, path: str) -> nn.Module | None:
    """The module at a dotted path, or None if there is none."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def close(given: Tensor, expected: Tensor) -> bool:
    """Equal but for the rounding of one normalisation in this number format."""
    if given.shape != expected.shape:
        return False
    tolerance = max(1e-5, 4 * torch.finfo(given.dtype).eps)
    scale = expected.float().abs().amax()
    return bool((given.float() - expected.float()).abs().amax() <= tolerance * scale)
