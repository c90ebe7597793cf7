"""Targets: how far a model is to be shrunk, and which numbers of removed blocks that asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from pruning_kit.errors import PlanError
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import check_ratio, count_for_ratio, sizes_within

DEFAULT_RATIO = 1 / 3
"""Of the blocks, where nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """How far a model is to be shrunk: by one of these, or by a third of its blocks.

    Raises:
        PlanError: if several are given, or the ratio is none.
    """

    size: int | None = None
    """Blocks to remove."""
    ratio: float | None = None
    """Share of the blocks to remove."""
    max_params: int | None = None
    """Parameters that may stay."""
    max_latency: float | None = None
    """Milliseconds per token, end to end."""
    max_ppl_increase: float | None = None
    """Per cent above the whole model's perplexity, on the text chosen on."""

    def __post_init__(self) -> None:
        if len(self._given) > 1:
            (one, value), (other, beside) = list(self._given.items())[:2]
            raise PlanError(
                f"cannot shrink to two targets, `{one}` {value:,} and `{other}` {beside:,}: each "
                "says how far. Give one of them."
            )
        if self.ratio is not None:
            check_ratio(self.ratio)

    @property
    def _given(self) -> dict[str, float]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def is_size(self) -> bool:
        """Whether it is a number or a share of blocks, and no limit."""
        return (self.max_params, self.max_latency, self.max_ppl_increase) == (None, None, None)

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self._given.items())

    def sizes(self, n_parameters: int, of_blocks: Sequence[int]) -> list[int]:
        """Numbers of removed blocks among which the smaller model is.

        Args:
            n_parameters: of the whole model.
            of_blocks: parameters of each of its blocks.

        Returns:
            One number, or, where only measuring tells, each up to half of the blocks.

        Raises:
            PlanError: if no number of removed blocks can meet the target.
        """
        n_blocks = len(of_blocks)
        Plan((0,)).check(n_blocks)
        if self.max_params is not None:
            return [_fewest_blocks(self.max_params, n_parameters, of_blocks)]
        if not self.is_size:
            return list(range(1, n_blocks // 2 + 1))
        if self.size is not None:
            return sizes_within([self.size], None, n_blocks)
        return [count_for_ratio(self.ratio or DEFAULT_RATIO, n_blocks)]


def _fewest_blocks(max_params: int, n_parameters: int, of_blocks: Sequence[int]) -> int:
    """The least number of blocks without which a model may have so few parameters.

    Raises:
        PlanError: if it has no more as it is, or more without all blocks but one.
    """
    if n_parameters <= max_params:
        raise PlanError(
            f"cannot shrink to {max_params:,} parameters: the model has {n_parameters:,}, which is "
            "no more. Give `max_params` a smaller number."
        )
    largest_first = sorted(of_blocks, reverse=True)
    for size in range(1, len(of_blocks)):
        if n_parameters - sum(largest_first[:size]) <= max_params:
            return size
    least = n_parameters - sum(largest_first[:-1])
    raise PlanError(
        f"cannot shrink to {max_params:,} parameters: with a single block the model still has "
        f"{least:,}. Give `max_params` at least {math.ceil(least / 1e3) / 1e3:g} (millions)."
    )
