"""Recovered models of a run: what is said of each, and where its weights are. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from pruning_kit.errors import PlanError
from pruning_kit.machine import disk
from pruning_kit.machine.typed import MisfitError
from pruning_kit.plans.variant import Variant
from pruning_kit.runs import files
from pruning_kit.runs.files import RECOVERIES

RECOVERED_FACTS = f"{RECOVERIES}/recovered.json"
WEIGHTS = "weights"
"""The folder of the weights, which stay when a run is done: making them took long."""
NAME_DIGITS = 16

Detail = str | int | float | bool | None


class PointFacts(Struct, frozen=True, kw_only=True):
    """Where a training stood; NLL in nats per token of unseen text, None where it overflowed."""

    step: int
    tokens: int
    seconds: float
    divergence: float | None
    nats: float | None


class RecoveredFacts(Struct, frozen=True, kw_only=True):
    """One variant with weights of its own, or why there is none."""

    sha256: str | None
    """Of its own weights; None: the variant has no row."""
    details: dict[str, Detail]
    """How they were made."""
    refused: str | None
    """Why there are none, as sentences."""
    curve: tuple[PointFacts, ...] = ()
    """How a training went, where there was one."""


class _Stored(Struct, frozen=True, kw_only=True):
    variants: dict[str, RecoveredFacts]

    def __post_init__(self) -> None:
        for text in self.variants:
            try:
                Variant.parse(text)
            except PlanError:
                raise MisfitError(f"variants.{text:.40}") from None


def read_recovered(folder: Path) -> dict[Variant, RecoveredFacts]:
    """What is said of the recovered models of a run; empty where nothing is.

    Raises:
        RunError: if it is damaged.
    """
    stored = files.read_if_there(folder, RECOVERED_FACTS, _Stored)
    if stored is None:
        return {}
    return {Variant.parse(text): facts for text, facts in stored.variants.items()}


def write_recovered(folder: Path, facts: Mapping[Variant, RecoveredFacts]) -> None:
    """Write them whole, in place of earlier ones.

    Raises:
        RunError: if the disk refuses.
    """
    stored = _Stored(variants={str(variant): facts[variant] for variant in sorted(facts)})
    files.write(folder, RECOVERED_FACTS, stored)


def weights_path(folder: Path, sha256: str) -> Path:
    """Where the weights of this hash are or will be."""
    return folder / RECOVERIES / WEIGHTS / f"{sha256[:NAME_DIGITS]}.safetensors"


def make_place(folder: Path) -> None:
    """Make the folder of the weights.

    Raises:
        RunError: if the disk refuses.
    """
    place = folder / RECOVERIES / WEIGHTS
    with disk.disk_errors(str(place)):
        place.mkdir(parents=True, exist_ok=True)
