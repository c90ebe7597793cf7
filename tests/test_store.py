"""The store: whole files, refusal to mix, and clear words for what the disk refuses."""

import errno
import json

import numpy as np
import pytest

from pruning_kit.errors import RunError
from pruning_kit.runs import store
from pruning_kit.runs.store import RunFolder, first_difference, read_info, write_file

INFO = {
    "command": "pruning-kit sweep",
    "model": {"name": "tiny"},
    "texts": {},
    "protocol": {},
    "numerics": {"threads": 1},
    "choice": {},
    "versions": {},
    "created": "2026-01-01T00:00:00+00:00",
    "identity": {"plans_sha256": "abc", "context": 8},
    "plans": ["none", "0"],
    "parameters": {"none": 2, "0": 1},
    "windows": {"test": {"groups": [[0, 2], [2, 3]], "targets": [7, 4, 4]}},
}


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", INFO)


def test_a_part_comes_back_bit_for_bit(run):
    sums = np.array([[1.1, 2.2], [np.nan, 1e300]])
    run.write_part("test", 0, sums, {"kernel": "reference"})
    back, facts = run.read_part("test", 0)
    np.testing.assert_array_equal(back, sums)
    assert facts == {"plans": "abc", "kernel": "reference"}


def test_writing_leaves_no_temporary_file(run):
    run.write_part("test", 0, np.zeros((2, 2)), {})
    assert [path.name for path in (run.folder / "parts").iterdir()] == ["test-000000.safetensors"]


def test_a_new_run_never_overwrites_a_folder_with_something_in_it(run):
    with pytest.raises(RunError, match="the folder is not empty"):
        RunFolder.create(run.folder, INFO)


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="it is a file"):
        RunFolder.create(tmp_path / "file", INFO)


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(RunError, match=r"it holds no run\.json"):
        read_info(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read run file"),
        ("[]", "it holds no JSON object"),
        ('{"schema": 99}', "its schema is 99, this version reads 1"),
        ('{"schema": 1}', r"its run\.json lacks command, created, identity, model"),
    ],
)
def test_a_broken_or_foreign_run_file_is_named(tmp_path, content, message):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match=message):
        read_info(tmp_path)


def test_a_damaged_part_is_named(run):
    run.part_path("test", 0).write_bytes(b"not safetensors")
    with pytest.raises(RunError, match=r"cannot read part .*test-000000\.safetensors"):
        run.read_part("test", 0)


def test_a_part_of_another_run_is_refused(run):
    run.write_part("test", 0, np.zeros((2, 1)), {})
    with pytest.raises(RunError, match="it belongs to another run"):
        run.read_part("test", 0)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "no space left on the disk. Free some space"),
        (errno.EACCES, "Permission denied. Choose another place with --output"),
    ],
)
def test_a_full_or_forbidden_disk_is_one_sentence_and_leaves_nothing(
    tmp_path, monkeypatch, number, message
):
    def refuse(_fd):
        raise OSError(number, "Permission denied")

    monkeypatch.setattr(store.os, "fsync", refuse)
    with pytest.raises(RunError) as error:
        write_file(tmp_path / "results.csv", "a,b\n")
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_cannot_be_started_leaves_no_folder(tmp_path, monkeypatch):
    def refuse(_fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", refuse)
    with pytest.raises(RunError, match="no space left"):
        RunFolder.create(tmp_path / "run", INFO)
    assert list(tmp_path.iterdir()) == []


def test_the_first_difference_names_the_fact():
    assert first_difference({"a": 1, "b": 2}, {"a": 1, "b": 3}) == ("b", 2, 3)
    assert first_difference({"a": 1, "b": 2}, {"a": 1}) == ("b", 2, None)
    assert first_difference({"a": 1}, {"a": 1}) is None


def test_the_run_file_says_its_schema(run):
    assert json.loads((run.folder / "run.json").read_text())["schema"] == store.SCHEMA


def test_a_run_killed_before_its_first_file_can_be_started_again(tmp_path):
    (tmp_path / "run" / "parts").mkdir(parents=True)
    assert RunFolder.create(tmp_path / "run", INFO).info["schema"] == store.SCHEMA


@pytest.mark.parametrize("key", sorted(store.KEYS))
def test_a_run_file_without_a_fact_is_named(run, key):
    for value in (None, 7):
        (run.folder / "run.json").write_text(json.dumps({**run.info, key: value}))
        with pytest.raises(RunError, match=rf"its run\.json lacks {key}, or holds"):
            read_info(run.folder)


def test_a_run_is_complete_with_its_last_part(run):
    run.write_part("test", 0, np.zeros((2, 2)), {})
    assert not run.is_complete()
    run.write_part("test", 1, np.zeros((2, 1)), {})
    assert run.is_complete()


def test_only_old_left_overs_of_killed_writers_are_removed(run):
    names = [".run.json.7.part", "parts/.test-000000.safetensors.7.part"]
    for name in names:
        (run.folder / name).write_text("half")
    written = (run.folder / names[0]).stat().st_mtime
    run.remove_left_overs(lambda: written + store.LEFT_OVER_S - 60)
    assert all((run.folder / name).exists() for name in names)
    run.remove_left_overs(lambda: written + store.LEFT_OVER_S + 60)
    assert not any((run.folder / name).exists() for name in names)
    assert (run.folder / "run.json").exists()
