"""The store: whole files, rounds that are only appended, refusal to mix, clear words."""

import errno
import json
import os
import shutil

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save

from pruning_kit.errors import RunError
from pruning_kit.machine import disk
from pruning_kit.machine.disk import first_difference, write_file
from pruning_kit.machine.typed import MisfitError
from pruning_kit.plans.plan import Plan
from pruning_kit.runs import facts, store
from pruning_kit.runs.results import load_run
from pruning_kit.runs.store import RunFolder
from tests.synthetic_runs import changed, facts_of, round_of, write_run

FACTS = facts_of(2, {"reported": [7, 4, 4]}, group=2)
WHOLE, BOTH = round_of([Plan()]), round_of([Plan(), Plan((0,))])
RESTORE = "Restore the file from a copy, or sweep again into another folder."


@pytest.fixture
def run(tmp_path):
    """A run of two plans, three windows in two groups, and no sum yet."""
    run = RunFolder.create(tmp_path / "run", FACTS)
    run.add_round(0, BOTH)
    return run


def zeros(*shape):
    return {"nll": np.zeros(shape)}


def fill(run, number=0):
    """Measure a round of two plans."""
    run.write_part(number, "reported", 0, zeros(2, 2), {})
    run.write_part(number, "reported", 1, zeros(2, 1), {})


def edit(file, path, value):
    """Change one fact of a JSON file, or (of None) take it out."""
    content = json.loads(file.read_text())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    file.write_text(json.dumps(content))


def said(call, *values):
    """What a call is refused with."""
    with pytest.raises(RunError) as error:
        call(*values)
    return str(error.value)


# --- parts -------------------------------------------------------------------------------------


def test_a_part_comes_back_bit_for_bit(run):
    sums = np.array([[1.1, 2.2], [np.nan, 1e300]])
    run.write_part(0, "reported", 0, {"nll": sums}, {"kernel": "reference"})
    back, told = run.read_part(0, "reported", 0)
    np.testing.assert_array_equal(back["nll"], sums)
    assert list(back) == ["nll"] and told == {"kernel": "reference"}


def test_a_part_holds_every_measure_of_its_round(tmp_path):
    run = RunFolder.create(tmp_path / "run", FACTS)
    run.add_round(0, round_of([Plan()], measures=("nll", "kl")))
    sums = {"nll": np.array([[1.0, 2.0]]), "kl": np.array([[0.1, 0.2]])}
    run.write_part(0, "reported", 0, sums, {})
    back, _ = run.read_part(0, "reported", 0)
    assert {name: values.tolist() for name, values in back.items()} == {
        "nll": [[1.0, 2.0]],
        "kl": [[0.1, 0.2]],
    }
    for wrong in ({"nll": sums["nll"]}, sums | {"nll": np.zeros((2, 2))}):
        with pytest.raises(AssertionError):
            run.write_part(0, "reported", 1, wrong, {})


def test_writing_leaves_no_temporary_file(run):
    run.write_part(0, "reported", 0, zeros(2, 2), {})
    found = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*.*")}
    assert found == {
        "run.json",
        "rounds/000/variants.json",
        "rounds/000/reported-000000.safetensors",
    }


def test_a_damaged_part_is_named(run):
    run.part_path(0, "reported", 0).write_bytes(b"not safetensors")
    with pytest.raises(RunError, match=r"cannot read part .*reported-000000\.safetensors"):
        run.read_part(0, "reported", 0)


def foreign(run, number=0):
    return (
        f"cannot use part {run.part_path(number, 'reported', 0)}: it does not belong to the "
        "run.json and variants.json it lies with, since one of them was changed or is of another "
        "run or round. Restore it from a copy, or sweep again into another folder."
    )


def test_a_part_of_another_run_is_refused(run, tmp_path):
    other = RunFolder.create(tmp_path / "other", changed(FACTS, {"identity.context": 9}))
    other.add_round(0, BOTH)
    other.write_part(0, "reported", 0, zeros(2, 2), {})
    shutil.copy(other.part_path(0, "reported", 0), run.part_path(0, "reported", 0))
    assert said(run.read_part, 0, "reported", 0) == foreign(run)


def test_a_part_of_another_round_is_refused(tmp_path):
    run = RunFolder.create(tmp_path / "run", FACTS)
    run.add_round(0, WHOLE)
    run.add_round(1, round_of([Plan((0,))]))
    run.write_part(0, "reported", 0, zeros(1, 2), {})
    shutil.copy(run.part_path(0, "reported", 0), run.part_path(1, "reported", 0))
    assert said(run.read_part, 1, "reported", 0) == foreign(run, 1)


def test_a_part_of_other_windows_is_refused(run):
    run.write_part(0, "reported", 1, zeros(2, 1), {})
    shutil.copy(run.part_path(0, "reported", 1), run.part_path(0, "reported", 0))
    assert said(run.read_part, 0, "reported", 0) == foreign(run)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("windows", "reported", "targets"), [7, 4, 5]),
        (("texts", "reported", "n_bytes"), 61),
        (("protocol", "stride"), 5),
        (("protocol", "bos"), 0),
        (("model", "n_blocks"), 3),
        (("identity", "context"), 9),
    ],
    ids=str,
)
def test_a_changed_number_in_the_run_file_is_found_by_the_parts(run, path, value):
    run.write_part(0, "reported", 0, zeros(2, 2), {})
    edit(run.folder / "run.json", path, value)
    assert said(RunFolder.open(run.folder).read_part, 0, "reported", 0) == foreign(run)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("variants", 1, "parameters"), 3),
        (("variants", 1, "variant"), "1"),
        (("variants", 1), {"variant": "0~bridged", "parameters": 3}),
        (("measures",), ["nll", "kl"]),
    ],
    ids=str,
)
def test_a_changed_round_is_found_by_its_parts(run, path, value):
    run.write_part(0, "reported", 0, zeros(2, 2), {})
    edit(run.folder / "rounds/000/variants.json", path, value)
    assert said(RunFolder.open(run.folder).read_part, 0, "reported", 0) == foreign(run)


def test_names_in_the_run_file_may_be_changed(run):
    run.write_part(0, "reported", 0, zeros(2, 2), {})
    edit(run.folder / "run.json", ("model", "name"), "another name")
    RunFolder.open(run.folder).read_part(0, "reported", 0)


def test_a_flipped_bit_anywhere_in_a_part_is_found(run):
    run.write_part(0, "reported", 1, {"nll": np.array([[1.5], [2.5]])}, {"kernel": "reference"})
    path = run.part_path(0, "reported", 1)
    whole = path.read_bytes()
    for place in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(RunError, match="Delete it and run again with `resume`"):
            run.read_part(0, "reported", 1)
    path.write_bytes(whole)
    run.read_part(0, "reported", 1)


def test_a_part_whose_sums_do_not_fit_its_checksum_is_named(run):
    run.write_part(0, "reported", 1, {"nll": np.array([[1.5], [2.5]])}, {})
    path = run.part_path(0, "reported", 1)
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    assert said(run.read_part, 0, "reported", 1) == (
        f"cannot use part {path}: it is damaged, since its checksum is not that of what it holds. "
        "Delete it and run again with `resume`."
    )


def test_a_part_without_a_checksum_is_refused(run):
    content = save(zeros(2, 2), {"run": run._round_sha256(0)})
    run.part_path(0, "reported", 0).write_bytes(content)
    with pytest.raises(RunError, match="it is damaged, since its checksum is not that of"):
        run.read_part(0, "reported", 0)


# --- the folder --------------------------------------------------------------------------------


def test_a_new_run_never_overwrites_a_folder_with_something_in_it(run):
    assert said(RunFolder.create, run.folder, FACTS) == (
        f"cannot write a new run to {run.folder}: the folder is not empty. Choose another with "
        "`output`, or go on with it by `resume`."
    )


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    assert said(RunFolder.create, tmp_path / "file", FACTS) == (
        f"cannot write a run to {tmp_path / 'file'}: it is a file. Choose another `output`."
    )


def test_a_folder_that_is_no_run_is_named(tmp_path):
    assert said(RunFolder.open, tmp_path) == (
        f"cannot read run {tmp_path}: it holds no run.json. Give a folder that a sweep wrote."
    )


def test_a_run_that_cannot_be_started_leaves_no_folder(tmp_path, monkeypatch):
    def refuse(_fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk.os, "fsync", refuse)
    with pytest.raises(RunError, match="no space left"):
        RunFolder.create(tmp_path / "run", FACTS)
    assert list(tmp_path.iterdir()) == []


def test_a_run_killed_before_its_first_file_can_be_started_again(tmp_path):
    (tmp_path / "run" / "rounds").mkdir(parents=True)
    assert RunFolder.create(tmp_path / "run", FACTS).facts.schema == store.SCHEMA


def test_what_is_written_is_read_back(run):
    again = RunFolder.open(run.folder)
    assert again.facts == FACTS and again.rounds() == [BOTH]
    assert again.facts_sha256 == run.facts_sha256


# --- rounds ------------------------------------------------------------------------------------


def test_rounds_are_appended_and_never_rewritten(run):
    written = (run.folder / "rounds/000/variants.json").stat().st_mtime_ns
    run.add_round(0, BOTH)
    run.add_round(1, round_of([Plan((1,))]))
    again = RunFolder.open(run.folder)
    again.add_round(1, round_of([Plan((1,))]))
    assert again.rounds() == [BOTH, round_of([Plan((1,))])] == run.rounds()
    assert (run.folder / "rounds/000/variants.json").stat().st_mtime_ns == written
    assert said(again.add_round, 1, round_of([Plan((0, 1))])) == (
        f"cannot resume {run.folder}: its round 1 measured other variants, or by other measures, "
        "than this run asks for. Ask for the same again, or leave out `resume` and give another "
        "`output` to start a new run."
    )


def test_a_round_that_another_process_appends_is_seen(run):
    other = RunFolder.open(run.folder)
    assert len(other.rounds()) == 1
    run.add_round(1, round_of([Plan((1,))]))
    assert len(other.rounds()) == 2


def test_a_round_that_was_killed_before_its_first_file_is_begun_again(run):
    (run.folder / "rounds/001").mkdir()
    (run.folder / "rounds/001/.variants.json.ab12.part").write_text("{")
    assert len(run.rounds()) == 1
    run.add_round(1, round_of([Plan((1,))]))
    run.remove_left_overs()
    assert [path.name for path in (run.folder / "rounds/001").iterdir()] == ["variants.json"]


def test_what_lies_beside_the_rounds_is_no_round(run):
    (run.folder / "rounds/.DS_Store").write_text("")
    (run.folder / "rounds/notes").mkdir()
    assert run.rounds() == [BOTH]


def test_a_missing_round_is_named(run):
    for number, block in enumerate((1,), 1):
        run.add_round(number, round_of([Plan((block,))]))
    shutil.rmtree(run.folder / "rounds/000")
    assert said(RunFolder.open(run.folder).rounds) == (
        f"cannot read run {run.folder}: rounds/000 is missing, although rounds/001 is there. "
        "Restore the folder from a copy, or sweep again into another one."
    )


def test_a_round_without_its_list_is_named(run):
    fill(run)
    file = run.folder / "rounds/000/variants.json"
    file.unlink()
    assert said(RunFolder.open(run.folder).rounds) == (
        f"cannot read {file}: there is no such file. Make it a file that you may read."
    )


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (round_of([Plan((5,))]), "a model of 2 blocks has no variant '5'"),
        (round_of([Plan((0,))]), "an earlier round has measured '0'"),
        (round_of([Plan((1,))], texts=("selection",)), "the run has no text 'selection'"),
    ],
)
def test_a_round_that_cannot_follow_is_refused_when_it_is_read_and_never_written(
    run, wrong, reason
):
    with pytest.raises(MisfitError, match=reason):
        run.add_round(1, wrong)
    (run.folder / "rounds/001").mkdir()
    disk.write_json(run.folder / "rounds/001/variants.json", wrong)
    found = said(RunFolder.open(run.folder).rounds)
    assert found.startswith(f"cannot read run {run.folder}: its rounds/001/variants.json is wrong")
    assert found.endswith(f": {reason}. {RESTORE}")


def test_the_first_round_holds_the_whole_model(tmp_path):
    run = RunFolder.create(tmp_path / "run", FACTS)
    with pytest.raises(MisfitError, match="the first round lacks the whole model"):
        run.add_round(0, round_of([Plan((0,))]))


def test_a_later_round_may_measure_a_variant_on_the_other_text_if_it_is_the_same_model(tmp_path):
    two = facts_of(2, {"reported": [7, 4, 4], "selection": [7, 4, 4]})
    run = RunFolder.create(tmp_path / "two", two)
    run.add_round(0, BOTH)
    other = facts.VariantFacts(variant="none", parameters=3)
    with pytest.raises(MisfitError, match="'none' had other parameters before"):
        run.add_round(
            1, facts.RoundFacts(variants=(other,), measures=("nll",), texts=("selection",))
        )
    run.add_round(1, round_of([Plan((0,))], texts=("selection",)))
    assert len(RunFolder.open(run.folder).rounds()) == 2


def test_a_round_is_measured_with_its_last_part_and_a_run_finished_with_its_mark(run):
    assert run.count_parts(0) == (0, 2) and not run.is_measured(0)
    run.write_part(0, "reported", 0, zeros(2, 2), {})
    assert run.count_parts(0) == (1, 2) and not run.is_measured(0)
    with pytest.raises(AssertionError):
        run.finish()
    run.write_part(0, "reported", 1, zeros(2, 1), {})
    assert run.is_measured(0) and not run.is_finished()
    run.finish()
    assert run.is_finished() and RunFolder.open(run.folder).is_finished()
    run.part_path(0, "reported", 1).unlink()
    assert not run.is_finished()


def test_a_run_with_more_rounds_than_its_mark_counts_is_not_finished(run):
    fill(run)
    run.finish()
    run.add_round(1, round_of([Plan((1,))]))
    assert not run.is_finished()


# --- unfinished runs ---------------------------------------------------------------------------


def test_an_unfinished_run_says_how_far_it_is(tmp_path):
    run = RunFolder.create(tmp_path / "run", FACTS)
    end = "Run the same with `resume`."

    def told(done, number):
        return (
            f"cannot read run {run.folder}: it is not finished, {done} window groups of its round "
            f"{number} are done. {end}"
        )

    assert said(load_run, run.folder) == told("0 of 0", 0)
    run.add_round(0, BOTH)
    run.write_part(0, "reported", 1, zeros(2, 1), {})
    assert said(load_run, run.folder) == told("1 of 2", 0)
    run.write_part(0, "reported", 0, zeros(2, 2), {})
    assert said(load_run, run.folder) == told("2 of 2", 0)
    run.add_round(1, round_of([Plan((1,))]))
    assert said(load_run, run.folder) == told("0 of 2", 1)


# --- files that are damaged --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"{",
            "cannot read {0}/run.json: it is no valid JSON (Input data was truncated). " + RESTORE,
        ),
        (
            b"",
            "cannot read {0}/run.json: it is no valid JSON (Input data was truncated). " + RESTORE,
        ),
        (
            b"\xff",
            "cannot read {0}/run.json: it is no valid JSON (JSON is malformed: invalid character "
            "(byte 0)). " + RESTORE,
        ),
        (b"[]", "cannot read {0}/run.json: it holds no JSON object. " + RESTORE),
        (
            b'{"schema": 99}',
            "cannot read run {0}: its schema is 99, this version reads 2. Use the version of "
            "pruning-kit that wrote it, or sweep again.",
        ),
        (
            b'{"schema": 1, "plans": ["none"]}',
            "cannot read run {0}: its schema is 1, this version reads 2. Use the version of "
            "pruning-kit that wrote it, or sweep again.",
        ),
        (
            b'{"schema": true}',
            "cannot read run {0}: its schema is True, this version reads 2. Use the version of "
            "pruning-kit that wrote it, or sweep again.",
        ),
        (
            b'{"schema": 2}',
            "cannot read run {0}: its run.json lacks command, or holds it in another form. "
            + RESTORE,
        ),
    ],
)
def test_a_broken_or_foreign_run_file_is_named(tmp_path, content, message):
    (tmp_path / "run.json").write_bytes(content)
    assert said(RunFolder.open, tmp_path) == message.format(tmp_path)


def test_a_run_file_that_may_not_be_read_is_named(run, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(disk.Path, "read_bytes", refuse)
    assert said(RunFolder.open, run.folder) == (
        f"cannot read {run.folder / 'run.json'}: Permission denied. Make it a file that you may "
        "read."
    )


def paths_in(kind, path=()):
    """The path of every fact of a type that has to be there, and of what is in it."""
    needed = {field.name for field in msgspec.structs.fields(kind) if field.required}
    for name, inner in kind.__annotations__.items():
        if name not in needed:
            continue
        yield [*path, name]
        inner = getattr(facts, inner, None)
        if hasattr(inner, "__struct_fields__"):
            yield from paths_in(inner, (*path, name))


@pytest.mark.parametrize(
    "path",
    [
        *paths_in(facts.RunFacts),
        *paths_in(facts.TextFacts, ("texts", "reported")),
        *paths_in(facts.WindowFacts, ("windows", "reported")),
        ["texts", "reported"],
        ["windows", "reported"],
    ],
    ids=".".join,
)
def test_a_run_file_without_a_fact_is_named(run, path):
    edit(run.folder / "run.json", path, None)
    assert said(RunFolder.open, run.folder) == (
        f"cannot read run {run.folder}: its run.json lacks {'.'.join(path)}, or holds it in "
        f"another form. {RESTORE}"
    )


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        (("command",), 7, "command"),
        (("command",), "sweep --model 'x", "command"),
        (("model",), [], "model"),
        (("model", "n_blocks"), 10**9, "model.n_blocks"),
        (("model", "n_blocks"), 0, "model.n_blocks"),
        (("model", "n_blocks"), True, "model.n_blocks"),
        (("model", "n_blocks"), 2.0, "model.n_blocks"),
        (("numerics", "threads"), -1, "numerics.threads"),
        (("protocol", "context"), 10**30, "protocol.context"),
        (("proposal", "seed"), 10**300, "proposal.seed"),
        (("texts", "reported", "n_bytes"), 0, "texts.reported.n_bytes"),
        (("windows", "reported", "targets"), [7, 0, 4], "windows.reported.targets[1]"),
        (("windows", "reported", "groups"), [[0, "2"]], "windows.reported.groups[0][1]"),
        (("windows", "reported", "groups"), [[0, 1, 3]], "windows.reported.groups[0]"),
        (("windows", "../../x"), {"groups": [[0, 1]], "targets": [1]}, "windows"),
        (("windows", "also-0"), {"groups": [[0, 1]], "targets": [1]}, "windows"),
        (("windows", "also-1\n"), {"groups": [[0, 1]], "targets": [1]}, "windows"),
        (("windows", "also-1"), {"groups": [[0, 1]], "targets": [1]}, "texts.also-1"),
        (("windows", "selection"), {"groups": [[0, 1]], "targets": [1]}, "texts.selection"),
        (("versions",), {"torch": ["2"]}, "versions.torch"),
        (("versions",), {"a": "1", "b" * 99: 2}, f"versions.{'b' * 40}"),
    ],
    ids=str,
)
def test_a_value_that_no_run_has_is_named(run, path, value, name):
    edit(run.folder / "run.json", path, value)
    assert said(RunFolder.open, run.folder) == (
        f"cannot read run {run.folder}: its run.json lacks {name}, or holds it in another form. "
        f"{RESTORE}"
    )


@pytest.mark.parametrize(
    "groups", [[], [[0, 2]], [[0, 2], [1, 3]], [[1, 3]], [[0, 0], [0, 3]], [[0, 4], [4, 3]]]
)
def test_groups_that_leave_windows_out_or_count_them_twice_are_refused(run, groups):
    edit(run.folder / "run.json", ("windows", "reported", "groups"), groups)
    assert said(RunFolder.open, run.folder) == (
        f"cannot read run {run.folder}: its run.json is wrong in windows.reported: its groups do "
        f"not cover its 3 windows. {RESTORE}"
    )


LACKS = "lacks {}, or holds it in another form"
TWICE = "is wrong in {}: it is empty, or holds something twice"


@pytest.mark.parametrize(
    ("path", "value", "wrong"),
    [
        (("variants",), None, LACKS.format("variants")),
        (("measures",), None, LACKS.format("measures")),
        (("texts",), None, LACKS.format("texts")),
        (("variants", 1, "parameters"), None, LACKS.format("variants[1].parameters")),
        (("variants", 1, "parameters"), 0, LACKS.format("variants[1].parameters")),
        (("variants", 1, "variant"), 0, LACKS.format("variants[1].variant")),
        (("variants", 1, "variant"), "x", LACKS.format("variants[1].variant")),
        (("variants", 1, "variant"), "0~", LACKS.format("variants[1].variant")),
        (("variants", 1, "variant"), "9" * 5000, LACKS.format("variants[1].variant")),
        (("variants", 1, "variant"), "none", TWICE.format("variants")),
        (
            ("variants", 1, "variant"),
            "1+0",
            "is wrong in variants[1].variant: '0+1' is written '1+0'",
        ),
        (("variants", 1, "variant"), "00", "is wrong in variants[1].variant: '0' is written '00'"),
        (
            ("variants", 1, "variant"),
            "2m",
            "is wrong in variants[1]: a model of 2 blocks has no variant '2m'",
        ),
        (("variants",), [], TWICE.format("variants")),
        (("measures",), [], TWICE.format("measures")),
        (("measures",), ["kl"], "is wrong in measures: it lacks 'nll'"),
        (("measures",), ["nll", "nll"], TWICE.format("measures")),
        (("texts",), ["reported", "other"], LACKS.format("texts[1]")),
        (("texts",), ["selection"], "is wrong in texts: the run has no text 'selection'"),
    ],
    ids=lambda value: f"{value!r:.40}",
)
def test_a_round_that_no_run_has_is_named(run, path, value, wrong):
    edit(run.folder / "rounds/000/variants.json", path, value)
    assert said(RunFolder.open(run.folder).rounds) == (
        f"cannot read run {run.folder}: its rounds/000/variants.json {wrong}. {RESTORE}"
    )


@pytest.mark.parametrize("content", [{}, {"rounds": 0}, {"rounds": True}, {"rounds": "1"}])
def test_a_mark_that_counts_no_rounds_is_named(run, content):
    fill(run)
    disk.write_json(run.folder / "finished.json", content)
    assert said(load_run, run.folder) == (
        f"cannot read run {run.folder}: its finished.json lacks rounds, or holds it in another "
        f"form. {RESTORE}"
    )


@pytest.mark.parametrize("name", ["run.json", "rounds/000/variants.json", "finished.json"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": NaN}', "JSON is malformed: invalid character (byte 6)"),
        (b'{"a": -Infinity}', "JSON is malformed: invalid character (byte 7)"),
        (b'{"a": 1e999}', "Number out of range"),
        (b'{"a": %s}' % (b"7" * 5000), "Integer value out of range"),
        (b'{"a": %s}' % (b"[" * 100_000), "nested too deeply"),
        (b'{"a": "\\ud800"}', "Input data was truncated"),
        (b'{"a": "\xff"}', "'utf-8' codec can't decode byte 0xff"),
    ],
    ids=["NaN", "Infinity", "1e999", "7s", "nested", "half a character", "no UTF-8"],
)
def test_json_that_no_writer_of_ours_makes_is_refused(tmp_path, name, content, reason):
    folder = write_run(tmp_path / "run", 2, n_windows=3, timed=False)
    (folder / name).write_bytes(content)
    message = said(load_run, folder)
    begin = f"cannot read {folder / name}: it is no valid JSON ({reason}"
    assert message.startswith(begin) and message.endswith(RESTORE)
    assert len(message) < 400


def test_whole_characters_outside_the_basic_plane_are_read(run):
    edit(run.folder / "run.json", ("model", "name"), "\N{GRINNING FACE}")
    assert "\\ud83d" in (run.folder / "run.json").read_text()
    assert RunFolder.open(run.folder).facts.model.name == "\N{GRINNING FACE}"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "latency.json")
    assert said(disk.read_json, tmp_path / "latency.json", "Delete it.") == (
        f"cannot read {tmp_path / 'latency.json'}: there is no such file. Make it a file that you "
        "may read."
    )


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "no space left on the disk. Free some space"),
        (errno.EACCES, "Permission denied. Choose another place with `output`"),
    ],
)
def test_a_full_or_forbidden_disk_is_one_sentence_and_leaves_nothing(
    tmp_path, monkeypatch, number, message
):
    def refuse(_fd):
        raise OSError(number, "Permission denied")

    monkeypatch.setattr(disk.os, "fsync", refuse)
    assert message in said(write_file, tmp_path / "results.csv", "a,b\n")
    assert list(tmp_path.iterdir()) == []


def test_the_first_difference_names_the_fact():
    assert first_difference({"a": 1, "b": 2}, {"a": 1, "b": 3}) == ("b", 2, 3)
    assert first_difference({"a": 1, "b": 2}, {"a": 1}) == ("b", 2, None)
    assert first_difference({"a": 1}, {"a": 1}) is None
