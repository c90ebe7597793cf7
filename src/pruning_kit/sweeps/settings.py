"""What a workbench and a sweep are asked for; None leaves the choice to the kit. No torch.

Of each field stands here, once, what the command line offers: default, help, range, kind of error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from pruning_kit import bounds
from pruning_kit.bounds import TOKENS, Range
from pruning_kit.errors import CorpusError, DeviceError, WindowError
from pruning_kit.inputs.hub_text import WHERE, HubText
from pruning_kit.pruning.distillation.settings import DistillationSettings
from pruning_kit.speed.protocol import LatencyProtocol

WHAT, HOW, RESULT = "What to measure", "Arithmetic", "Result"
_what = partial(bounds.setting, group=WHAT)
_text = partial(bounds.setting, group=WHERE, error=WindowError)
_how = partial(bounds.setting, group=HOW, error=DeviceError)
_result = partial(bounds.setting, group=RESULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkbenchSettings:
    """A model, the texts that it reads, and how it computes."""

    model: str | None = _text(
        None, "Hub id, local folder, or demo. Default: distilgpt2, or demo without it."
    )
    dataset: str | None = _text(
        None,
        "wikitext2, wikitext2-published, demo, a text file, or a Hub dataset. Default: WikiText-2 "
        "test, or the embedded text where it is not to be had.",
    )
    hub_text: HubText = field(default_factory=HubText)
    """Which part of a dataset of the Hub."""
    select_on: str | None = _text(
        None,
        "A second text to choose plans on: calibration (the one that bridges are fitted on; other "
        "parts of it), or a text file.",
    )
    calibrate_on: str | None = _text(
        None,
        "The text that bridges are fitted on, never one that is reported: calibration (that of "
        "demo or wikitext2), or a text file. Default: calibration.",
    )
    also_on: tuple[str, ...] = _text(
        (), "A further text to measure everything on, named as the first is; may be repeated."
    )
    context: int | None = _text(
        None, "Tokens per window. Default: the model's.", allowed=Range(1, TOKENS)
    )
    stride: int | None = _text(
        None, "Tokens windows advance by. Default: half.", allowed=Range(1, TOKENS)
    )
    max_windows: int | None = _text(
        None,
        "A quick look: only the first N windows of a text; of the one that is chosen on N that are "
        "spread over it.",
        allowed=Range(1, 10**9),
    )
    bos: bool | None = _text(
        None,
        "Begin every window with the BOS token. Default: where the tokenizer begins texts with it "
        "(Llama, Gemma).",
    )
    bridges: bool = _what(
        True, "Measure each plan with its gaps bridged too: --no-bridges leaves that out."
    )
    distillation: DistillationSettings = field(default_factory=DistillationSettings)
    """How pruned models are trained, where that is asked for."""
    device: str = _how("auto", "auto, cpu, cuda, cuda:1 or mps.")
    dtype: str = _how(
        "auto", "auto (float32 on CPUs, float16 on CUDA), float32, float16, bfloat16."
    )
    attention: Literal["eager", "sdpa"] | None = _how(
        None, "Attention. Default: the model family's."
    )
    batch_size: int | None = _how(
        None, "Windows at a time. Default: from free memory.", allowed=Range(1, 10**6)
    )
    threads: int | None = _how(
        None,
        "CPU threads. Default: all cores; for timing as many of them as can be timed.",
        allowed=Range(1, 2048),
    )

    def check(self) -> None:
        """Refuse sizes that cannot be, before anything is loaded.

        Raises:
            WindowError, DeviceError: naming the size and what it may be.
            CorpusError: if further texts are not several.
        """
        bounds.check(self)
        bounds.check(self.distillation)
        if isinstance(self.also_on, str):
            raise CorpusError(
                f"cannot read the texts also_on {self.also_on!r:.60}: it is one, and several are "
                f"asked for. Write ({self.also_on!r:.60},)."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSettings(WorkbenchSettings):
    """A sweep: what its workbench is asked for, and what becomes of the sums."""

    timing: LatencyProtocol | None = None
    """How the cut models are timed; None leaves timing out."""
    samples: bool = _result(
        False, "Keep a continuation by the whole model and the best of each size."
    )
    output: Path | None = _result(  # noqa: RUF009 - a field
        None, "The run folder to write. Default: a new one in the user's cache."
    )
    resume: bool = _result(False, "Go on with a stopped run.")
    save_results: bool = _result(
        False, "Write results.csv and figures, under results/ unless --output is given."
    )
    command: str = ""
    """What was typed."""
