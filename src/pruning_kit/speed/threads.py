"""The number of threads that a model can be timed with: short trials, and the choice. No torch.

More threads are faster and noisier: every operator waits for the slowest core, and of a few
microseconds' work one interruption is most. So, before a run on a CPU, all threads are tried, then
half of them, and so on. A trial decodes with the whole model, twice, and with the smallest one, in
turns. Decode has the shortest operators, so it suffers first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pruning_kit.intervals import repeats
from pruning_kit.machine.typed import Count, Seconds

ROUNDS, FEWEST = 6, 4  # of a trial; fewer than the second tell no noise
SHARE_OF_ONE, SHARE_OF_ALL = 0.1, 0.25  # of the budget, for one trial and for all
STUDENT = 2.2  # of the 95 % interval from about a dozen rounds
SHARE_OF_DECODE = 0.5  # of a run's rounds

TryRound = Callable[[int], Sequence[float]]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a run: its time, the models that it times, the half-width of each ratio."""

    budget_s: float
    n_entries: int
    target: float


@dataclass(frozen=True, slots=True)
class Trial:
    """Short rounds with a number of threads.

    Attributes:
        threads: the number tried.
        decode_s: seconds per token of the whole model, of it again, and of the smallest (where
            there is another one), in each round.
        round_s: what a round took.
    """

    threads: Count
    decode_s: tuple[tuple[Seconds, ...], ...]
    round_s: Seconds

    def expected_half_width(self, wanted: Wanted) -> float:
        """The half-width to which a run with this number of threads would know decode ratios.

        The noise of the trial, spread over the rounds that the budget has time for; infinite after
        fewer than `FEWEST` rounds.
        """
        n_tried = len(self.decode_s)
        if n_tried < FEWEST:
            return math.inf
        log_R3 = np.log(self.decode_s)
        contrasts_RC = log_R3[:, 1:] - log_R3[:, :1]
        _, error_C = repeats.trimmed_mean(contrasts_RC)
        entry_s = self.round_s / log_R3.shape[1]
        n_rounds = max(1.0, SHARE_OF_DECODE * wanted.budget_s / (wanted.n_entries * entry_s))
        return STUDENT * float(error_C.max()) * math.sqrt(n_tried / n_rounds)


def candidates(offered: int) -> list[int]:
    """All threads, half of them, and so on to one."""
    return [offered >> halvings for halvings in range(offered.bit_length())]


def try_threads(
    offered: int, try_round: TryRound, clock: Clock, wanted: Wanted
) -> tuple[Trial, ...]:
    """Trials in falling order, until one promises the target or a share of the budget is spent.

    Where every trial was too slow to tell its noise, it goes on as long as fewer threads are
    faster: on a machine with others' work on it all threads may be very slow.

    Args:
        offered: the most threads that may be used.
        try_round: makes a short round with a number of threads; gives its times per token.
        clock: seconds, monotonic.
        wanted: what is asked of the run.
    """
    started = clock()
    trials: list[Trial] = []
    for threads in candidates(offered):
        trials.append(_try(threads, try_round, clock, SHARE_OF_ONE * wanted.budget_s))
        widths = [trial.expected_half_width(wanted) for trial in trials]
        if widths[-1] <= wanted.target:
            break
        is_told = min(widths) < math.inf
        is_slower = len(trials) > 1 and trials[-1].round_s >= trials[-2].round_s
        is_spent = clock() - started > SHARE_OF_ALL * wanted.budget_s
        if (is_told and is_spent) or (is_slower and not is_told):
            break
    return tuple(trials)


def _try(threads: int, try_round: TryRound, clock: Clock, limit_s: float) -> Trial:
    """Rounds until there are enough or the time is over; a first one, not kept, warms up."""
    started = clock()
    try_round(threads)
    rounds: list[tuple[float, ...]] = []
    while len(rounds) < ROUNDS and clock() - started < limit_s:
        rounds.append(tuple(try_round(threads)))
    return Trial(threads, tuple(rounds), (clock() - started) / (len(rounds) + 1))


def choose(trials: Sequence[Trial], wanted: Wanted) -> Trial:
    """The most threads that promise the target, else the least noisy.

    Where no trial tells its noise it is the fastest.
    """
    widths = {trial.threads: trial.expected_half_width(wanted) for trial in trials}
    for trial in trials:
        if widths[trial.threads] <= wanted.target:
            return trial
    return min(trials, key=lambda trial: (widths[trial.threads], trial.round_s))
