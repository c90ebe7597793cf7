"""A kill between any two operations on files: what is left can be gone on with, to the bit."""

import errno
import os
import shutil
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from test_opening import IDENTITY, make
from test_store import FACTS
from tiny import TEXT, save_tiny_gpt2

from pruning_kit.errors import RunError
from pruning_kit.machine import disk
from pruning_kit.plans.plan import Plan
from pruning_kit.runs.opening import find_run, move_under, tidy
from pruning_kit.runs.results import load_run, write_csv
from pruning_kit.runs.store import RunFolder
from pruning_kit.sweeps import building
from tests.sweeping import asked, begin, measured
from tests.synthetic_runs import round_of

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Killed(BaseException):
    """What a process that was killed does: nothing more, no cleaning either."""


class Killer:
    """Lets a number of operations that change files under a folder happen, and none after them."""

    def __init__(self):
        self.folder, self.left = None, 0
        sys.addaudithook(self.hear)  # which stays; without a folder it lets everything happen

    def hear(self, event, args):
        if self.folder is None or event not in CHANGES or not CHANGES[event](args):
            return
        beside_an_open_folder = event in ("os.remove", "os.rmdir") and args[1] != -1
        if beside_an_open_folder or Path(os.fsdecode(args[0])).is_relative_to(self.folder):
            self.step()

    def step(self):
        if self.left == 0:
            raise Killed
        self.left -= 1

    def kill(self, action, after, folder):
        """Whether an action was killed after some operations; False if it was done before."""
        self.folder, self.left = folder, after
        try:
            action()
        except Killed:
            return True
        finally:
            self.folder = None
        return False


CHANGES = {
    "open": lambda args: isinstance(args[0], str | Path) and bool(args[2] & WRITING),
    **dict.fromkeys(("os.mkdir", "os.rename", "os.remove", "os.rmdir"), lambda args: True),
}
KILLER = Killer()


@pytest.fixture(autouse=True)
def fsync_counts(monkeypatch):
    """No audit event tells of it."""
    original = os.fsync

    def fsync(descriptor):
        if KILLER.folder is not None:
            KILLER.step()
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def left_overs(folder):
    return [path for path in folder.rglob("*") if disk.is_left_over(path)]


def test_a_sweep_killed_at_any_operation_is_gone_on_with_to_the_bit(tmp_path, monkeypatch):
    model = save_tiny_gpt2(tmp_path / "tiny", n_blocks=2)
    text = tmp_path / "text.txt"
    text.write_text(TEXT * 2, encoding="utf-8")
    wanted = asked(
        "sequential",
        model=str(model),
        dataset=str(text),
        batch_size=6,
        threads=1,
        resume=True,
    )
    first = begin(wanted.but(output=tmp_path / "first")).workbench
    inputs = building.models.load_inputs(first.loaded.source)
    monkeypatch.setattr(building.models, "load_inputs", lambda *_: inputs)
    monkeypatch.setattr(building.models, "load_model", lambda *_, **__: first.loaded)
    monkeypatch.setattr(building, "choose_kernel", lambda *_: first.kernel)

    def run(folder):
        write_csv(measured(wanted.but(output=folder)), folder / "results.csv")

    run(tmp_path / "whole")
    whole = load_run(tmp_path / "whole").nll()
    for after in count():
        folder = tmp_path / f"killed-{after}"
        if not KILLER.kill(lambda to=folder: run(to), after, folder):
            break
        run(folder)
        np.testing.assert_array_equal(load_run(folder).nll(), whole)
        assert (folder / "results.csv").exists()
        assert left_overs(folder) == []
    assert after > 12  # folders, run.json, at least two parts, results.csv


def test_a_run_killed_before_its_run_file_can_be_started_anew(tmp_path):
    for after in count():
        folder = tmp_path / f"killed-{after}"
        if not KILLER.kill(lambda to=folder: RunFolder.create(to, FACTS), after, folder):
            break
        if not (folder / "run.json").exists():
            RunFolder.create(folder, FACTS)
        RunFolder.open(folder)
    assert after >= 5  # folder, rounds, open, fsync, rename


def measure_three_rounds(folder):
    """Go on with a run as a sweep does: each round is asked for, then what it lacks is measured."""
    is_run = (folder / "run.json").exists()
    run = RunFolder.open(folder) if is_run else RunFolder.create(folder, FACTS)
    run.remove_left_overs()
    for number, plan in enumerate([Plan(), Plan((0,)), Plan((1,))]):
        run.add_round(number, round_of([plan]))
        for group, (first, end) in enumerate(FACTS.windows["reported"].groups):
            if not run.has_part(number, "reported", group):
                sums = {"nll": 10.0 * number + np.arange(first, end)[None, :]}
                run.write_part(number, "reported", group, sums, {})
    run.finish()


def test_a_run_of_three_rounds_killed_at_any_operation_is_gone_on_with_to_the_bit(tmp_path):
    for after in count():
        folder = tmp_path / f"killed-{after}"
        if not KILLER.kill(lambda to=folder: measure_three_rounds(to), after, folder):
            break
        measure_three_rounds(folder)
        found = load_run(folder)
        assert len(found.rounds) == 3 and left_overs(folder) == []
        np.testing.assert_array_equal(found.nll(), [[0, 1, 2], [10, 11, 12], [20, 21, 22]])
    assert after > 25  # run.json, three lists of variants, six parts, the mark: two and more each


@pytest.fixture
def another_disk(monkeypatch):
    """Renaming from folder to folder is refused, as from disk to disk."""
    original = Path.rename

    def rename(self, target):
        if self.parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return original(self, target)

    monkeypatch.setattr(Path, "rename", rename)


@pytest.mark.parametrize("complete", [True, False])
def test_a_move_to_another_disk_killed_at_any_operation_loses_nothing(
    tmp_path, another_disk, complete
):
    for after in count():
        cache, results = tmp_path / f"{after}" / "cache", tmp_path / f"{after}" / "results"
        run = make(cache / "run", "2026-01-01", complete=complete)
        rounds = run.rounds()
        killed = KILLER.kill(lambda a=run, b=results: move_under(a.folder, b), after, tmp_path)
        tidy(cache, results)
        assert left_overs(tmp_path) == []
        found = find_run((results, cache), IDENTITY)
        if found.parent == cache:
            found = move_under(found, results)
        moved = RunFolder.open(found)
        assert moved.facts == run.facts and moved.rounds() == rounds
        assert moved.is_finished() == moved.has_part(0, "reported", 0) == complete
        assert list(cache.iterdir()) == []
        if not killed:
            break
    assert after > 12


def test_a_disk_that_refuses_a_move_leaves_the_run_where_it_was(
    tmp_path, another_disk, monkeypatch
):
    run = make(tmp_path / "cache" / "run", "2026-01-01")

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk.shutil, "copyfileobj", refuse)
    with pytest.raises(RunError) as error:
        move_under(run.folder, tmp_path / "results")
    assert str(error.value) == (
        f"cannot write {tmp_path / 'results' / 'run'}: no space left on the disk. Free some space, "
        "then run the same with `resume`."
    )
    assert run.is_finished()
    assert list((tmp_path / "results").iterdir()) == []


def test_a_run_beside_a_whole_copy_of_it_goes_only_if_nothing_is_lost(tmp_path):
    cache, results = tmp_path / "cache", tmp_path / "results"
    run = make(cache / "run", "2026-01-01", complete=False)
    shutil.copytree(run.folder, results / "run")
    run.write_part(0, "reported", 0, {"nll": np.ones((4, 3))}, {})
    tidy(cache, results)
    assert run.has_part(0, "reported", 0)
    shutil.copy(run.part_path(0, "reported", 0), results / "run" / "rounds" / "000")
    tidy(cache, results)
    assert not run.folder.exists()
    assert RunFolder.open(results / "run").is_finished()


def test_a_link_to_the_cache_is_no_copy(tmp_path):
    run = make(tmp_path / "cache" / "run", "2026-01-01")
    (tmp_path / "results").symlink_to(tmp_path / "cache")
    tidy(tmp_path / "cache", tmp_path / "results")
    assert run.is_finished()


def test_left_overs_go_but_those_of_live_writers(tmp_path):
    run = make(tmp_path / "run", "2026-01-01")
    part = "rounds/000/.reported-000000.safetensors.77.part"
    names = [".run.json.123.part", ".results.csv.0a1b2c3d.part", part]
    for name in names:
        (run.folder / name).write_text("half")
    foreign = [run.folder / ".notes.part", run.folder / "mine.7.part"]
    for path in foreign:
        path.write_text("a user's own")
    with disk._locked(run.folder / names[1]):
        run.remove_left_overs()
        assert [path.name for path in left_overs(run.folder)] == [names[1]]
    run.remove_left_overs()
    assert left_overs(run.folder) == []
    assert all(path.exists() for path in foreign)
    assert run.is_finished()


def test_a_folder_being_copied_is_left_to_its_writer(tmp_path):
    copy = tmp_path / ".run.0a1b2c3d.part"
    copy.mkdir()
    with disk._locked(copy):
        disk.remove_left_overs(tmp_path)
        assert copy.exists()
    disk.remove_left_overs(tmp_path)
    assert not copy.exists()


def test_a_writer_whose_temporary_was_taken_away_writes_again(tmp_path, monkeypatch):
    original, calls = os.fsync, []

    def taken(descriptor):
        original(descriptor)
        calls.append(descriptor)
        if len(calls) == 1:
            (temporary,) = tmp_path.iterdir()
            temporary.unlink()

    monkeypatch.setattr(os, "fsync", taken)
    disk.write_file(tmp_path / "run.json", "{}")
    assert len(calls) == 2
    assert (tmp_path / "run.json").read_text() == "{}"
    assert len(list(tmp_path.iterdir())) == 1
