"""Scores of blocks by one pass of the whole model over some windows: how little each does.

From the stream alone: block influence, angular distance, relative magnitude. From gradients of
the loss: Taylor. Every token that others are predicted from counts alike; windows hold no padding.

Shapes: B windows, T tokens read, S of them scored, D hidden width, L blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.machine.devices import float64_device
from pruning_kit.plans.paths import plain
from pruning_kit.search.ranked import Scores
from pruning_kit.walk.kernel import Kernel

Inputs = tuple[Tensor, Tensor, int]
"""Tokens (B, T), targets (B, S) and the first scoring output."""

OF_STATES = ("influence", "angular", "magnitude")
OF_GRADIENTS = ("taylor",)


@torch.no_grad()
def score_states(
    kernel: Kernel, text: Iterable[Inputs], n_blocks: int, done: Callable[[int], object]
) -> dict[str, Scores]:
    """Influence, angular distance and relative magnitude, by one forward.

    With x_i the stream before block i:

        influence   1 - mean cos(x_i, x_{i+1}): Men et al. (2024), ShortGPT, eq. 1; by the chord,
                    since float32 holds no small one so
        angular     mean arccos(cos(x_i, x_{i+n})) / pi, of each run of n blocks: Gromov et al.
                    (2024), who take the last token alone
        magnitude   mean |x_{i+1} - x_i| / |x_{i+1}|: Samragh et al. (2023)

    Memory: the L + 1 states of a batch.

    Args:
        kernel: of the whole model, in float32.
        text: batches of windows.
        n_blocks: of the model.
        done: is told of the windows of each batch that was read.
    """
    angles = [[0.0] * (n_blocks + 1 - length) for length in range(1, n_blocks)]
    influence, magnitude, n_tokens = [0.0] * n_blocks, [0.0] * n_blocks, 0
    for inputs in text:
        states = _states(kernel, inputs, n_blocks)
        n_tokens += states[0].shape[0]
        for block, (before_ND, after_ND) in enumerate(pairwise(states)):
            added_N = (after_ND - before_ND).norm(dim=1) / after_ND.norm(dim=1)
            magnitude[block] += _sum(added_N)
        for place, state_ND in enumerate(states):
            states[place] = F.normalize(state_ND, dim=1)
        for block, (before_ND, after_ND) in enumerate(pairwise(states)):
            influence[block] += _sum((after_ND - before_ND).square().sum(dim=1) / 2)
        for length, row in enumerate(angles, start=1):
            for first in range(len(row)):
                row[first] += _angles(states[first], states[first + length])
        done(len(inputs[0]))
    means = [[total / n_tokens for total in row] for row in (influence, magnitude, *angles)]
    return {"influence": means[:1], "angular": means[2:], "magnitude": means[1:2]}


def _states(kernel: Kernel, inputs: Inputs, n_blocks: int) -> list[Tensor]:
    """The stream before every block and after the last, token by token: (N, D) float32.

    A window's last token, which predicts nothing, is left out: not every kernel reads it.
    """
    tokens_BT, targets_BS, first_output = inputs
    batch = kernel.open(tokens_BT.to(kernel.device), targets_BS.to(kernel.device), first_output)
    states = [batch.hidden_BTD]
    for block in range(n_blocks):
        states.append(batch.apply(plain(block), states[-1], False))
    n_read = first_output + targets_BS.shape[1]
    return [state[:, :n_read].flatten(0, 1).float() for state in states]


def _angles(one_ND: Tensor, other_ND: Tensor) -> float:
    """The sum of the angles between unit vectors, in half turns.

    By the chord, since float32 holds no cosine of a small angle.
    """
    half_chord_N = (one_ND - other_ND).norm(dim=1) / 2
    return _sum(2 * half_chord_N.clamp(max=1).asin() / math.pi)


def _sum(values_N: Tensor) -> float:
    return float(values_N.to(float64_device(values_N.device)).sum(dtype=torch.float64))


def score_gradients(
    decoder: Decoder, text: Iterable[Inputs], done: Callable[[int], object]
) -> dict[str, Scores]:
    """Taylor: the sum of |w dL/dw| over the weights of a block, L the NLL per scored token.

    To the first order, what the loss changes by where single weights are taken away; without
    signs, so that they do not cancel. Memory: a gradient for each weight of the blocks, and the
    activations of a batch.

    Args:
        decoder: the whole model, in float32, on the device that is to compute.
        text: batches of windows.
        done: is told of the windows of each batch that was read.

    Source: Molchanov et al. (2019), eq. 8 without the square; Kim et al. (2024), Shortened LLaMA.
    """
    n_scored = 0
    with _gradients_of(decoder), torch.enable_grad():
        for tokens_BT, targets_BS, first_output in text:
            tokens_BT, targets_BS = (t.to(decoder.device) for t in (tokens_BT, targets_BS))
            outputs = slice(first_output, first_output + targets_BS.shape[1])
            logits_BSV = decoder.model(tokens_BT, use_cache=False).logits[:, outputs]
            nats = F.cross_entropy(
                logits_BSV.float().flatten(0, 1), targets_BS.flatten(), reduction="sum"
            )
            nats.backward()  # type: ignore[no-untyped-call]
            n_scored += targets_BS.numel()
            done(len(tokens_BT))
        totals = [sum(map(_first_order, block.parameters())) for block in decoder.stack]
    return {"taylor": [[total / n_scored for total in totals]]}


def _first_order(weight: nn.Parameter) -> float:
    if weight.grad is None:  # an expert that no token chose
        return 0.0
    return _sum((weight.detach() * weight.grad).abs().flatten())


@contextmanager
def _gradients_of(decoder: Decoder) -> Iterator[None]:
    """Let the weights of the blocks and no others gather gradients; leave all as they were."""
    before = {weight: weight.requires_grad for weight in decoder.model.parameters()}
    try:
        decoder.model.requires_grad_(False)
        decoder.stack.requires_grad_(True)
        yield
    finally:
        for weight, wanted in before.items():
            weight.requires_grad_(wanted)
            weight.grad = None


def are_finite(scores: Iterable[Scores]) -> bool:
    """Whether every score is a number."""
    return all(math.isfinite(value) for rows in scores for row in rows for value in row)
