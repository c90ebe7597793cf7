"""Rounds: in which order entries are timed, in which quantities, and when it is enough. No torch.

Every round times every entry once, in turns and in a random order; rounds go on until each ratio
to the whole model is known well enough or the budget ends.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from pruning_kit.machine import readings
from pruning_kit.speed.timings import MOST_BUDGETS, QUANTITIES, TARGET_MET, Round, Timings

Clock = Callable[[], float]
SampleRound = Callable[[Sequence[int], Collection[str]], Mapping[int, Mapping[str, float]]]


def run_rounds(
    draft: Timings,
    sample_round: SampleRound,
    *,
    started: float,
    clock: Clock,
    read: Callable[[], readings.Reading] = readings.read,
    progress: Callable[[Timings], None] | None = None,
) -> Timings:
    """Add rounds to `draft` until the target is met or the next round would pass the budget.

    To reach `min_rounds`, `MOST_BUDGETS` times the budget may be spent, if they fit into that.

    The intervals are looked at after 8, 12, 18, 27, … rounds only: an experiment that may stop
    after each round stops too often when chance makes the interval narrow. A quantity whose ratios
    are all known to the target then rests, and further rounds are of the others.

    Args:
        draft: a run without rounds.
        sample_round: times every entry once, by number, in the order given, in some quantities.
        started: the clock when the budget began.
        clock: seconds, monotonic.
        read: takes a reading of the machine's state.
        progress: called after each round with all that was measured so far.
    """
    protocol = draft.protocol
    shuffler = random.Random(protocol["seed"])
    rounds: list[Round] = []
    first_round = clock()
    next_look = protocol["min_rounds"]
    wanted: tuple[str, ...] = QUANTITIES
    while True:
        before = clock()
        rounds.append(_one_round(len(draft.entries), sample_round, wanted, shuffler, read))
        now = clock()
        timings = replace(draft, rounds=tuple(rounds), elapsed_s=now - started)
        if progress is not None:
            progress(timings)
        if len(rounds) == next_look:
            next_look = -(-next_look * 3 // 2)
            wanted = timings.unknown
            if not wanted:
                return replace(timings, stopped_because=TARGET_MET)
        allowed_s = protocol["budget_s"]
        if len(rounds) < protocol["min_rounds"]:
            mean_s = (now - first_round) / len(rounds)
            needed_s = first_round - started + mean_s * protocol["min_rounds"]
            if needed_s <= MOST_BUDGETS * allowed_s:
                continue
        if now + (now - before) - started > allowed_s:
            return timings


def share_done(so_far: Timings) -> float:
    """How much of the time that a run at one batch size is expected to take is over."""
    protocol = so_far.protocol
    budget_s, least = protocol["budget_s"], protocol["min_rounds"]
    if len(so_far.rounds) < least:
        budget_s = max(budget_s, so_far.elapsed_s * least / len(so_far.rounds))
    return min(1.0, so_far.elapsed_s / budget_s)


def _one_round(
    n_entries: int,
    sample_round: SampleRound,
    quantities: Collection[str],
    shuffler: random.Random,
    read: Callable[[], readings.Reading],
) -> Round:
    order = list(range(n_entries))
    shuffler.shuffle(order)
    samples = sample_round(order, quantities)
    columns = {
        quantity: tuple(samples[entry][quantity] for entry in range(n_entries))
        for quantity in samples[0]
    }
    return Round(tuple(order), columns, read())
