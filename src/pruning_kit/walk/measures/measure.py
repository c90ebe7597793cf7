"""What a measure is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pruning_kit.walk.kernel import Ending


@dataclass(frozen=True, slots=True)
class Measure:
    """One value for each scored token."""

    name: str
    unit: str
    values: Callable[[Ending], Tensor]
    """From the end of a path to the values (B, S); they are added up in float64."""
    compares: bool = False
    """Whether the values are read off `Ending.beside_whole`."""
