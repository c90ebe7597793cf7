"""What a distillation is asked for besides its tokens; None leaves the choice to the kit. No torch.

Of each field stands here, once, what the command line offers: default, help, range, kind of error.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pruning_kit import bounds
from pruning_kit.bounds import Range
from pruning_kit.errors import PlanError

TRAINING = "Distillation"
MIXED, SELF, CALIBRATION = "mixed", "self", "calibration"
MOST_OF_MIXED = 0.5
"""Share that is written."""
WATCHED = "watched"
NATS_OF_WHOLE = "nats per token there of the whole model"
"""Names of details that are said of a training: the text that it is scored on."""
_training = partial(bounds.setting, group=TRAINING, error=PlanError)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationSettings:
    """How a pruned model is trained."""

    train_on: str = _training(
        MIXED,
        "mixed (calibration text, and up to a half that the whole model writes itself where that "
        "would have to be read again), self, calibration, a text file, or a Hub dataset.",
        name="text",
    )
    rate: float | None = _training(
        None,
        "Learning rate of the matrices of blocks, the others' in proportion. Default: from tokens, "
        "blocks and width.",
        allowed=Range(0, 1, strictly=True),
    )
    sequences: int | None = _training(
        None,
        "Sequences of 512 tokens in a step. Default: so many that there are about 250 steps, up "
        "to 32.",
        allowed=Range(1, 4096),
    )
    seed: int = _training(
        0, "Of what is drawn: places in texts, written tokens.", allowed=Range(0, 2**31)
    )

    @property
    def writes(self) -> bool:
        """Whether the whole model may write some of what is read."""
        return self.train_on in (MIXED, SELF)

    def share_written(self, tokens: int, at_hand: int) -> float:
        """Share of sequences that the whole model writes itself.

        Mixed text is written where the text at hand would have to be read again, up to a half.

        Args:
            tokens: to be read.
            at_hand: tokens of the calibration text.
        """
        if self.train_on == MIXED:
            return min(MOST_OF_MIXED, max(0.0, 1 - at_hand / tokens))
        return float(self.train_on == SELF)

    @property
    def reads_calibration(self) -> bool:
        """Whether it reads the calibration text, or prompts from it, and no other."""
        return self.train_on in (MIXED, SELF, CALIBRATION)
