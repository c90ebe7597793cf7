"""The kernel: one walk over all plans, and the sums of negative log-likelihood (NLL).

Plans that agree on their first kept blocks share the hidden state there, so the plans form a tree
of kept prefixes: all 2**L subsets of L blocks cost 2**L - 1 block calls, not L * 2**(L - 1).

Shapes: P plans, B windows, T tokens read, S of them scored, D hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plan import Plan

LOGIT_CHUNK_BYTES = 128 * 2**20

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


def walk(
    hidden_BTD: Tensor, apply_block: ApplyBlock, plans: Sequence[Plan], n_blocks: int
) -> Iterator[tuple[Plan, Tensor]]:
    """Yield each plan with the state after its last kept block, sharing kept prefixes.

    The branch that removes a block is walked before the one that keeps it, so a state is freed
    as soon as its block has been applied: at most (most blocks removed) + 2 states live at once.
    """
    pending = [(0, hidden_BTD, list(dict.fromkeys(plans)))]
    del hidden_BTD
    while pending:
        depth, state, group = pending.pop()
        while depth < n_blocks:
            removing = [plan for plan in group if depth in plan.removed]
            if 0 < len(removing) < len(group):
                keeping = [plan for plan in group if depth not in plan.removed]
                pending.append((depth, state, keeping))
                group = removing
            elif not removing:
                last = len(group) == 1 and _removes_all_after(group[0], depth, n_blocks)
                state = apply_block(depth, state, last)
            depth += 1
        yield group[0], state
        del state


def _removes_all_after(plan: Plan, block: int, n_blocks: int) -> bool:
    return plan.removed[len(plan.removed) - (n_blocks - 1 - block) :] == tuple(
        range(block + 1, n_blocks)
    )


def token_nll(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """NLL in nats of each target, reduced in float32 whatever the dtype of the logits: (N,)."""
    return F.cross_entropy(logits_NV.float(), targets_N, reduction="none")


@torch.no_grad()
def nll_sums(
    kernel: Kernel,
    plans: Sequence[Plan],
    n_blocks: int,
    tokens_BT: Tensor,
    targets_BS: Tensor,
    first_output: int,
) -> Tensor:
    """Sum the NLL of every window under every plan, in one walk.

    Args:
        kernel: how blocks and head are computed.
        plans: the plans to measure; duplicates are computed once.
        n_blocks: number of blocks of the whole model.
        tokens_BT: token ids that the model reads, int64, on any device.
        targets_BS: token ids to predict, int64, likewise.
        first_output: position of the output that predicts `targets_BS[:, 0]`.

    Returns:
        Nats, float64, on the host, shape (P, B), in the order of `plans`. Perplexity is the
        exponential of all sums of a plan over all scored tokens: never a mean of means.
    """
    tokens_BT, targets_BS = tokens_BT.to(kernel.device), targets_BS.to(kernel.device)
    batch = kernel.open(tokens_BT, targets_BS, first_output)
    sums: dict[Plan, Tensor] = {}
    for plan, state in walk(batch.hidden_BTD, batch.block, plans, n_blocks):
        sums[plan] = _sum_float64(batch.nll(state))
        del state
    return torch.stack([sums[plan] for plan in plans]).cpu()


def _sum_float64(nll_BS: Tensor) -> Tensor:
    """Window sums in float64; Apple's MPS has none, so there the sum is made on the host."""
    if nll_BS.device.type == "mps":
        nll_BS = nll_BS.cpu()
    return nll_BS.double().sum(dim=1)


class ReferenceKernel:
    """The model's own modules, called one after the other.

    The head runs on scored positions only. `exact_head` tells that final norm and output
    embedding are all there is to the logits; otherwise the model's own forward ends the walk.
    """

    def __init__(self, decoder: Decoder, exact_head: bool) -> None:
        self.decoder = decoder
        self.exact_head = exact_head
        self.name = "reference" if exact_head else "reference, head by forward"
        self.note = ""
        self.dtype, self.device = decoder.model.dtype, decoder.device
        self.n_blocks = decoder.n_blocks

    def open(self, tokens_BT: Tensor, targets_BS: Tensor, first_output: int) -> ReferenceBatch:
        return ReferenceBatch(self, tokens_BT, targets_BS, first_output)


class ReferenceBatch:
    """One batch of the reference kernel."""

    def __init__(
        self, kernel: ReferenceKernel, tokens_BT: Tensor, targets_BS: Tensor, first_output: int
    ) -> None:
        self._decoder = kernel.decoder
        self._exact_head = kernel.exact_head
        self._tokens_BT = tokens_BT
        self._targets_BS = targets_BS
        self._first_output = first_output
        self._recording = self._decoder.record(tokens_BT)
        self.hidden_BTD = self._recording.hidden_BTD

    def block(self, index: int, hidden_BTD: Tensor, last: bool) -> Tensor:
        return self._decoder.run_block(index, hidden_BTD, self._recording)

    def nll(self, hidden: Tensor) -> Tensor:
        n_scored = self._targets_BS.shape[1]
        per_position = len(hidden) * self._decoder.model.config.vocab_size * 4
        step = max(1, LOGIT_CHUNK_BYTES // per_position)
        pieces = []
        for start in range(0, n_scored, step):
            stop = min(start + step, n_scored)
            outputs = slice(self._first_output + start, self._first_output + stop)
            targets = self._targets_BS[:, start:stop]
            logits = self._logits(hidden, outputs)
            pieces.append(token_nll(logits.flatten(0, 1), targets.flatten()).view_as(targets))
        return torch.cat(pieces, dim=1)

    def _logits(self, hidden_BTD: Tensor, outputs: slice) -> Tensor:
        if self._exact_head:
            return self._decoder.head(hidden_BTD, outputs)
        return self._decoder.head_by_forward(hidden_BTD, self._tokens_BT, outputs)
