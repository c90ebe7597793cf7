"""The least and the most that numbers may be, by option: what no person can mean is refused.

They are wide (hundreds of threads, contexts of a million tokens): what a model, a machine or a
text cannot do is said by the code that knows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pruning_kit.errors import PruningKitError

ANY_SEED = 2**63 - 1
TOKENS = 2**24
MOST_PLANS = 2**20
"""A run holds all of its plans in memory."""
MOST_PERMUTATIONS = 10_000
"""Sampled orders of the blocks; more are not used."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `least` to `most`, or those strictly between them."""

    least: float
    most: float
    strictly: bool = False

    def __contains__(self, value: float) -> bool:
        if self.strictly:
            return self.least < value < self.most
        return self.least <= value <= self.most  # never true of nan

    def __str__(self) -> str:
        words = "above {:,} and below {:,}" if self.strictly else "from {:,} to {:,}"
        return words.format(self.least, self.most)


RANGES = {
    "--context": Range(1, TOKENS),
    "--stride": Range(1, TOKENS),
    "--max-windows": Range(1, 10**9),
    "--batch-size": Range(1, 10**6),
    "--threads": Range(1, 2048),
    "--sizes": Range(1, 10_000),
    "--max-removed": Range(1, 10_000),
    "--ratios": Range(0, 1, strictly=True),
    "--max-plans": Range(1, MOST_PLANS),
    "--plans shapley:N with N =": Range(1, MOST_PERMUTATIONS),
    "--seed": Range(-ANY_SEED, ANY_SEED),
    "--prompt-tokens": Range(1, TOKENS),
    "--new-tokens": Range(1, TOKENS),
    "--batch": Range(1, 2**16),
    "--batch-sweep": Range(1, 2**16),
    "--latency-target": Range(0, 10**12, strictly=True),
    "--latency-budget": Range(0, 10**12, strictly=True),
    "--max-latency": Range(0, 10**9, strictly=True),
    "--max-params": Range(0, 10**6, strictly=True),
    "--max-ppl-increase": Range(0, 10**9),
}


def check(
    option: str,
    value: float | None,
    error: type[PruningKitError],
    ranges: Mapping[str, Range] = RANGES,
) -> None:
    """Refuse a number outside the range of its option; None and options without one may be.

    Raises:
        PruningKitError: of the kind `error`, naming option, value and range.
    """
    allowed = ranges.get(option)
    if allowed is not None and value is not None and value not in allowed:
        shown = f"{value:.15g}" if isinstance(value, float) else value
        raise error(f"cannot use {option} {shown}: it needs to be {allowed}.")
