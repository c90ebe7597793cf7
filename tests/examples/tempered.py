"""Tempered: a pruned model's logits times a factor, for one that has become too sure."""

import copy

import torch

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plans.paths import as_cut
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.recovery import Computation, Material


@torch.no_grad()
def tempered(variant: Variant, material: Material) -> Computation:
    """`1+3~tempered:0.8`: the final norm, and with it every logit, times 0.8."""
    assert variant.recovery is not None
    (factor,) = variant.recovery.details
    decoder = Decoder(copy.deepcopy(material.decoder.model))
    for weight in decoder.norm.parameters():
        weight.mul_(float(factor))
    return Computation(material.kernel_for(decoder), as_cut(variant.plan, decoder.n_blocks))
