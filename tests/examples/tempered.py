"""Tempered: a pruned model's logits times a factor, for one that has become too sure."""

from pruning_kit.errors import PlanError
from pruning_kit.plans.variant import Recovery, Variant
from pruning_kit.pruning.material import Material, Method
from pruning_kit.pruning.recovered import Recovered, own_weights, pruned_copy


def tempered(variant: Variant, material: Material) -> Recovered:
    """`1+3~tempered:0.8`: the final norm, and with it every logit, times 0.8."""
    assert variant.recovery is not None
    pruned = pruned_copy(material.decoder, variant.plan, forms={})
    for weight in pruned.norm.parameters():
        weight.data *= factor_of(variant.recovery)
    return Recovered(variant, own_weights(pruned.model, material.decoder, variant.plan))


def factor_of(recovery: Recovery) -> float:
    """What logits are multiplied by."""
    try:
        return float(*recovery.details)
    except (TypeError, ValueError):
        raise PlanError(f"cannot temper by {recovery}: write it like tempered:0.8.") from None


TEMPERED = Method(tempered, check=factor_of)
