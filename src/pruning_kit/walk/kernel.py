"""What computes: kernels, the batches that they open, and what ends a path.

Shapes: B windows, T tokens read, S of them scored, D hidden width.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from pruning_kit.plans.paths import Call


class Batch(Protocol):
    """A batch of windows of equal shape, embedded and ready to be walked."""

    hidden_BTD: Tensor

    def apply(self, call: Call, hidden_BTD: Tensor, last: bool) -> Tensor:
        """The state after a call.

        `last` tells that only the head will read it, so that the scored positions suffice.
        """
        ...

    def nll(self, hidden: Tensor) -> Tensor:
        """NLL in nats of each scored token, (B, S) float32, from the state after the last call."""
        ...


class Kernel(Protocol):
    """A way to compute batches: the reference, or a fast path proven equal to it."""

    name: str
    """What computes: recorded with every result."""
    note: str
    """Which faster kernels were refused and why; empty if none was."""
    dtype: torch.dtype
    device: torch.device

    def open(self, tokens_BT: Tensor, targets_BS: Tensor, first_output: int) -> Batch:
        """Embed a batch whose outputs from position `first_output` on predict `targets_BS`."""
        ...


class Ending:
    """The end of a path: its last state, and what the head makes of it, computed once."""

    def __init__(self, batch: Batch, hidden: Tensor) -> None:
        self._batch, self._hidden = batch, hidden

    @cached_property
    def nll(self) -> Tensor:
        """NLL in nats of each scored token, float32."""
        return self._batch.nll(self._hidden)
