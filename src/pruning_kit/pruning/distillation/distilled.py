"""Distilled: a pruned model trained to predict as the whole one does, as a recovery.

`1+3~distilled:8M` reads 8 million tokens; `1+3~distilled:2M,lora` trains low-rank adapters.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import nn

from pruning_kit.errors import NoGainError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.texts import PreparedText
from pruning_kit.plans.distilled import Amount
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.bridges.gaps import Gap
from pruning_kit.pruning.distillation.adapters import adapted
from pruning_kit.pruning.distillation.mixture import Mixture
from pruning_kit.pruning.distillation.schedule import Schedule, Shape, schedule_of
from pruning_kit.pruning.distillation.settings import (
    CALIBRATION,
    NATS_OF_WHOLE,
    WATCHED,
    DistillationSettings,
)
from pruning_kit.pruning.distillation.training import Alone, State, Together, Training
from pruning_kit.pruning.material import Material, Method
from pruning_kit.pruning.recovered import Detail, Recovered, own_weights, pruned_copy
from pruning_kit.walk.kernel import Form

COMPILED_FROM = 4e15
"""Operations of a training on a GPU: with fewer, compiling takes longer than it saves."""
MOST_WRITTEN = 2**22
"""Tokens that are written; a longer training reads them again."""


class Keeping(Protocol):
    """Where a training is kept while it lasts."""

    def load(self, variant: Variant, identity: str) -> State | None:
        """What was kept last of the training of this identity, if anything whole is there."""

    def save(self, variant: Variant, identity: str, state: State) -> None:
        """Keep a state in place of the one before."""


class NotKept:
    """For trainings that are not gone on with."""

    def load(self, variant: Variant, identity: str) -> State | None:
        """Nothing is there."""
        return None

    def save(self, variant: Variant, identity: str, state: State) -> None:
        """Keep nothing."""


@dataclass(frozen=True, eq=False)
class Learning:
    """What distillations learn from."""

    whole: Decoder
    """On the device, in the format that products are computed in."""
    whole_sha256: str
    saved_as: torch.dtype
    """What a checkpoint holds weights in."""
    text_N: np.ndarray
    """Token ids that are read and that written text goes on from, (N,)."""
    text_title: str
    bos: int | None
    watched: PreparedText
    """Of the calibration text what nothing else reads."""
    settings: DistillationSettings
    write: Callable[[int, int], np.ndarray]
    """Gives so many sequences of such a length that the whole model wrote."""
    keeping: Keeping = field(default_factory=NotKept)
    together: Together = field(default_factory=Alone)
    clock: Callable[[], float] = time.perf_counter

    @property
    def shape(self) -> Shape:
        """Of the whole model."""
        config = self.whole.model.config
        context = max(window.context for window in self.watched.windows)
        return Shape(self.whole.n_blocks, config.hidden_size, context)

    def schedule(self, amount: Amount) -> Schedule:
        """How an amount is read."""
        settings = self.settings
        return schedule_of(
            amount.tokens, self.shape, settings.sequences, settings.rate, amount.adapters
        )

    def share_written(self, tokens: int) -> float:
        """Share that the whole model writes of so many tokens."""
        return self.settings.share_written(tokens, len(self.text_N))

    def mixture(self, schedule: Schedule) -> Mixture:
        """What a schedule reads; what is to be written for it is written now."""
        share = self.share_written(schedule.tokens)
        n_written = math.ceil(schedule.steps * schedule.sequences * share)
        n_written = min(n_written, max(1, MOST_WRITTEN // schedule.length))
        written = self.write(n_written, schedule.length) if share else np.zeros((0, 1), np.int32)
        return Mixture(self.text_N, written, share, self.settings.seed, self.bos)

    def reading_only(self) -> Learning:
        """The same without written text, to try how fast it is read."""
        return replace(self, settings=replace(self.settings, train_on=CALIBRATION))

    def training(self, student: Decoder, schedule: Schedule, adapters: bool = False) -> Training:
        """The training of a pruned model, which is put on the device."""
        student.model.to(self.whole.device)
        return Training(
            student,
            self.whole,
            schedule,
            self.mixture(schedule),
            self.watched,
            self.saved_as,
            self.together,
            adapters,
            clock=self.clock,
            compiled=self.whole.device.type == "cuda"
            and operations(student.model, schedule.tokens) > COMPILED_FROM,
        )

    def identity(self, training: Training) -> str:
        """Hash of all that a training hangs on: a state of another one is not gone on with."""
        watched = self.watched
        described = {
            "whole": self.whole_sha256,
            "schedule": asdict(training.schedule),
            "adapters": training.adapters,
            "read": training.mixture.sha256,
            "watched": [watched.ids_sha256, watched.bos, *map(asdict, watched.windows)],
            "formats": [str(self.whole.model.dtype), str(self.saved_as)],
        }
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def operations(model: nn.Module, tokens: int) -> float:
    """Of a training on so many tokens, roughly: forward of both, backward of one."""
    return 8.0 * tokens * sum(weight.numel() for weight in model.parameters())


def forms_of(plan: Plan, material: Material) -> dict[Gap, Form]:
    """The bridges that a training of a plan begins with: none where there are none that help."""
    if isinstance(material.bridging, str):
        return {}
    try:
        return material.bridging.bridges(plan).forms
    except NoGainError:
        return {}


def distilled(variant: Variant, material: Material) -> Recovered:
    """`1+3~distilled:8M`: trained from the bridged model, or from the one as cut.

    Raises:
        PlanError: if there is no text to learn from.
        NoGainError: if no look at it found it better than the start.
    """
    learning = material.learning()
    assert variant.recovery is not None
    amount = Amount.of(variant.recovery)
    forms = forms_of(variant.plan, material)
    student = pruned_copy(material.decoder, variant.plan, forms)
    schedule = learning.schedule(amount)
    with adapted(student) if amount.adapters else nullcontext():
        training = learning.training(student, schedule, amount.adapters)
        state = _train(variant, training, learning, material)
        training.put(state.best_weights)
    student.model.requires_grad_(False)
    _refuse_start(variant, state)
    weights = own_weights(student.model, material.decoder, variant.plan)
    details = _details(state, training, learning, bridged=bool(forms))
    return Recovered(variant, weights, details, state.curve)


def _train(variant: Variant, training: Training, learning: Learning, material: Material) -> State:
    """The state at the end, each look kept."""
    identity, tokens = learning.identity(training), training.schedule.tokens
    state = learning.keeping.load(variant, identity) or training.begin()
    with material.track(f"distilling {variant.plan.short}", tokens) as advance:
        advance(state.curve[-1].tokens, _now(state))
        for looked in training.go_on(state, advance):
            state = looked
            advance(0, _now(state))
            if learning.together.rank == 0:
                learning.keeping.save(variant, identity, state)
    return state


def _now(state: State) -> str:
    return f"perplexity of unseen text {math.exp(min(state.curve[-1].nats, 50)):.2f}"


def _refuse_start(variant: Variant, state: State) -> None:
    """Refuse a training whose start was the best of it.

    Raises:
        NoGainError: saying what became of it.
    """
    start, end = state.curve[0], state.curve[-1]
    if state.best == 0:
        best = min(point.nats for point in state.curve[1:])
        what = f"{best:.4f} nats per token of unseen text at best, {start.nats:.4f} before"
        if state.diverged:
            what = f"it diverged after {end.tokens:,} tokens"
        plan = variant.plan.short
        raise NoGainError(
            f"cannot distil {plan}: {what}. Take what it began with, or give `rate` a lower value."
        )


def _details(
    state: State, training: Training, learning: Learning, bridged: bool
) -> dict[str, Detail]:
    """How a training went, for recipe and run, by names that are words."""
    schedule, settings = training.schedule, learning.settings
    best, end = state.curve[state.best], state.curve[-1]
    return {
        "loss": "Kullback-Leibler divergence from the whole model, temperature 1",
        "begun with": "bridges" if bridged else "the model as cut",
        "prompts from" if training.mixture.share == 1 else "read": learning.text_title,
        "share written by the whole model": training.mixture.share,
        "tokens it wrote": training.mixture.written_KT.size,
        "tokens read": end.tokens,
        "tokens read until the best look": best.tokens,
        "sequences in a step": schedule.sequences,
        "tokens of a sequence": schedule.length,
        "learning rate of matrices" if not training.adapters else "learning rate of adapters": (
            schedule.matrix_rate
        ),
        "learning rate of others": 0.0 if training.adapters else schedule.other_rate,
        "seed": settings.seed,
        "seconds": round(end.seconds, 1),
        "processes": learning.together.size,
        "products in": str(training.whole.model.dtype).removeprefix("torch."),
        WATCHED: f"{learning.watched.corpus.title}, {len(learning.watched.windows)} windows",
        "nats per token there at the start": state.curve[0].nats,
        "nats per token there at the best look": best.nats,
        NATS_OF_WHOLE: training.nats_of_whole(),
        "diverged": state.diverged,
    }


DISTILLED_METHOD = Method(distilled, check=Amount.of)
