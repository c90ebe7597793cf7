"""Material: what recoveries are made of, and what one is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from pruning_kit.errors import PlanError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.texts import PreparedText
from pruning_kit.plans.variant import Recovery, Variant
from pruning_kit.pruning.bridges.bridging import Bridging
from pruning_kit.pruning.recovered import Recovered
from pruning_kit.walk.kernel import Kernel

if TYPE_CHECKING:
    from pruning_kit.pruning.distillation.distilled import Learning


class Advance(Protocol):
    """Is told of progress."""

    def __call__(self, step: float, now: str = "", /) -> object:
        """So much was done, and this is how things stand."""


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
    dtype: torch.dtype
    """That a pruned model is saved in."""
    shelf: MutableMapping[Variant, Recovered]
    """Recovered models that were made before: in memory, or in a run folder."""
    track: Callable[[str, int], AbstractContextManager[Advance]]
    """Begins to tell of progress: of what, and what the steps add up to."""
    judging: Callable[[], PreparedText]
    """Of the calibration text what nothing is fitted on, to judge a recovery as a whole."""
    learning: Callable[[], Learning]
    """What distillations learn from; raises a PlanError where there is nothing."""
    kernels: OrderedDict[Variant, tuple[Kernel, int]] = field(
        default_factory=OrderedDict, init=False, repr=False
    )
    """Of recovered models that were used last, with their bytes."""


def no_details(recovery: Recovery) -> None:
    """Refuse details, for recoveries that take none.

    Raises:
        PlanError: if there are some.
    """
    if recovery.details:
        raise PlanError(
            f"cannot recover by {str(recovery)!r}: {recovery.name!r} takes no details. Write "
            f"{recovery.name}."
        )


class Method(NamedTuple):
    """A way to make a pruned model with weights of its own."""

    make: Callable[[Variant, Material], Recovered]
    """Whatever it gives is rounded to the format of a checkpoint before it is measured."""
    check: Callable[[Recovery], object] = no_details
    """Refuses, by a PlanError, details that it does not take."""
    needs_bridges: bool = False
    """Whether there is nothing to begin with where a model can have no bridges."""
