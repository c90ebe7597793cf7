"""What a workbench and a sweep are asked for; None leaves the choice to the kit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pruning_kit import bounds
from pruning_kit.errors import WindowError
from pruning_kit.inputs.corpora import HubText
from pruning_kit.speed.workload import LatencyProtocol


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkbenchSettings:
    """A model, the texts that it reads, and how it computes."""

    model: str | None = None
    """A Hub id, a folder, or `demo`; None: distilgpt2, or the demo model without it."""
    dataset: str | None = None
    """The text that figures are reported on: a name, a file, or a dataset of the Hub."""
    hub_text: HubText | None = None
    """Which part of a dataset of the Hub."""
    select_on: str | None = None
    """A second text, on which plans are chosen: a file, a dataset, or `calibration`."""
    context: int | None = None
    """Tokens of a window."""
    stride: int | None = None
    """Tokens by which windows advance."""
    max_windows: int | None = None
    """Windows of each text at most."""
    bos: bool | None = None
    """Whether each window begins with the BOS token; None: where the tokenizer begins texts so."""
    device: str = "auto"
    dtype: str = "auto"
    attention: str | None = None
    batch_size: int | None = None
    """Windows at a time."""
    threads: int | None = None
    """Of the CPU."""

    def check(self) -> None:
        """Refuse sizes that cannot be, before anything is loaded.

        Raises:
            WindowError: naming the size and what it may be.
        """
        for option in ("context", "stride", "max_windows", "batch_size", "threads"):
            bounds.check(f"--{option.replace('_', '-')}", getattr(self, option), WindowError)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSettings(WorkbenchSettings):
    """A sweep: what its workbench is asked for, and what becomes of the sums."""

    timing: LatencyProtocol | None = None
    """How the cut models are timed; None leaves timing out."""
    samples: bool = False
    """Keep a continuation of a prompt by the whole model and by the best plan of each size."""
    output: Path | None = None
    """The run folder; None: a new one, under `results` or in the user's cache."""
    resume: bool = False
    """Go on with a stopped run."""
    save_results: bool = False
    """Where a run goes that has no `output`: under `results`, or in the user's cache."""
    command: str = ""
    """What was typed."""
