"""Parts: files of sums, each whole, with facts and a checksum of it all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pruning_kit.errors import RunError
from pruning_kit.machine import disk

Sums = Mapping[str, np.ndarray]
"""By measure: float64, (variants, windows)."""
AGAIN = "Delete it and run again with `resume`."


def write(path: Path, sums: Sums, facts: Mapping[str, str]) -> None:
    """Write sums and facts to a safetensors file, whole.

    Raises:
        RunError: if the disk refuses.
    """
    tensors = {
        measure: np.ascontiguousarray(values, dtype=np.float64) for measure, values in sums.items()
    }
    metadata = {**facts, "sha256": _checksum(tensors, facts)}
    disk.write_file(path, save(tensors, metadata=metadata))


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Sums by measure, and the facts stored with them.

    Raises:
        RunError: if the part is missing or damaged.
    """
    try:
        with safe_open(path, framework="numpy") as part:
            facts = dict(part.metadata() or {})
            tensors = {name: part.get_tensor(name) for name in part.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot read part {path}: {error}. {AGAIN}") from None
    if facts.pop("sha256", None) != _checksum(tensors, facts):
        raise RunError(
            f"cannot use part {path}: it is damaged, since its checksum is not that of what it "
            f"holds. {AGAIN}"
        )
    return tensors, facts


def shapes(sums: Sums) -> dict[str, tuple[int, ...]]:
    """What a part holds: the shape of each measure's sums."""
    return {measure: values.shape for measure, values in sums.items()}


def _checksum(sums: Sums, facts: Mapping[str, str]) -> str:
    """SHA-256 of sums, with their names, shapes and formats, and of the facts beside them."""
    described = [[name, str(sums[name].dtype), sums[name].shape] for name in sorted(sums)]
    digest = hashlib.sha256(json.dumps([described, sorted(facts.items())]).encode())
    for name in sorted(sums):
        digest.update(sums[name].tobytes())
    return digest.hexdigest()
