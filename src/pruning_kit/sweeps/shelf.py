"""The shelf: recovered models of a run, each kept in its folder and none in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from pruning_kit.machine import disk
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.recovered import Point, Recovered
from pruning_kit.runs.recovered import (
    PointFacts,
    RecoveredFacts,
    make_place,
    read_recovered,
    weights_path,
    write_recovered,
)


class Shelf(MutableMapping[Variant, Recovered]):
    """Recovered models by variant, in a run folder; what is gone or damaged is not there.

    Args:
        folder: of the run.
        dtype: that weights are stored in, that of a pruned model.
        writes: whether this process keeps what is made; of several one does.
    """

    def __init__(self, folder: Path, dtype: torch.dtype, writes: bool = True) -> None:
        self._folder, self._dtype, self._writes = folder, dtype, writes
        self._seen: set[Variant] = set()

    def __getitem__(self, variant: Variant) -> Recovered:
        facts = self._facts()[variant]
        if facts.sha256 is None:
            raise KeyError(variant)
        try:
            weights = load_file(weights_path(self._folder, facts.sha256))
        except (OSError, SafetensorError):
            raise KeyError(variant) from None
        made = Recovered(variant, weights, facts.details, curve_of(facts.curve))
        made = made.rounded(self._dtype)
        if made.sha256 != facts.sha256:
            raise KeyError(variant)
        self._seen.add(variant)
        return made

    def __contains__(self, variant: object) -> bool:
        return variant in self._seen or super().__contains__(variant)

    def __setitem__(self, variant: Variant, made: Recovered) -> None:
        """Keep a model: its weights before what is said of them."""
        if not self._writes:
            return
        make_place(self._folder)
        stored = {name: weight.to(self._dtype) for name, weight in made.weights.items()}
        disk.write_file(weights_path(self._folder, made.sha256), save(stored))
        self._say(variant, made.sha256, made, None)

    def refuse(self, variant: Variant, why: str) -> None:
        """Keep that a variant is not to be had, and why."""
        if not self._writes:
            return
        self._say(variant, None, None, why)

    @property
    def refused(self) -> dict[Variant, str]:
        """Variants that are not to be had, and why."""
        return {one: facts.refused for one, facts in self._facts().items() if facts.refused}

    def _facts(self) -> dict[Variant, RecoveredFacts]:
        return read_recovered(self._folder)

    def _say(
        self, variant: Variant, sha256: str | None, made: Recovered | None, refused: str | None
    ) -> None:
        details = {} if made is None else dict(made.details)
        curve = () if made is None else facts_of(made.curve)
        said = RecoveredFacts(sha256=sha256, details=details, refused=refused, curve=curve)
        write_recovered(self._folder, self._facts() | {variant: said})

    def __delitem__(self, variant: Variant) -> None:
        facts = self._facts()
        del facts[variant]
        self._seen.discard(variant)
        write_recovered(self._folder, facts)

    def __iter__(self) -> Iterator[Variant]:
        return (variant for variant, facts in self._facts().items() if facts.sha256 is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def facts_of(curve: Sequence[Point]) -> tuple[PointFacts, ...]:
    """A curve for a file, which knows no NaN."""
    return tuple(
        PointFacts(
            step=point.step,
            tokens=point.tokens,
            seconds=point.seconds,
            divergence=_finite(point.divergence),
            nats=_finite(point.nats),
        )
        for point in curve
    )


def curve_of(stored: Sequence[PointFacts]) -> tuple[Point, ...]:
    """The curve of a file."""
    return tuple(
        Point(
            point.step,
            point.tokens,
            point.seconds,
            point.divergence,
            math.nan if point.nats is None else point.nats,
        )
        for point in stored
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
