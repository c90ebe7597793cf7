"""Sweeps with bridges: their rows, what the run folder keeps, and endings of any kind."""

from __future__ import annotations

import json
import math
import shutil
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.distributed import TCPStore

from pruning_kit.pruning.bridges import fitting as fitting_module
from pruning_kit.pruning.bridges.bridging import Bridging, Judgement
from pruning_kit.pruning.bridges.fitting import Fitter
from pruning_kit.pruning.bridges.gaps import Gap
from pruning_kit.runs import recoveries
from pruning_kit.runs.ranks import Ranks
from pruning_kit.runs.recoveries import read_facts, read_weights, write_weights
from pruning_kit.runs.results import Run, load_run
from pruning_kit.runs.store import RunFolder
from pruning_kit.search.named import parse
from pruning_kit.search.together import Together
from pruning_kit.sweeps.building import open_workbench
from pruning_kit.sweeps.opening import open_run
from pruning_kit.sweeps.settings import SweepSettings
from pruning_kit.sweeps.sweep import measure, sweep
from pruning_kit.sweeps.workbench import Workbench

GAPS = [Gap(1, 4), Gap(2, 4)]
VARIANTS = ["none", "0", "3", "3~bridged", "2+3", "2+3~bridged"]


class Killed(BaseException):
    """What a process that was killed does: nothing more."""


FEW = {"max_windows": 6, "batch_size": 2}
SEARCH = "3 2+3 0"

pytestmark = pytest.mark.usefixtures("little_text")


@pytest.fixture(scope="module")
def bench(writer) -> Workbench:
    """Every run opened on it has bridges of its own."""
    return open_workbench(**writer.settings, **FEW)


@pytest.fixture(scope="module")
def undisturbed(bench, tmp_path_factory) -> Run:
    return sweep(SEARCH, bench, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def fits(monkeypatch) -> list[list[Gap]]:
    """The gaps that are fitted from now on, by call."""
    seen: list[list[Gap]] = []
    plainly = Fitter.fit

    def fit(self, gaps, *others):
        seen.append(list(gaps))
        return plainly(self, gaps, *others)

    monkeypatch.setattr(Fitter, "fit", fit)
    return seen


def test_a_bridged_row_stands_behind_its_row_as_cut_where_there_is_a_gap(undisturbed):
    rows = undisturbed.rows()
    assert [row["variant"] for row in rows] == VARIANTS
    assert [row["removed"] for row in rows] == ["none", "0", "3", "3", "2+3", "2+3"]
    ppl = {row["variant"]: row["ppl"] for row in rows}
    assert ppl["3~bridged"] < ppl["3"] and ppl["2+3~bridged"] < ppl["2+3"]


def test_the_run_holds_what_was_fitted_on_what_and_how_it_was_judged(undisturbed):
    facts = read_facts(undisturbed.folder)
    assert facts is not None
    assert facts.fitting.title == "calibration.txt (fitting part)"
    assert facts.tuning.title == "calibration.txt (tuning part)"
    assert list(facts.gaps) == list(map(str, GAPS)) and facts.refused == {}
    assert all(gap.strength and gap.sha256 for gap in facts.gaps.values())
    assert list(facts.plans) == ["3", "2+3"] and facts.unhelped == []


def killed_at(monkeypatch, action: Callable[[], object], kind: object, name: str, after: int):
    """Do something that is killed when a function is called once too often."""
    plainly, left = getattr(kind, name), after

    def until(*args, **options):
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        return plainly(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(kind, name, until)
        with pytest.raises(Killed):
            action()


def assert_as_undisturbed(run: Run, undisturbed: Run) -> None:
    assert run.variants == undisturbed.variants
    for name, sums in undisturbed.sums.items():
        np.testing.assert_array_equal(run.sums[name], sums)


def test_a_run_killed_after_the_fit_goes_on_without_fitting_to_the_bit(
    bench, undisturbed, fits, monkeypatch, tmp_path
):
    folder = tmp_path / "run"
    killed_at(monkeypatch, lambda: sweep(SEARCH, bench, folder), RunFolder, "write_part", after=1)
    assert fits == [GAPS]
    run = sweep(SEARCH, bench, folder, resume=True)
    assert fits == [GAPS]
    assert_as_undisturbed(run, undisturbed)


def test_a_run_killed_before_its_plans_are_judged_keeps_what_is_fitted(
    bench, undisturbed, fits, monkeypatch, tmp_path
):
    folder = tmp_path / "run"
    killed_at(monkeypatch, lambda: sweep(SEARCH, bench, folder), Bridging, "judge", after=0)
    run = sweep(SEARCH, bench, folder, resume=True)
    assert fits == [GAPS]
    assert_as_undisturbed(run, undisturbed)


def test_a_run_killed_in_mid_fit_fits_only_what_is_missing(bench, fits, monkeypatch, tmp_path):
    folder = tmp_path / "run"
    killed_at(
        monkeypatch, lambda: sweep(SEARCH, bench, folder), recoveries, "write_weights", after=1
    )
    left_over = folder / "recoveries" / ".2-4.safetensors.0f.part"
    left_over.write_bytes(b"half")
    run = sweep(SEARCH, bench, folder, resume=True)
    assert fits == [GAPS, GAPS[1:]] and not left_over.exists()
    assert list(map(str, run.variants)) == VARIANTS


def test_weights_that_are_damaged_are_fitted_anew(bench, undisturbed, fits, monkeypatch, tmp_path):
    folder = tmp_path / "run"
    killed_at(monkeypatch, lambda: sweep(SEARCH, bench, folder), RunFolder, "write_part", after=1)
    file = folder / "recoveries" / "2-4.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 64
    file.write_bytes(content)
    run = sweep(SEARCH, bench, folder, resume=True)
    assert fits == [GAPS, [Gap(2, 4)]]
    assert run.variants == undisturbed.variants
    np.testing.assert_allclose(run.nll(), undisturbed.nll(), rtol=1e-5)


def test_weights_come_back_as_they_were_or_not_at_all(tmp_path):
    weights = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
    write_weights(tmp_path, "4>6", weights)
    (back,) = read_weights(tmp_path, "4>6").values()
    np.testing.assert_array_equal(back, weights["weight"])
    file = tmp_path / "recoveries" / "4-6.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    assert read_weights(tmp_path, "4>6") is None and read_weights(tmp_path, "1>3") is None


def test_plans_that_their_bridges_make_worse_have_no_row_and_are_named(
    bench, monkeypatch, tmp_path
):
    def judge(self, plans):
        self.judged |= {plan: Judgement(4.0, 3.0 + plan.size) for plan in plans if plan.size}

    monkeypatch.setattr(Bridging, "judge", judge)
    run = sweep("3 2+3", bench, tmp_path / "run")
    assert list(map(str, run.variants)) == ["none", "3", "2+3"]
    facts = read_facts(run.folder)
    assert facts is not None and facts.unhelped == ["3", "2+3"]


def test_a_failed_forward_is_no_number_and_the_run_can_be_read(bench, monkeypatch, tmp_path):
    """As in 16 bits, where plans without the first blocks may overflow."""
    plainly = Fitter.nats

    def nats(self, paths):
        return [
            math.nan if len(path) == 3 else one
            for path, one in zip(paths, plainly(self, paths), strict=True)
        ]

    monkeypatch.setattr(Fitter, "nats", nats)
    run = sweep("3 2+3", bench, tmp_path / "run")
    assert list(map(str, run.variants)) == ["none", "3", "2+3", "2+3~bridged"]
    stored = json.loads((run.folder / "recoveries" / "bridges.json").read_text())
    assert stored["gaps"]["2>4"]["nats"] is None
    assert run.bridges is not None and run.bridges.gaps["2>4"].strength is None


def test_sums_that_are_infinite_are_a_failed_forward(bench, monkeypatch):
    bridging = bench.bridging
    assert isinstance(bridging, Bridging)

    def overflow(kernel, paths, *inputs):
        return {"nll": torch.full((len(paths), len(inputs[0])), math.inf, dtype=torch.float64)}, 1

    monkeypatch.setattr(fitting_module, "sums_within_memory", overflow)
    assert np.isnan(bridging.fitter.nats([()])).all()


def test_processes_that_share_a_run_fit_once_and_agree(bench, undisturbed, fits, tmp_path):
    hosted = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    joined = TCPStore("127.0.0.1", hosted.port, is_master=False, wait_for_workers=False)
    settings, proposer = SweepSettings(output=tmp_path / "run"), Together((parse(SEARCH),))

    def take_part(rank, store):
        ranks = Ranks(rank, 2, store=store)
        run, own = open_run(settings, bench, proposer, ranks)
        assert own.bridging is not bench.bridging
        measure(run, proposer, own, ranks, goes_on=False)

    follower = threading.Thread(target=take_part, args=(1, joined))
    follower.start()
    take_part(0, hosted)
    follower.join()
    assert fits == [GAPS]
    assert_as_undisturbed(load_run(tmp_path / "run"), undisturbed)


def test_a_finished_run_is_resumed_without_a_gap_being_fitted(bench, undisturbed, fits, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed.folder, folder)
    recoveries.remove_weights(folder)
    assert_as_undisturbed(sweep(SEARCH, bench, folder, resume=True), undisturbed)
    assert fits == []
