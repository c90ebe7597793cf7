"""The store: whole files, refusal to mix, and clear words for what the disk refuses."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import save

from pruning_kit.errors import RunError
from pruning_kit.machine import disk
from pruning_kit.machine.disk import first_difference, write_file
from pruning_kit.runs import store
from pruning_kit.runs.store import RunFolder, read_info

INFO = {
    "command": "pruning-kit sweep",
    "model": {
        "name": "tiny",
        "revision": None,
        "weights_sha256": "ab",
        "model_type": "gpt2",
        "n_blocks": 2,
    },
    "texts": {
        "test": {
            "name": "text.txt",
            "title": "text.txt",
            "sha256": "cd",
            "n_tokens": 16,
            "n_bytes": 60,
            "part": None,
        }
    },
    "protocol": {"context": 8, "stride": 4},
    "numerics": {
        "dtype": "float32",
        "device": "cpu",
        "device_name": "a test",
        "kernel": "reference",
        "attention": "sdpa",
        "batch_size": 2,
        "threads": 1,
    },
    "choice": {"seed": 0},
    "versions": {},
    "git_commit": None,
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
    assert facts == {"kernel": "reference"}


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


RESTORE = "Restore the file from a copy, or sweep again into another folder."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"{",
            "cannot read {0}/run.json: it is no valid JSON (Expecting property name enclosed in "
            f"double quotes: line 1 column 2 (char 1)). {RESTORE}",
        ),
        (
            b"",
            "cannot read {0}/run.json: it is no valid JSON (Expecting value: line 1 column 1 "
            f"(char 0)). {RESTORE}",
        ),
        (
            b"\xff",
            "cannot read {0}/run.json: it is no valid JSON ('utf-8' codec can't decode byte 0xff "
            f"in position 0: invalid start byte). {RESTORE}",
        ),
        (b"[]", f"cannot read {{0}}/run.json: it holds no JSON object. {RESTORE}"),
        (
            b'{"schema": 99}',
            "cannot read run {0}: its schema is 99, this version reads 1. Use the version of "
            "pruning-kit that wrote it.",
        ),
        (
            b'{"schema": 1}',
            "cannot read run {0}: its run.json lacks command, created, identity and 10 more, or "
            f"holds it in another form. {RESTORE}",
        ),
    ],
)
def test_a_broken_or_foreign_run_file_is_named(tmp_path, content, message):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RunError) as error:
        read_info(tmp_path)
    assert str(error.value) == message.format(tmp_path)


def test_a_run_file_that_may_not_be_read_is_named(run, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(disk.Path, "read_bytes", refuse)
    with pytest.raises(RunError) as error:
        read_info(run.folder)
    assert str(error.value) == (
        f"cannot read {run.folder / 'run.json'}: Permission denied. Make it a file that you may "
        "read."
    )


def test_a_damaged_part_is_named(run):
    run.part_path("test", 0).write_bytes(b"not safetensors")
    with pytest.raises(RunError, match=r"cannot read part .*test-000000\.safetensors"):
        run.read_part("test", 0)


def test_a_part_of_another_run_is_refused(run, tmp_path):
    other = RunFolder.create(tmp_path / "other", {**INFO, "identity": {"plans_sha256": "xyz"}})
    other.write_part("test", 0, np.zeros((2, 2)), {})
    shutil.copy(other.part_path("test", 0), run.part_path("test", 0))
    with pytest.raises(RunError) as error:
        run.read_part("test", 0)
    assert str(error.value) == foreign(run)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("windows", "test", "targets"), [7, 4, 5]),
        (("parameters", "0"), 3),
        (("texts", "test", "n_bytes"), 61),
        (("protocol", "stride"), 5),
        (("model", "n_blocks"), 3),
        (("identity", "context"), 9),
    ],
    ids=str,
)
def test_a_changed_number_in_the_run_file_is_found_by_the_parts(run, path, value):
    run.write_part("test", 0, np.zeros((2, 2)), {})
    change(run, path, value)
    with pytest.raises(RunError) as error:
        RunFolder.open(run.folder).read_part("test", 0)
    assert str(error.value) == foreign(run)


def foreign(run):
    return (
        f"cannot use part {run.part_path('test', 0)}: it does not belong to the run.json beside "
        "it, since one of them was changed or is of another run. Restore it from a copy, or sweep "
        "again into another folder."
    )


def change(run, path, value):
    """Edit one fact of a run file."""
    info = json.loads((run.folder / "run.json").read_text())
    inner = info
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (run.folder / "run.json").write_text(json.dumps(info))


def test_names_in_the_run_file_may_be_changed(run):
    run.write_part("test", 0, np.zeros((2, 2)), {})
    change(run, ("model", "name"), "another name")
    RunFolder.open(run.folder).read_part("test", 0)


def test_a_flipped_bit_anywhere_in_a_part_is_found(run):
    run.write_part("test", 1, np.array([[1.5], [2.5]]), {"kernel": "reference"})
    path = run.part_path("test", 1)
    whole = path.read_bytes()
    for place in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(RunError, match="Delete it and run again with --resume"):
            run.read_part("test", 1)
    path.write_bytes(whole)
    run.read_part("test", 1)


def test_a_part_whose_sums_do_not_fit_its_checksum_is_named(run):
    run.write_part("test", 1, np.array([[1.5], [2.5]]), {})
    path = run.part_path("test", 1)
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(RunError) as error:
        run.read_part("test", 1)
    assert str(error.value) == (
        f"cannot use part {path}: it is damaged, since its checksum is not that of what it holds. "
        "Delete it and run again with --resume."
    )


def test_a_part_without_a_checksum_is_refused(run):
    content = save({"nll_nats": np.zeros((2, 2))}, {"run": run.facts_sha256})
    run.part_path("test", 0).write_bytes(content)
    with pytest.raises(RunError, match="it is damaged, since its checksum is not that of"):
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

    monkeypatch.setattr(disk.os, "fsync", refuse)
    with pytest.raises(RunError) as error:
        write_file(tmp_path / "results.csv", "a,b\n")
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_cannot_be_started_leaves_no_folder(tmp_path, monkeypatch):
    def refuse(_fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk.os, "fsync", refuse)
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


def facts_of(form, path=()):
    """The path of every fact that a form asks for by name."""
    for key, inner in form.items():
        if key is str:
            continue
        yield [*path, key]
        if isinstance(inner, dict):
            yield from facts_of(inner, (*path, key))


@pytest.mark.parametrize(
    "path",
    [
        *facts_of(store.FORM),
        *(["texts", "test", key] for key in store.TEXT),
        *(["windows", "test", key] for key in store.WINDOWS),
        ["texts", "test"],
        ["windows", "test"],
        ["parameters", "0"],
    ],
    ids=".".join,
)
def test_a_run_file_without_a_fact_is_named(run, path):
    info = json.loads(json.dumps(run.info))
    inner = info
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    (run.folder / "run.json").write_text(json.dumps(info))
    with pytest.raises(RunError) as error:
        read_info(run.folder)
    assert str(error.value) == (
        f"cannot read run {run.folder}: its run.json lacks {'.'.join(path)}, or holds it in "
        f"another form. {RESTORE}"
    )


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"command": 7}, "command"),
        ({"model": []}, "model"),
        ({"plans": ["none", 0]}, "plans[1]"),
        ({"parameters": {"none": 2, "0": "1"}}, "parameters.0"),
        ({"windows": {"test": {"groups": [[0, "2"]], "targets": []}}}, "windows.test.groups[0][1]"),
    ],
)
def test_a_fact_in_another_form_is_named(run, changes, name):
    (run.folder / "run.json").write_text(json.dumps({**run.info, **changes}))
    with pytest.raises(RunError) as error:
        read_info(run.folder)
    assert f"its run.json lacks {name}, or holds it in another form." in str(error.value)


@pytest.mark.parametrize("groups", [[], [[]], [[0, 2]], [[0, 2], [1, 3]], [[0, 1, 3]], [[1, 3]]])
def test_groups_that_leave_windows_out_or_count_them_twice_are_refused(run, groups):
    windows = {"test": {"groups": groups, "targets": [7, 4, 4]}}
    (run.folder / "run.json").write_text(json.dumps({**run.info, "windows": windows}))
    with pytest.raises(RunError) as error:
        read_info(run.folder)
    assert str(error.value) == (
        f"cannot read run {run.folder}: the window groups in its run.json do not cover the 3 "
        f"windows of the text 'test'. {RESTORE}"
    )


def test_a_run_is_complete_with_its_last_part(run):
    run.write_part("test", 0, np.zeros((2, 2)), {})
    assert not run.is_complete()
    run.write_part("test", 1, np.zeros((2, 1)), {})
    assert run.is_complete()


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        (("command",), "sweep --model 'x", "command"),
        (("model", "n_blocks"), 10**9, "model.n_blocks"),
        (("model", "n_blocks"), 0, "model.n_blocks"),
        (("model", "n_blocks"), True, "model.n_blocks"),
        (("numerics", "threads"), -1, "numerics.threads"),
        (("protocol", "context"), 10**30, "protocol.context"),
        (("texts", "test", "n_bytes"), 0, "texts.test.n_bytes"),
        (("parameters", "0"), 0, "parameters.0"),
        (("windows", "test", "targets"), [7, 0, 4], "windows.test.targets[1]"),
        (("plans",), ["0"], "plans"),
        (("plans",), ["none", "9" * 5000], "plans[1]"),
        (("plans",), ["none", "0-3"], "plans[1]"),
        (("plans",), ["none", "x"], "plans[1]"),
        (("windows", "../../x"), {"groups": [[0, 1]], "targets": [1]}, "windows"),
        (("versions",), {"torch": ["2"]}, "versions.torch"),
    ],
    ids=str,
)
def test_a_value_that_no_run_has_is_named(run, path, value, name):
    change(run, path, value)
    with pytest.raises(RunError) as error:
        read_info(run.folder)
    assert str(error.value) == (
        f"cannot read run {run.folder}: its run.json lacks {name}, or holds it in another form. "
        f"{RESTORE}"
    )


@pytest.mark.parametrize("plan", ["0", "2", "1+0", "00"])
def test_plans_that_are_repeated_or_of_another_model_are_refused(run, plan):
    change(run, ("parameters", plan), 1)
    change(run, ("plans",), ["none", "0", plan])
    with pytest.raises(RunError) as error:
        read_info(run.folder)
    assert str(error.value) == (
        f"cannot read run {run.folder}: its run.json names plan {plan!r} twice, or a model of 2 "
        f"blocks has no such plan. {RESTORE}"
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": NaN}', "the number NaN is out of range"),
        (b'{"a": -Infinity}', "the number -Infinity is out of range"),
        (b'{"a": 1e999}', "the number 1e999 is out of range"),
        (b'{"a": %s}' % (b"7" * 5000), f"the number {'7' * 30} is out of range"),
        (b'{"a": %s}' % (b"[" * 100_000), "nested too deeply"),
        (b'{"a": "\\ud800"}', "'utf-8' codec can't encode character '\\ud800' in position 7"),
    ],
    ids=["NaN", "Infinity", "1e999", "7s", "nested", "half a character"],
)
def test_json_that_no_writer_of_ours_makes_is_refused(tmp_path, content, reason):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RunError) as error:
        read_info(tmp_path)
    begin = f"cannot read {tmp_path / 'run.json'}: it is no valid JSON ({reason}"
    assert str(error.value).startswith(begin) and str(error.value).endswith(RESTORE)
    assert len(str(error.value)) < 300


def test_whole_characters_outside_the_basic_plane_are_read(run):
    change(run, ("model", "name"), "\N{GRINNING FACE}")
    assert "\\ud83d" in (run.folder / "run.json").read_text()
    assert read_info(run.folder)["model"]["name"] == "\N{GRINNING FACE}"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "latency.json")
    with pytest.raises(RunError) as error:
        disk.read_json(tmp_path / "latency.json", "Delete it.")
    assert str(error.value) == (
        f"cannot read {tmp_path / 'latency.json'}: there is no such file. Make it a file that you "
        "may read."
    )
