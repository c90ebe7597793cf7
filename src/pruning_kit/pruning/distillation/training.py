"""Training: the steps of a distillation, what is kept of them, and how a stopped one goes on.

After some steps the model is scored on text that it never reads otherwise. What scores best is
kept, the start included, so that nothing becomes worse by training.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruning_kit.errors import DeviceError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.texts import PreparedText
from pruning_kit.machine.devices import float64_device
from pruning_kit.pruning.distillation.adapters import as_saved
from pruning_kit.pruning.distillation.ends import Ends, ends_of
from pruning_kit.pruning.distillation.loss import divergence, head_of, piece_of
from pruning_kit.pruning.distillation.mixture import Mixture
from pruning_kit.pruning.distillation.optimising import Optimising
from pruning_kit.pruning.distillation.schedule import Schedule
from pruning_kit.pruning.recovered import Point

MOST_LOOKS, LEAST_LOOKS = 16, 2
LOOKED_AT = 0.1
"""Share of the tokens that are learnt from, as many as that are looked at at most: a look reads
forwards alone, which takes about a quarter of the time that learning takes."""
FORWARDS = 0.25


@dataclass(frozen=True, eq=False)
class State:
    """All that a training needs to go on; tensors are on the host."""

    curve: tuple[Point, ...]
    best: int
    """Place in the curve of what scored best."""
    weights: Mapping[str, Tensor]
    optimising: Mapping[str, Tensor]
    best_weights: Mapping[str, Tensor]
    diverged: bool = False

    @property
    def step(self) -> int:
        """Steps that were made."""
        return self.curve[-1].step


class Together(Protocol):
    """The processes that train together, each on a GPU of its own."""

    @property
    def rank(self) -> int:
        """Of this process, from 0."""

    @property
    def size(self) -> int:
        """Of all."""

    def add_up(self, tensors: list[Tensor]) -> None:
        """Replace tensors by their sums over all processes, at once."""

    def sum_of(self, value: float) -> float:
        """The sum of a number over all processes, the same to the bit in each."""

    def first(self, value: float) -> float:
        """The number that the first process has."""

    def wait(self) -> None:
        """Return when every process has called this."""


class Alone:
    """One process."""

    rank, size = 0, 1

    def add_up(self, tensors: list[Tensor]) -> None:
        """They are their own sums."""

    def sum_of(self, value: float) -> float:
        """It is its own sum."""
        return value

    def first(self, value: float) -> float:
        """It is the first."""
        return value

    def wait(self) -> None:
        """There is nobody to wait for."""


@dataclass(eq=False)
class Training:
    """A pruned model that learns to predict as the whole one does."""

    student: Decoder
    """In float32 on the device; it is trained."""
    whole: Decoder
    """On the device, in the format that products are computed in."""
    schedule: Schedule
    mixture: Mixture
    watched: PreparedText
    saved_as: torch.dtype = torch.float32
    """What a checkpoint holds weights in: so they are judged."""
    together: Together = field(default_factory=Alone)
    adapters: bool = False
    compiled: bool = False
    """Whether the blocks are compiled, which takes a minute and pays in long trainings."""
    clock: Callable[[], float] = time.perf_counter
    _micro: int = 0
    """Sequences in memory at a time; 0: not known yet."""

    def __post_init__(self) -> None:
        self.device = self.student.device
        self._begin_alike()
        self._own, self._whole = ends_of(self.student.model), ends_of(self.whole.model)
        head = self._whole
        self._head = head_of(head.weight, head.bias, self.whole.model.dtype)
        if not self.adapters:
            self.student.model.requires_grad_(True)
        self.optimising = Optimising(
            self.student.model, self.student.stack, self.schedule, self.adapters
        )

    @torch.no_grad()
    def _begin_alike(self) -> None:
        """Give all processes the weights of the first: bridges of others may be rounded apart."""
        weights = [weight.data for weight in self.student.model.parameters()]
        if self.together.rank > 0:
            for weight in weights:
                weight.zero_()
        if self.together.size > 1:
            self.together.add_up(weights)

    @property
    def weights(self) -> Mapping[str, nn.Parameter]:
        """What is trained, by name."""
        return self.optimising.weights

    def begin(self) -> State:
        """The state before the first step."""
        start = Point(0, 0, 0.0, None, self.nats())
        weights = self._copies()
        return State((start,), 0, weights, {}, weights)

    def go_on(
        self, state: State, advance: Callable[[float], object] = lambda tokens: None
    ) -> Iterator[State]:
        """Train from a state on; yields the state at each look, the last one at the end.

        A training that diverges ends there; the best that it had is in the state.
        """
        if state.diverged:
            return
        self.restore(state)
        total = torch.zeros((), dtype=torch.float64, device=float64_device(self.device))
        since, started = state.step, self.clock()
        with self._compiled_blocks():
            for step in range(state.step, self.schedule.steps):
                total += self._step(step).to(total.device)
                advance(self.schedule.tokens_per_step)
                if step + 1 in self._looks:
                    seconds = state.curve[-1].seconds + self.clock() - started
                    state = self._look(state, step + 1, total / (step + 1 - since), seconds)
                    yield state
                    if state.diverged:
                        return
                    total.zero_()
                    since, started = step + 1, self.clock()

    @property
    def _looks(self) -> set[int]:
        """Steps after which the model is looked at."""
        steps, n_looks = self.schedule.steps, looks_of(self.schedule.tokens, self.watched)
        return {-(-steps * look // n_looks) for look in range(1, n_looks + 1)}

    def _step(self, step: int) -> Tensor:
        """One step; the divergence in nats per token of what it reads."""
        tokens_BT = self.mixture.batch(step, self.schedule.sequences, self.schedule.length)
        mine_BT = tokens_BT[self.together.rank :: self.together.size].to(self.device)
        while True:
            try:
                total = self._gradients(mine_BT, tokens_BT.numel())
                break
            except torch.OutOfMemoryError:
                if self._micro == 1:
                    raise DeviceError(
                        f"cannot train on sequences of {tokens_BT.shape[1]} tokens on "
                        f"{self.device}: its memory is full even for one. Choose the CPU."
                    ) from None
            self.optimising.drop_gradients()
            torch.cuda.empty_cache()
            self._micro = -(-self._micro // 2)
        self.together.add_up([*map(_gradient, self.weights.values()), total])
        self.optimising.step(step)
        return total

    def try_step(self, step: int) -> None:
        """Make a step, to time it."""
        self._step(step)

    def _gradients(self, tokens_BT: Tensor, n_tokens: int) -> Tensor:
        """Add the gradients of some sequences; the mean over `n_tokens` of their divergence."""
        self._micro = self._micro or max(1, len(tokens_BT))
        total = torch.zeros((), device=self.device)
        for rows_BT in torch.split(tokens_BT, self._micro) if len(tokens_BT) else ():
            loss = self.loss(rows_BT) / n_tokens
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def loss(self, tokens_BT: Tensor) -> Tensor:
        """Divergence from the whole model in nats, summed over all tokens."""
        with torch.no_grad(), self._products():
            whole_ND = self._whole.states(tokens_BT).flatten(0, 1)
        with self._products():
            own_ND = self._own.states(tokens_BT).flatten(0, 1)
        return divergence(own_ND, self._own.weight, self._own.bias, whole_ND, self._head)

    def _products(self) -> AbstractContextManager[object]:
        """In the format of the whole model, weights and sums in float32."""
        dtype = self.whole.model.dtype
        if dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype)

    @contextmanager
    def _compiled_blocks(self) -> Iterator[None]:
        blocks = [*self.student.blocks, *self.whole.blocks] if self.compiled else []
        try:
            for block in blocks:
                block.compile(dynamic=False)
            yield
        finally:
            for block in blocks:
                block._compiled_call_impl = None

    def _look(self, state: State, step: int, mean: Tensor, seconds: float) -> State:
        """The state after a step, scored."""
        read, nats = float(mean), self.nats()
        tokens = step * self.schedule.tokens_per_step
        curve = (*state.curve, Point(step, tokens, seconds, read, nats))
        weights = self._copies()
        diverged = not (math.isfinite(read) and math.isfinite(nats))
        is_best = not diverged and nats < state.curve[state.best].nats
        return State(
            curve,
            len(curve) - 1 if is_best else state.best,
            weights,
            self.optimising.state(),
            weights if is_best else state.best_weights,
            diverged,
        )

    @torch.no_grad()
    def nats(self) -> float:
        """NLL per token of the text that is watched, by the weights that a checkpoint would hold.

        Each process scores a share of the windows.
        """
        with as_saved(self.student.model, self.saved_as):
            return self._nats(self._own)

    def nats_of_whole(self) -> float:
        """The same by the whole model, as it is asked."""
        return self._nats(self._whole)

    @torch.no_grad()
    def _nats(self, ends: Ends) -> float:
        mine = self.watched.groups(8)[self.together.rank :: self.together.size]
        total = 0.0
        for first, end in mine:
            tokens_BT, targets_BS, first_output = self.watched.tensors(first, end)
            with self._products():
                states_BTD = ends.states(tokens_BT.to(self.device))[:, first_output:]
                states_ND = states_BTD[:, : targets_BS.shape[1]].flatten(0, 1)
                total += _nll(ends, states_ND, targets_BS.flatten().to(self.device))
        n_scored = sum(window.n_targets for window in self.watched.windows)
        return self.together.sum_of(total) / n_scored

    def _copies(self) -> dict[str, Tensor]:
        return {n: w.detach().to("cpu", copy=True) for n, w in self.weights.items()}

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Put the model and its optimisers where a state says."""
        self.put(state.weights)
        if state.optimising:
            self.optimising.restore(state.optimising)

    @torch.no_grad()
    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Give the model other weights, such as the best."""
        for name, weight in self.weights.items():
            weight.copy_(weights[name])


def _gradient(weight: nn.Parameter) -> Tensor:
    """Of a weight; zeros where this process had nothing to read."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


def looks_of(tokens: int, watched: PreparedText) -> int:
    """How often a training on so many tokens is looked at, the end included."""
    look = FORWARDS * sum(window.n_inputs for window in watched.windows)
    return max(LEAST_LOOKS, min(MOST_LOOKS, int(LOOKED_AT * tokens / look)))


def _nll(ends: Ends, states_ND: Tensor, targets_N: Tensor) -> float:
    """Sum of NLL in nats, in pieces of the vocabulary's logits."""
    size = piece_of(len(ends.weight), states_ND.device)
    found = np.zeros(0)
    for first in range(0, len(targets_N), size):
        rows = slice(first, first + size)
        logits_PV = F.linear(states_ND[rows], ends.weight, ends.bias).float()
        nll_P = F.cross_entropy(logits_PV, targets_N[rows], reduction="none")
        found = np.append(found, nll_P.cpu().double().numpy())
    return float(found.sum())
