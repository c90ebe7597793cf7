"""Sums over windows, of every path in one walk."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from pruning_kit.machine.devices import float64_device
from pruning_kit.plans.paths import Call, Path, as_cut
from pruning_kit.plans.plan import Plan
from pruning_kit.walk.kernel import Batch, Comparison, Ending, Kernel
from pruning_kit.walk.measures import NLL, Measure
from pruning_kit.walk.reference import LOGIT_CHUNK_BYTES, divergence
from pruning_kit.walk.walk import walk

Sums = dict[str, Tensor]
"""By the name of a measure: float64, on the host, shape (P, B)."""


@torch.no_grad()
def window_sums(
    kernel: Kernel,
    paths: Sequence[Path],
    tokens_BT: Tensor,
    targets_BS: Tensor,
    first_output: int,
    measures: Sequence[Measure] = (NLL,),
    whole: Path | None = None,
    whole_kernel: Kernel | None = None,
) -> Sums:
    """Add up every measure over each window under every path, in one walk.

    Args:
        kernel: how calls and head are computed.
        paths: what to measure; duplicates are computed once.
        tokens_BT: token ids that the model reads, int64, on any device.
        targets_BS: token ids to predict, int64, likewise.
        first_output: position of the output that predicts `targets_BS[:, 0]`.
        measures: what to add up.
        whole: the path of the whole model, for measures that compare with it.
        whole_kernel: computes that path, where `kernel` is that of a model of its own.

    Returns:
        The sums, in the order of `paths`. Perplexity is the exponential of all sums of NLL of a
        path over all scored tokens: never a mean of means.
    """
    inputs = (tokens_BT.to(kernel.device), targets_BS.to(kernel.device), first_output)
    batch = kernel.open(*inputs)
    compare, of_whole, apply = None, None, batch.apply
    if any(measure.compares for measure in measures):
        assert whole is not None
        if whole_kernel in (None, kernel):
            walked = _Walked(whole, batch)
            compare = partial(batch.compare, whole=batch.whole(walked.end))
            of_whole, apply = Ending(batch, walked.end, compare), walked.apply
        else:
            other = whole_kernel.open(*inputs)
            walked = _Walked(whole, other)
            compare = partial(compare_logits, batch, whole_batch=other, whole=walked.end)
    found: dict[str, dict[Path, Tensor]] = {measure.name: {} for measure in measures}
    for path, state in walk(batch.hidden_BTD, apply, paths):
        ending = of_whole if of_whole and path == whole else Ending(batch, state, compare)
        for measure in measures:
            found[measure.name][path] = _sum_float64(measure.values(ending))
        del state, ending
    return {name: torch.stack([sums[path] for path in paths]).cpu() for name, sums in found.items()}


def compare_logits(batch: Batch, hidden: Tensor, whole_batch: Batch, whole: Tensor) -> Comparison:
    """A path's end beside that of a whole model with another head, from the logits of both.

    These are computed for some positions at a time.
    """
    n_windows, n_vocab = whole_batch.logits(whole, slice(0, 1)).shape[::2]
    nll_BS = batch.nll(hidden)
    kl_BS, agrees_BS = torch.empty_like(nll_BS), torch.empty_like(nll_BS)
    step = max(1, LOGIT_CHUNK_BYTES // (4 * n_windows * n_vocab * 4))
    for start in range(0, nll_BS.shape[1], step):
        scored = slice(start, start + step)
        kl_BS[:, scored], agrees_BS[:, scored] = divergence(
            whole_batch.logits(whole, scored), batch.logits(hidden, scored)
        )
    return Comparison(nll_BS, kl_BS, agrees_BS)


class _Walked:
    """A path that was walked before others, whose states these go on from."""

    def __init__(self, path: Path, batch: Batch) -> None:
        self._path, self._batch = path, batch
        self._states = [batch.hidden_BTD]
        for call in path:
            self._states.append(batch.apply(call, self._states[-1], call is path[-1]))

    @property
    def end(self) -> Tensor:
        """The state after the last call."""
        return self._states[-1]

    def apply(self, call: Call, hidden_BTD: Tensor, last: bool) -> Tensor:
        """As the batch does; what the path has computed is not computed again.

        Where a call is the last of one path and not of the other it is: fewer positions are wanted.
        """
        for depth, known in enumerate(self._states[:-1]):
            is_last = depth == len(self._path) - 1
            if hidden_BTD is known and call == self._path[depth] and last == is_last:
                return self._states[depth + 1]
        return self._batch.apply(call, hidden_BTD, last)


def nll_sums(
    kernel: Kernel,
    plans: Sequence[Plan],
    n_blocks: int,
    tokens_BT: Tensor,
    targets_BS: Tensor,
    first_output: int,
) -> Tensor:
    """`window_sums` of NLL alone, of plans as cut out of a model of `n_blocks` blocks: (P, B)."""
    paths = [as_cut(plan, n_blocks) for plan in plans]
    return window_sums(kernel, paths, tokens_BT, targets_BS, first_output)[NLL.name]


def _sum_float64(values_BS: Tensor) -> Tensor:
    return values_BS.to(float64_device(values_BS.device)).double().sum(dim=1)
