"""Devices and number formats: which are there, and when their work is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

from pruning_kit.errors import DeviceError, first_line
from pruning_kit.machine import processor

WITHOUT_FLOAT64 = ("mps",)
"""Kinds of devices."""


def choose_device(name: str, process: int = 0) -> torch.device:
    """The device for `device`: `auto` is a GPU if CUDA has one, else the CPU.

    Args:
        name: what was asked for.
        process: the number of this process on the machine; each takes a GPU of its own, in turn,
            unless one is named by its number.

    Raises:
        DeviceError: if the device is unknown or this machine lacks it.
    """
    gpu = f"cuda:{process % torch.cuda.device_count()}" if torch.cuda.is_available() else None
    if name == "auto":  # not tried here: to wake a GPU takes a while
        return torch.device(gpu or "cpu")
    if name == "cuda" and gpu:
        name = gpu
    if name.split(":")[0] not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"cannot use device {name!r}: choose auto, cpu, cuda or mps.")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(
            f"cannot use device {name!r}: {first_line(error)}. Use `device` cpu."
        ) from None
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format for `dtype`: `auto` is float16 on CUDA and float32 elsewhere.

    Raises:
        DeviceError: if the format is not one of float32, float16, bfloat16, or float16 on a CPU.
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    formats = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if name not in formats:
        raise DeviceError(f"cannot compute in {name!r}: choose auto, float32, float16 or bfloat16.")
    if name == "float16" and device.type == "cpu":
        raise DeviceError("cannot compute in float16 on the CPU: use float32 or bfloat16.")
    return formats[name]


def dtype_name(dtype: torch.dtype) -> str:
    """A number format as `dtype` and results name it: `float16`."""
    return str(dtype).removeprefix("torch.")


Clock = Callable[[], float]


Sync = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """Times a call on a device that works asynchronously."""

    clock: Clock
    sync: Sync

    def seconds(self, call: Callable[[], object]) -> float:
        """Seconds from idle device to idle device."""
        self.sync()
        start = self.clock()
        call()
        self.sync()
        return self.clock() - start


def float64_device(device: torch.device) -> torch.device:
    """Where float64 sums of what a device computes are made: the host, if it has no float64."""
    return torch.device("cpu") if device.type in WITHOUT_FLOAT64 else device


def current_device(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the one on which this thread launches, captures graphs and records events."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def device_sync(device: torch.device) -> Sync:
    """Waits until the device is idle; the CPU always is."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if device.type == "mps":
        return torch.mps.synchronize
    return lambda: None


def available_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_name(device: torch.device) -> str:
    """The hardware that computes, by its name: the GPU or the processor."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return processor.name()


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Begin with so many threads of the CPU; afterwards there are as many as before."""
    before = torch.get_num_threads()
    _set_threads(count)
    try:
        yield
    finally:
        _set_threads(before)


def _set_threads(count: int) -> None:
    if count != torch.get_num_threads():
        torch.set_num_threads(count)
