"""Targets: how far a model is to be shrunk, and which numbers of removed blocks that asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from pruning_kit.errors import PlanError
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import check_ratio, count_for_ratio, sizes_or_half, sizes_within

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
    """Milliseconds end to end."""
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
            One number; several where blocks are unlike, so that some sets of a number keep to the
            limit; or, where only measuring tells, each up to half of the blocks.

        Raises:
            PlanError: if no number of removed blocks can meet the target.
        """
        n_blocks = len(of_blocks)
        Plan((0,)).check(n_blocks)
        if self.max_params is not None:
            return sizes_within_parameters(self.max_params, n_parameters, of_blocks)
        if not self.is_size:
            return sizes_or_half((), n_blocks)
        if self.size is not None:
            return sizes_within([self.size], None, n_blocks)
        return [count_for_ratio(self.ratio or DEFAULT_RATIO, n_blocks)]


def sizes_within_parameters(
    max_params: int, n_parameters: int, of_blocks: Sequence[int]
) -> list[int]:
    """Numbers of blocks without some of which a model has no more parameters than that.

    The least that may do, and those up to where any blocks will; blocks that are alike give one.

    Raises:
        PlanError: if it has no more as it is, or more without all blocks but one.
    """
    if n_parameters <= max_params:
        raise PlanError(
            f"cannot shrink to {max_params:,} parameters: the model has {n_parameters:,}, which is "
            "no more. Give `max_params` a smaller number."
        )
    smallest_first = sorted(of_blocks)
    n_sizes = len(of_blocks) - 1
    fewest = [n_parameters - sum(smallest_first[-size:]) for size in range(1, n_sizes + 1)]
    most = [n_parameters - sum(smallest_first[:size]) for size in range(1, n_sizes + 1)]
    if fewest[-1] > max_params:
        raise PlanError(
            f"cannot shrink to {max_params:,} parameters: with a single block the model still has "
            f"{fewest[-1]:,}. Give `max_params` at least {math.ceil(fewest[-1] / 1e3) / 1e3:g} "
            "(millions)."
        )
    first = next(at for at, left in enumerate(fewest, 1) if left <= max_params)
    last = next((at for at, left in enumerate(most, 1) if left <= max_params), n_sizes)
    return list(range(first, last + 1))


def sizes_within_seconds(
    max_s: float, fixed_s: float, per_block_s: float, n_blocks: int
) -> list[int]:
    """Numbers of blocks without which a model takes no longer, by a line through timings.

    The least that should do, and one more, as a line is no timing.

    Raises:
        PlanError: if it takes no longer as it is, or longer without all blocks but one.
    """
    whole_s, least_s = fixed_s + n_blocks * per_block_s, fixed_s + per_block_s
    if whole_s <= max_s:
        raise PlanError(
            f"cannot shrink to {1e3 * max_s:g} ms: the model takes about {_ms(whole_s)}, which is "
            "no more. Give `max_latency` a smaller number."
        )
    if n_blocks == 1 or least_s > max_s:
        raise PlanError(
            f"cannot shrink to {1e3 * max_s:g} ms: with a single block the model still takes about "
            f"{_ms(least_s)}. Give `max_latency` more than that."
        )
    first = math.ceil((whole_s - max_s) / per_block_s)
    return [size for size in (first, first + 1) if size < n_blocks]


def _ms(seconds: float) -> str:
    """Milliseconds to three digits: `1,240`."""
    return f"{float(f'{1e3 * seconds:.3g}'):,g}"
