"""Recoveries: how a variant gets back what its plan lost.

`bridged` is a path through the whole model's own kernel, so that all such variants share a walk.
Any other recovery makes a pruned model with weights of its own. To add one: a file here with a
function from a variant and the `Material` to a `Recovered`, and a line in `RECOVERIES`.
"""

from __future__ import annotations

from typing import NamedTuple

from pruning_kit.errors import PlanError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plans.distilled import NAME
from pruning_kit.plans.paths import Path, as_cut
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import BRIDGED, REFITTED, Variant
from pruning_kit.pruning.distillation.distilled import DISTILLED_METHOD
from pruning_kit.pruning.material import Material, Method, no_details
from pruning_kit.pruning.refit.refitted import REFITTED_METHOD
from pruning_kit.pruning.surgery import count_parameters
from pruning_kit.walk.kernel import Kernel

KERNEL_BYTES = 2**30
"""Of the kernels of recovered models that are alive at once, by their weights; one always is."""


class Computation(NamedTuple):
    """A variant ready to be walked; variants of one kernel share their beginnings."""

    kernel: Kernel
    path: Path


RECOVERIES: dict[str, Method] = {REFITTED.name: REFITTED_METHOD, NAME: DISTILLED_METHOD}
"""By the name that a variant has after `~`, besides `bridged`."""


def make(variant: Variant, material: Material) -> None:
    """Make a variant with weights of its own, if that was not done before.

    Raises:
        PlanError: if it cannot be made.
        NoGainError: if it is no better than what it would be made from.
    """
    if variant not in material.shelf:
        assert variant.recovery is not None
        made = RECOVERIES[variant.recovery.name].make(variant, material)
        material.shelf[variant] = made.rounded(material.dtype)


def _kernel_of(variant: Variant, material: Material) -> Kernel:
    """The kernel of a variant with weights of its own; few are kept, for the next windows."""
    kernels = material.kernels
    if variant not in kernels:
        make(variant, material)
        model = material.shelf[variant].model(material.decoder)
        kernels[variant] = material.kernel_for(Decoder(model)), 4 * count_parameters(model)
    kernels.move_to_end(variant)
    while len(kernels) > 1 and sum(n_bytes for _, n_bytes in kernels.values()) > KERNEL_BYTES:
        kernels.popitem(last=False)
    return kernels[variant][0]


def has_own_weights(variant: Variant) -> bool:
    """Whether a variant is a model of its own, and not a path through the whole one."""
    return variant.recovery not in (None, BRIDGED)


def needs_bridges(variant: Variant) -> bool:
    """Whether there is no such variant where a model can have no bridges."""
    if has_own_weights(variant):
        assert variant.recovery is not None
        return RECOVERIES[variant.recovery.name].needs_bridges
    return variant.recovery == BRIDGED


def check(variant: Variant, n_blocks: int) -> None:
    """Refuse a variant before anything is made for it.

    Raises:
        PlanError: if the model has no such plan or the kit no such recovery.
    """
    if len(variant.plan.removed) < n_blocks:  # the empty stack completes a power set
        variant.plan.check(n_blocks)
    recovery = variant.recovery
    if recovery is None:
        return
    if recovery.name not in (BRIDGED.name, *RECOVERIES):
        raise PlanError(
            f"cannot recover {variant}: no recovery is called {recovery.name!r}. "
            f"Choose one that is known: {', '.join([BRIDGED.name, *RECOVERIES])}."
        )
    if not 0 < len(variant.plan.removed) < n_blocks:
        raise PlanError(
            f"cannot recover {variant}: {variant.plan} removes "
            f"{'every' if variant.plan.removed else 'no'} block. Name some of them, such as "
            f"1~{recovery}."
        )
    takes = no_details if recovery.name == BRIDGED.name else RECOVERIES[recovery.name].check
    takes(recovery)


def computation_of(variant: Variant, material: Material) -> Computation:
    """How a variant is computed; what it needs is made for it, if it was not before.

    Raises:
        PlanError: as `check`, or if it cannot be made.
    """
    n_blocks = material.decoder.n_blocks
    check(variant, n_blocks)
    if variant.recovery is None:
        return Computation(material.kernel, as_cut(variant.plan, n_blocks))
    if variant.recovery == BRIDGED:
        return _bridged(variant, material)
    kernel = _kernel_of(variant, material)
    return Computation(kernel, as_cut(Plan(), n_blocks - variant.plan.size))


def _bridged(variant: Variant, material: Material) -> Computation:
    """`1+3~bridged`: every gap bridged that is better so, by the kernel of the whole model.

    Raises:
        PlanError: if nothing can be bridged.
    """
    bridging = material.bridging
    if isinstance(bridging, str):
        raise PlanError(f"cannot bridge the gaps of {variant.plan}: {bridging}.")
    for _ in bridging.fit([variant.plan]):
        pass
    path = bridging.path(variant.plan)
    bridging.teach(material.kernel, path)
    return Computation(material.kernel, path)
