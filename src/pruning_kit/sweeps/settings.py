"""What a sweep is asked for, and who is told how it goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pruning_kit import bounds
from pruning_kit.errors import WindowError
from pruning_kit.inputs.corpora import HubText
from pruning_kit.search.choice import PlanChoice
from pruning_kit.speed.workload import LatencyProtocol


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """Everything a sweep is asked for; None leaves the choice to the kit."""

    choice: PlanChoice = field(default_factory=PlanChoice)
    model: str | None = None
    dataset: str | None = None
    hub_text: HubText | None = None
    select_on: str | None = None
    """A second text, on which plans are chosen: a file, a dataset, or `calibration`."""
    context: int | None = None
    stride: int | None = None
    max_windows: int | None = None
    bos: bool | None = None
    """Whether each window begins with the BOS token; None: where the tokenizer begins texts so."""
    device: str = "auto"
    dtype: str = "auto"
    attention: str | None = None
    batch_size: int | None = None
    threads: int | None = None
    timing: LatencyProtocol | None = None
    """How the cut models are timed; None leaves timing out."""
    samples: bool = False
    """Keep a continuation of a prompt by the whole model and by the best plan of each size."""
    output: Path | None = None
    resume: bool = False
    save_results: bool = False
    command: str = ""

    def check(self) -> None:
        """Refuse sizes that cannot be, before anything is loaded.

        Raises:
            WindowError: naming the size and what it may be.
        """
        for option in ("context", "stride", "max_windows", "batch_size", "threads"):
            bounds.check(f"--{option.replace('_', '-')}", getattr(self, option), WindowError)
