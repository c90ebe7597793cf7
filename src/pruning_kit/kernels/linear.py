"""Linear layers laid out for speed, one copy of each weight: oneDNN on a CPU, cuBLAS elsewhere.

Shapes: N rows, I inputs, O outputs. Weights are given as (O, I), whatever module they come from.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import lru_cache
from itertools import chain
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruning_kit.inputs.layers import is_linear, weight_and_bias

MAX_FLOAT32_ERROR = 1e-6
PROBE_ROWS = 32
ROUNDED_OFF_SCALE = 2.0**11
"""Keeps what was rounded off out of float16's subnormal numbers."""
MEAN_ROWS = 512
"""Inputs enough for the mean on which rounding is put back: the trained demo model's worst plan in
bfloat16 is 0.9e-3 nats off with them, 1.2e-3 with all 4,096 of a batch and 1.3e-3 with 128."""
GOLDEN_RATIO = (1 + math.sqrt(5)) / 2
EXPONENT_SHIFT = 60.0
"""Taken off logits whose exponentials come from a logistic function: sums are exact while their
largest logit is between -27, where float32 runs out of normal numbers, and 48."""
LOGISTIC_LIMIT = 1e-5
"""Largest sum of shifted exponentials for which the logistic function stands: it is short of the
exponential by a share of no more than this."""


class Linear(Protocol):
    """x W^T + b, alone or followed by what a transformer block does next."""

    error: float
    """By what share the maximum of `sum_and_max` may be off."""

    def __call__(self, inputs: Tensor, bias_O: Tensor | None = None) -> Tensor:
        """The product, with `bias_O` (O,) float32 in place of the layer's own bias if given."""
        ...

    def gelu(self, inputs: Tensor) -> Tensor:
        """GPT-2's GELU (the tanh form) of the product."""
        ...

    def add_to(self, residual: Tensor, inputs: Tensor) -> Tensor:
        """The product added to `residual`, which stays as it is."""
        ...

    def sum_exp(self, inputs: Tensor, bias_O: Tensor | None = None) -> Tensor:
        """The exponentials of the product summed over the outputs: (N,) float32.

        Infinite where they are too large for this way; the logits may still be finite.
        """
        ...

    def sum_and_max(self, inputs: Tensor, bias_O: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`sum_exp` to the bit, and the largest product: (N,) float32; infinite where that is."""
        ...


MakeLinear = Callable[[Tensor, Tensor | None], Linear]


class Bias:
    """A layer's bias, and with it what rounding took off the weight; made by `round_off`.

    Rounding a weight moves each product by (what was rounded off) · input. Over many positions the
    part of the mean input adds up to a constant for each output, so it is put back here.
    """

    def __init__(self, bias_O: Tensor | None, rounded_off_OI: Tensor | None) -> None:
        self._bias_O = bias_O
        self._rounded_off_OI = None if rounded_off_OI is None else packed(rounded_off_OI)

    def __call__(self, inputs: Tensor) -> Tensor | None:
        """What to add to the products of these inputs (…, I): (O,), or None if nothing.

        In float32 where rounding took something off, otherwise in the format of the weight.
        """
        if self._rounded_off_OI is None:
            return self._bias_O
        mean_1I = mean_row(inputs).to(self._rounded_off_OI.dtype)
        put_back_1O = product(mean_1I, self._rounded_off_OI)
        put_back_O = put_back_1O[0].float() / ROUNDED_OFF_SCALE
        return put_back_O if self._bias_O is None else put_back_O + self._bias_O


def mean_row(inputs: Tensor) -> Tensor:
    """The mean input (1, I), of `MEAN_ROWS` of them where there are more.

    By a product, which on CPUs adds up in float32 without a float32 copy.
    """
    rows = inputs.flatten(0, -2)
    if len(rows) > MEAN_ROWS:
        rows = rows.index_select(0, places_of_mean(len(rows), rows.device))
    return rows.new_full((1, len(rows)), 1 / len(rows)) @ rows


@lru_cache(maxsize=64)
def places_of_mean(n_rows: int, device: torch.device) -> Tensor:
    """Which inputs the mean is of: all, or `MEAN_ROWS` as even as can be; int64.

    Multiples of the golden ratio; a fixed step meets few positions of a window whose length it
    shares a factor with.
    """
    if n_rows <= MEAN_ROWS:
        return torch.arange(n_rows, device=device)
    fractions = torch.arange(MEAN_ROWS, dtype=torch.float64) * GOLDEN_RATIO % 1
    return (fractions * n_rows).long().to(device)


def round_off(
    weight_OI: Tensor,
    bias_O: Tensor | None,
    dtype: torch.dtype,
    device: torch.device,
    put_back: bool,
    bias_class: type[Bias] = Bias,
) -> tuple[Tensor, Bias]:
    """The weight in a number format on a device, and the bias that goes with it.

    Args:
        weight_OI: the weight as exact as it is known.
        bias_O: the layer's bias, or None.
        dtype: the format to compute in.
        device: where to compute.
        put_back: whether to keep what is rounded off, up to as large as the weight itself.
        bias_class: brings what is rounded off into its layout.
    """
    exact_OI = weight_OI.to(device)
    rounded_OI = exact_OI.to(dtype).contiguous()
    off_OI: Tensor | None = None
    if put_back and exact_OI.dtype != dtype:
        off_OI = ((exact_OI.float() - rounded_OI.float()) * ROUNDED_OFF_SCALE).to(dtype)
    if bias_O is not None:  # converted here, once, and not in every call
        bias_O = bias_O.to(device, dtype if off_OI is None else torch.float32)
    return rounded_OI, bias_class(bias_O, off_OI)


def round_layer(
    weight_OI: Tensor,
    bias_O: Tensor | None,
    dtype: torch.dtype | None,
    device: torch.device | None,
    bias_class: type[Bias] = Bias,
) -> tuple[Tensor, Bias]:
    """`round_off` for a layer of a block; float16 rounds too little there to be put back."""
    dtype = dtype or weight_OI.dtype
    put_back = dtype == torch.bfloat16
    return round_off(weight_OI, bias_O, dtype, device or weight_OI.device, put_back, bias_class)


class DenseLinear(nn.Module):
    """PyTorch's own product, with the bias and the GELU in its last step where the library can."""

    def __init__(
        self,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self._weight_OI, self._bias = round_layer(weight_OI, bias_O, dtype, device)
        self._no_bias_O = self._weight_OI.new_zeros(len(self._weight_OI))
        self.error = rounding_error(self._weight_OI.dtype)

    def forward(self, inputs: Tensor, bias_O: Tensor | None = None) -> Tensor:
        return F.linear(inputs, self._weight_OI, self._added(inputs, bias_O))

    def gelu(self, inputs: Tensor) -> Tensor:
        if not inputs.is_cuda:  # elsewhere the fused call is the other GELU
            return F.gelu(self(inputs), approximate="tanh")
        rows = inputs.flatten(0, -2)
        out = torch.ops.aten._addmm_activation(
            self._added(inputs), rows, self._weight_OI.t(), use_gelu=True
        )
        return out.view(*inputs.shape[:-1], -1)

    def add_to(self, residual: Tensor, inputs: Tensor) -> Tensor:
        return self(inputs).add_(residual)

    def sum_exp(self, inputs: Tensor, bias_O: Tensor | None = None) -> Tensor:
        return self._logits(inputs, bias_O).exp_().sum(dim=1, dtype=torch.float32)

    def sum_and_max(self, inputs: Tensor, bias_O: Tensor | None = None) -> tuple[Tensor, Tensor]:
        logits = self._logits(inputs, bias_O)
        largest_N = logits.amax(dim=1).float()
        return logits.exp_().sum(dim=1, dtype=torch.float32), largest_N

    def _logits(self, inputs: Tensor, bias_O: Tensor | None) -> Tensor:
        """The product, whose exponentials would overflow early in float16."""
        logits = self(inputs, bias_O)
        return logits.float() if logits.dtype == torch.float16 else logits

    def _added(self, inputs: Tensor, bias_O: Tensor | None = None) -> Tensor:
        bias_O = self._bias(inputs) if bias_O is None else bias_O
        return self._no_bias_O if bias_O is None else bias_O.to(inputs.dtype)


class PackedLinear(nn.Module):
    """oneDNN's product over a weight that is brought into its blocked layout once."""

    def __init__(
        self,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        rounded_OI, self._bias = round_layer(weight_OI, bias_O, dtype, device)
        self.error = rounding_error(rounded_OI.dtype)
        self._packed = packed(rounded_OI)
        self._shift_O = torch.full((len(rounded_OI),), -EXPONENT_SHIFT)

    def forward(self, inputs: Tensor, bias_O: Tensor | None = None) -> Tensor:
        return self._product(inputs, "none", "", bias_O)

    def gelu(self, inputs: Tensor) -> Tensor:
        return self._product(inputs, "gelu", "tanh")

    def add_to(self, residual: Tensor, inputs: Tensor) -> Tensor:
        bias_O = self._bias(inputs)
        if bias_O is not None:
            bias_O = bias_O.to(inputs.dtype)  # this call takes no other
        return torch.ops.mkldnn._linear_pointwise.binary(
            inputs, residual, self._packed, bias_O, "add"
        )

    def sum_exp(self, inputs: Tensor, bias_O: Tensor | None = None) -> Tensor:
        """As `Linear.sum_exp` has it, the exponentials taken while the product is in registers.

        oneDNN offers no exponential as a product's last step, but the logistic function. Far below
        zero they are one: 1 / (1 + exp(-x)) = exp(x) up to a relative exp(x). In bfloat16 the sum
        is rounded as each exponential is (added up in float32): to ask for a float32 sum would make
        a float32 copy of them all first, four times as slow.
        """
        return _unshifted(self._exp(inputs, bias_O).sum(dim=1).float())

    def sum_and_max(self, inputs: Tensor, bias_O: Tensor | None = None) -> tuple[Tensor, Tensor]:
        exponentials = self._exp(inputs, bias_O)
        largest_N = exponentials.amax(dim=1).float()
        return _unshifted(exponentials.sum(dim=1).float()), _unshifted(largest_N).log()

    def _exp(self, inputs: Tensor, bias_O: Tensor | None) -> Tensor:
        """The exponentials of the product, shifted down."""
        bias_O = self._bias(inputs) if bias_O is None else bias_O
        bias_O = self._shift_O if bias_O is None else bias_O + self._shift_O
        return self._product(inputs, "sigmoid", "", bias_O)

    def _product(
        self, inputs: Tensor, step: str, variant: str, bias_O: Tensor | None = None
    ) -> Tensor:
        bias_O = self._bias(inputs) if bias_O is None else bias_O
        return torch.ops.mkldnn._linear_pointwise(inputs, self._packed, bias_O, step, [], variant)


def rounding_error(dtype: torch.dtype) -> float:
    """By what share a product may be off that was added up in float32 and rounded to a format."""
    return max(1e-5, 0.6 * torch.finfo(dtype).eps)


def _unshifted(sums_N: Tensor) -> Tensor:
    """Sums of shifted exponentials as they would be; infinite where the shift did not suffice."""
    return sums_N.masked_fill_(sums_N >= LOGISTIC_LIMIT, torch.inf).mul_(math.exp(EXPONENT_SHIFT))


def product(inputs: Tensor, weight_OI: Tensor) -> Tensor:
    """x W^T by oneDNN where the weight is packed or both are on a CPU in a format it computes."""
    if weight_OI.is_mkldnn or (weight_OI.is_cpu and packing_is_possible(weight_OI.dtype)):
        return torch.ops.mkldnn._linear_pointwise(inputs, weight_OI, None, "none", [], "")
    return inputs @ weight_OI.t()


def packed(weight_OI: Tensor) -> Tensor:
    """The weight in oneDNN's blocked layout, or as it is where there is none for it."""
    if weight_OI.is_cpu and packing_is_possible(weight_OI.dtype):
        return torch.ops.mkldnn._reorder_linear_weight(weight_OI)
    return weight_OI


def twin(block: nn.Module, exact: nn.Module, make_linear: MakeLinear) -> nn.Module:
    """A copy of a block that shares its tensors, its linear layers made anew by `make_linear`.

    Args:
        block: the block in the format to compute in.
        exact: the same block with its weights as exact as they are known.
        make_linear: brings a weight into format and layout.
    """
    shared = {id(tensor): tensor for tensor in chain(block.parameters(), block.buffers())}
    copied = copy.deepcopy(block, shared)
    for name, layer in exact.named_modules():
        if is_linear(layer):
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
        errors.append(relative_error(PackedLinear(weight_OI, None)(inputs), exact))
    return max(errors)


def relative_error(found: Tensor, exact: Tensor) -> float:
    """Distance from an exact (float64) result, as a ratio of norms; infinite where not a number."""
    error = (found.double() - exact).norm() / exact.norm()
    return float(error.nan_to_num(float("inf")))
