"""What a timing ran on: facts of the machine, and readings of its state.

Readings that a machine does not offer are left out, never invented.
"""

from __future__ import annotations

import importlib.util
import platform
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import psutil

from pruning_kit.machine import processor
from pruning_kit.machine.devices import available_cores

if TYPE_CHECKING:
    pass

Reading = dict[str, float]
GpuReader = Callable[[], Reading]


def facts() -> dict[str, Any]:
    """Processor, cores this process may use, memory and versions of the system."""
    return {
        "processor": processor.name(),
        "cores": available_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def reader(read_gpu: GpuReader | None = None) -> Callable[[], Reading]:
    """A function that takes one reading; `read_gpu` adds the accelerator's."""
    return lambda: read() | (read_gpu() if read_gpu else {})


def read() -> Reading:
    """Load, counters of processor seconds since the start of the machine, clock, temperature.

    `cpu_busy_s` and `cpu_steal_s` count all cores, `cpu_own_s` this process; differences of two
    readings tell what others used meanwhile.
    """
    times = psutil.cpu_times()
    working = ("user", "nice", "system", "irq", "softirq")
    reading = {
        "time_s": time.monotonic(),
        "load_average": psutil.getloadavg()[0],
        "cpu_busy_s": sum(getattr(times, kind, 0.0) for kind in working),
        "cpu_steal_s": getattr(times, "steal", 0.0),
        "cpu_own_s": time.process_time(),
    }
    frequency = getattr(psutil, "cpu_freq", lambda: None)()
    if frequency is not None and frequency.current:
        reading["cpu_mhz"] = frequency.current
    return reading | _temperatures()


def _temperatures() -> Reading:
    sensors: Mapping[str, Any] = getattr(psutil, "sensors_temperatures", dict)()
    hottest = [chip.current for chips in sensors.values() for chip in chips]
    return {"cpu_celsius": max(hottest)} if hottest else {}


def gpu_reader(uuid: str) -> GpuReader | None:
    """Reads an NVIDIA GPU's clock, temperature and reasons to slow down, where NVML can be asked.

    Args:
        uuid: the GPU's identity as NVML writes it, `GPU-…`.
    """
    if importlib.util.find_spec("pynvml") is None:
        return None
    pynvml = importlib.import_module("pynvml")
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        _read_gpu(pynvml, handle)
    except pynvml.NVMLError:
        return None
    return lambda: _read_gpu(pynvml, handle)


def _read_gpu(nvml: Any, handle: Any) -> Reading:
    reasons = nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
    harmless = nvml.nvmlClocksEventReasonGpuIdle | nvml.nvmlClocksEventReasonNone
    return {
        "gpu_mhz": float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
        "gpu_celsius": float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
        "gpu_slowed": float(bool(reasons & ~harmless)),
    }
