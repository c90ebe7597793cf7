"""A recovery for tests that changes every weight, the embedding among them."""

from __future__ import annotations

import torch

from pruning_kit.errors import NoGainError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.material import Material, Method
from pruning_kit.pruning.recovered import Recovered, own_weights, pruned_copy

MADE: list[str] = []
"""Variants that were made, in order."""


@torch.no_grad()
def shaken_copy(whole: Decoder, variant: Variant, size: float = 0.05) -> Recovered:
    """The pruned model with all its weights moved by a random amount."""
    pruned = pruned_copy(whole, variant.plan, forms={})
    generator = torch.Generator().manual_seed(variant.plan.size)
    for weight in pruned.model.parameters():
        weight += size * torch.randn(weight.shape, generator=generator)
    own = own_weights(pruned.model, whole, variant.plan)
    return Recovered(variant, own, {"size": size})


def _make(variant: Variant, material: Material) -> Recovered:
    assert variant.recovery is not None
    MADE.append(str(variant))
    if "worse" in variant.recovery.details:
        raise NoGainError(f"cannot shake {variant.plan}: that makes it worse. Leave it out.")
    return shaken_copy(material.decoder, variant)


SHAKEN = Method(_make, check=lambda recovery: None)
