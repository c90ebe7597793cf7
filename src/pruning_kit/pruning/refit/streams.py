"""Streams: the states of models over a text, between two of their blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.texts import PreparedText
from pruning_kit.plans.paths import plain
from pruning_kit.pruning.bridges.bridging import LOOK_TOKENS
from pruning_kit.pruning.bridges.fitting import inputs_of
from pruning_kit.pruning.bridges.folding import Socket
from pruning_kit.pruning.bridges.gaps import Gap
from pruning_kit.pruning.bridges.moments import Rows
from pruning_kit.walk.kernel import Batch
from pruning_kit.walk.reference import ReferenceKernel

TOKENS_AT_ONCE = 4096


@dataclass(slots=True, eq=False)
class Streams:
    """The states of a model over some windows of a text, between two of its blocks."""

    decoder: Decoder
    batches: list[Batch]
    states: list[Tensor]
    """(B, T, D) of each batch."""
    block: int = 0
    """That is applied next, as this model numbers it."""

    @classmethod
    def open(cls, decoder: Decoder, text: PreparedText) -> Streams:
        """Before the first block."""
        look_BT = text.tensors(0, 1)[0][:, :LOOK_TOKENS].to(decoder.device)
        kernel = ReferenceKernel(decoder, decoder.head_is_exact(look_BT, slice(None)))
        at_once = max(1, TOKENS_AT_ONCE // text.windows[0].n_inputs)
        batches: list[Batch] = []
        for tokens_BT, targets_BS, first_output in inputs_of(text, at_once):
            moved = tokens_BT.to(decoder.device), targets_BS.to(decoder.device)
            batches.append(kernel.open(*moved, first_output))
        return cls(decoder, batches, [batch.hidden_BTD for batch in batches])

    def advance(self) -> None:
        """Apply the next block."""
        pairs = zip(self.batches, self.states, strict=True)
        self.take([batch.apply(plain(self.block), state, False) for batch, state in pairs])

    def take(self, states: list[Tensor]) -> None:
        """Go on behind the next block with what it gave."""
        self.states = states
        self.block += 1

    def through(self, path: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Of each batch what enters a layer of the next block, what leaves it, and the result."""
        seen: list[tuple[Tensor, Tensor]] = []
        layer = self.decoder.stack[self.block].get_submodule(path)
        hook = layer.register_forward_hook(
            lambda _layer, args, out: seen.append((args[0], out.clone()))
        )
        try:
            for batch, state in zip(self.batches, self.states, strict=True):
                after_BTD = batch.apply(plain(self.block), state, False)
                entered, left = seen.pop()
                yield entered.view(*state.shape[:2], -1), left.view(state.shape), after_BTD
        finally:
            hook.remove()

    def nll(self) -> Tensor:
        """NLL in nats of each scored token, by the blocks that are left: float64 on the host."""
        found = []
        for batch, state in zip(self.batches, self.states, strict=True):
            for block in range(self.block, self.decoder.n_blocks):
                state = batch.apply(plain(block), state, False)
            found.append(batch.nll(state).flatten().cpu().double())
        return torch.cat(found)


@dataclass(slots=True, eq=False)
class Pair:
    """Whole and pruned model over the same windows, both before the same kept block."""

    whole: Streams
    pruned: Streams
    middles: list[Tensor] = field(default_factory=list)
    """The whole model's stream behind the attention of that block, where that is asked for."""
    ends: list[Tensor] = field(default_factory=list)
    """The whole model's stream before the next kept block."""

    @classmethod
    def open(cls, whole: Decoder, pruned: Decoder, text: PreparedText) -> Pair:
        """Before the first block."""
        return cls(Streams.open(whole, text), Streams.open(pruned, text))

    def look_ahead(self, gap: Gap, attention: Socket | None) -> None:
        """Take the whole model over a kept block and what is removed behind it."""
        whole, self.middles = self.whole, []
        while whole.block < gap.block:  # removed from the start
            whole.advance()
        if attention is not None:
            passed = list(whole.through(whole.decoder.family.attention))
            pairs = zip(whole.states, passed, strict=True)
            self.middles = [state + attention.factor * left for state, (_, left, _) in pairs]
            whole.take([after for _, _, after in passed])
        while whole.block < gap.to:
            whole.advance()
        self.ends = whole.states

    def rows(self, path: str, factor: float | None, has_bias: bool) -> Iterator[Rows]:
        """What a layer of the pruned model's next block may be fitted on, batch by batch.

        Args:
            path: of the layer.
            factor: of what the attention adds, to fit toward the stream behind it; None: toward
                the stream before the next kept block.
            has_bias: whether the layer has a bias.
        """
        goals = self.ends if factor is None else self.middles
        passed = zip(self.pruned.through(path), self.pruned.states, goals, strict=True)
        for (entered_BTF, left_BTD, after_BTD), state_BTD, goal_BTD in passed:
            reached_BTD = after_BTD if factor is None else state_BTD + factor * left_BTD
            goal_ND = goal_BTD.flatten(0, 1)
            root_N1 = goal_ND.var(dim=1, keepdim=True).clamp_min(1e-30).rsqrt()
            inputs_NH = entered_BTF.flatten(0, 1)
            if has_bias:
                inputs_NH = torch.cat([inputs_NH, torch.ones_like(root_N1)], dim=1)
            target_ND = (goal_ND - reached_BTD.flatten(0, 1)) * root_N1
            yield Rows(inputs_NH * root_N1, target_ND[:, None])
