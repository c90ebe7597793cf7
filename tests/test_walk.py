"""The walk: shared prefixes cost nothing in exactness, and memory stays small."""

import weakref
from itertools import zip_longest

import pytest
import torch
from families import N_BLOCKS, random_tokens, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reference import naive_nll_sums
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plans.paths import as_cut, count_calls, parse_path, plain
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import subsets
from pruning_kit.plans.unit import Unit
from pruning_kit.walk.measures import NLL, Measure
from pruning_kit.walk.reference import ReferenceKernel, token_nll
from pruning_kit.walk.sums import nll_sums, window_sums
from pruning_kit.walk.walk import walk

TOKENS = random_tokens(2, 33)
FIRST_OUTPUT = 12
ALL = list(subsets(N_BLOCKS, range(N_BLOCKS + 1)))


@st.composite
def path_sets(draw):
    """Paths through up to 7 blocks: sublayers removed here and there, gaps bridged or not."""
    n_blocks = draw(st.integers(1, 7))
    units = st.builds(Unit, st.integers(0, n_blocks - 1), st.sampled_from(["", "", "a", "m"]))
    plans = draw(st.lists(st.lists(units).map(Plan.of), min_size=1))
    bridged = draw(st.lists(st.booleans(), min_size=len(plans), max_size=len(plans)))
    paths = [as_cut(plan, n_blocks) for plan in plans]
    return [over_gaps(path) if b else path for path, b in zip(paths, bridged, strict=True)]


def over_gaps(path):
    """The path with every gap bridged."""
    pairs = zip_longest(path, path[1:])
    return tuple(
        call._replace(to=after.block) if after and after.block > call.block + 1 else call
        for call, after in pairs
    )


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder(tiny_model("gpt2", attention="sdpa"))


def applied(paths):
    """What the walk did to each path's state, as the calls applied, and every call."""
    calls = []

    def apply(call, state, last):
        calls.append((call, last))
        return (*state, call)

    return dict(walk((), apply, paths)), calls


def test_every_plan_equals_the_naive_loop_over_cut_models_exactly(decoder):
    walked = nll_sums(
        ReferenceKernel(decoder, exact_head=True),
        ALL,
        N_BLOCKS,
        TOKENS[:1],
        TOKENS[:1, FIRST_OUTPUT + 1 :],
        FIRST_OUTPUT,
    )
    naive = naive_nll_sums(decoder, ALL, TOKENS[:1], FIRST_OUTPUT)
    # the naive loop rounds its mean to float32 once (6e-8) after adding up in an order of its own
    torch.testing.assert_close(walked, naive, rtol=1e-6, atol=0)


def test_the_state_of_every_plan_is_the_cut_models_to_the_last_bit(decoder):
    batch = ReferenceKernel(decoder, exact_head=True).open(TOKENS, TOKENS[:, 1:], 0)
    with torch.no_grad():
        paths = [as_cut(plan, N_BLOCKS) for plan in ALL]
        for path, state in walk(batch.hidden_BTD, batch.apply, paths):
            alone = batch.hidden_BTD
            for call in path:
                alone = batch.apply(call, alone, last=False)
            assert torch.equal(state, alone)


@settings(deadline=None, max_examples=200)
@given(path_sets())
def test_each_path_gets_its_calls_in_order_and_equal_beginnings_are_computed_once(paths):
    found, calls = applied(paths)
    assert found == {path: path for path in paths}
    beginnings = {path[: length + 1] for path in paths for length in range(len(path))}
    assert len(calls) == len(beginnings) == count_calls(paths)


@settings(deadline=None, max_examples=100)
@given(path_sets())
def test_a_call_is_last_only_if_no_other_path_reads_its_state(paths):
    _, calls = applied(paths)
    alone = [
        path
        for path in set(paths)
        if path and not any(other[: len(path)] == path for other in set(paths) - {path})
    ]
    assert sum(last for _, last in calls) == len(alone)


class Formed(ReferenceKernel):
    """Blocks have a form of their own for each later block that they bridge to."""

    def open(self, tokens_BT, targets_BS, first_output):
        batch = super().open(tokens_BT, targets_BS, first_output)
        plainly = batch.apply

        def apply(call, hidden_BTD, last):
            if call.is_plain_block:
                return plainly(call, hidden_BTD, last)
            return plainly(plain(call.block), hidden_BTD, last) * call.to

        batch.apply = apply
        return batch


def test_a_bridged_form_of_a_block_is_walked_beside_the_plain_one(decoder):
    kernel = Formed(decoder, exact_head=True)
    windows = (TOKENS[:, :32], TOKENS[:, FIRST_OUTPUT + 1 :], FIRST_OUTPUT)
    texts = ["0 1 2 3", "0 1 3", "0 1>3 3", "0>2 2 3", "0>3 3"]
    paths = [parse_path(text) for text in texts]
    together = window_sums(kernel, paths, *windows)["nll"]
    assert len({float(total) for total in together.sum(dim=1)}) == len(paths)
    for path, sums in zip(paths, together, strict=True):
        torch.testing.assert_close(window_sums(kernel, [path], *windows)["nll"][0], sums)
    assert count_calls(paths) == 12


def test_measures_are_added_up_side_by_side(decoder):
    kernel = ReferenceKernel(decoder, exact_head=True)
    windows = (TOKENS[:, :32], TOKENS[:, FIRST_OUTPUT + 1 :], FIRST_OUTPUT)
    count = Measure("tokens", "1", lambda ending: torch.ones_like(ending.nll))
    paths = [as_cut(plan, N_BLOCKS) for plan in ALL]
    sums = window_sums(kernel, paths, *windows, measures=(NLL, count))
    assert torch.equal(sums["nll"], nll_sums(kernel, ALL, N_BLOCKS, *windows))
    assert (sums["tokens"] == windows[1].shape[1]).all()


@pytest.mark.parametrize("n_blocks", range(1, 11))
def test_the_power_set_costs_two_to_the_l_minus_one_block_calls(n_blocks):
    plans = subsets(n_blocks, range(n_blocks + 1))
    assert count_calls(as_cut(plan, n_blocks) for plan in plans) == 2**n_blocks - 1


@pytest.mark.parametrize(("n_blocks", "most", "calls"), [(6, 6, 63), (8, 2, 92), (12, 3, 793)])
def test_smaller_sets_share_their_beginnings_too(n_blocks, most, calls):
    plans = subsets(n_blocks, range(most + 1))
    assert count_calls(as_cut(plan, n_blocks) for plan in plans) == calls


@pytest.mark.parametrize("most", [0, 1, 2, 4, 8])
def test_at_most_two_states_more_than_blocks_removed_live_at_once(most):
    alive: set[int] = set()
    peak = 0

    def state():
        nonlocal peak
        made = torch.zeros(1)
        alive.add(id(made))
        weakref.finalize(made, alive.discard, id(made))
        peak = max(peak, len(alive))
        return made

    paths = [as_cut(plan, 8) for plan in subsets(8, range(most + 1))]
    for _path, result in walk(state(), lambda call, hidden, last: state(), paths):
        del result
    assert 1 < peak <= most + 2
    assert not alive


def test_duplicates_and_order_are_the_callers(decoder):
    kernel = ReferenceKernel(decoder, exact_head=True)
    plans = [Plan((1,)), Plan(), Plan((1,)), Plan((0, 2))]
    windows = (TOKENS[:, :32], TOKENS[:, FIRST_OUTPUT + 1 :], FIRST_OUTPUT)
    sums = nll_sums(kernel, plans, N_BLOCKS, *windows)
    single = [nll_sums(kernel, [plan], N_BLOCKS, *windows)[0] for plan in plans]
    assert torch.equal(sums, torch.stack(single))
    assert sums.shape == (4, 2) and sums.dtype == torch.float64


def test_the_models_own_tail_gives_the_same_sums(decoder):
    windows = (TOKENS[:, :32], TOKENS[:, FIRST_OUTPUT + 1 :], FIRST_OUTPUT)
    fast, own = (
        nll_sums(ReferenceKernel(decoder, exact_head=exact), ALL, N_BLOCKS, *windows)
        for exact in (True, False)
    )
    torch.testing.assert_close(fast, own, rtol=1e-6, atol=0)


def test_token_nll_reduces_in_float32():
    logits = torch.tensor([[4.0, 2.0, 1.0]], dtype=torch.bfloat16)
    expected = torch.tensor([[4.0, 2.0, 1.0]]).logsumexp(1) - 2.0
    assert token_nll(logits, torch.tensor([1])).dtype == torch.float32
    torch.testing.assert_close(token_nll(logits, torch.tensor([1])), expected)
