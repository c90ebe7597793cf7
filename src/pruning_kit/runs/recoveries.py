"""Recoveries: what a run folder holds of bridges: facts for good, weights while the run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from msgspec import Struct
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pruning_kit.machine import disk
from pruning_kit.runs import files
from pruning_kit.runs.facts import TextFacts
from pruning_kit.runs.files import RECOVERIES

FACTS_FILE = f"{RECOVERIES}/bridges.json"


class GapFacts(Struct, frozen=True, kw_only=True):
    """How one gap is bridged, judged where nothing else is removed."""

    strength: float | None
    """Of the ridge, relative to the mean of the diagonal; None: it is not bridged."""
    nats_as_cut: float | None
    """Per token of the tuning text; None where a forward failed."""
    nats: float | None
    """The same bridged."""
    sha256: str | None
    """Of the folded weights."""


class PlanFacts(Struct, frozen=True, kw_only=True):
    """Whether the bridges of a plan help together: nats per token of the tuning text.

    None where a forward failed.
    """

    nats_as_cut: float | None
    nats: float | None

    @property
    def helps(self) -> bool:
        """Whether the plan is better with them."""
        if self.nats is None or self.nats_as_cut is None:
            return False
        return self.nats < self.nats_as_cut


class BridgesFacts(Struct, frozen=True, kw_only=True):
    """The bridges of a run."""

    fitting: TextFacts
    """What they are solved from."""
    tuning: TextFacts
    """What strengths are chosen and plans judged on."""
    dtype: str
    """That folded weights are rounded to."""
    refused: dict[str, str]
    """Blocks that no bridge can be folded into, and why."""
    gaps: dict[str, GapFacts]
    """By their text form, such as `2>4`."""
    plans: dict[str, PlanFacts]
    """By their text form, such as `1+3`."""

    @property
    def unhelped(self) -> list[str]:
        """Plans with bridges that do not help together, and that have no bridged row therefore."""
        return [plan for plan, facts in self.plans.items() if not facts.helps]


def write_facts(folder: Path, facts: BridgesFacts) -> None:
    """Write them whole, in place of earlier ones.

    Raises:
        RunError: if the disk refuses.
    """
    files.write(folder, FACTS_FILE, facts)


def read_facts(folder: Path) -> BridgesFacts | None:
    """What is said of the bridges of a run; None where nothing is.

    Raises:
        RunError: if it is damaged.
    """
    return files.read_if_there(folder, FACTS_FILE, BridgesFacts)


def write_weights(folder: Path, gap: str, weights: Mapping[str, np.ndarray]) -> None:
    """Keep the folded weights of a gap until the run is done.

    Raises:
        RunError: if the disk refuses.
    """
    place = folder / RECOVERIES
    with disk.disk_errors(str(place)):
        place.mkdir(exist_ok=True)
    disk.write_file(_path(folder, gap), save(dict(weights)))


def read_weights(folder: Path, gap: str) -> dict[str, np.ndarray] | None:
    """The folded weights of a gap; None where they are gone or damaged, to be fitted anew."""
    try:
        with safe_open(_path(folder, gap), framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None


def remove_weights(folder: Path) -> None:
    """Delete all folded weights: the facts tell how to fit the same again."""
    for path in (folder / RECOVERIES).glob("*.safetensors"):
        path.unlink(missing_ok=True)


def _path(folder: Path, gap: str) -> Path:
    return folder / RECOVERIES / f"{gap.replace('>', '-')}.safetensors"
