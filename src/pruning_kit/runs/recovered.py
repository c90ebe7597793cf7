"""Recovered models of a run: what is said of each, and where its weights are. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from pruning_kit.errors import PlanError, RunError
from pruning_kit.machine import disk
from pruning_kit.machine.typed import MisfitError, fit
from pruning_kit.plans.variant import Variant
from pruning_kit.runs.store import RECOVERIES, RESTORE

FACTS_FILE = "recovered.json"
RECOVERED_FACTS = f"{RECOVERIES}/{FACTS_FILE}"
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
    path = folder / RECOVERIES / FACTS_FILE
    if not path.exists():
        return {}
    try:
        stored = fit(disk.read_json(path, RESTORE), _Stored)
    except MisfitError as misfit:
        raise RunError(
            f"cannot read run {folder}: its {RECOVERED_FACTS} {misfit.of_one}. {RESTORE}"
        ) from None
    return {Variant.parse(text): facts for text, facts in stored.variants.items()}


def write_recovered(folder: Path, facts: Mapping[Variant, RecoveredFacts]) -> None:
    """Write them whole, in place of earlier ones.

    Raises:
        RunError: if the disk refuses.
    """
    stored = _Stored(variants={str(variant): facts[variant] for variant in sorted(facts)})
    make_place(folder)
    disk.write_json(folder / RECOVERIES / FACTS_FILE, stored)


def weights_path(folder: Path, sha256: str) -> Path:
    """Where the weights of this hash are or will be."""
    return folder / RECOVERIES / WEIGHTS / f"{sha256[:NAME_DIGITS]}.safetensors"


def make_place(folder: Path) -> None:
    """Make the folders for both.

    Raises:
        RunError: if the disk refuses.
    """
    place = folder / RECOVERIES / WEIGHTS
    with disk.disk_errors(str(place)):
        place.mkdir(parents=True, exist_ok=True)
