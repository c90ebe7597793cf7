"""Agreement: whether a variant and the whole model find the same token most likely."""

from pruning_kit.walk.measures.measure import Measure

AGREEMENT = Measure(
    "agreement", "share of tokens", lambda ending: ending.beside_whole.agrees, compares=True
)
