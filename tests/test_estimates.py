"""Estimates of how long a sweep takes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning_kit.reporting.words.numbers import duration
from pruning_kit.walk.estimates import measure_cost


class KernelElsewhere:
    """Stands for a kernel on another device than the tokens: one block takes 2 s, the head 3 s."""

    device = torch.device("meta")

    def __init__(self, clock):
        self.clock, self.devices = clock, set()

    def open(self, tokens_BT, targets_BS, first_output):
        self.devices |= {tokens_BT.device, targets_BS.device}
        self.hidden_BTD = torch.zeros(len(tokens_BT), 4, 2)
        return self

    def apply(self, call, hidden_BTD, last):
        self.clock.now += 2
        return hidden_BTD

    def nll(self, hidden_BTD):
        self.clock.now += 3
        return hidden_BTD


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_window_is_timed_on_the_kernels_device():
    clock = Clock()
    kernel = KernelElsewhere(clock)
    tokens = torch.zeros(2, 5, dtype=torch.int64)
    cost = measure_cost(kernel, tokens, tokens[:, 1:], 0, clock)
    assert kernel.devices == {kernel.device}
    assert (cost.block_s, cost.head_s) == (1.0, 1.5)
    assert cost.seconds(n_windows=10, block_calls=7, plans=8) == 10 * (7 * 1.0 + 8 * 1.5)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "1 s"),
        (40.2, "40 s"),
        (360, "6 min"),
        (12_000, "3 h 20 min"),
        (12 * 86_400, "12 days"),
        (700 * 86_400, "700 days"),
        (4 * 365.25 * 86_400, "4 years"),
        (999 * 365.25 * 86_400, "999 years"),
        (1e40, "more than a thousand years"),
        (math.inf, "more than a thousand years"),
        (math.nan, "an unknown time"),
    ],
)
def test_a_duration_is_said_in_words(seconds, words):
    assert duration(seconds) == words


@given(st.floats(min_value=0))
def test_no_duration_is_a_row_of_digits(seconds):
    assert sum(map(str.isdigit, duration(seconds))) <= 5
