"""Measures: one value for each scored token, kept as sums over windows.

Every figure is a ratio of such sums. To add one: a file here that holds a `Measure`, and a line in
`MEASURES`.
"""

from pruning_kit.walk.measures.agreement import AGREEMENT
from pruning_kit.walk.measures.kl import KL
from pruning_kit.walk.measures.measure import Measure
from pruning_kit.walk.measures.nll import NLL

MEASURES: dict[str, Measure] = {measure.name: measure for measure in (NLL, KL, AGREEMENT)}
"""All that can be asked for, by name: the names of the tensors that a run stores."""

__all__ = ["AGREEMENT", "KL", "MEASURES", "NLL", "Measure"]
