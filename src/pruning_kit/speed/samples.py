"""Samples of a round: one undisturbed call of each entry, from the seconds of many turns.

Shapes: E entries, C turns of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import geometric_mean

import numpy as np

Sample = dict[str, float]


def undisturbed(turns_s: Mapping[int, Sequence[Sequence[float]]]) -> dict[int, float]:
    """Seconds of one undisturbed call of each entry, compared turn by turn.

    A turn counts with the lower quartile of its calls, for others only add time. An entry's
    distance from the mean of its neighbours' turns (of the logarithms) is the median over turns,
    so neither spikes in a minority of turns nor a slow spell of the machine move it. The level
    common to all entries is the mean of their own lower quartiles over turns.

    Args:
        turns_s: seconds of every call in every turn, by entry; as many turns for each.

    Returns:
        seconds by entry; 0 for all where no call was made.

    Source: Chen and Revels (2016), Robust benchmarking in noisy environments, for the quartile.
    """
    log_EC = np.log([[np.quantile(turn, 0.25) for turn in turns] for turns in turns_s.values()])
    if not log_EC.size:
        return dict.fromkeys(turns_s, 0.0)
    distance_E = np.median(log_EC - log_EC.mean(axis=0), axis=1)
    quartile_E = np.quantile(log_EC, 0.25, axis=1)
    seconds_E = np.exp(distance_E + (quartile_E - distance_E).mean())
    return dict(zip(turns_s, seconds_E.tolist(), strict=True))


def at_one_level(groups: Sequence[Mapping[int, Sample]], anchor: int) -> dict[int, Sample]:
    """Samples of several groups in one, scaled so that the anchor takes as long in each.

    The anchor's own sample is the geometric mean over the groups.
    """
    anchors = [group[anchor] for group in groups]
    if len(groups) == 1:
        return dict(groups[0])
    level = {name: geometric_mean(sample[name] for sample in anchors) for name in anchors[0]}
    merged: dict[int, Sample] = {}
    for group in groups:
        scale = {name: level[name] / seconds for name, seconds in group[anchor].items()}
        for entry, sample in group.items():
            merged[entry] = {name: scale[name] * seconds for name, seconds in sample.items()}
    return merged
