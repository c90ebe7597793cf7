"""Which variants a run measures: proposers, and `parse` for their text forms. No torch."""

from pruning_kit.search.named import parse

__all__ = ["parse"]
