"""Which folder a run goes to: never a used one, and the right one to go on with."""

import pytest

from pruning_kit.errors import RunError
from pruning_kit.runs.opening import find_run, move_under, new_folder, refuse_to_mix
from pruning_kit.runs.store import RunFolder
from tests.synthetic_runs import write_run

IDENTITY = {"proposal": "combinatorial", "context": 8}


def make(folder, created, context=8, complete=True, **identity):
    changes = {"created": created, "identity": IDENTITY | {"context": context} | identity}
    write_run(folder, 2, n_windows=3, timed=False, changes=changes)
    if not complete:
        (folder / "rounds/000/reported-000000.safetensors").unlink()
    return RunFolder.open(folder)


def test_the_newest_run_of_the_same_identity_is_found_in_any_place(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    make(here / "a", "2026-01-01")
    make(there / "b", "2026-01-02")
    make(here / "c", "2026-01-03", context=16)
    (here / "foreign").mkdir()
    (here / "foreign" / "run.json").write_text("{")
    places = (here, there, tmp_path / "nowhere")
    assert find_run(places, IDENTITY) == there / "b"
    assert find_run(places, {"context": 99}) is None


def test_an_unfinished_run_is_gone_on_with_before_a_newer_finished_one(tmp_path):
    make(tmp_path / "a", "2026-01-01", complete=False)
    make(tmp_path / "b", "2026-01-02")
    assert find_run((tmp_path,), IDENTITY) == tmp_path / "a"


def test_new_folders_are_never_shared(tmp_path):
    folders = [new_folder(tmp_path, "mo del/x") for _ in range(3)]
    assert len(set(folders)) == 3
    assert all(folder.is_dir() and folder.name.startswith("mo-del-x-") for folder in folders)


def test_a_place_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*results/x-"):
        new_folder(tmp_path / "results", "x")


def test_a_run_is_moved_whole_or_not_at_all(tmp_path):
    run = make(tmp_path / "cache" / "a", "2026-01-01")
    target = move_under(run.folder, tmp_path / "results")
    assert RunFolder.open(target).is_finished()
    assert not run.folder.exists()
    other = make(tmp_path / "cache" / "a", "2026-01-01")
    with pytest.raises(RunError, match="results/a: it exists"):
        move_under(other.folder, tmp_path / "results")
    assert other.folder.exists()


def test_what_differs_is_named_with_both_values(tmp_path):
    run = make(tmp_path / "a", "2026-01-01")
    refuse_to_mix(run, IDENTITY, {"threads": 2})
    with pytest.raises(RunError, match="measured with threads=2, this run uses 3"):
        refuse_to_mix(run, IDENTITY, {"threads": 3})
    with pytest.raises(RunError, match=r"measured with device=cpu, this run uses cuda"):
        refuse_to_mix(run, IDENTITY, {"device": "cuda"})


BOTH = {"reported": "a", "selection": "b"}


@pytest.mark.parametrize(
    ("name", "then", "now", "said"),
    [
        ("texts_sha256", BOTH, {"reported": "a"}, "with `select_on`, this run leaves it out"),
        ("texts_sha256", {"reported": "a"}, BOTH, "without `select_on`, this run uses it"),
        ("texts_sha256", BOTH, {**BOTH, "reported": "c"}, "with other texts of `dataset`"),
        ("texts_sha256", BOTH, {**BOTH, "selection": "c"}, "with other texts of `select_on`"),
        (
            "texts_sha256",
            BOTH,
            BOTH | {"also-1": "c"},
            "without `also_on` (text 1), this run uses it",
        ),
        (
            "windows",
            BOTH | {"also-1": 4, "also-12": 9},
            BOTH | {"also-1": 4, "also-12": 8},
            "on 9 windows of the text of `also_on` (text 12), this run asks for 8 (`max_windows`)",
        ),
        ("tokens_sha256", BOTH, {**BOTH, "reported": "c"}, "with other tokens of `dataset`"),
        (
            "windows",
            {"reported": 9},
            {"reported": 2},
            "on 9 windows of the text of `dataset`, this run asks for 2 (`max_windows`)",
        ),
        (
            "versions",
            {"torch": "2.12", "numpy": "2.1"},
            {"torch": "2.13", "numpy": "2.1"},
            "with torch 2.12, this run uses 2.13",
        ),
        ("stride", 4, 8, "with stride=4, this run uses 8"),
        ("weights_sha256", "a", "b", "with other weights"),
        ("proposal", "baseline", "shapley", "with plans=baseline, this run uses shapley"),
        (
            "proposal",
            " ".join(map(str, range(99))),
            "0",
            "with plans=0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 …, this run "
            "uses 0",
        ),
        (
            "proposal",
            " ".join(map(str, range(99))),
            " ".join(map(str, range(98))),
            "with other plans",
        ),
    ],
)
def test_what_differs_is_told_in_words_with_its_option(tmp_path, name, then, now, said):
    run = make(tmp_path / "a", "2026-01-01", **{name: then})
    with pytest.raises(RunError) as error:
        refuse_to_mix(run, {**run.facts.identity, name: now}, {})
    assert str(error.value) == (
        f"cannot resume {run.folder}: it was measured {said}. Ask for the same again, or leave out "
        "`resume` and give another `output` to start a new run."
    )
