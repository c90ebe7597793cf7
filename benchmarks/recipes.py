"""The kit's distillation beside other ways of training, from one start and on the same tokens.

    kit             as shipped: divergence from the whole model; Muon for matrices, AdamW else
    AdamW           the same with AdamW for all weights
    cross-entropy   the next token of the text in place of the whole model's prediction
    LoRA            low-rank adapters of rank 16 in all linear layers, merged at the end
    last blocks     the weights of the last two blocks alone
    states          the divergence, and the square difference of the states before the head

All but the kit have the best of three learning rates, chosen on the text that trainings watch. Each
is measured once on the reported text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.budgets import Ratio
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plans.distilled import Amount
from pruning_kit.plans.paths import as_cut
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.distillation.adapters import adapted
from pruning_kit.pruning.distillation.distilled import forms_of
from pruning_kit.pruning.distillation.loss import divergence
from pruning_kit.pruning.distillation.mixture import Mixture
from pruning_kit.pruning.distillation.optimising import Optimising
from pruning_kit.pruning.distillation.schedule import Schedule
from pruning_kit.pruning.distillation.training import State, Training
from pruning_kit.pruning.recovered import Recovered, own_weights, pruned_copy
from pruning_kit.sweeps.workbench import Workbench
from pruning_kit.walk.kernel import Form
from pruning_kit.walk.measures import NLL
from pruning_kit.walk.sums import window_sums

FACTORS = (0.5, 1.0, 2.0)
"""Of the usual rates, that the others are tried with."""
LAST_BLOCKS = 2


class OnlyAdamW(Training):
    """No matrices for Muon; all weights learn at the rate of the others."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rates = replace(self.schedule, matrix_rate=self.schedule.other_rate)
        self.optimising = Optimising(self.student.model, self.student.stack, rates, adapters=True)


class CrossEntropy(Training):
    """The whole model is not asked."""

    def loss(self, tokens_BT: Tensor) -> Tensor:
        """NLL of the next token, summed."""
        with self._products():
            states_BTD = self._own.states(tokens_BT)[:, :-1]
            logits_NV = F.linear(states_BTD.flatten(0, 1), self._own.weight, self._own.bias)
        return F.cross_entropy(logits_NV.float(), tokens_BT[:, 1:].flatten(), reduction="sum")


class LastBlocks(Training):
    """All other weights stay as they are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.student.model.requires_grad_(False)
        for block in list(self.student.blocks)[-LAST_BLOCKS:]:
            block.requires_grad_(True)
        self.optimising = Optimising(self.student.model, self.student.stack, self.schedule)


class States(Training):
    """The last states are to be the whole model's, too."""

    def loss(self, tokens_BT: Tensor) -> Tensor:
        """Divergence, and the difference of states as a share of their mean square; summed."""
        with torch.no_grad(), self._products():
            whole_ND = self._whole.states(tokens_BT).flatten(0, 1)
        with self._products():
            own_ND = self._own.states(tokens_BT).flatten(0, 1)
        kl = divergence(own_ND, self._own.weight, self._own.bias, whole_ND, self._head)
        apart_N = (own_ND.float() - whole_ND.float()).square().mean(dim=1)
        return kl + (apart_N / whole_ND.float().square().mean()).sum()


class Recipe(NamedTuple):
    """A way of training."""

    kind: type[Training]
    adapters: bool = False
    factors: Sequence[float] = FACTORS


RECIPES = {
    "kit": Recipe(Training, factors=(1.0,)),
    "AdamW": Recipe(OnlyAdamW),
    "cross-entropy": Recipe(CrossEntropy),
    "LoRA": Recipe(Training, adapters=True),
    "last blocks": Recipe(LastBlocks),
    "states": Recipe(States),
}


class Trained(NamedTuple):
    """What a recipe came to with one learning rate."""

    factor: float
    state: State
    recovered: Recovered

    @property
    def nats(self) -> float:
        """Of the watched text, at the best look."""
        return self.state.curve[self.state.best].nats


def compare_recipes(bench: Workbench, plan: Plan, budget: Amount) -> dict[str, dict[str, Any]]:
    """Each recipe's perplexity of the reported text, and its ratio to the kit's.

    Args:
        bench: a workbench with calibration text.
        plan: what is removed; every recipe starts from it bridged.
        budget: tokens to learn from.
    """
    bench.fit([plan])
    forms = forms_of(plan, bench.material)
    learning = bench.learning
    mixture = learning.mixture(learning.schedule(budget))
    found: dict[str, dict[str, Any]] = {}
    sums: dict[str, np.ndarray] = {}
    for name, recipe in RECIPES.items():
        schedule = learning.schedule(replace(budget, adapters=recipe.adapters))
        tried = [
            _train(bench, plan, forms, recipe, _faster(schedule, factor), mixture, factor)
            for factor in recipe.factors
        ]
        best = min(tried, key=lambda one: one.nats)
        sums[name], targets = _measure(bench, best.recovered)
        found[name] = {
            "factor": best.factor,
            "watched": {one.factor: float(np.exp(min(one.nats, 50))) for one in tried},
            "start": float(np.exp(best.state.curve[0].nats)),
            "seconds": best.state.curve[-1].seconds,
            "ppl": float(np.exp(sums[name].sum() / targets.sum())),
            "to_kit": Ratio.of(sums[name], sums["kit"], targets),
        }
        print(_line(plan, name, found[name]), flush=True)
    return found


def _faster(schedule: Schedule, factor: float) -> Schedule:
    return replace(
        schedule,
        matrix_rate=factor * schedule.matrix_rate,
        other_rate=factor * schedule.other_rate,
    )


def _train(
    bench: Workbench,
    plan: Plan,
    forms: Mapping[Any, Form],
    recipe: Recipe,
    schedule: Schedule,
    mixture: Mixture,
    factor: float,
) -> Trained:
    """A training at its best look, its weights rounded to the format of the checkpoint."""
    learning = bench.learning
    student = pruned_copy(bench.decoder, plan, forms)
    student.model.to(learning.whole.device)
    with adapted(student) if recipe.adapters else nullcontext():
        training = recipe.kind(
            student,
            learning.whole,
            schedule,
            mixture,
            learning.watched,
            saved_as=learning.saved_as,
            adapters=recipe.adapters,
        )
        state = training.begin()
        for looked in training.go_on(state):
            state = looked
        training.put(state.best_weights)
    student.model.requires_grad_(False)
    weights = own_weights(student.model, bench.decoder, plan)
    made = Recovered(Variant(plan), weights).rounded(bench.loaded.saved_dtype)
    return Trained(factor, state, made)


def _measure(bench: Workbench, made: Recovered) -> tuple[np.ndarray, np.ndarray]:
    """Sums of NLL over the windows of the reported text, and the scored tokens of each."""
    pruned, text = Decoder(made.model(bench.decoder)), bench.texts["reported"]
    kernel, path = bench.kernel_for(pruned), as_cut(Plan(), pruned.n_blocks)
    sums, targets = [], []
    for first, end in text.groups(bench.choose_batch_size(0)):
        tokens_BT, targets_BS, first_output = text.tensors(first, end)
        found = window_sums(kernel, [path], tokens_BT, targets_BS, first_output)
        sums.append(found[NLL.name][0].numpy())
        targets.append(np.full(len(targets_BS), targets_BS.shape[1]))
    return np.concatenate(sums), np.concatenate(targets)


def _line(plan: Plan, name: str, row: Mapping[str, Any]) -> str:
    return (
        f"{plan!s:12}{name:14}{row['ppl']:9.2f}{row['to_kit']!s:>26} of the kit's  "
        f"rates x {row['factor']:g}  {row['seconds']:7.1f} s"
    )
