"""Screenings: the candidates of a search, which are no rows, and what they cost on some windows.

Shapes: V variants, N windows of the text that plans are chosen on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pruning_kit.plans.plan import Plan
from pruning_kit.runs.facts import NLL, RoundFacts, VariantFacts
from pruning_kit.runs.store import RunFolder


@dataclass(frozen=True, slots=True, eq=False)
class Screened:
    """One round of candidates."""

    number: int
    """Of the round."""
    candidates: tuple[VariantFacts, ...]
    """In the form that each was measured in."""
    windows: tuple[tuple[int, int], ...]
    """Runs of neighbouring windows, as (first, end)."""
    nats_VN: np.ndarray
    """In the order of `windows`; NaN where a forward failed."""


def read_screenings(run: RunFolder, rounds: Sequence[RoundFacts]) -> tuple[Screened, ...]:
    """The screenings of a run, in their order.

    Raises:
        RunError: if sums are missing or damaged.
    """
    return tuple(
        Screened(number, round_.variants, round_.windows, _nats(run, number, round_))
        for number, round_ in enumerate(rounds)
        if round_.windows is not None
    )


def _nats(run: RunFolder, number: int, round_: RoundFacts) -> np.ndarray:
    (role,) = round_.texts
    parts = [run.read_part(number, role, at)[0][NLL] for at in range(len(round_.windows or ()))]
    return np.concatenate(parts, axis=1)


def first_proposals(screenings: Sequence[Screened]) -> dict[Plan, str]:
    """The search that each candidate came from when it was screened first."""
    found: dict[Plan, str] = {}
    for screened in screenings:
        for facts in screened.candidates:
            if facts.proposed_by is not None:
                found.setdefault(facts.parsed.plan, facts.proposed_by)
    return found
