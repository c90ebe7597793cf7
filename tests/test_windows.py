"""Windows: every token but the first is scored exactly once, whatever the sizes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning_kit.errors import WindowError
from pruning_kit.inputs.windows import (
    Window,
    count_windows,
    sliding_windows,
    tokens_read,
    window_groups,
)


@st.composite
def sizes(draw):
    context = draw(st.integers(2, 40))
    return draw(st.integers(2, 300)), context, draw(st.integers(1, context))


@given(sizes())
def test_every_token_but_the_first_is_scored_exactly_once(case):
    n_tokens, context, stride = case
    windows = sliding_windows(n_tokens, context, stride)
    scored = [token for w in windows for token in range(w.first_target, w.stop)]
    assert scored == list(range(1, n_tokens))


@given(sizes())
def test_no_window_reads_more_than_the_context_or_beyond_what_it_scores(case):
    n_tokens, context, stride = case
    for window in sliding_windows(n_tokens, context, stride):
        assert 1 <= window.n_inputs <= context
        assert 0 <= window.first_output < window.n_inputs
        assert window.first_output + window.n_targets <= window.n_inputs
        assert window.start + window.n_inputs <= window.stop


@given(sizes())
def test_a_scored_token_has_at_least_context_minus_stride_tokens_before_it(case):
    n_tokens, context, stride = case
    for window in sliding_windows(n_tokens, context, stride)[1:]:
        assert window.first_target - window.start >= max(context - stride, 1)


@given(sizes())
def test_windows_are_counted_without_being_cut(case):
    assert count_windows(*case) == len(sliding_windows(*case))


@given(sizes(), st.integers(1, 20))
def test_the_first_windows_are_those_of_the_tokens_that_they_read(case, n_windows):
    n_tokens, context, stride = case
    first = sliding_windows(n_tokens, context, stride)[:n_windows]
    needed = min(n_tokens, tokens_read(n_windows, context, stride))
    assert sliding_windows(needed, context, stride) == first


@given(sizes(), st.integers(1, 9))
def test_groups_cover_the_windows_in_order_and_hold_one_shape(case, batch_size):
    windows = sliding_windows(*case)
    groups = window_groups(windows, batch_size)
    assert [i for first, end in groups for i in range(first, end)] == list(range(len(windows)))
    for first, end in groups:
        assert 1 <= end - first <= batch_size
        assert len({window.shape for window in windows[first:end]}) == 1


def test_the_windows_of_a_small_text_by_hand():
    assert sliding_windows(11, context=4, stride=2) == [
        Window(0, 4, 1, 4),
        Window(2, 6, 4, 4),
        Window(4, 8, 6, 4),
        Window(6, 10, 8, 4),
        Window(8, 11, 10, 4),
    ]


def test_wikitext2_test_has_561_windows_at_1024_and_512():
    windows = sliding_windows(287_644, 1024, 512)
    assert len(windows) == 561
    assert windows[1].shape == (1024, 511, 512)
    assert sum(window.n_targets for window in windows) == 287_643


def test_with_stride_equal_to_context_a_window_reads_one_token_before_its_first_target():
    assert [w.shape for w in sliding_windows(9, context=4, stride=4)] == [
        (4, 0, 3),
        (4, 0, 4),
        (2, 0, 1),
    ]


@pytest.mark.parametrize(
    ("n_tokens", "context", "stride", "message"),
    [
        (100, 1, 1, "cannot use a context of 1"),
        (100, 8, 0, "cannot use a stride of 0"),
        (100, 8, 9, "cannot use stride 9 with context 8"),
        (1, 8, 4, "cannot score a text of 1 token:"),
        (0, 8, 4, "cannot score a text of 0 tokens"),
    ],
)
def test_sizes_that_give_no_windows_are_refused(n_tokens, context, stride, message):
    with pytest.raises(WindowError) as error:
        sliding_windows(n_tokens, context, stride)
    assert message in str(error.value)
