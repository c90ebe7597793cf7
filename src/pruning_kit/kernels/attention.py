"""GPT-2's causal attention, from normed states to mixed values: the projections and the mix.

    SdpaAttention       PyTorch's own attention, anywhere
    PiecewiseAttention  plain products of some queries at a time, for CPUs

Shapes: B windows, T tokens read, S of them scored, D hidden width, H heads, K width of a head,
Q queries of a piece.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

from pruning_kit.kernels.linear import MakeLinear, product, relative_error

PIECE_QUERIES = 128


class Attention(Protocol):
    """Queries, keys and values of normed states, and their mix."""

    def __call__(self, normed_BTD: Tensor, outputs: slice) -> Tensor:
        """Mixed values (B, S, D) at the positions `outputs`, which reach to the last one."""
        ...


MakeAttention = Callable[[Tensor, Tensor, int, MakeLinear], Attention]
"""From the joint weight (3 D, D) and bias (3 D,) of queries, keys and values, and the heads."""


class SdpaAttention:
    """PyTorch's `scaled_dot_product_attention`."""

    name = "sdpa"

    def __init__(
        self, weight_OI: Tensor, bias_O: Tensor, n_heads: int, make_linear: MakeLinear
    ) -> None:
        width = weight_OI.shape[1]
        self._query = make_linear(weight_OI[:width], bias_O[:width])
        self._key_value = make_linear(weight_OI[width:], bias_O[width:])
        self._n_heads = n_heads

    def __call__(self, normed_BTD: Tensor, outputs: slice) -> Tensor:
        query = self._heads(self._query(normed_BTD[:, outputs]))
        key, value = (self._heads(x) for x in self._key_value(normed_BTD).chunk(2, dim=-1))
        n_queries, n_keys = query.shape[2], key.shape[2]
        if n_queries == n_keys:
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            mask = causal_lower_right(n_queries, n_keys)
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return mixed.transpose(1, 2).flatten(2)

    def _heads(self, states_BTD: Tensor) -> Tensor:
        return states_BTD.view(*states_BTD.shape[:2], self._n_heads, -1).transpose(1, 2)


class PiecewiseAttention:
    """Products of some queries at a time, each over the keys it may see: oneDNN's own on CPUs.

    PyTorch's attention on CPUs multiplies by other means, at less than half the speed (but for
    processors with AMX, where it is the faster one). The keys are made transposed, by a product of
    the weight with the states, so that nothing is copied to be multiplied. What is the same for all
    keys moves all scores of a query alike and changes nothing: so the keys need no bias, and their
    mean is taken off, which leaves small scores that round little. Scores are float32 in every
    format: rounded to bfloat16 they were the largest error on the trained demo model (2e-3 nats
    with them, 1e-3 without). All pieces use one piece of memory: with a new one for each, what the
    allocator did in between (fresh pages from the system) made the same call take up to three times
    as long.
    """

    name = "attention by pieces"

    def __init__(
        self,
        weight_OI: Tensor,
        bias_O: Tensor,
        n_heads: int,
        make_linear: MakeLinear,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        width = weight_OI.shape[1]
        query, key, value = (slice(i * width, (i + 1) * width) for i in range(3))
        self._query = make_linear(weight_OI[query], bias_O[query])
        self._value = make_linear(weight_OI[value], bias_O[value])
        self._key_weight_DD = weight_OI[key].to(device, dtype).contiguous()
        self._n_heads = n_heads
        self._scale = 1 / math.sqrt(width // n_heads)

    def __call__(self, normed_BTD: Tensor, outputs: slice) -> Tensor:
        query_BSD = self._query(normed_BTD[:, outputs]).mul_(self._scale)
        value_BTD = self._value(normed_BTD)
        mixed_BSD = torch.empty_like(query_BSD)
        for window in range(len(normed_BTD)):
            key_DT = product(self._key_weight_DD, normed_BTD[window])
            with onednn_products():
                self._mix(query_BSD[window], key_DT, value_BTD[window], mixed_BSD[window])
        return mixed_BSD

    def _mix(self, query_SD: Tensor, key_DT: Tensor, value_TD: Tensor, mixed_SD: Tensor) -> None:
        """Write the mix of one window's values to `mixed_SD`."""
        query_HSK, value_HTK, mixed_HSK = map(self._heads, (query_SD.float(), value_TD, mixed_SD))
        key_DT = key_DT.float()
        n_queries, n_keys = len(query_SD), len(value_TD)
        key_DT -= key_DT.mean(dim=1, keepdim=True)
        key_HKT = key_DT.view(self._n_heads, -1, n_keys)
        future_QQ = query_HSK.new_full((PIECE_QUERIES, PIECE_QUERIES), -torch.inf).triu_(1)
        memory = query_HSK.new_empty(self._n_heads * PIECE_QUERIES * n_keys)
        for start in range(0, n_queries, PIECE_QUERIES):
            end = min(start + PIECE_QUERIES, n_queries)
            size, seen = end - start, n_keys - n_queries + end
            scores = memory[: self._n_heads * size * seen].view(self._n_heads, size, seen)
            torch.bmm(query_HSK[:, start:end], key_HKT[..., :seen], out=scores)
            scores[..., seen - size :] += future_QQ[:size, :size]
            torch.softmax(scores, dim=-1, out=scores)
            mixed_HSK[:, start:end] = scores.to(value_TD.dtype) @ value_HTK[:, :seen]

    def _heads(self, states_SD: Tensor) -> Tensor:
        """(S, D) seen as (H, S, K)."""
        return states_SD.view(len(states_SD), self._n_heads, -1).transpose(0, 1)


@contextmanager
def onednn_products() -> Iterator[None]:
    """Let oneDNN, not MKL, compute batched products in float32.

    The only way to ask for it is a setting that allows it to compute in bfloat16; most processors
    have no faster way to do so and stay exact. `batched_product_error` tells. The setting is the
    process's, other threads included.
    """
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before


def batched_product_error(n_heads: int, head_width: int) -> float:
    """Relative error (of norms) of oneDNN's batched float32 products, against float64."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(n_heads, PIECE_QUERIES, head_width, generator=generator)
    key = torch.randn(n_heads, head_width, PIECE_QUERIES, generator=generator)
    with onednn_products():
        found = query @ key
    return relative_error(found, query.double() @ key.double())
