"""Stepwise: one output projection after the other, each kept if it helps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.layers import layer_like
from pruning_kit.inputs.texts import PreparedText
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.unit import ATTENTION, MLP
from pruning_kit.pruning.bridges.bridging import LOOK_TOKENS
from pruning_kit.pruning.bridges.folding import Socket, find_sockets
from pruning_kit.pruning.bridges.gaps import Gap, stretches_of
from pruning_kit.pruning.bridges.moments import Moments
from pruning_kit.pruning.bridges.ridge import error_of, solve
from pruning_kit.pruning.refit.streams import Pair
from pruning_kit.walk.kernel import Form

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4)
"""Of the ridge; weaker ones change nothing."""
STATE_BYTES = 2**28
"""Of a stream over the fitting text, of which four are held."""
PARTS = (ATTENTION, MLP)


@dataclass(frozen=True, slots=True)
class Step:
    """An output projection that was fitted anew, and what became of it."""

    block: int
    """As the whole model numbers it."""
    part: str
    nats_before: float
    """Per token of the text that chooses steps."""
    nats: float
    """The same with it."""

    @property
    def helps(self) -> bool:
        """Whether it is kept; never where a forward failed."""
        return self.nats < self.nats_before


class Stepwise:
    """Fits the output projections of a bridged model anew, which changes it.

    Args:
        whole: the whole model in float32, on the device to compute on.
        pruned: the bridged one there.
        plan: what that lacks.
        fitting: the text that projections are fitted on.
        choosing: the text that decides whether a step is kept.
        dtype: that weights are rounded to.
    """

    def __init__(
        self,
        whole: Decoder,
        pruned: Decoder,
        plan: Plan,
        fitting: PreparedText,
        choosing: PreparedText,
        dtype: torch.dtype,
    ) -> None:
        self._pruned, self._dtype = pruned, dtype
        self._stretches = list(stretches_of(plan, whole.n_blocks))
        look_BT = fitting.tensors(0, 1)[0][:, :LOOK_TOKENS]
        self._sockets = {part: find_sockets(whole, look_BT, part) for part in PARTS}
        self._whole, self._fitting, self._choosing = whole, fitting, choosing

    @property
    def steps(self) -> list[tuple[Gap, str]]:
        """The projections that can be fitted anew: sublayers of the kept blocks from a gap on."""
        first = next(i for i, gap in enumerate(self._stretches) if gap.to > gap.block + 1)
        return [
            (gap, part)
            for gap in self._stretches[first:]
            for part in PARTS
            if isinstance(self._sockets[part][gap.block], Socket)
        ]

    def run(self) -> Iterator[Step]:
        """Fit one projection after the other; what is yielded is done."""
        steps = set(self.steps)
        fitted, chosen = (
            Pair.open(self._whole, self._pruned, text)
            for text in (self._within_memory(), self._choosing)
        )
        nats = float(chosen.pruned.nll().mean())
        for gap in self._stretches:
            attention = self._sockets[ATTENTION][gap.block]
            for pair in (fitted, chosen):
                pair.look_ahead(gap, attention if isinstance(attention, Socket) else None)
            for part in PARTS:
                if (gap, part) in steps:
                    step = self._step(gap, part, nats, fitted, chosen)
                    nats = step.nats if step.helps else nats
                    yield step
            for pair in (fitted, chosen):
                pair.pruned.advance()

    def _step(self, gap: Gap, part: str, nats: float, fitted: Pair, chosen: Pair) -> Step:
        """Fit a projection of the next block of the pruned model; keep it if it helps."""
        socket, family = self._sockets[part][gap.block], self._pruned.family
        assert isinstance(socket, Socket)
        path = family.attention if part == ATTENTION else family.projection
        assert path is not None
        block = self._pruned.stack[fitted.pruned.block]
        own = block.get_submodule(path)
        behind_it = part == ATTENTION and gap.to == gap.block + 1
        there = Socket(own, socket.factor)
        found = _solution(there, gap, path, behind_it, self._dtype, fitted, chosen)
        if found is None:
            return Step(gap.block, part, nats, nats)
        block.set_submodule(path, layer_like(own, *found))
        step = Step(gap.block, part, nats, float(chosen.pruned.nll().mean()))
        if not step.helps:
            block.set_submodule(path, own)
        return step

    def _within_memory(self) -> PreparedText:
        """As much of the fitting text as may be held as a stream."""
        text, socket = self._fitting, next(iter(self._sockets[MLP].values()))
        assert isinstance(socket, Socket)
        most = STATE_BYTES // (4 * socket.n_outputs * text.windows[0].n_inputs)
        return text.part(range(max(1, min(most, len(text.windows)))))


def _solution(
    socket: Socket,
    gap: Gap,
    path: str,
    behind_it: bool,
    dtype: torch.dtype,
    fitted: Pair,
    chosen: Pair,
) -> Form | None:
    """The weights of the least error on other tokens; None where the sums are of no use."""
    factor = socket.factor if behind_it else None
    device = fitted.pruned.decoder.device
    n_inputs = socket.n_inputs + socket.has_bias
    moments = Moments.zeros([gap], n_inputs, socket.n_outputs, device)
    for rows in fitted.rows(path, factor, socket.has_bias):
        moments.add(rows)
    unfitted = next(chosen.rows(path, factor, socket.has_bias))
    best, least = None, float("inf")
    for strength in STRENGTHS:
        maps_GHD = solve(moments, strength, socket.has_bias)
        if maps_GHD is None:
            continue
        error = error_of(maps_GHD[0], unfitted, 0)
        if error < least:
            best, least = socket.fold(maps_GHD[0], dtype), error
    return best
