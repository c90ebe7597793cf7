"""What computes: kernels, the batches that they open, and what ends a path.

Shapes: B windows, T tokens read, S of them scored, D hidden width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple, Protocol

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

    def activations(self, block: int, hidden_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """What enters the output projection of a block's MLP (B, T, F), and the state after it."""
        ...

    def nll(self, hidden: Tensor) -> Tensor:
        """NLL in nats of each scored token, (B, S) float32, from the state after the last call."""
        ...

    def whole(self, hidden: Tensor) -> Any:
        """What `compare` needs of the whole model, from its state after the last call."""
        ...

    def compare(self, hidden: Tensor, whole: Any) -> Comparison:
        """The NLL to the bit as `nll` gives it, and how far the head is from the whole model's."""
        ...

    def logits(self, hidden: Tensor, scored: slice) -> Tensor:
        """Of some of the scored positions, but for a constant each: (B, …, vocabulary) float32."""
        ...


class Comparison(NamedTuple):
    """A path's end beside that of the whole model, for each scored token: (B, S) float32."""

    nll: Tensor
    """Nats."""
    kl: Tensor
    """Kullback-Leibler divergence of the path's prediction from the whole model's, in nats."""
    agrees: Tensor
    """1 where both find the same token most likely, else 0."""


Compare = Callable[[Tensor], Comparison]
"""From a state after the last call."""


class Form(NamedTuple):
    """A block's form that bridges a gap: other weights for the output projection of its MLP."""

    weight_OI: Tensor
    """(D, F) float32, on the host."""
    bias_O: Tensor | None
    """(D,) float32; None where the layer has none."""


class Kernel(Protocol):
    """A way to compute batches: the reference, or a fast path proven equal to it."""

    name: str
    """What computes: recorded with every result."""
    note: str
    """Which faster kernels were refused and why; empty if none was."""
    dtype: torch.dtype
    device: torch.device

    def learn(self, call: Call, form: Form) -> None:
        """Take in, once or anew, the form in which a call applies its block."""
        ...

    def open(self, tokens_BT: Tensor, targets_BS: Tensor, first_output: int) -> Batch:
        """Embed a batch whose outputs from position `first_output` on predict `targets_BS`."""
        ...


class Ending:
    """The end of a path: its last state, and what the head makes of it, computed once.

    Args:
        batch: the path was walked on.
        hidden: the state after its last call.
        compare: sets it beside the whole model; None where nothing is compared.
    """

    def __init__(self, batch: Batch, hidden: Tensor, compare: Compare | None = None) -> None:
        self._batch, self._hidden, self._compare = batch, hidden, compare

    @cached_property
    def nll(self) -> Tensor:
        """NLL in nats of each scored token, float32."""
        if self._compare is not None:
            return self.beside_whole.nll
        return self._batch.nll(self._hidden)

    @cached_property
    def beside_whole(self) -> Comparison:
        """How far the prediction is from the whole model's; for measures that compare."""
        assert self._compare is not None, "a measure that compares says so"
        return self._compare(self._hidden)
