"""Apple's MPS, as far as it can be had elsewhere: no float64 reaches it."""

from __future__ import annotations

import copy

import pytest
import torch
from apple import MPS, Mps, OnMps
from bridging import bridging_over, calibration_of
from families import N_BLOCKS, random_tokens, tiny_model

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.machine import devices
from pruning_kit.plans.paths import as_cut
from pruning_kit.plans.plan import Plan
from pruning_kit.walk.reference import ReferenceKernel
from pruning_kit.walk.sums import window_sums


def moved(model):
    copied = copy.deepcopy(model)
    for module in copied.modules():
        for name, weight in [*module._parameters.items()]:
            if weight is not None:
                module._parameters[name] = torch.nn.Parameter(
                    weight.data.to(MPS), requires_grad=False
                )
        for name, buffer in [*module._buffers.items()]:
            if buffer is not None:
                module._buffers[name] = buffer.to(MPS)
    return copied


@pytest.fixture
def mps(monkeypatch):
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", (MPS.type,))
    with torch.no_grad(), Mps():
        yield


def test_it_refuses_what_mps_refuses(mps):
    there = torch.ones(2, device=MPS)
    assert there.device == MPS and isinstance(there + 1, OnMps)
    assert not isinstance((there + 1).cpu(), OnMps)
    with pytest.raises(TypeError, match="float64"):
        there.double()
    with pytest.raises(AssertionError, match="mixes devices"):
        _ = there + torch.ones(2)


def test_windows_are_measured_without_float64_there(mps):
    model = tiny_model("gpt2")
    paths = [as_cut(plan, N_BLOCKS) for plan in (Plan(), Plan((1,)))]
    tokens = random_tokens(2, 17, seed=1)
    windows = (tokens[:, :-1], tokens[:, 1:], 0)
    there = ReferenceKernel(Decoder(moved(model)), True)
    found = window_sums(there, paths, *windows)["nll"]
    expected = window_sums(ReferenceKernel(Decoder(model), True), paths, *windows)["nll"]
    assert found.dtype == torch.float64 and not isinstance(found, OnMps)
    torch.testing.assert_close(found, expected)


def test_bridges_are_fitted_without_float64_there(mps):
    model = tiny_model("gpt2")
    calibration = calibration_of(model)
    kernel = ReferenceKernel(Decoder(moved(model)), True)
    there = bridging_over(kernel.decoder.model, calibration=calibration, kernel=kernel)
    here = bridging_over(model, calibration=calibration)
    for found in (there, here):
        assert list(found.fit([Plan((1,))]))
    for gap, fit in here.fits.items():
        assert there.fits[gap].strength == fit.strength
        torch.testing.assert_close(there.fits[gap].form, fit.form)


def test_apples_mps_is_one_of_these():
    assert devices.float64_device(torch.device("mps")).type == "cpu"
    assert devices.float64_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
