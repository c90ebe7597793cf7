"""Linear layers laid out for speed, one copy of each weight: oneDNN on a CPU, cuBLAS elsewhere.

Shapes: N rows, I inputs, O outputs. Weights are given as (O, I), whatever module they come from.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import chain
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

MAX_FLOAT32_ERROR = 1e-6
PROBE_ROWS = 32


class Linear(Protocol):
    """x W^T + b, alone or followed by what a transformer block does next."""

    def __call__(self, inputs: Tensor) -> Tensor: ...

    def gelu(self, inputs: Tensor) -> Tensor:
        """GPT-2's GELU (the tanh form) of the product."""
        ...

    def add_to(self, residual: Tensor, inputs: Tensor) -> Tensor:
        """The product added to `residual`, which stays as it is."""
        ...


MakeLinear = Callable[[Tensor, Tensor | None], Linear]


class DenseLinear(nn.Module):
    """PyTorch's own product, with the bias and the GELU in its last step where the library can."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        super().__init__()
        self._weight_IO = weight_OI.t()
        self._bias_O = bias_O if bias_O is not None else weight_OI.new_zeros(len(weight_OI))

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self._weight_IO.t(), self._bias_O)

    def gelu(self, inputs: Tensor) -> Tensor:
        if not inputs.is_cuda:  # elsewhere the fused call is the other GELU
            return F.gelu(self(inputs), approximate="tanh")
        rows = inputs.flatten(0, -2)
        out = torch.ops.aten._addmm_activation(self._bias_O, rows, self._weight_IO, use_gelu=True)
        return out.view(*inputs.shape[:-1], -1)

    def add_to(self, residual: Tensor, inputs: Tensor) -> Tensor:
        return self(inputs).add_(residual)


class PackedLinear(nn.Module):
    """oneDNN's product over a weight that is brought into its blocked layout once."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        super().__init__()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI.contiguous())
        self._bias_O = bias_O

    def forward(self, inputs: Tensor) -> Tensor:
        return self._product(inputs, "none", "")

    def gelu(self, inputs: Tensor) -> Tensor:
        return self._product(inputs, "gelu", "tanh")

    def add_to(self, residual: Tensor, inputs: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise.binary(
            inputs, residual, self._packed, self._bias_O, "add"
        )

    def _product(self, inputs: Tensor, step: str, variant: str) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(
            inputs, self._packed, self._bias_O, step, [], variant
        )


def weight_and_bias(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """The weight as (O, I) and the bias of an `nn.Linear` or of GPT-2's transposed `Conv1D`."""
    assert isinstance(layer, nn.Linear | Conv1D)
    weight = layer.weight.detach()
    bias = layer.bias.detach() if layer.bias is not None else None
    return (weight.t() if isinstance(layer, Conv1D) else weight), bias


def twin(module: nn.Module, make_linear: MakeLinear) -> nn.Module:
    """A copy of a block that shares its tensors, its linear layers replaced by `make_linear`'s."""
    shared = {id(tensor): tensor for tensor in chain(module.parameters(), module.buffers())}
    copied = copy.deepcopy(module, shared)
    for name, layer in list(copied.named_modules()):
        if type(layer) in (nn.Linear, Conv1D):
            copied.set_submodule(name, make_linear(*weight_and_bias(layer)))  # type: ignore[arg-type]
    return copied


def packing_is_possible(dtype: torch.dtype) -> bool:
    """Whether PyTorch was built with oneDNN's packed products and the CPU computes them."""
    if not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    if dtype == torch.float32:
        return True
    return dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def packed_error(weights_OI: list[Tensor]) -> float:
    """Largest relative error (of norms) of packed float32 products, against float64.

    oneDNN may be told to compute float32 in fewer bits, and then does so without a word.
    """
    errors = [0.0]
    for weight_OI in weights_OI:
        inputs = torch.randn(
            (PROBE_ROWS, weight_OI.shape[1]), generator=torch.Generator().manual_seed(0)
        )
        exact = inputs.double() @ weight_OI.double().t()
        error = (PackedLinear(weight_OI, None)(inputs).double() - exact).norm() / exact.norm()
        errors.append(float(error.nan_to_num(float("inf"))))
    return max(errors)
