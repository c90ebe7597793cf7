"""What computes: kernels, and the batches that they open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

ApplyBlock = Callable[[int, Tensor, bool], Tensor]


class Batch(Protocol):
    """A batch of windows of equal shape, embedded and ready to be walked."""

    hidden_BTD: Tensor

    def block(self, index: int, hidden_BTD: Tensor, last: bool) -> Tensor:
        """Apply the block with this original index.

        `last` tells that only `nll` will read the result, so that the scored positions suffice.
        """
        ...

    def nll(self, hidden: Tensor) -> Tensor:
        """NLL in nats of each scored token, (B, S) float32, from the state after the last block."""
        ...


class Kernel(Protocol):
    """A way to compute batches: the reference below, or a fast path proven equal to it."""

    name: str
    """What computes: recorded with every result."""
    note: str
    """Which faster kernels were refused and why; empty if none was."""
    dtype: torch.dtype
    device: torch.device

    def open(self, tokens_BT: Tensor, targets_BS: Tensor, first_output: int) -> Batch:
        """Embed a batch whose outputs from position `first_output` on predict `targets_BS`."""
        ...
