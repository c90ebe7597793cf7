"""Whether the kernels can be used here: their errors against float64 on some random numbers."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pruning_kit.kernels.amx.layers import CPU, AmxBias, AmxLinear, dots, mix
from pruning_kit.kernels.amx.library import N_TERMS, UnavailableError, is_offered
from pruning_kit.kernels.linear import MAX_FLOAT32_ERROR, relative_error, round_layer


class Errors(NamedTuple):
    """Relative errors (of norms) against float64, or the largest allowed."""

    results: float
    """Of products, their last steps and mixes, in the format."""
    sums: float
    """Of sums of exponentials and target logits, in float32."""
    corrections: float
    """Of what rounding takes off, in 8 bits."""


LIMITS = {
    torch.bfloat16: Errors(4e-3, 1e-5, 0.02),  # twice what rounding does
    torch.float32: Errors(MAX_FLOAT32_ERROR, MAX_FLOAT32_ERROR, 0.0),
}


def refusal(dtype: torch.dtype) -> str | None:
    """Why the kit's AMX kernels cannot be used on a processor that has the units; None if they can.

    Compiles them first if nobody has on this machine, which takes some seconds.
    """
    try:
        errors = _errors(dtype)
    except UnavailableError as reason:
        return str(reason)
    for what, error, limit in zip(Errors._fields, errors, LIMITS[dtype], strict=True):
        if error > limit:
            return f"error {error:.1e} of {what} over {limit:.0e}"
    return None


def is_usable(dtype: torch.dtype) -> bool:
    """Whether there are units that compute this format, and nothing speaks against their use."""
    return dtype in N_TERMS and is_offered() and refusal(dtype) is None


@cache
def _errors(dtype: torch.dtype) -> Errors:
    """How far the kernels are from float64 on some random numbers."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    exact_weight, bias = random(1100, 768) / 16, random(1100).to(dtype)
    inputs, residual = random(70, 768).to(dtype), random(70, 1100).to(dtype)
    weight, put_back = round_layer(exact_weight, None, dtype, CPU, AmxBias)
    layer = AmxLinear(weight, bias, dtype)
    exact = F.linear(inputs.double(), weight.double(), bias.double())
    query, key_value = random(1, 40, 64).to(dtype), random(1, 70, 128).to(dtype)
    queries, (keys, values) = query.double(), key_value.double().chunk(2, dim=2)
    mask = torch.ones(40, 70, dtype=torch.bool).tril(30)
    results = [
        (layer(inputs), exact),
        (layer.gelu(inputs), F.gelu(exact, approximate="tanh")),
        (layer.add_to(residual, inputs), exact + residual),
        (mix(query, key_value, 1), F.scaled_dot_product_attention(queries, keys, values, mask)),
    ]
    targets = torch.arange(70) * 15
    products = dots(inputs, weight, targets)
    sums = [
        (layer.sum_exp(inputs), exact.exp().sum(dim=1)),
        (layer.sum_and_max(inputs)[1].exp(), exact.exp().amax(dim=1)),
        (products, (inputs.double() * weight[targets].double()).sum(dim=1)),
    ]
    off = (exact_weight.double() - weight.double()) @ inputs.double().mean(dim=0)
    found = put_back(inputs)
    return Errors(
        max(relative_error(*pair) for pair in results),
        max(relative_error(*pair) for pair in sums),
        0.0 if found is None else relative_error(found, off),
    )
