"""Recoveries: how a variant gets back what its plan lost, as something that the walk can compute.

To add one: a file here with a function from a variant and the `Material` to a `Computation`, and a
line in `RECOVERIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from pruning_kit.errors import PlanError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plans.paths import Path, as_cut
from pruning_kit.plans.variant import BRIDGED, Variant
from pruning_kit.pruning.bridges.bridging import Bridging
from pruning_kit.walk.kernel import Kernel


class Computation(NamedTuple):
    """A variant ready to be walked; variants of one kernel share their beginnings."""

    kernel: Kernel
    path: Path


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """What recoveries are made of."""

    decoder: Decoder
    """The whole model, in float32."""
    kernel: Kernel
    """Of the whole model."""
    kernel_for: Callable[[Decoder], Kernel]
    """Makes a kernel for a model with weights of its own."""
    bridging: Bridging | str
    """The bridges of the model; or why there are none, as a clause."""
    made: dict[Variant, Computation] = field(default_factory=dict, init=False, repr=False)
    """Recovered variants made before, since windows are measured in groups."""


Recover = Callable[[Variant, Material], Computation]


def bridged(variant: Variant, material: Material) -> Computation:
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


RECOVERIES: dict[str, Recover] = {BRIDGED.name: bridged}
"""By the name that a variant has after `~`."""


def check(variant: Variant, n_blocks: int) -> None:
    """Refuse a variant before anything is made for it.

    Raises:
        PlanError: if the model has no such plan or the kit no such recovery.
    """
    if len(variant.plan.removed) < n_blocks:  # the empty stack completes a power set
        variant.plan.check(n_blocks)
    if variant.recovery is not None and variant.recovery.name not in RECOVERIES:
        raise PlanError(
            f"cannot recover {variant}: no recovery is called {variant.recovery.name!r}. "
            f"Choose one that is known: {', '.join(RECOVERIES)}."
        )


def computation_of(variant: Variant, material: Material) -> Computation:
    """How a variant is computed; a recovered one is made once from a material.

    Raises:
        PlanError: as `check`.
    """
    check(variant, material.decoder.n_blocks)
    if variant.recovery is None:
        return Computation(material.kernel, as_cut(variant.plan, material.decoder.n_blocks))
    if variant not in material.made:
        material.made[variant] = RECOVERIES[variant.recovery.name](variant, material)
    return material.made[variant]
