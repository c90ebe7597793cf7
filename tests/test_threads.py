"""The number of threads for timing: trials under an injected clock, and the choice from them."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from pruning_kit.speed.threads import Trial, Wanted, candidates, choose, try_threads

WANTED = Wanted(budget_s=20.0, n_entries=8, target=0.02)


class Machine:
    """A clock, and short rounds whose time and noise go by the number of threads."""

    def __init__(self, round_s: Callable[[int], float], noise: Callable[[int], float]) -> None:
        self.round_s, self.noise, self.now = round_s, noise, 0.0
        self.tried: list[int] = []
        self.random = np.random.default_rng(1)

    def clock(self) -> float:
        return self.now

    def try_round(self, threads: int) -> tuple[float, ...]:
        self.tried.append(threads)
        self.now += self.round_s(threads)
        return tuple(0.004 * np.exp(self.random.normal(0, self.noise(threads), 3)))

    def choose(self, offered: int) -> int:
        trials = try_threads(offered, self.try_round, self.clock, WANTED)
        assert choose(trials, WANTED) == choose(trials, WANTED)
        return choose(trials, WANTED).threads


def test_candidates_are_all_threads_and_halves_of_them():
    assert candidates(1) == [1]
    assert candidates(2) == [2, 1]
    assert candidates(12) == [12, 6, 3, 1]


def test_all_threads_are_taken_where_they_promise_the_target_and_no_others_are_tried():
    quiet = Machine(lambda threads: 0.1, lambda threads: 0.005)
    assert quiet.choose(4) == 4
    assert quiet.tried == [4] * 7  # the first is not kept


def test_the_most_threads_that_promise_the_target_are_taken():
    noisy = Machine(lambda threads: 0.1, lambda threads: 0.2 if threads > 2 else 0.004)
    assert noisy.choose(8) == 2
    assert sorted(set(noisy.tried)) == [2, 4, 8]


def test_the_least_noisy_number_is_taken_where_none_promises_the_target():
    hopeless = Machine(lambda threads: 0.1, lambda threads: 0.1 * threads)
    assert hopeless.choose(4) == 1


def test_a_machine_on_which_all_threads_wait_for_others_is_timed_with_fewer():
    """Each round with two threads takes longer than a whole trial may."""
    busy = Machine(lambda threads: 4.0 if threads == 2 else 0.2, lambda threads: 0.01)
    assert busy.choose(2) == 1
    assert busy.tried == [2] + [1] * 7


def test_a_model_too_slow_for_trials_is_timed_with_the_fastest_number():
    large = Machine(lambda threads: 80.0 / threads, lambda threads: 0.01)
    assert large.choose(64) == 64
    assert large.tried == [64, 64, 32]


def test_trials_end_when_their_share_of_the_budget_is_spent():
    noisy = Machine(lambda threads: 0.4, lambda threads: 0.5)
    noisy.choose(1024)
    assert noisy.now <= 0.45 * WANTED.budget_s
    assert set(noisy.tried) < set(candidates(1024))


def test_the_promise_is_the_trials_noise_spread_over_the_rounds_of_the_budget():
    rounds = tuple((1.0, math.exp(0.1 * sign), 1.0) for sign in (1, -1, 1, -1))
    trial = Trial(2, rounds, round_s=0.3)
    error = 0.1 / math.sqrt(3)  # of four values of 0.1 with either sign
    n_rounds = 0.5 * 20.0 / (8 * 0.1)
    expected = 2.2 * error * math.sqrt(4 / n_rounds)
    assert trial.expected_half_width(WANTED) == pytest.approx(expected)
    assert Trial(2, rounds[:3], 0.3).expected_half_width(WANTED) == math.inf
