"""How the calls of a round are dealt out: turns, groups of entries, repeats, stretches of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import NamedTuple

import torch

from pruning_kit.speed.depths import NULL_PAIR
from pruning_kit.speed.samples import Sample
from pruning_kit.speed.timings import DECODE, END_TO_END, END_TO_END_PLAIN, PREFILL

SHARES = ((0.15, 8), (0.05, 4), (0.02, 2))
"""Seconds that each quantity gets of a round for the whole model, and the fewest prefills."""
STRETCHES = 2
"""Into so many the steps of an end-to-end run are parted. A round makes one of them, since steps
all cost nearly the same, and a whole run would take three quarters of a round; of three, each
would have so few turns that their median gave in to the noise of a shared machine."""
AT_ONCE = 8  # entries in turn with the whole model: growing caches are for so many only


@dataclass(frozen=True, slots=True)
class Turns:
    """How long a turn is: prefills or decode steps, after `lead_in_s` seconds not timed.

    On a CPU a model that fits the processor's cache is slow in its first milliseconds after
    another's turn; a lead-in and longer turns let it be timed as if it ran alone. A larger model
    fetches its weights anew in every step, and a GPU in microseconds.
    """

    prefills: int
    steps: int
    lead_in_s: float


SHORT = Turns(prefills=1, steps=2, lead_in_s=0.0)
WARM = Turns(prefills=2, steps=8, lead_in_s=0.002)
FITS_CACHE_S = 0.02


def choose_turns(device: torch.device, step_s: float) -> Turns:
    """Short turns, but on a CPU long and warm ones for a model that is small by its step's time.

    Args:
        device: where the model is.
        step_s: seconds of a decode step of the whole model.
    """
    return WARM if device.type == "cpu" and step_s < FITS_CACHE_S else SHORT


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often a round repeats what is over soon."""

    prefill_calls: int = 2
    decode_runs: int = 1
    end_to_end_runs: int = 1


def choose_repeats(samples: Mapping[int, Sample], new_tokens: int, round_s: float) -> Repeats:
    """Repeats that give each quantity one of `SHARES` of a round for the whole model, in bounds.

    The first share is taken with which the rounds of all entries take at most `round_s`.

    Args:
        samples: one of every entry.
        new_tokens: steps of one decode run.
        round_s: seconds that a round may take.
    """
    whole = samples[NULL_PAIR[0]]
    for share_s, least_prefills in SHARES:
        repeats = Repeats(
            min(max(ceil(share_s / whole[PREFILL]), least_prefills), 32),
            min(max(ceil(share_s / (new_tokens * whole[DECODE])), 1), 16),
            min(max(ceil(STRETCHES * share_s / whole[END_TO_END]), 1), 16),
        )
        if sum(_seconds(sample, repeats, new_tokens) for sample in samples.values()) <= round_s:
            break
    return repeats


def _seconds(sample: Sample, repeats: Repeats, new_tokens: int) -> float:
    """What an entry's calls of a round take."""
    return (
        repeats.prefill_calls * sample[PREFILL]
        + repeats.decode_runs * new_tokens * sample[DECODE]
        + repeats.end_to_end_runs * sample[END_TO_END_PLAIN] / STRETCHES
    )


class Stretch(NamedTuple):
    """Some of the decode steps of a run: how many were before them, and how many they are."""

    ahead: int
    steps: int


def stretches(n_steps: int) -> list[Stretch]:
    """Steps parted into `STRETCHES` that follow each other, or fewer that are not empty."""
    ends = [n_steps * number // STRETCHES for number in range(STRETCHES + 1)]
    parts = [Stretch(first, end - first) for first, end in pairwise(ends) if end > first]
    return parts or [Stretch(0, 0)]


def groups(order: Sequence[int]) -> list[Sequence[int]]:
    """The order cut into as few groups of at most `AT_ONCE` as there can be, of like size."""
    count = max(1, -(-len(order) // AT_ONCE))
    ends = [len(order) * number // count for number in range(count + 1)]
    return [order[first:end] for first, end in pairwise(ends)]


def turn_lengths(n_calls: int, at_most: int) -> list[int]:
    """Calls of each turn: `at_most`, and what is left in the last."""
    full, rest = divmod(n_calls, at_most)
    return [at_most] * full + [rest] * bool(rest)
