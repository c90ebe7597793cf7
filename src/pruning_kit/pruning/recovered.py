"""Recovered models: pruned ones some of whose weights are their own."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.bridges.folding import folded
from pruning_kit.pruning.bridges.gaps import Gap
from pruning_kit.pruning.surgery import recut, standalone, stored_copy
from pruning_kit.walk.kernel import Form

Detail = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Point:
    """Where a training stood."""

    step: int
    tokens: int
    seconds: float
    """Of training, without what came before and without looking."""
    divergence: float | None
    """Nats per token on what was read since the point before; None at the start."""
    nats: float
    """NLL per token of the text that is watched."""


@dataclass(frozen=True, eq=False)
class Recovered:
    """What a recovery made of a pruned model: the weights that are not the whole model's."""

    variant: Variant
    weights: Mapping[str, Tensor]
    """By their names in the pruned model, tied ones once; on the host."""
    details: Mapping[str, Detail] = field(default_factory=dict)
    """How they were made, for recipe and run, by names that are words."""
    curve: tuple[Point, ...] = ()
    """How a training went, where there was one."""

    def rounded(self, dtype: torch.dtype) -> Recovered:
        """The same in the format that a pruned model is saved in, held as float32."""
        weights = {
            name: weight.detach().to("cpu", dtype).float().contiguous()
            for name, weight in sorted(self.weights.items())
        }
        return replace(self, weights=weights)

    @cached_property
    def sha256(self) -> str:
        """Hash of all weights with their names and shapes."""
        digest = hashlib.sha256()
        for name, one in self.hashes.items():
            digest.update(f"{name} {one} ".encode())
        return digest.hexdigest()

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Hash of each weight, by its name."""
        return {name: tensor_sha256(self.weights[name]) for name in sorted(self.weights)}

    def model(self, whole: Decoder) -> PreTrainedModel:
        """The recovered model in float32 on the host; it shares the other weights with `whole`."""
        with recut(whole, self.variant.plan) as pruned:
            return standalone(pruned, self.weights)


def tensor_sha256(tensor: Tensor) -> str:
    """Hash of a tensor's numbers as float32, with its shape."""
    digest = hashlib.sha256(f"{tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def pruned_copy(whole: Decoder, plan: Plan, forms: Mapping[Gap, Form]) -> Decoder:
    """A pruned and bridged model in float32, whose every weight may be changed.

    Args:
        whole: the whole model; it is left as it is.
        plan: what is removed.
        forms: fold the plan's bridges in; empty for the model as cut.
    """
    with folded(whole, forms), recut(whole, plan) as pruned:
        return Decoder(copy.deepcopy(standalone(pruned, {})))


def own_weights(model: PreTrainedModel, whole: Decoder, plan: Plan) -> dict[str, Tensor]:
    """The weights in which a pruned model differs from the whole one as cut, by their names."""
    with recut(whole, plan) as pruned:
        known = dict(stored_copy(pruned, torch.float32).named_parameters())
    found = {name: weight.detach().float().cpu() for name, weight in model.named_parameters()}
    return {name: weight for name, weight in found.items() if not torch.equal(weight, known[name])}
