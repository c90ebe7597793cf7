"""Any family: the model's own blocks, with faster linear layers where there are some.

Shapes: B windows, T tokens read, S of them scored, D hidden width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.kernels.head import Head
from pruning_kit.kernels.linear import MakeLinear
from pruning_kit.walk.kernel import Comparison, Form
from pruning_kit.walk.reference import ReferenceBatch, ReferenceKernel


class GenericKernel(ReferenceKernel):
    """The reference with other blocks, another head, or both.

    Args:
        decoder: gives embedding, arguments of the blocks and final norm; already on the device
            and in the number format wanted.
        blocks: called in place of the decoder's own.
        head: the fast head, for families whose logits are norm and output embedding alone;
            None ends every walk with the model's own forward.
        name: recorded with every result.
        make_linear: made the linear layers of `blocks`; None if they are the decoder's own.
    """

    def __init__(
        self,
        decoder: Decoder,
        blocks: Sequence[nn.Module],
        head: Head | None,
        name: str,
        make_linear: MakeLinear | None = None,
    ) -> None:
        super().__init__(decoder, exact_head=head is not None)
        self.blocks, self.head, self.name = blocks, head, name
        self._make_linear = make_linear

    def _layer(self, own: nn.Module, form: Form) -> nn.Module:
        if self._make_linear is None:
            return super()._layer(own, form)
        return self._make_linear(*form)  # type: ignore[return-value]  # those of blocks are modules

    def open(self, tokens_BT: Tensor, targets_BS: Tensor, first_output: int) -> GenericBatch:
        return GenericBatch(self, tokens_BT, targets_BS, first_output)


class GenericBatch(ReferenceBatch):
    """One batch of the generic kernel."""

    def __init__(
        self, kernel: GenericKernel, tokens_BT: Tensor, targets_BS: Tensor, first_output: int
    ) -> None:
        super().__init__(kernel, tokens_BT, targets_BS, first_output)
        self._head = kernel.head

    def nll(self, hidden: Tensor) -> Tensor:
        if self._head is None:
            return super().nll(hidden)
        nll_N = self._head.nll(self._normed(hidden), self._targets_BS.flatten())
        return nll_N.view_as(self._targets_BS)

    def whole(self, hidden: Tensor) -> Any:
        return (
            super().whole(hidden) if self._head is None else self._head.whole(self._normed(hidden))
        )

    def compare(self, hidden: Tensor, whole: Any) -> Comparison:
        if self._head is None:
            return super().compare(hidden, whole)
        found = self._head.compare(self._normed(hidden), self._targets_BS.flatten(), whole)
        return Comparison(*(values_N.view_as(self._targets_BS) for values_N in found))

    def logits(self, hidden: Tensor, scored: slice) -> Tensor:
        if self._head is None:
            return super().logits(hidden, scored)
        logits_NV = self._head.logits(self._normed(hidden, scored))
        return logits_NV.view(len(hidden), -1, logits_NV.shape[1])

    def _normed(self, hidden: Tensor, scored: slice = slice(None)) -> Tensor:
        """The final norm of the scored positions or some of them, (N, D)."""
        outputs = slice(self._first_output, self._first_output + self._targets_BS.shape[1])
        return self._decoder.norm(hidden[:, outputs][:, scored]).flatten(0, 1)


def in_format(decoder: Decoder, dtype: torch.dtype, device: torch.device) -> Decoder:
    """The decoder itself, or one over a copy of its model in that format and on that device.

    Buffers keep their format: rotary frequencies in 16 bits would bend every position.
    """
    model = decoder.model
    if model.dtype == dtype and model.device == device:
        return decoder
    copies: dict[int, Tensor] = {id(buffer): buffer.to(device) for buffer in model.buffers()}
    for weight in model.parameters():
        copies[id(weight)] = nn.Parameter(weight.detach().to(device, dtype), requires_grad=False)
    return Decoder(copy.deepcopy(model, copies))
