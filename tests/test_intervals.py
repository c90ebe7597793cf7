"""Intervals and tests against the plainest reference, laws, and coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.coverage import Design, measure
from pruning_kit.intervals import windows
from pruning_kit.intervals.windows import (
    Resampling,
    autocorrelation,
    block_length,
    circular_block_sums,
    draw_resampling,
    estimate,
    not_worse_than_best,
    pareto_front,
    ratio,
)

few = settings(max_examples=25, deadline=None)


def some_series(n_series, n_windows=60, seed=0):
    generator = np.random.default_rng(seed)
    targets = generator.integers(50, 600, n_windows).astype(float)
    means = generator.normal(0, 0.1, n_series)
    return (means[:, None] + generator.normal(0, 0.3, (n_series, n_windows))) * targets, targets


def naive_estimate(series, targets, resampling: Resampling, one_sided=False):
    """The definitions of docs/statistics.md in plain loops, one number at a time."""
    n_series, n_windows = series.shape
    length, total = resampling.block_length, targets.sum()
    values, errors, halves, t_data = [], [], [], []
    t_star = np.zeros((len(resampling.counts_RN), n_series))
    for c in range(n_series):
        value = series[c].sum() / total
        spread = 0.0
        for start in range(n_windows):
            rows = [(start + step) % n_windows for step in range(length)]
            spread += sum(series[c, n] - value * targets[n] for n in rows) ** 2
        error = math.sqrt(spread / length / (1 - length / n_windows)) / total
        for r, counts in enumerate(resampling.counts_RN):
            starts = [n for n in range(n_windows) for _ in range(int(counts[n]))]
            blocks = [[(s + step) % n_windows for step in range(length)] for s in starts]
            sums = [sum(series[c, n] for n in rows) for rows in blocks]
            sizes = [sum(targets[n] for n in rows) for rows in blocks]
            drawn = sum(sums) / sum(sizes)
            k = len(starts)
            squares = sum((a - drawn * b) ** 2 for a, b in zip(sums, sizes, strict=True))
            t_star[r, c] = (drawn - value) / (math.sqrt(squares * k / (k - 1)) / sum(sizes))
        values.append(value)
        errors.append(error)
        t_data.append(value / error)
        ranked = sorted(abs(t_star[:, c]))
        halves.append(error * ranked[math.ceil(0.95 * (len(ranked) - 1))])
    if not one_sided:
        t_data, t_star = [abs(t) for t in t_data], abs(t_star)
    n = len(t_star)
    p = [(1 + sum(t_star[:, c] >= t_data[c])) / (n + 1) for c in range(n_series)]
    adjusted = [0.0] * n_series
    floor = 0.0
    for c in sorted(range(n_series), key=lambda c: -t_data[c]):
        rest = [other for other in range(n_series) if t_data[other] <= t_data[c]]
        largest = t_star[:, rest].max(axis=1)
        floor = max(floor, (1 + sum(largest >= t_data[c])) / (n + 1))
        adjusted[c] = floor
    return values, errors, halves, p, adjusted


@pytest.mark.parametrize("one_sided", [False, True])
def test_the_bootstrap_equals_a_naive_loop(one_sided):
    series, targets = some_series(4)
    resampling = draw_resampling(60, n_resamples=40, seed=3)
    found = estimate(series, targets, resampling, one_sided)
    wanted = naive_estimate(series, targets, resampling, one_sided)
    for got, want in zip(
        (
            found.value_C,
            found.standard_error_C,
            found.half_width_C,
            found.p_C,
            found.adjusted_p_C,
        ),
        wanted,
        strict=True,
    ):
        np.testing.assert_allclose(got, want, rtol=1e-9)


def test_chunks_change_nothing(monkeypatch):
    series, targets = some_series(23)
    resampling = draw_resampling(60, n_resamples=100)
    whole = estimate(series, targets, resampling)
    monkeypatch.setattr(windows, "CHUNK_VALUES", 500)
    parts = estimate(series, targets, resampling)
    np.testing.assert_allclose(parts.half_width_C, whole.half_width_C, rtol=1e-12)
    np.testing.assert_array_equal(parts.adjusted_p_C, whole.adjusted_p_C)


@few
@given(st.integers(1, 12), st.integers(0, 10_000), st.booleans())
def test_p_values_for_all_are_never_below_those_for_each(n_series, seed, one_sided):
    series, targets = some_series(n_series, seed=seed)
    found = estimate(series, targets, draw_resampling(60, n_resamples=99), one_sided)
    assert (found.adjusted_p_C >= found.p_C).all()
    assert (found.p_C >= 0.01).all() and (found.adjusted_p_C <= 1).all()


@few
@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_the_order_of_series_does_not_matter(seed, shuffler):
    series, targets = some_series(9, seed=seed)
    order = list(range(9))
    shuffler.shuffle(order)
    resampling = draw_resampling(60, n_resamples=99)
    plain, moved = (estimate(rows, targets, resampling) for rows in (series, series[order]))
    np.testing.assert_allclose(moved.half_width_C, plain.half_width_C[order], rtol=1e-9)
    np.testing.assert_allclose(moved.adjusted_p_C, plain.adjusted_p_C[order])


@few
@given(st.floats(-5, 5), st.floats(0.1, 10))
def test_a_shift_moves_the_value_and_a_scale_stretches_the_interval(shift, scale):
    series, targets = some_series(2)
    resampling = draw_resampling(60, n_resamples=99)
    plain = estimate(series, targets, resampling)
    moved = estimate(scale * series + shift * targets, targets, resampling)
    np.testing.assert_allclose(moved.value_C, scale * plain.value_C + shift, atol=1e-9)
    np.testing.assert_allclose(moved.half_width_C, scale * plain.half_width_C, rtol=1e-6)


def test_no_difference_has_no_width_and_is_not_significant():
    series, targets = some_series(2)
    found = estimate(np.zeros_like(series), targets, draw_resampling(60))
    assert found.half_width_C.tolist() == [0.0, 0.0]
    assert found.p_C.tolist() == found.adjusted_p_C.tolist() == [1.0, 1.0]


def test_rounding_is_no_noise():
    series, targets = some_series(1)
    plans = series + np.array([[0.0], [0.57]]) * targets
    found = estimate(plans[1:] - plans[:1], targets, draw_resampling(60))
    assert found.value_C == pytest.approx([0.57]) and found.half_width_C.tolist() == [0.0]


def test_below_fifty_windows_there_are_values_and_nothing_else():
    series, targets = some_series(2, n_windows=49)
    assert draw_resampling(49) is None
    assert draw_resampling(50) is not None
    found = estimate(series, targets, None)
    np.testing.assert_array_equal(found.value_C, ratio(series, targets))
    assert np.isnan([found.half_width_C, found.p_C, found.adjusted_p_C]).all()
    assert not_worse_than_best(series, targets, None).all()


def test_no_series_give_no_estimates():
    found = estimate(np.empty((0, 60)), np.ones(60), draw_resampling(60))
    assert found.value_C.shape == found.adjusted_p_C.shape == (0,)


def test_the_same_seed_draws_the_same_blocks():
    first, second = draw_resampling(80, seed=4), draw_resampling(80, seed=4)
    np.testing.assert_array_equal(first.counts_RN, second.counts_RN)
    assert (first.counts_RN.sum(axis=1) == first.n_drawn).all()
    assert not np.array_equal(first.counts_RN, draw_resampling(80, seed=5).counts_RN)


def test_block_lengths_grow_with_the_cube_root():
    assert [block_length(n) for n in (50, 200, 500, 4000)] == [10, 15, 20, 40]


@few
@given(st.integers(1, 6), st.integers(6, 20))
def test_block_sums_run_on_from_the_end_to_the_start(length, n_windows):
    series = np.arange(2.0 * n_windows).reshape(2, n_windows) ** 2
    sums = circular_block_sums(series, length)
    for start in range(n_windows):
        rows = [(start + step) % n_windows for step in range(length)]
        np.testing.assert_allclose(sums[:, start], series[:, rows].sum(axis=1))


def test_the_group_of_the_best_holds_ties_and_leaves_out_the_clearly_worse():
    series, targets = some_series(1, n_windows=200)
    noise = np.random.default_rng(2).normal(0, 0.01, (3, 200)) * targets
    plans = series + noise + np.array([0.0, 0.0, 0.5])[:, None] * targets
    group = not_worse_than_best(np.vstack([plans, plans[:1]]), targets, draw_resampling(200))
    assert group.tolist() == [True, True, False, True]


def test_one_plan_alone_is_its_own_group():
    series, targets = some_series(1, n_windows=200)
    assert not_worse_than_best(series, targets, draw_resampling(200)).tolist() == [True]


def test_autocorrelation_of_an_autoregressive_series_is_found():
    shocks = np.random.default_rng(0).standard_normal(20_000)
    series = np.zeros(20_000)
    for n in range(1, 20_000):
        series[n] = 0.4 * series[n - 1] + shocks[n]
    assert autocorrelation(series + 7, np.ones(20_000)) == pytest.approx(0.4, abs=0.02)
    assert autocorrelation(np.full(60, 3.0), np.ones(60)) == 0.0


costs = st.lists(st.tuples(*[st.integers(0, 6).map(float)] * 3), min_size=1, max_size=30).map(
    np.array
)


@given(costs)
def test_the_front_holds_exactly_the_rows_that_no_other_beats(rows):
    front = pareto_front(rows)
    beats = (rows[:, None] <= rows).all(axis=2) & (rows[:, None] < rows).any(axis=2)
    np.testing.assert_array_equal(front, ~beats.any(axis=0))
    assert front.any()


@given(costs, st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_the_order(rows, shuffler):
    order = list(range(len(rows)))
    shuffler.shuffle(order)
    np.testing.assert_array_equal(pareto_front(rows[order]), pareto_front(rows)[order])


def test_rows_with_unknown_costs_are_never_on_the_front():
    rows = np.array([[1.0, np.nan], [2.0, 2.0], [3.0, 1.0], [3.0, 2.0]])
    assert pareto_front(rows).tolist() == [False, True, True, False]


def test_intervals_cover_in_a_small_simulation():
    found = measure(Design(200, 0.5, "normal", 60), seed=1)
    # Windows taken as independent would cover 74 %; sixty corpora tell that apart, not 93 from 95.
    assert found.perplexity >= 0.85 and found.ratio >= 0.85
    assert found.false_family <= 0.1 and found.best_in_group >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("n_windows", [200, 500])
@pytest.mark.parametrize("rho", [0.0, 0.25, 0.5])
def test_intervals_cover_the_truth_in_93_to_97_percent_of_2000_corpora(n_windows, rho):
    found = measure(Design(n_windows, rho, "normal", 2000), seed=1)
    assert 0.93 <= found.perplexity <= 0.97 and 0.93 <= found.ratio <= 0.97
    assert found.false_family <= 0.06 and found.best_in_group >= 0.94
