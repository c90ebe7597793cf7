"""Keeping: trainings of a run in its folder, so that a stopped one goes on at its last look."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pruning_kit.machine import disk
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.distillation.training import State
from pruning_kit.runs.trainings import StateFacts, WrittenFacts, state_path, written_path
from pruning_kit.sweeps.shelf import curve_of, facts_of

WEIGHTS, BEST, OPTIMISING = "weights/", "best/", "optimising/"
FACTS, WRITTEN = "facts", "tokens"
Facts = TypeVar("Facts", StateFacts, WrittenFacts)


@dataclass(frozen=True, slots=True)
class Kept:
    """Trainings and written text in a run folder; what is damaged there is not there."""

    folder: Path

    def load(self, variant: Variant, identity: str) -> State | None:
        """What was kept last of the training of this identity, if anything whole is there."""
        found = _read(state_path(self.folder, variant), StateFacts)
        if found is None or found[0].training != identity:
            return None
        facts, tensors = found

        def those(beginning: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(beginning): tensor
                for name, tensor in tensors.items()
                if name.startswith(beginning)
            }

        weights = those(WEIGHTS)
        return State(
            curve_of(facts.curve),
            facts.best,
            weights,
            those(OPTIMISING),
            those(BEST) or weights,
            facts.diverged,
        )

    def save(self, variant: Variant, identity: str, state: State) -> None:
        """Keep a state in place of the one before."""
        parts = {WEIGHTS: state.weights, OPTIMISING: state.optimising}
        if state.best != len(state.curve) - 1:
            parts[BEST] = state.best_weights
        tensors = {
            f"{beginning}{name}": tensor.contiguous()
            for beginning, part in parts.items()
            for name, tensor in part.items()
        }
        facts = StateFacts(
            training=identity,
            sha256=_sha256(tensors),
            curve=facts_of(state.curve),
            best=state.best,
            diverged=state.diverged,
        )
        _write(state_path(self.folder, variant), tensors, facts)

    def forget(self, variant: Variant) -> None:
        """What became of a training is on the shelf now."""
        state_path(self.folder, variant).unlink(missing_ok=True)

    def written(self, key: str, n: int, write: Callable[[], np.ndarray]) -> np.ndarray:
        """The first `n` sequences of kept text of this key; written now where they are not there.

        Args:
            key: all that the text hangs on.
            n: how many are needed.
            write: writes as many.
        """
        path = written_path(self.folder)
        found = _read(path, WrittenFacts)
        if found is not None and found[0].key == key and len(found[1][WRITTEN]) >= n:
            return found[1][WRITTEN][:n].numpy()
        made = write()
        tensors = {WRITTEN: torch.from_numpy(made)}
        _write(path, tensors, WrittenFacts(key=key, sha256=_sha256(tensors)))
        return made


def _read(path: Path, kind: type[Facts]) -> tuple[Facts, dict[str, Tensor]] | None:
    """What a file says and its tensors; None where it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = msgspec.json.decode((file.metadata() or {}).get(FACTS, ""), type=kind)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, msgspec.DecodeError):
        return None
    return (facts, tensors) if facts.sha256 == _sha256(tensors) else None


def _write(path: Path, tensors: Mapping[str, Tensor], facts: StateFacts | WrittenFacts) -> None:
    with disk.disk_errors(str(path.parent)):
        path.parent.mkdir(parents=True, exist_ok=True)
    disk.write_file(path, save(dict(tensors), {FACTS: msgspec.json.encode(facts).decode()}))


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    """Of tensors with their names, formats and shapes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.contiguous().reshape(-1).numpy().data)
    return digest.hexdigest()
