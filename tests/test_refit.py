"""Refits: which projections, toward what, and when they are kept."""

from __future__ import annotations

import copy

import pytest
import torch
from bridging import CONTEXT, bridging_over, plain_nll, text_of, written_by
from families import NAMES, random_tokens, tiny_model

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.unit import ATTENTION, MLP
from pruning_kit.pruning.bridges.folding import Socket, find_sockets
from pruning_kit.pruning.bridges.gaps import Gap
from pruning_kit.pruning.recovered import pruned_copy
from pruning_kit.pruning.refit.stepwise import Step, Stepwise
from pruning_kit.pruning.refit.streams import Streams

PLAN = Plan((1,))


@pytest.mark.parametrize("name", NAMES)
def test_what_an_attention_adds_is_known_wherever_a_bridge_can_be_folded_in(name):
    decoder, ids = Decoder(tiny_model(name)), random_tokens(2, 16)
    attentions = find_sockets(decoder, ids, ATTENTION)
    for block, socket in find_sockets(decoder, ids, MLP).items():
        attention = attentions[block]
        assert isinstance(attention, Socket) == isinstance(socket, Socket), attention
        if isinstance(attention, Socket) and isinstance(socket, Socket):
            assert attention.factor == pytest.approx(socket.factor, rel=1e-3)


def test_attentions_that_a_norm_stands_behind_are_refused_with_the_reason():
    decoder = Decoder(tiny_model("gemma2"))
    assert find_sockets(decoder, random_tokens(2, 16), ATTENTION)[0] == (
        "what its attention gives is changed before or after it is added to the stream"
    )


def all_of_it(tokens, targets, first):
    """Tokens to read and the last one to predict."""
    return torch.cat([tokens[:, : first + targets.shape[1]], targets[:, -1:]], dim=1)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_a_stream_ends_in_the_models_own_nll(name):
    model, ids = tiny_model(name), random_tokens(6, CONTEXT)
    text = text_of(ids)
    streams = Streams.open(Decoder(model), text)
    streams.advance()
    expected = 0.0
    for number in range(len(text.windows)):
        tokens, targets, first = text.tensors(number, number + 1)
        expected += plain_nll(model, all_of_it(tokens, targets, first), first).sum()
    torch.testing.assert_close(streams.nll().sum(), expected, rtol=1e-5, atol=0)


def harmless(model):
    """The model with a block 1 that adds nothing, so that cutting it changes nothing."""
    block = model.transformer.h[1]
    for layer in (block.attn.c_proj, block.mlp.c_proj):
        layer.weight.data.zero_()
        layer.bias.data.zero_()
    return model


def stepwise_over(whole: Decoder, pruned: Decoder) -> Stepwise:
    texts = (text_of(written_by(whole.model, n, seed)) for n, seed in ((64, 2), (24, 3)))
    return Stepwise(whole, pruned, PLAN, *texts, torch.float32)


@pytest.mark.parametrize("part", [ATTENTION, MLP])
@torch.no_grad()
def test_a_projection_behind_the_gap_that_was_spoilt_is_found_again(part):
    whole = Decoder(harmless(tiny_model("gpt2")))
    pruned = pruned_copy(whole, PLAN, {})
    block = pruned.stack[2]
    layer = block.attn.c_proj if part == ATTENTION else block.mlp.c_proj
    whole_block = whole.stack[3]
    right = (whole_block.attn if part == ATTENTION else whole_block.mlp).c_proj.weight
    layer.weight += 0.3 * torch.randn(
        layer.weight.shape, generator=torch.Generator().manual_seed(1)
    )
    spoilt = float((layer.weight - right).norm())
    steps = {(step.block, step.part): step for step in stepwise_over(whole, pruned).run()}
    found = (block.attn if part == ATTENTION else block.mlp).c_proj.weight
    assert steps[3, part].helps
    assert float((found - right).norm()) < 0.05 * spoilt


@torch.no_grad()
def test_steps_are_kept_where_they_lower_the_nll_and_undone_elsewhere(monkeypatch):
    whole = Decoder(tiny_model("gpt2"))
    pruned = pruned_copy(whole, PLAN, bridging_over(whole.model).bridges(PLAN).forms)
    before = copy.deepcopy(pruned.model.state_dict())
    stepwise = stepwise_over(whole, pruned)
    assert stepwise.steps == [
        (gap, part) for gap in (Gap(0, 2), Gap(2, 3), Gap(3, 4)) for part in (ATTENTION, MLP)
    ]
    steps = list(stepwise.run())
    assert [(step.block, step.part) for step in steps] == [
        (gap.block, part) for gap, part in stepwise.steps
    ]
    nats = steps[0].nats_before
    for step in steps:
        assert step.nats_before == nats
        nats = min(nats, step.nats)
    kept = {(step.block, step.part) for step in steps if step.helps}
    assert 0 < len(kept) < len(steps)
    changed = {
        name
        for name, value in pruned.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    place = {0: 0, 2: 1, 3: 2}
    assert changed == {
        f"transformer.h.{place[block]}.{'attn' if part == ATTENTION else 'mlp'}.c_proj.{kind}"
        for block, part in kept
        for kind in ("weight", "bias")
    }
    again = float(Streams.open(pruned, text_of(written_by(whole.model, 24, 3))).nll().mean())
    assert again == pytest.approx(nats, rel=1e-6)


def test_a_step_whose_forward_failed_is_not_kept():
    assert not Step(3, MLP, 4.0, float("nan")).helps
    assert not Step(3, MLP, 4.0, 4.0).helps
