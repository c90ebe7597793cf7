"""The processor: its name and what it can do, as far as the system tells."""

from __future__ import annotations

import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def name() -> str:
    """The processor by its name, or its kind where the system tells no name."""
    return _first_in_cpu_info("model name") or platform.processor() or platform.machine()


def flags() -> frozenset[str]:
    """What the processor can do, by Linux's names; empty where the system does not tell."""
    return frozenset((_first_in_cpu_info("flags") or "").split())


def _first_in_cpu_info(key: str) -> str | None:
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() == key), None)
