"""Refitted: a bridged model with its output projections fitted anew, as a recovery."""

from __future__ import annotations

import copy

import numpy as np
from torch import Tensor

from pruning_kit.errors import NoGainError, PlanError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.intervals.windows import estimate
from pruning_kit.plans.unit import MLP
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.material import Material, Method
from pruning_kit.pruning.recovered import Detail, Recovered, own_weights, pruned_copy
from pruning_kit.pruning.refit.stepwise import Step, Stepwise
from pruning_kit.pruning.refit.streams import Streams

NAMES = {MLP: "MLP"}


def refitted(variant: Variant, material: Material) -> Recovered:
    """`1+3~refitted`: the bridged model, its output projections fitted anew where that helps.

    Raises:
        PlanError: if there are no bridges to begin with.
        NoGainError: if the plan is better as cut, or the result is not better than the bridged
            model by more than chance.
    """
    bridging, plan, device = material.bridging, variant.plan, material.kernel.device
    if isinstance(bridging, str):
        raise PlanError(f"cannot refit {plan.short}: {bridging}. Leave {variant} out.")
    try:
        bridges = bridging.bridges(plan)
    except NoGainError:
        why = bridging.why_not(plan)
        raise NoGainError(
            f"cannot refit {plan.short}: it has no bridges to begin with ({why}). Leave "
            f"{variant} out."
        ) from None
    pruned = pruned_copy(material.decoder, plan, bridges.forms)
    pruned.model.to(device)
    whole = material.decoder
    if device.type != "cpu":
        whole = Decoder(copy.deepcopy(whole.model).to(device))
    text = material.judging()
    half = len(text.windows) // 2
    choosing, unseen = text.part(range(half)), text.part(range(half, len(text.windows)))
    before = Streams.open(pruned, unseen).nll()
    stepwise = Stepwise(whole, pruned, plan, bridging.calibration.fitting, choosing, material.dtype)
    steps: list[Step] = []
    with material.track(f"refitting {plan.short}", len(stepwise.steps)) as advance:
        for step in stepwise.run():
            steps.append(step)
            advance(1)
    nats, least_gain = _refuse_chance(variant, before, Streams.open(pruned, unseen).nll())
    kept = [f"{step.block}{step.part}" for step in steps if step.helps]
    details: dict[str, Detail] = {
        "projections fitted anew": " ".join(kept),
        "fitted on": bridging.calibration.fitting.corpus.title,
        "steps chosen on": f"{text.corpus.title}, first half",
        "judged on": f"{text.corpus.title}, second half",
        "tokens judged on": len(before),
        "nats per token there, bridged": float(before.mean()),
        "nats per token there, refitted": nats,
        "gain there at least (95 %)": least_gain,
    }
    return Recovered(variant, own_weights(pruned.model, material.decoder, plan), details)


def _refuse_chance(variant: Variant, before: Tensor, after: Tensor) -> tuple[float, float]:
    """The nats per token after a refit, and the least that it gains, if that is anything.

    Raises:
        NoGainError: if the interval of the gain, paired token by token, holds zero.
    """
    gain_1N = (before - after).numpy()[None]
    found = estimate(gain_1N, np.ones(gain_1N.shape[1]))
    gain, half_width = float(found.value_C[0]), float(found.half_width_C[0])
    if not gain > half_width:
        plan = variant.plan.short
        raise NoGainError(
            f"cannot refit {plan}: {float(after.mean()):.4f} nats per token of unseen text "
            f"refitted, {float(before.mean()):.4f} bridged, a gain of {gain:.4f} ± "
            f"{half_width:.4f} that may be chance. Take {plan}~bridged."
        )
    return float(after.mean()), gain - half_width


REFITTED_METHOD = Method(refitted, needs_bridges=True)
