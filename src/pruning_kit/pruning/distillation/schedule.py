"""Schedules: how much a distillation reads at a time, and how fast it learns.

The rules were tuned on the calibration text of the demo model (6 blocks of width 288) and on a part
of WikiText-2 for SmolLM2-135M (30 of 576); docs/recovery.md has the figures. They say: a training
wants some 250 steps before it wants larger batches; the more tokens there are, the faster it may
learn, up to a point; deep and wide models learn slower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from pruning_kit.plans.distilled import refuse_few

LENGTH = 512
"""Tokens of a sequence, where the model's context allows them."""
MOST_SEQUENCES = 32
STEPS = 250
"""That a training has at least, until its batches are single sequences."""
WARM_UP = 0.05
"""Share of the steps that the rate rises in; then it falls as a cosine, to 0."""
MATRIX_RATE, MOST_MATRIX_RATE = 3e-3, 5e-3
"""Of a million tokens; it grows with the square root of their number, to the most."""
OTHER_RATE = 1e-3
REFERENCE_BLOCKS, REFERENCE_WIDTH = 6, 288
"""Of the model that these rates are for."""
ADAPTER_RATE = 2e-3


class Shape(NamedTuple):
    """What of a model decides how fast it may learn."""

    n_blocks: int
    width: int
    context: int
    """The longest sequence that it reads."""

    @property
    def pace(self) -> float:
        """Share of the rates of the reference model."""
        return REFERENCE_BLOCKS / self.n_blocks * math.sqrt(REFERENCE_WIDTH / self.width)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a number of tokens is read: so many sequences in so many steps."""

    length: int
    """Tokens of a sequence."""
    sequences: int
    """Read in a step."""
    steps: int
    matrix_rate: float
    """The highest learning rate of Muon, for the matrices of blocks; of low-rank adapters."""
    other_rate: float
    """The highest learning rate of AdamW, for all other weights."""

    @property
    def tokens_per_step(self) -> int:
        """Tokens read in a step."""
        return self.sequences * self.length

    @property
    def tokens(self) -> int:
        """Tokens read in all."""
        return self.steps * self.tokens_per_step

    def factor(self, step: int) -> float:
        """Share of the highest rates that a step learns with: a linear rise, then a cosine."""
        rise = WARM_UP * self.steps
        return min((step + 1) / rise if rise > 0 else 1.0, self._cosine(step))

    def _cosine(self, step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * step / self.steps))


def schedule_of(
    tokens: int,
    shape: Shape,
    sequences: int | None = None,
    rate: float | None = None,
    adapters: bool = False,
) -> Schedule:
    """The schedule of a training on so many tokens.

    Args:
        tokens: to be read; the last step is whole, so a few more may be.
        shape: of the whole model.
        sequences: read in a step; by default so many that there are `STEPS` steps.
        rate: the highest of matrices or adapters; by default from the number of tokens.
        adapters: whether low-rank adapters are trained in place of the weights.

    Raises:
        PlanError: if the tokens are too few to learn from.
    """
    refuse_few(tokens)
    length = min(LENGTH, shape.context)
    sequences = sequences or _sequences(tokens // length)
    usual = ADAPTER_RATE if adapters else _matrix_rate(tokens) * shape.pace
    return Schedule(
        length,
        sequences,
        steps=max(1, -(-tokens // (length * sequences))),
        matrix_rate=rate or usual,
        other_rate=OTHER_RATE * shape.pace * (rate / usual if rate else 1.0),
    )


def _matrix_rate(tokens: int) -> float:
    """Of the reference model."""
    return min(MATRIX_RATE * math.sqrt(tokens / 1e6), MOST_MATRIX_RATE)


def _sequences(in_all: int) -> int:
    """The power of two that leaves nearest to `STEPS` steps, up to the most."""
    return 2 ** min(round(math.log2(max(1.0, in_all / STEPS))), int(math.log2(MOST_SEQUENCES)))
