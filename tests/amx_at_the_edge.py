"""The AMX kernels on memory that ends where a page begins that nobody may read: run by `test_amx`.

A read past the end kills the process. Inputs, weights, residuals, keys and what was rounded off
lie there; shapes leave tiles, chunks and panels partly filled.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from itertools import product

import torch
from torch import Tensor, nn

from pruning_kit.kernels.amx.layers import CPU, AmxEmbedding, AmxLinear, mix

PAGE = mmap.PAGESIZE
PROT_NONE = 0
ROWS, INPUTS, OUTPUTS = (1, 31, 33, 70), (32, 96, 288, 800), (7, 32, 70)
QUERIES_KEYS, HEAD_WIDTHS = ((1, 1), (5, 40), (33, 33), (40, 70)), (16, 48, 64)

libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
kept: list[mmap.mmap] = []


def at_the_edge(tensor: Tensor) -> Tensor:
    """A copy whose last byte is the last one before the forbidden page."""
    n_bytes = tensor.numel() * tensor.element_size()
    pages = -(-n_bytes // PAGE)
    memory = mmap.mmap(-1, (pages + 1) * PAGE)
    kept.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert libc.mprotect(start + pages * PAGE, PAGE, PROT_NONE) == 0
    offset = pages * PAGE - n_bytes
    copied = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=offset)
    return copied.view(tensor.shape).copy_(tensor)


def use_linear(rows: int, inputs: int, outputs: int, dtype: torch.dtype) -> None:
    layer = AmxLinear(torch.randn(outputs, inputs), torch.randn(outputs), dtype)
    layer._panels = at_the_edge(layer._panels)
    if dtype == torch.bfloat16:
        put_back = layer._bias
        for name in ("_small_OI", "_scale_O", "_added_O"):
            setattr(put_back, name, at_the_edge(getattr(put_back, name)))
    states = at_the_edge(torch.randn(rows, inputs).to(dtype))
    residual = at_the_edge(torch.randn(rows, outputs).to(dtype))
    results = layer(states), layer.gelu(states), layer.add_to(residual, states)
    assert all(result.isfinite().all() for result in results)
    layer.sum_exp(states)


def use_embedding(rows: int, inputs: int, outputs: int, dtype: torch.dtype) -> None:
    embedding = AmxEmbedding(nn.Linear(inputs, outputs, bias=False), dtype, CPU)
    embedding.weight_VD = at_the_edge(embedding.weight_VD)
    states = at_the_edge(torch.randn(rows, inputs).to(dtype))
    targets = at_the_edge(torch.full((rows,), outputs - 1))
    assert embedding.target_logits(states, targets, None).isfinite().all()


def use_attention(queries: int, keys: int, width: int, dtype: torch.dtype) -> None:
    query = at_the_edge(torch.randn(2, queries, 3 * width).to(dtype))
    key_value = at_the_edge(torch.randn(2, keys, 2 * 3 * width).to(dtype))
    assert mix(query, key_value, 3).isfinite().all()


def main(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for rows, inputs, outputs in product(ROWS, INPUTS, OUTPUTS):
        use_linear(rows, inputs, outputs, dtype)
        use_embedding(rows, inputs, outputs, dtype)
    for (queries, keys), width in product(QUERIES_KEYS, HEAD_WIDTHS):
        use_attention(queries, keys, width, dtype)


if __name__ == "__main__":
    main(getattr(torch, sys.argv[1]))
