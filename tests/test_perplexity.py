"""The walk: shared prefixes cost nothing in exactness, and memory stays small."""

import weakref

import pytest
import torch
from families import N_BLOCKS, random_tokens, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reference import naive_nll_sums
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plans.paths import count_block_calls
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import subsets
from pruning_kit.walk.reference import ReferenceKernel, token_nll
from pruning_kit.walk.sums import nll_sums
from pruning_kit.walk.walk import walk

TOKENS = random_tokens(2, 33)
FIRST_OUTPUT = 12
ALL = list(subsets(N_BLOCKS, range(N_BLOCKS + 1)))
plan_sets = st.integers(1, 7).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.sets(st.integers(0, n - 1)).map(lambda s: Plan(tuple(s))), min_size=1),
    )
)


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder(tiny_model("gpt2", attention="sdpa"))


def applied_blocks(plans, n_blocks):
    """What the walk did to each plan's state, as the list of blocks applied, and every call."""
    calls = []

    def apply(index, state, last):
        calls.append((index, last))
        return torch.cat([state, torch.tensor([index])])

    return {
        plan: state.tolist()
        for plan, state in walk(torch.empty(0, dtype=torch.long), apply, plans, n_blocks)
    }, calls


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
        for plan, state in walk(batch.hidden_BTD, batch.block, ALL, N_BLOCKS):
            alone = batch.hidden_BTD
            for block in plan.kept(N_BLOCKS):
                alone = batch.block(block, alone, last=False)
            assert torch.equal(state, alone)


@settings(deadline=None, max_examples=150)
@given(plan_sets)
def test_each_plan_gets_its_kept_blocks_in_order_whatever_the_set(case):
    n_blocks, plans = case
    found, calls = applied_blocks(plans, n_blocks)
    assert found == {plan: list(plan.kept(n_blocks)) for plan in plans}
    prefixes = {
        plan.kept(n_blocks)[: length + 1]
        for plan in plans
        for length in range(n_blocks - plan.size)
    }
    assert len(calls) == len(prefixes) == count_block_calls(plans, n_blocks)


@settings(deadline=None, max_examples=100)
@given(plan_sets)
def test_a_call_is_last_only_if_no_other_plan_reads_its_state(case):
    n_blocks, plans = case
    kept = [plan.kept(n_blocks) for plan in set(plans)]
    _, calls = applied_blocks(plans, n_blocks)
    alone = [
        blocks
        for blocks in kept
        if blocks and not any(other[: len(blocks)] == blocks for other in kept if other != blocks)
    ]
    assert sum(last for _, last in calls) == len(alone)


@pytest.mark.parametrize("n_blocks", range(1, 11))
def test_the_power_set_costs_two_to_the_l_minus_one_block_calls(n_blocks):
    assert count_block_calls(list(subsets(n_blocks, range(n_blocks + 1))), n_blocks) == (
        2**n_blocks - 1
    )


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

    plans = list(subsets(8, range(most + 1)))
    for _plan, result in walk(state(), lambda index, hidden, last: state(), plans, 8):
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
