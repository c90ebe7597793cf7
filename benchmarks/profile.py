"""Where the time of a sweep goes: each part of the kit's kernel by operator, beside its floor.

    python -m benchmarks.profile [--device cpu|cuda] [--dtype float32|float16|bfloat16]
    python -m benchmarks.profile --device cpu --alternatives [--dtype float32|bfloat16]

The model, text and kernel of `benchmarks.sweep`. The floor of a part is its operations at the
matrix ceiling measured in the same run; operators are listed by their own time, in milliseconds a
window, and what they do together is the part. With `--alternatives`, what a CPU's kernel is made of
beside what could stand in its place, and how exact each product is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks import machine
from benchmarks.sweep import all_subsets, operations, part_calls, random_model, random_text
from pruning_kit.kernels import choose_kernel
from pruning_kit.kernels.amx.layers import PIECE, AmxAttention, AmxLinear, mix
from pruning_kit.kernels.amx.proof import is_usable
from pruning_kit.kernels.attention import PiecewiseAttention, SdpaAttention
from pruning_kit.kernels.head import CPU_PIECE
from pruning_kit.kernels.linear import PackedLinear, mean_row, packed, product, relative_error
from pruning_kit.walk.batching import choose_batch_size

CALLS, LISTED = 20, 9
HEADS, WIDTH, TOKENS, SCORED, VOCABULARY = 12, 768, 1023, 512, 50_257
PIECES = [
    CPU_PIECE,
    *((rows, 1024) for rows in (512, 1024, 1536, 2048)),
    *((1024, columns) for columns in (512, 4096)),
    (2048, 12_544),
]


def operator_times(call: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Seconds that one call spends in each operator (on a GPU: kernel) itself, longest first."""
    on_gpu = device.type == "cuda"
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    call()
    with profile(activities=[activity]) as profiled, torch.no_grad():
        for _ in range(CALLS):
            call()
        if on_gpu:
            torch.cuda.synchronize()
    times: dict[str, float] = {}
    for event in profiled.key_averages():
        own_us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        times[event.key] = times.get(event.key, 0.0) + own_us / 1e6 / CALLS
    return dict(sorted(times.items(), key=lambda item: -item[1]))


def measure(device: torch.device, dtype: torch.dtype) -> list[str]:
    """One line for each part, and one for each of its longest operators."""
    ceiling = machine.matmul_ceiling(device, dtype).any.rate
    decoder = random_model(device)
    text = random_text(decoder.model.config.vocab_size)
    middle = len(text.windows) // 2
    kernel = choose_kernel(decoder, text.batch(middle, middle + 1)[0], dtype, device)
    plans = all_subsets(decoder.n_blocks)
    batch = choose_batch_size(kernel, decoder.n_blocks, *text.batch(middle, middle + 1))
    counts = operations(decoder, plans, text.windows[middle])
    lines = [
        f"{machine.name(device)}, {kernel.name}, batches of {batch}, "
        f"ceiling {ceiling / 1e12:.3g} TFLOP/s; milliseconds a window"
    ]
    for part, call in part_calls(kernel, text.batch(middle, middle + batch)).items():
        with torch.no_grad():
            took_s = machine.seconds(call, device, repeats=CALLS)
        times = operator_times(call, device)
        lines.append(
            f"{part}: {1e3 * took_s / batch:.4g}, floor {1e3 * counts[part] / ceiling:.4g}"
        )
        for name, own_s in list(times.items())[:LISTED]:
            lines.append(f"  {1e3 * own_s / batch:9.4f}  {name[:80]}")
        rest_s = sum(list(times.values())[LISTED:])
        lines.append(f"  {1e3 * rest_s / batch:9.4f}  the rest")
    return lines


def alternatives(dtype: torch.dtype) -> list[str]:
    """Milliseconds of each way to mix, to sum exponentials and to put back what was rounded off."""
    cpu = torch.device("cpu")
    make_linear = partial(PackedLinear, dtype=dtype, device=cpu)
    torch.manual_seed(0)
    joint, bias = torch.randn(3 * WIDTH, WIDTH) / WIDTH**0.5, torch.zeros(3 * WIDTH)
    states = torch.randn(1, TOKENS, WIDTH).to(dtype)
    ways: dict[str, Callable[[], object]] = {}
    make_pieces = partial(PiecewiseAttention, dtype=dtype, device=cpu)
    for make in (SdpaAttention, make_pieces):
        attention = make(joint, bias, HEADS, make_linear)
        name = getattr(make, "name", PiecewiseAttention.name)
        ways[f"projections and {name}"] = partial(attention, states, slice(None))
    embedding = torch.randn(VOCABULARY, WIDTH).to(dtype) / WIDTH**0.5
    normed = states[0, -SCORED:].repeat(4, 1)
    if is_usable(dtype):
        ways |= _amx_ways(joint, bias, states, embedding, normed)
    for rows, columns in PIECES:
        starts = range(0, VOCABULARY, columns)
        layers = [make_linear(embedding[start : start + columns], None) for start in starts]
        for step in ("product", "sum_exp"):
            name = f"head of {len(normed):,} positions, pieces of {rows:,} by {columns:,}, {step}"
            ways[name] = partial(_head, layers, list(torch.split(normed, rows)), step)
    piece = torch.rand(CPU_PIECE).to(dtype)
    ways["sums of a piece"] = partial(piece.sum, dim=1)
    if dtype != torch.float32:
        ways["sums of a piece, in float32"] = partial(piece.sum, dim=1, dtype=torch.float32)
        off, mean = embedding / 500, normed[:1]
        ways["head's correction, packed"] = partial(product, mean, packed(off))
        ways["head's correction, not packed"] = partial(product, mean, off)
        inner = torch.randn(4 * TOKENS, 4 * WIDTH).to(dtype)
        every = inner.new_full((1, len(inner)), 1 / len(inner))
        ways["mean of a feed-forward layer's inputs, of all"] = partial(torch.mm, every, inner)
        ways["mean of a feed-forward layer's inputs, of 512"] = partial(mean_row, inner)
    with torch.no_grad():
        times = {name: machine.seconds(call, cpu, repeats=CALLS) for name, call in ways.items()}
    lines = [f"{1e3 * took_s:8.2f} ms  {name}" for name, took_s in times.items()]
    return [*lines, *_errors(joint, normed)]


def _errors(weight: Tensor, states: Tensor) -> list[str]:
    """How far each product of these is from float64, relative and of norms."""
    weight = weight.to(states.dtype)
    exact = states.double() @ weight.double().t()
    return [
        f"{relative_error(make(weight, None)(states), exact):8.1e}     error of a product, {name}"
        for name, make in machine.layouts(torch.device("cpu"), states.dtype).items()
    ]


def _amx_ways(
    joint: Tensor, bias: Tensor, states: Tensor, embedding: Tensor, normed: Tensor
) -> dict[str, Callable[[], object]]:
    """The kit's AMX kernels: attention, head with and without exponentials, and over zeros."""
    make_linear = partial(AmxLinear, dtype=states.dtype)
    attention = AmxAttention(joint, bias, HEADS, make_linear)
    query, key_value = states, torch.cat([states, states], dim=-1)
    columns = embedding[: PIECE[1]]
    layer, zeros = make_linear(columns, None), make_linear(torch.zeros_like(columns), None)
    name = f"{len(normed):,} positions by {len(columns):,} columns, AMX"
    return {
        "projections and AMX attention": partial(attention, states, slice(None)),
        "AMX attention alone": partial(mix, query, key_value, HEADS),
        f"{name}, product": partial(layer, normed),
        f"{name}, product of zeros": partial(zeros, torch.zeros_like(normed)),
        f"{name}, sum_exp": partial(layer.sum_exp, normed),
        f"{name}, sum_exp of zeros": partial(zeros.sum_exp, torch.zeros_like(normed)),
    }


def _head(layers: Sequence[PackedLinear], pieces: Sequence[Tensor], step: str) -> None:
    """All pieces of a head: their products alone, or with the sums of exponentials."""
    for layer in layers:
        call = layer if step == "product" else layer.sum_exp
        for rows in pieces:
            call(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--alternatives", action="store_true")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    dtype = options.dtype or ("float16" if device.type == "cuda" else "float32")
    if options.alternatives and device.type != "cpu":
        parser.error("--alternatives are those of a CPU: add --device cpu")
    found = alternatives if options.alternatives else partial(measure, device)
    print("\n".join(found(getattr(torch, dtype))))


if __name__ == "__main__":
    main()
