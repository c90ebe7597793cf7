"""Fitting bridges: sums, solutions, strengths, and what becomes of sums that are of no use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from bridging import CONTEXT, bridging_over, calibration_of, reference, text_of
from families import N_BLOCKS, random_tokens, tiny_model
from hypothesis import given
from hypothesis import strategies as st

from pruning_kit.errors import DeviceError, PlanError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plans.paths import as_cut
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import subsets
from pruning_kit.pruning.bridges import fitting as fitting_module
from pruning_kit.pruning.bridges import moments as moments_module
from pruning_kit.pruning.bridges.bridging import Judgement
from pruning_kit.pruning.bridges.fitting import STRENGTHS, inputs_of
from pruning_kit.pruning.bridges.folding import find_sockets
from pruning_kit.pruning.bridges.gaps import Gap, bridged_path, gaps_of
from pruning_kit.pruning.bridges.moments import Moments, Rows, add_up, rows_of
from pruning_kit.pruning.bridges.ridge import error_of, solve
from pruning_kit.walk.walk import walk

CPU = torch.device("cpu")
PLANS = st.integers(1, 9).flatmap(
    lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)).map(tuple).map(Plan))
)


@given(PLANS)
def test_gaps_are_what_is_removed_behind_the_first_kept_block(drawn):
    n_blocks, plan = drawn
    gaps, kept = list(gaps_of(plan, n_blocks)), plan.kept(n_blocks)
    over = [block for gap in gaps for block in gap.plan.removed]
    assert over == [block for block in plan.removed if kept and block > kept[0]]
    assert all(gap.block in kept and (gap.to in kept or gap.to == n_blocks) for gap in gaps)
    assert all(list(gaps_of(gap.plan, n_blocks)) == [gap] for gap in gaps)
    assert [Gap.parse(str(gap)) for gap in gaps] == gaps


@given(PLANS, st.data())
def test_a_bridged_path_applies_the_same_blocks_as_the_path_as_cut(drawn, data):
    n_blocks, plan = drawn
    gaps = list(gaps_of(plan, n_blocks))
    forms = {gap: None for gap in gaps if data.draw(st.booleans())}
    path = bridged_path(plan, n_blocks, forms)
    assert [call.block for call in path] == list(plan.kept(n_blocks))
    assert [Gap(call.block, call.to) for call in path if call.to is not None] == list(forms)


@pytest.mark.parametrize("text", ["2>3", "2", "2a>4", "x", "4>2"])
def test_what_is_no_gap_is_refused(text):
    with pytest.raises(PlanError, match=f"{text}"):
        Gap.parse(text)


@given(st.integers(1, 6), st.data())
def test_live_states_with_bridges_stay_within_the_most_removed_and_two(n_blocks, data):
    plans = data.draw(
        st.lists(
            st.sets(st.integers(0, n_blocks - 1), max_size=n_blocks - 1).map(tuple).map(Plan),
            min_size=1,
        )
    )
    every = {Gap(b, to): None for b in range(n_blocks) for to in range(b + 2, n_blocks + 1)}
    paths = [as_cut(plan, n_blocks) for plan in plans]
    paths += [bridged_path(plan, n_blocks, every) for plan in plans]
    alive, most = 0, 0

    class State:
        def __init__(self):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self):
            nonlocal alive
            alive -= 1

    for _, state in walk(State(), lambda *_: State(), paths):
        del state
    assert most <= max(plan.size for plan in plans) + 2


def rows(n_rows: int, n_inputs: int, n_gaps: int, has_bias: bool) -> Rows:
    """Random rows, with the column that a bias has, as weighted rows have it."""
    generator = torch.Generator().manual_seed(0)
    inputs_NH = torch.randn(n_rows, n_inputs + has_bias, generator=generator)
    if has_bias:
        inputs_NH[:, -1] = torch.rand(n_rows, generator=generator) + 0.5
    return Rows(inputs_NH, torch.randn(n_rows, n_gaps, 3, generator=generator))


def moments_of(*pieces: Rows) -> Moments:
    gaps = [Gap(0, 2 + number) for number in range(pieces[0].targets_NGD.shape[1])]
    moments = Moments.zeros(gaps, pieces[0].inputs_NH.shape[1], 3, CPU)
    for piece in pieces:
        moments.add(piece)
    return moments


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_ridge_is_least_squares_with_a_penalty_on_all_but_the_bias(has_bias, strength):
    some = rows(40, 7, 2, has_bias)
    x, y = some.inputs_NH.double().numpy(), some.targets_NGD.double().numpy()
    penalty = np.sqrt(strength * np.mean(np.sum(x[:, :7] ** 2, axis=0)))
    padding = np.eye(x.shape[1])[:7] * penalty
    maps_GHD = solve(moments_of(some), strength, has_bias)
    for gap in range(2):
        padded_y = np.vstack([y[:, gap], np.zeros((7, 3))])
        expected = np.linalg.lstsq(np.vstack([x, padding]), padded_y, rcond=None)[0]
        np.testing.assert_allclose(maps_GHD[gap].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_bias_is_not_penalised():
    """However strong the ridge: what is constant is learnt, what is not is left."""
    some = rows(60, 5, 1, True)
    some.inputs_NH[:, -1] = 1.0
    some.targets_NGD[:] = 7.0
    (map_HD,) = solve(moments_of(some), 1e9, True)
    torch.testing.assert_close(map_HD[-1].float(), torch.full((3,), 7.0), rtol=1e-5, atol=0)
    assert map_HD[:-1].abs().max() < 1e-6


def test_moments_are_the_sums_over_all_tokens_in_panels_and_in_pieces(monkeypatch):
    monkeypatch.setattr(moments_module, "PANEL", 3)
    some = rows(40, 7, 2, True)
    pieces = [Rows(some.inputs_NH[a:b], some.targets_NGD[a:b]) for a, b in ((0, 9), (9, 40))]
    moments = moments_of(*pieces)
    x, y = some.inputs_NH.double(), some.targets_NGD.double()
    torch.testing.assert_close(moments.products_HH.tril(), (x.t() @ x).tril(), rtol=1e-5, atol=1e-5)
    sides = torch.einsum("nh,ngd->ghd", x, y)
    torch.testing.assert_close(moments.sides_GHD, sides, rtol=1e-5, atol=1e-5)


def test_an_error_is_the_mean_square_of_what_a_map_leaves():
    some = rows(20, 4, 2, False)
    maps_GHD = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for place, map_HD in enumerate(maps_GHD):
        left_ND = some.inputs_NH @ map_HD.float() - some.targets_NGD[:, place]
        expected = float(left_ND.square().mean())
        assert error_of(map_HD, some, place) == pytest.approx(expected, rel=1e-5)


def test_some_gaps_of_a_block_are_solved_as_among_all():
    moments = moments_of(rows(40, 7, 3, True))
    every, some = solve(moments, 1e-3, True), solve(moments, 1e-3, True, places=[2, 0])
    torch.testing.assert_close(some, every[[2, 0]])


@pytest.mark.parametrize("name", ["gpt2", "llama", "falcon"])
def test_moments_of_a_model_are_those_of_its_own_forward_token_by_token(name):
    """Hooks on the plain model give activations and streams; the sums are made in float64."""
    model = tiny_model(name)
    decoder, ids = Decoder(model), random_tokens(6, CONTEXT)
    sockets = {1: find_sockets(decoder, ids[:, :16])[1]}
    gaps = {1: [Gap(1, 3), Gap(1, 4)]}
    sums = add_up(reference(model), inputs_of(text_of(ids), 2), gaps, sockets)[1]
    tokens = torch.cat([w[0] for w in inputs_of(text_of(ids), 1)])
    x, streams = forward_of(decoder, tokens)
    after = streams[2].double()
    if sockets[1].has_bias:
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    weight = 1 / after.var(dim=1, keepdim=True)
    torch.testing.assert_close(
        sums.products_HH.tril(), (x.t() @ (weight * x)).tril(), rtol=1e-4, atol=1e-3
    )
    for gap, side_HD in zip(gaps[1], sums.sides_GHD, strict=True):
        expected = x.t() @ (weight * (streams[gap.to].double() - after))
        torch.testing.assert_close(side_HD, expected, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def forward_of(decoder: Decoder, tokens):
    """What enters block 1's projection, and the stream before each block and after the last."""
    activations, streams = [], []
    hooks = [
        block.register_forward_pre_hook(
            lambda _, args, kwargs: streams.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        for block in decoder.stack
    ]
    hooks.append(decoder.norm.register_forward_pre_hook(lambda _, args: streams.append(args[0])))
    layer = decoder.stack[1].get_submodule(decoder.family.projection)
    hooks.append(layer.register_forward_pre_hook(lambda _, args: activations.append(args[0])))
    decoder.model(tokens, use_cache=False)
    for hook in hooks:
        hook.remove()
    return activations[0].flatten(0, -2).double(), [each.flatten(0, 1) for each in streams]


@pytest.fixture(scope="module")
def model():
    return tiny_model("gpt2")


@pytest.fixture(scope="module")
def fitted(model):
    """All gaps of the tiny model fitted, its plans judged."""
    found = bridging_over(model)
    plans = [*subsets(N_BLOCKS, range(1, N_BLOCKS))]
    fits = list(found.fit(plans))
    found.judge(plans)
    assert sorted(fit.gap for fit in fits) == sorted(found.fits)
    return found


def test_bridges_help_on_text_that_the_whole_model_knows(fitted):
    helped = [gap for gap, fit in fitted.fits.items() if fit.form is not None]
    assert len(fitted.fits) == 6 and len(helped) >= 4
    assert any(one.helps for one in fitted.judged.values())


def test_a_gap_is_bridged_only_where_that_is_better_and_by_a_strength_that_was_offered(fitted):
    for fit in fitted.fits.values():
        assert (fit.form is None) == (fit.strength is None)
        if fit.form is None:
            assert fit.nats == fit.nats_as_cut
        else:
            assert fit.nats < fit.nats_as_cut and fit.strength in STRENGTHS


def test_a_plan_is_judged_by_the_walk_over_its_bridged_path(fitted):
    for plan, found in fitted.judged.items():
        expected = fitted.fitter.nats([as_cut(plan, N_BLOCKS), fitted.path(plan)])
        assert [found.nats_as_cut, found.nats] == pytest.approx(expected, rel=1e-6)


def test_gaps_alone_are_judged_as_they_were_fitted(fitted):
    for gap, fit in fitted.fits.items():
        if fit.form is not None:
            judged = fitted.judged[gap.plan]
            assert judged.nats == pytest.approx(fit.nats, rel=1e-6)


def test_plans_without_a_bridge_are_not_judged_and_never_better_bridged(fitted):
    for plan in (Plan((0,)), Plan((0, 1)), Plan()):
        assert plan not in fitted.judged and not fitted.helps(plan)


def test_groups_of_gaps_within_little_memory_give_the_same_fits(model, fitted, monkeypatch):
    monkeypatch.setattr(fitting_module, "CPU_GROUP_BYTES", 1)
    alone = bridging_over(model)
    plans = [*subsets(N_BLOCKS, range(1, N_BLOCKS))]
    assert [len(group) for group in alone.fitter._groups(alone.gaps_to_fit(plans))] == [1] * 6
    for fit in alone.fit(plans):
        other = fitted.fits[fit.gap]
        assert fit.strength == other.strength
        assert fit.nats == pytest.approx(other.nats, rel=1e-5)


def test_weights_are_rounded_to_the_format_of_the_export(model):
    found = bridging_over(model, torch.float16)
    for fit in found.fit([Plan((1,)), Plan((2, 3))]):
        if fit.form is not None:
            assert all(torch.equal(one, one.half().float()) for one in fit.form)


def test_the_bridges_of_one_plan_are_those_that_help_it(fitted):
    plan = next(plan for plan, one in sorted(fitted.judged.items()) if one.helps)
    bridges = fitted.bridges(plan)
    assert bridges.judgement == fitted.judged[plan]
    assert set(bridges.forms) == set(bridges.fits) <= set(gaps_of(plan, N_BLOCKS))
    assert bridges.forms


def test_a_plan_that_is_better_as_cut_is_refused_with_both_figures(fitted):
    plan = next(plan for plan, one in sorted(fitted.judged.items()) if one.helps)
    worse = replace(fitted, judged={plan: Judgement(2.5, 2.75)})
    with pytest.raises(PlanError) as refused:
        worse.bridges(plan)
    assert str(refused.value) == (
        f"cannot bridge the gaps of {plan}: 2.7500 nats per token of tokens with bridges, 2.5000 "
        "as cut. Prune with `bridges=None`."
    )


def test_a_plan_without_a_kept_block_before_what_is_removed_is_refused(fitted):
    with pytest.raises(PlanError) as refused:
        fitted.bridges(Plan((0, 1)))
    assert str(refused.value) == (
        "cannot bridge the gaps of 0+1: no kept block stands before a removed one. Prune with "
        "`bridges=None`."
    )
    with pytest.raises(PlanError, match="cannot remove block 7: the model has 4 blocks"):
        fitted.bridges(Plan((7,)))


def test_a_block_with_experts_before_the_gap_is_the_reason_that_is_given():
    found = bridging_over(tiny_model("qwen2_moe"))
    with pytest.raises(PlanError) as refused:
        found.bridges(Plan((1,)))
    assert str(refused.value) == (
        "cannot bridge the gaps of 1: into block 0, its MLP has no single output projection. "
        "Prune with `bridges=None`."
    )


def test_a_family_without_a_socket_has_no_bridges_and_its_reason():
    with pytest.raises(AssertionError) as refused:
        bridging_over(tiny_model("gemma2"))
    assert (
        "into no block of this gemma2 model: what its MLP gives is changed before or after it is "
        "added to the stream"
    ) in str(refused.value)


def test_singular_sums_have_no_solution_where_the_ridge_is_too_weak():
    some = rows(40, 7, 1, False)
    some.inputs_NH[:, 1] = some.inputs_NH[:, 0]
    assert solve(moments_of(some), 1e-3, False).isfinite().all()
    empty = rows(40, 7, 1, False)
    empty.inputs_NH[:] = 0
    assert solve(moments_of(empty), 1e-3, False) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_sums_have_no_solution(value):
    for field in ("inputs_NH", "targets_NGD"):
        some = rows(40, 7, 1, True)
        getattr(some, field)[3] = value
        assert solve(moments_of(some), 1e-3, True) is None


def test_activations_that_are_no_numbers_give_no_bridge_and_the_reason(model):
    """A kernel that computes nothing but NaN from block 1's projection on."""
    kernel = reference(model)

    class Broken(type(kernel)):
        def open(self, *inputs):
            batch = super().open(*inputs)
            plainly = batch.activations

            def activations(block, hidden_BTD):
                inputs_BTF, after_BTD = plainly(block, hidden_BTD)
                return inputs_BTF * float("nan"), after_BTD

            batch.activations = activations
            return batch

    found = bridging_over(model, kernel=Broken(kernel.decoder, exact_head=True))
    with pytest.raises(PlanError) as refused:
        found.bridges(Plan((1,)))
    (fit,) = found.fits.values()
    assert fit.form is None and fit.strength is None and fit.nats == fit.nats_as_cut
    assert str(refused.value) == (
        f"cannot bridge the gaps of 1: no bridge over 0>2 takes down the {fit.nats_as_cut:.4f} "
        "nats per token of tokens. Prune with `bridges=None`."
    )


def test_a_fitting_text_of_few_tokens_is_fitted_without_harm(model):
    calibration = calibration_of(model)
    few = replace(calibration, fitting=text_of(random_tokens(1, 10)))
    found = bridging_over(model, calibration=few)
    for fit in found.fit([Plan((1,)), Plan((2, 3))]):
        assert fit.nats <= fit.nats_as_cut


def test_a_device_without_room_for_many_gaps_fits_fewer_at_a_time(model, fitted, monkeypatch):
    tried = out_of_memory_above(monkeypatch, most=2)
    found = bridging_over(model)
    for fit in found.fit([Plan((1,)), Plan((2,)), Plan((3,)), Plan((1, 2))]):
        assert fit.strength == fitted.fits[fit.gap].strength
    assert tried == [4, 2, 2]


def test_a_device_without_room_for_a_single_gap_is_said(model, monkeypatch):
    out_of_memory_above(monkeypatch, most=0)
    with pytest.raises(DeviceError) as refused:
        list(bridging_over(model).fit([Plan((1,)), Plan((2,))]))
    assert str(refused.value) == (
        "cannot fit the bridge over 0>2 on cpu: its memory is full. Choose another `device`, or "
        "leave out `bridges`."
    )


def out_of_memory_above(monkeypatch, most):
    """Lets no more gaps be summed at a time; returns how many were tried."""
    tried, plainly = [], fitting_module.add_up

    def add_up_few(kernel, text, gaps, sockets):
        tried.append(sum(map(len, gaps.values())))
        if tried[-1] > most:
            raise torch.OutOfMemoryError("full")
        return plainly(kernel, text, gaps, sockets)

    monkeypatch.setattr(fitting_module, "add_up", add_up_few)
    return tried


def test_bridges_that_were_fitted_elsewhere_are_judged_too(model, fitted):
    """As after a run was read back: the kernel has not seen the forms yet."""
    plan = Plan((1, 3))
    again = bridging_over(model)
    again.fits.update(fitted.fits)
    again.judge([plan, Plan((2, 3))])
    for one in (plan, Plan((2, 3))):
        assert again.judged[one].nats == pytest.approx(fitted.judged[one].nats, rel=1e-6)


def test_rows_of_a_gap_do_not_depend_on_which_others_are_asked_for(model):
    decoder, ids = Decoder(model), random_tokens(2, CONTEXT)
    sockets = find_sockets(decoder, ids[:, :16])
    inputs = next(inputs_of(text_of(ids), 2))
    alone = dict(rows_of(reference(model), inputs, {1: [Gap(1, 3)]}, sockets))[1]
    among = dict(
        rows_of(
            reference(model),
            inputs,
            {0: [Gap(0, 2)], 1: [Gap(1, 3), Gap(1, 4)], 2: [Gap(2, 4)]},
            sockets,
        )
    )[1]
    assert torch.equal(alone.inputs_NH, among.inputs_NH)
    assert torch.equal(alone.targets_NGD[:, 0], among.targets_NGD[:, 0])
