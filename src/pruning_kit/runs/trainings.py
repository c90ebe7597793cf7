"""Trainings under way in a run: where the state of each is kept, and what stands in its header."""

from __future__ import annotations

import hashlib
from pathlib import Path

from msgspec import Struct, json

from pruning_kit.plans.variant import Variant
from pruning_kit.runs.recovered import NAME_DIGITS, PointFacts
from pruning_kit.runs.store import RECOVERIES

TRAININGS, WRITTEN_FILE = "trainings", "written.safetensors"


class StateFacts(Struct, frozen=True, kw_only=True):
    """What a kept state says besides its tensors."""

    schedule: str
    """Of the training; a state of another one is not gone on with."""
    curve: tuple[PointFacts, ...]
    best: int
    diverged: bool

    def to_text(self) -> str:
        """As the header of the file holds it."""
        return json.encode(self).decode()

    @classmethod
    def from_text(cls, text: str) -> StateFacts:
        """Read what `to_text` gave.

        Raises:
            ValueError: if it is something else.
        """
        return json.decode(text.encode(), type=cls)


def state_path(folder: Path, variant: Variant) -> Path:
    """Where the state of a variant's training is kept."""
    name = hashlib.sha256(str(variant).encode()).hexdigest()[:NAME_DIGITS]
    return folder / RECOVERIES / TRAININGS / f"{name}.safetensors"


def written_path(folder: Path) -> Path:
    """Where text is kept that the whole model wrote."""
    return folder / RECOVERIES / TRAININGS / WRITTEN_FILE
