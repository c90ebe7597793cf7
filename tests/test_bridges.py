"""Bridges: a bridged path is a model that was really cut and folded, in every family."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from bridging import every_form, folded_by_hand, plain_nll, reference
from families import N_BLOCKS, NAMES, random_tokens, tiny_model, widened

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.kernels import fastest
from pruning_kit.plans.paths import as_cut, plain
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import subsets
from pruning_kit.pruning.bridges.folding import Socket, find_sockets
from pruning_kit.pruning.bridges.gaps import Gap, bridged_path
from pruning_kit.walk.sums import window_sums

CPU = torch.device("cpu")
TOKENS, FIRST_OUTPUT = random_tokens(3, 33, seed=5), 12
FITTED = random_tokens(16, 32, seed=6)
PLANS = [*subsets(N_BLOCKS, range(1, N_BLOCKS))]
FEW = [Plan((1,)), Plan((2,)), Plan((1, 3)), Plan((2, 3))]
"""A gap within, one at the end, two at once; every family that has bridges has one for some."""

EXPERTS = "its MLP has no single output projection"
NORM = "what its MLP gives is changed before or after it is added to the stream"
REFUSED = {
    **{(name, block): EXPERTS for name in ("mixtral", "mixtral-routers") for block in range(4)},
    **{
        (name, block): NORM
        for name in ("gemma2", "gemma3_text", "olmo2", "olmo3", "opt-projected")
        for block in range(4)
    },
    **{("qwen2_moe", block): EXPERTS for block in (0, 2, 3)},
    **{("qwen2_moe-step", block): EXPERTS for block in (1, 3)},
    **{("qwen3_moe", block): EXPERTS for block in (0, 3)},
    ("qwen3_moe-step", 1): EXPERTS,
}
"""Blocks that no bridge can be folded into, and why."""
BRIDGED = [name for name in NAMES if any((name, block) not in REFUSED for block in range(4))]


def offered_kernels(decoder: Decoder) -> list:
    """Every way that this machine has to compute a model in float32."""
    plain = reference(decoder.model)
    return [plain, *(make() for make in fastest._candidates(plain, torch.float32, CPU, []))]


@pytest.mark.parametrize("name", NAMES)
def test_into_which_blocks_a_bridge_can_be_folded(name):
    found = find_sockets(Decoder(tiny_model(name)), TOKENS[:, :16])
    why = {(name, block): one for block, one in found.items() if isinstance(one, str)}
    assert why == {key: reason for key, reason in REFUSED.items() if key[0] == name}


@pytest.mark.parametrize("name", NAMES)
def test_what_the_block_multiplies_its_mlp_by_is_found(name):
    """Granite has a factor, the others have none."""
    sockets = find_sockets(Decoder(tiny_model(name)), TOKENS[:, :16]).values()
    factors = [one.factor for one in sockets if isinstance(one, Socket)]
    assert factors == pytest.approx([0.5 if name == "granite" else 1.0] * len(factors), rel=1e-4)


def parity(name: str, plans: list[Plan] = PLANS, **changes: int) -> None:
    """Bridged subsets, by every kernel, beside a model that was cut and folded by hand."""
    decoder = Decoder(tiny_model(name, **changes))
    projection = decoder.family.projection
    assert projection is not None
    forms = every_form(decoder, FITTED)
    paths = {plan: bridged_path(plan, N_BLOCKS, forms) for plan in plans}
    paths = {plan: path for plan, path in paths.items() if path != as_cut(plan, N_BLOCKS)}
    assert paths
    expected = torch.stack(
        [
            plain_nll(folded_by_hand(decoder.model, projection, plan, forms), TOKENS, FIRST_OUTPUT)
            for plan in paths
        ]
    )
    windows = (TOKENS[:, :-1], TOKENS[:, FIRST_OUTPUT + 1 :], FIRST_OUTPUT)
    for kernel in offered_kernels(decoder):
        for gap, form in forms.items():
            kernel.learn(gap.call, form)
        sums = window_sums(kernel, list(paths.values()), *windows)["nll"]
        off = float(((sums - expected) / expected).abs().max())
        assert off <= 1e-5, kernel.name


IN_FULL = ("gpt2", "llama", "granite")
OTHERS = [name for name in BRIDGED if name not in IN_FULL]


@pytest.mark.parametrize("name", OTHERS)
def test_bridged_subsets_of_every_family_are_models_that_were_cut_and_folded(name):
    parity(name, FEW)


@pytest.mark.parametrize(
    "name", [*IN_FULL, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_every_bridged_subset_is_a_model_that_was_cut_and_folded(name):
    parity(name)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_wider_model_too_whose_layers_fill_the_tiles_of_a_processor(name):
    parity(name, **widened(name))


@pytest.mark.parametrize("name", BRIDGED)
def test_a_form_adds_its_map_of_the_activations_to_the_stream_and_nothing_else(name):
    decoder = Decoder(tiny_model(name))
    kernel = reference(decoder.model)
    batch = kernel.open(TOKENS[:, :-1], TOKENS[:, 1:], 0)
    hidden_BTD = batch.hidden_BTD
    for block, socket in find_sockets(decoder, TOKENS[:, :16]).items():
        after_BTD = batch.apply(plain(block), hidden_BTD, False)
        if isinstance(socket, Socket):
            inputs_BTH, _ = batch.activations(block, hidden_BTD)
            if socket.has_bias:
                inputs_BTH = F.pad(inputs_BTH, (0, 1), value=1.0)
            map_HD = random_map(inputs_BTH.shape[-1], after_BTD.shape[-1])
            call = Gap(block, N_BLOCKS).call
            kernel.learn(call, socket.fold(map_HD, torch.float32))
            bridged_BTD = batch.apply(call, hidden_BTD, False)
            moved_BTD = inputs_BTH @ map_HD
            scale = float(torch.stack([moved_BTD, after_BTD]).abs().max())
            off_BTD = bridged_BTD - (after_BTD + moved_BTD)
            assert float(off_BTD.abs().max()) <= 1e-5 * scale
        hidden_BTD = after_BTD


def random_map(n_inputs: int, width: int) -> torch.Tensor:
    return torch.randn(n_inputs, width, generator=torch.Generator().manual_seed(0))
