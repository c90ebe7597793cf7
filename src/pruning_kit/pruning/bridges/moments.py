"""Moments: the sums over the fitting text that every bridge is solved from.

One pass over the text gives for each block one matrix of products of its activations, which serves
every gap that begins there, and for each gap one right side. Products are made in float32 and added
up in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pruning_kit.machine.devices import float64_device
from pruning_kit.plans.paths import plain
from pruning_kit.pruning.bridges.folding import Socket
from pruning_kit.pruning.bridges.gaps import Gap
from pruning_kit.walk.kernel import Kernel

PANEL = 1024
"""Columns of a product at a time: what lies above the diagonal panels is not computed."""

Inputs = tuple[Tensor, Tensor, int]
"""Tokens (B, T), targets (B, S) and the first scoring output, as `PreparedText.tensors` gives."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What a fitting or an unfitted text says of the gaps that begin at one block, token by token.

    Rows are multiplied by the root of their weight.
    """

    inputs_NH: Tensor
    """Activations, with a column of ones where the layer has a bias; float32."""
    targets_NGD: Tensor
    """What each of G bridges is to add to the stream; float32."""


@dataclass(slots=True, eq=False)
class Moments:
    """The sums for the gaps that begin at one block, float64."""

    gaps: Sequence[Gap]
    products_HH: Tensor
    """H'DH; only what is on and below the diagonal."""
    sides_GHD: Tensor
    """H'D (X_j - X_i+1)."""

    @classmethod
    def zeros(cls, gaps: Sequence[Gap], n_inputs: int, width: int, device: torch.device) -> Moments:
        """Sums over nothing."""
        how: dict[str, Any] = {"dtype": torch.float64, "device": float64_device(device)}
        products = torch.zeros(n_inputs, n_inputs, **how)
        sides = torch.zeros(len(gaps), n_inputs, width, **how)
        return cls(gaps, products, sides)

    def add(self, rows: Rows) -> None:
        """Take in some tokens."""
        inputs_NH = rows.inputs_NH
        for start in range(0, inputs_NH.shape[1], PANEL):
            panel = slice(start, start + PANEL)
            products = inputs_NH[:, start:].t() @ inputs_NH[:, panel]
            self.products_HH[start:, panel] += products.to(self.products_HH.device)
        sides_HGD = (inputs_NH.t() @ rows.targets_NGD.flatten(1)).to(self.sides_GHD.device)
        n_gaps = len(self.gaps)
        self.sides_GHD += sides_HGD.view(len(sides_HGD), n_gaps, -1).transpose(0, 1)


@torch.no_grad()
def rows_of(
    kernel: Kernel,
    inputs: Inputs,
    gaps: Mapping[int, Sequence[Gap]],
    sockets: Mapping[int, Socket],
) -> Iterator[tuple[int, Rows]]:
    """What a batch of windows says of gaps, block by block, from one forward of the whole model.

    Args:
        kernel: of the whole model, in float32.
        inputs: the batch.
        gaps: to be bridged, by the block that each begins at.
        sockets: of these blocks.
    """
    tokens_BT, targets_BS, first_output = inputs
    batch = kernel.open(tokens_BT.to(kernel.device), targets_BS.to(kernel.device), first_output)
    states, activations = [batch.hidden_BTD], {}
    for block in range(max(gap.to for asked in gaps.values() for gap in asked)):
        if block in gaps:
            activations[block], after_BTD = batch.activations(block, states[-1])
        else:
            after_BTD = batch.apply(plain(block), states[-1], False)
        states.append(after_BTD)
    streams = [state.flatten(0, 1).float() for state in states]
    for block, asked in gaps.items():
        inputs_NF = activations.pop(block).flatten(0, 1).float()
        after_ND = streams[block + 1]
        root_N1 = after_ND.var(dim=1, keepdim=True).clamp_min(1e-30).rsqrt()
        if sockets[block].has_bias:
            inputs_NF = torch.cat([inputs_NF, torch.ones_like(root_N1)], dim=1)
        targets_NGD = torch.stack([streams[gap.to] - after_ND for gap in asked], dim=1)
        yield block, Rows(inputs_NF * root_N1, targets_NGD * root_N1[..., None])


def add_up(
    kernel: Kernel,
    text: Iterable[Inputs],
    gaps: Mapping[int, Sequence[Gap]],
    sockets: Mapping[int, Socket],
) -> dict[int, Moments]:
    """The sums over a text for gaps, by the block that each begins at."""
    sums: dict[int, Moments] = {}
    for inputs in text:
        for block, rows in rows_of(kernel, inputs, gaps, sockets):
            if block not in sums:
                n_inputs, width = rows.inputs_NH.shape[1], rows.targets_NGD.shape[2]
                sums[block] = Moments.zeros(gaps[block], n_inputs, width, rows.inputs_NH.device)
            sums[block].add(rows)
    return sums
