"""Keeping: trainings of a run in its folder, so that a stopped one goes on at its last look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from pruning_kit.machine import disk
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.distillation.schedule import Schedule
from pruning_kit.pruning.distillation.training import State
from pruning_kit.runs.trainings import StateFacts, state_path, written_path
from pruning_kit.sweeps.shelf import curve_of, facts_of

WEIGHTS, BEST, OPTIMISING = "weights/", "best/", "optimising/"
FACTS, WRITTEN = "facts", "tokens"


@dataclass(frozen=True, slots=True)
class Kept:
    """Trainings and written text in a run folder; what is damaged there is not there."""

    folder: Path

    def load(self, variant: Variant, schedule: Schedule) -> State | None:
        """What was kept last of the training of this schedule, if anything whole is there."""
        try:
            with safe_open(state_path(self.folder, variant), framework="pt") as file:
                facts = StateFacts.from_text((file.metadata() or {}).get(FACTS, ""))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, msgspec.DecodeError):
            return None
        if facts.schedule != _identity(schedule):
            return None

        def those(beginning: str) -> dict[str, object]:
            return {
                name.removeprefix(beginning): tensor
                for name, tensor in tensors.items()
                if name.startswith(beginning)
            }

        return State(
            curve_of(facts.curve),
            facts.best,
            those(WEIGHTS),  # type: ignore[arg-type]
            those(OPTIMISING),  # type: ignore[arg-type]
            those(BEST) or those(WEIGHTS),  # type: ignore[arg-type]
            facts.diverged,
        )

    def save(self, variant: Variant, schedule: Schedule, state: State) -> None:
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
            schedule=_identity(schedule),
            curve=facts_of(state.curve),
            best=state.best,
            diverged=state.diverged,
        )
        path = state_path(self.folder, variant)
        _make_place(path)
        disk.write_file(path, save(tensors, {FACTS: facts.to_text()}))

    def forget(self, variant: Variant) -> None:
        """What is trained is on the shelf now."""
        state_path(self.folder, variant).unlink(missing_ok=True)

    def written(self, key: str, n: int, write: Callable[[], np.ndarray]) -> np.ndarray:
        """The first `n` sequences of kept text of this key; written now where they are not there.

        Args:
            key: all that the text hangs on.
            n: how many are needed.
            write: writes as many.
        """
        path = written_path(self.folder)
        try:
            with safe_open(path, framework="np") as file:
                if (file.metadata() or {}).get(FACTS) == key:
                    kept = file.get_tensor(WRITTEN)
                    if len(kept) >= n:
                        return np.asarray(kept[:n])
        except (OSError, SafetensorError):
            pass
        made = write()
        _make_place(path)
        import torch

        disk.write_file(path, save({WRITTEN: torch.from_numpy(made)}, {FACTS: key}))
        return made


def _identity(schedule: Schedule) -> str:
    return msgspec.json.encode(asdict(schedule)).decode()


def _make_place(path: Path) -> None:
    with disk.disk_errors(str(path.parent)):
        path.parent.mkdir(parents=True, exist_ok=True)
