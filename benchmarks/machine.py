"""What the machine can do at most, and clocks that wait for it."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch

from pruning_kit.kernels.amx.layers import AmxLinear
from pruning_kit.kernels.amx.proof import is_usable
from pruning_kit.kernels.linear import DenseLinear, MakeLinear, PackedLinear, packing_is_possible
from pruning_kit.machine.devices import Stopwatch, device_name, device_sync

OWN = "AMX"
"""Products of the kit itself."""
CEILING_SECONDS = 1.0
"""How long each product is tried for the ceiling, at least."""


def seconds(call: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Median seconds of a call after two unmeasured ones, the device waited for."""
    times = [once(call, device) for _ in range(repeats + 2)]
    return sorted(times[2:])[repeats // 2]


def once(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, the device waited for on both sides."""
    return Stopwatch(time.perf_counter, device_sync(device)).seconds(call)


@dataclass(frozen=True, slots=True)
class Product:
    """A large matrix product that can be repeated, and the best rate it reached."""

    call: Callable[[], object]
    operations: float
    rate: float
    """Floating-point operations per second."""


@dataclass(frozen=True, slots=True)
class MatmulCeiling:
    """The fastest of the large products tried."""

    library: Product
    """By PyTorch and what comes with it: oneDNN, MKL, cuBLAS."""
    any: Product
    """By these or the kit's own products."""

    def __or__(self, other: MatmulCeiling) -> MatmulCeiling:
        """The faster one of each."""
        return MatmulCeiling(
            _fastest([self.library, other.library]), _fastest([self.any, other.any])
        )


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> MatmulCeiling:
    """Try large products.

    Each is tried for a second at least: the cores of a virtual machine may have to share a real one
    for as long as that.
    """
    if device.type == "cuda":
        shapes = [(8192, 8192, 8192)]
    else:
        shapes = [(2048, 2048, 2048), (1024, 768, 3072)]
    products = {
        name: _fastest(_try(layout, shape, device, dtype) for shape in shapes)
        for name, layout in layouts(device, dtype).items()
    }
    library = _fastest(product for name, product in products.items() if name != OWN)
    return MatmulCeiling(library, _fastest(products.values()))


def layouts(device: torch.device, dtype: torch.dtype) -> dict[str, MakeLinear]:
    """Linear layers that a device computes in a number format, by name."""
    found: dict[str, MakeLinear] = {"PyTorch": DenseLinear}
    if device.type == "cpu" and packing_is_possible(dtype):
        found["oneDNN, packed"] = PackedLinear
    if device.type == "cpu" and is_usable(dtype):
        found[OWN] = partial(AmxLinear, dtype=dtype)
    return found


def _try(
    layout: MakeLinear, shape: tuple[int, int, int], device: torch.device, dtype: torch.dtype
) -> Product:
    rows, inputs, outputs = shape
    x = torch.randn(rows, inputs, device=device, dtype=dtype)
    call = partial(layout(torch.randn(outputs, inputs, device=device, dtype=dtype), None), x)
    operations = 2.0 * rows * inputs * outputs
    return Product(call, operations, operations / _least_seconds(call, device))


def _fastest(products: Iterable[Product]) -> Product:
    return max(products, key=lambda product: product.rate)


def _least_seconds(call: Callable[[], object], device: torch.device) -> float:
    end = time.perf_counter() + CEILING_SECONDS
    times = [once(call, device) for _ in range(12)]
    while time.perf_counter() < end:
        times.append(once(call, device))
    return min(times)


def copy_ceiling(device: torch.device) -> float:
    """Bytes read and written per second by a large copy."""
    source = torch.ones(2**28 if device.type == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), device)


def peak_bytes(device: torch.device) -> int:
    """Most memory held so far: the allocator's on a GPU, the process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    assert sys.platform != "win32", "benchmarks are for Linux"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def name(device: torch.device) -> str:
    """The machine as hardware: the GPU's name, or cores and processor."""
    if device.type == "cuda":
        return device_name(device)
    return f"{torch.get_num_threads()} threads, {device_name(device)}"
