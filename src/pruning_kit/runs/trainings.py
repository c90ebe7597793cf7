"""Trainings under way in a run: where the state of each is kept, and what stands in its header."""

from __future__ import annotations

import hashlib
from pathlib import Path

from msgspec import Struct

from pruning_kit.plans.variant import Variant
from pruning_kit.runs.files import RECOVERIES
from pruning_kit.runs.recovered import NAME_DIGITS, PointFacts

TRAININGS, WRITTEN_FILE = "trainings", "written.safetensors"


class StateFacts(Struct, frozen=True, kw_only=True):
    """What a kept state says besides its tensors."""

    training: str
    """Hash of all that the training hangs on; a state of another one is not gone on with."""
    sha256: str
    """Of the tensors."""
    curve: tuple[PointFacts, ...]
    best: int
    diverged: bool


class WrittenFacts(Struct, frozen=True, kw_only=True):
    """What kept text that the whole model wrote says besides its tokens."""

    key: str
    """All that it hangs on."""
    sha256: str
    """Of the tokens."""


def state_path(folder: Path, variant: Variant) -> Path:
    """Where the state of a variant's training is kept."""
    name = hashlib.sha256(str(variant).encode()).hexdigest()[:NAME_DIGITS]
    return folder / RECOVERIES / TRAININGS / f"{name}.safetensors"


def written_path(folder: Path) -> Path:
    """Where text is kept that the whole model wrote."""
    return folder / RECOVERIES / TRAININGS / WRITTEN_FILE
