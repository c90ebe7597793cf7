"""What `recover` and `shrink` make of their result, and how a killed one finishes it."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
from calling import Called, call
from test_kills import KILLER, fsync_counts  # noqa: F401 - the latter is a fixture
from test_shrink import set_paces
from test_upload import Hub
from writers import WORDS, Writer

from pruning_kit.cli import app as cli
from pruning_kit.export import upload as upload_module
from pruning_kit.export.llama_cpp import writing as writing_module
from pruning_kit.export.llama_cpp.vocabulary import Vocabulary
from pruning_kit.export.recipe import read_recipe
from pruning_kit.inputs import hub as hub_module
from pruning_kit.machine import disk
from pruning_kit.reporting import figures as figures_module
from pruning_kit.reporting import formats as formats_module
from pruning_kit.runs.ranks import current_ranks

FAST = ("--sequences", "4", "--rate", "0.01", "--max-windows", "12")
RECOVER = ("recover", "--remove", "1+2", "--tokens", "2k", *FAST)
SHRINK = ("shrink", "--size", "2", "--minutes", "10", "--no-speed", *FAST)
COMMANDS = pytest.mark.parametrize("command", [RECOVER, SHRINK], ids=lambda words: words[0])
FURTHER = ("--gguf", "f16", "--push-to-hub", "small")


pytestmark = pytest.mark.usefixtures("little_text")


@pytest.fixture(autouse=True)
def _paces_and_no_pages(monkeypatch):
    set_paces(monkeypatch, tokens=2_000)
    monkeypatch.setattr(figures_module, "save_figures", lambda *_: [])
    monkeypatch.setattr(formats_module, "write_report", lambda *_: None)


@pytest.fixture(autouse=True)
def _known_to_llama_cpp(monkeypatch):
    """The writer's words are those of no tokenizer that llama.cpp has."""
    names = tuple(f"w{number}" for number in range(WORDS))
    words = Vocabulary("gpt-2", names, (1,) * WORDS, ("w 1",), {"eos": 0}, False, None)
    monkeypatch.setattr(writing_module, "vocabulary_of", lambda *_: words)


@pytest.fixture
def fake(monkeypatch) -> Hub:
    fake = Hub()
    monkeypatch.setattr(upload_module, "HfApi", lambda: fake)
    monkeypatch.setattr(upload_module, "get_token", lambda: "hf_of_the_user")
    monkeypatch.setattr(hub_module, "silence", lambda: None)
    return fake


def hashes_in(folder: Path) -> dict[str, str]:
    """Of what a model's user reads; the recipe tells the time."""
    files = (folder / name for name in ("model.safetensors", "config.json", "tokenizer.json"))
    paths = (*files, *folder.parent.glob("*.gguf"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@COMMANDS
def test_a_gguf_a_format_and_a_repository_come_of_one_command(writer, fake, tmp_path, command):
    out = tmp_path / "out"
    words = (*FURTHER, "--public", "--save-dtype", "bfloat16")
    code, said, _ = call(*command, *writer.words, *words, "--out", out)
    assert code == 0, said
    assert read_recipe(out).dtype == "bfloat16"
    assert (
        "weights are saved as bfloat16; all is measured with the base model's, in float32." in said
    )
    assert f"For llama.cpp it is {tmp_path / 'out-f16.gguf'} (" in said
    assert (tmp_path / "out-f16.gguf").is_file()
    assert "On the Hub it is https://huggingface.co/me/small, for everybody to read." in said
    assert fake.made == [("me/small", False)] and "model.safetensors" in fake.files
    (message,) = fake.messages
    assert message.startswith(f"{writer.model} without ") and message.endswith(", distilled:2k")


@COMMANDS
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--public",),
            "cannot use --public without --push-to-hub: it says who may read what that makes. Give "
            "both, or neither.",
        ),
        (
            ("--gguf", "q4_0"),
            "cannot write a GGUF in 'q4_0': the kit writes f32, f16, q8_0. Give one of these as "
            "--gguf.",
        ),
        (
            ("--save-dtype", "int8"),
            "cannot save weights as 'int8': the kit writes float32, float16, bfloat16, float64. "
            "Name one of these with --save-dtype.",
        ),
        (
            ("--push-to-hub", "us/taken"),
            "cannot push to 'us/taken' on the Hub: there is a repository us/taken already. Give "
            "another name.",
        ),
    ],
    ids=lambda words: words[0],
)
def test_what_cannot_be_saved_is_refused_before_anything_is_written(
    writer, fake, tmp_path, command, words, said
):
    fake.taken.add("us/taken")
    called = call(*command, *writer.words, *words, "--out", tmp_path / "out")
    assert called.code == 2
    assert called.said == f"Error: {said}"
    assert list(tmp_path.iterdir()) == []


def interrupted(*_, **__):
    raise KeyboardInterrupt


@COMMANDS
@pytest.mark.parametrize(
    ("where", "name"),
    [
        pytest.param(writing_module, "_describe", id="gguf"),
        pytest.param(Hub, "create_repo", id="repository", marks=pytest.mark.slow),
        pytest.param(Hub, "upload_folder", id="upload"),
    ],
)
def test_a_command_stopped_behind_its_folder_finishes_what_comes_after(
    writer, fake, tmp_path, monkeypatch, command, where, name
):
    words = (*command, *writer.words, *FURTHER, "--out", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(where, name, interrupted)
        stopped = call(*words)
    assert stopped.code == 130 and stopped.said.endswith("--resume"), stopped.said
    before = (tmp_path / "out" / "pruning.json").read_bytes()
    code, said, _ = call(*words)
    assert code == 2 and "the folder is not empty" in said
    code, said, _ = call(*words, "--resume")
    assert code == 0, said
    assert (tmp_path / "out" / "pruning.json").read_bytes() == before
    assert (tmp_path / "out-f16.gguf").is_file()
    assert fake.taken == {"me/small"} and "model.safetensors" in fake.files


@pytest.fixture(scope="module")
def done(writer, tmp_path_factory) -> Path:
    """A recovery with all that comes after it."""
    folder = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures_module, "save_figures", lambda *_: [])
        code, said, _ = call(*RECOVER, *writer.words, "--out", folder / "out")
    assert code == 0, said
    return folder


def resume(writer: Writer, done: Path, *words: object) -> Called:
    return call(*RECOVER, *writer.words, *words, "--resume", "--out", done / "out")


def test_a_finished_command_does_later_what_was_not_asked_for_at_first(writer, done, fake):
    code, said, _ = resume(writer, done, *FURTHER)
    assert code == 0, said
    first = hashes_in(done / "out")
    assert len(first) == 4
    code, said, _ = resume(writer, done, *FURTHER)  # all of it is there
    assert code == 0, said
    assert hashes_in(done / "out") == first


def test_another_file_in_the_place_of_the_gguf_stays(writer, done):
    place = done / "out-f32.gguf"
    place.write_text("mine")
    code, said, _ = resume(writer, done, "--gguf", "f32")
    assert code == 2
    assert said.endswith(
        f"Error: cannot write a GGUF to '{place}': the path is taken. Move it away, or give "
        "another folder."
    )
    assert place.read_text() == "mine"


@pytest.mark.parametrize(
    ("private", "blobs"),
    [(False, {}), (True, {"pruning.json": "b" * 40}), (True, {"notes.md": "c" * 40})],
    ids=["seen by others", "another model", "other files"],
)
def test_a_repository_that_is_not_of_the_folder_is_not_gone_on_with(
    writer, done, fake, private, blobs
):
    fake.taken, fake.made, fake.blobs = {"me/small"}, [("me/small", private)], blobs
    code, said, _ = resume(writer, done, "--push-to-hub", "small")
    assert code == 2
    assert said.endswith(
        "cannot push to 'small' on the Hub: there is a repository me/small already. Give another "
        "name."
    )
    assert fake.files == []


def test_a_folder_of_another_format_is_not_gone_on_with(writer, done):
    code, said, _ = resume(writer, done, "--save-dtype", "float16")
    assert code == 2
    assert said.endswith(
        f"Error: cannot go on with '{done / 'out'}': it holds the model without 1+2 with another "
        "dtype than is asked for. Give a folder that does not exist yet."
    )


def test_a_folder_that_was_damaged_is_not_gone_on_with(writer, done, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(done, copy)
    weights = copy / "out" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    code, said, _ = resume(writer, copy)
    assert code == 2
    assert f"Error: {copy / 'out'} fails 1 of " in said and said.endswith("Do not use it."), said


@COMMANDS
def test_an_unfinished_run_takes_no_folder_that_is_there(writer, done, tmp_path, command):
    code, said, _ = call(
        *command, *writer.words, "--resume", "--output", tmp_path / "run", "--out", done / "out"
    )
    assert code == 2 and "the folder is not empty" in said
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_in_an_empty_folder_is_not_in_the_way(writer, tmp_path):
    for command, place in ((RECOVER, "recoveries"), (SHRINK, ".")):
        folder = tmp_path / command[0]
        inner = folder.with_name(f"{folder.name}-run") / place
        inner.mkdir(parents=True)
        (inner / ".intent.json.0a1b2c3d.part").write_text("half")
        code, said, _ = call(*command, *writer.words, "--out", folder)
        assert code == 0, said
        assert list(inner.rglob("*.part")) == []


@pytest.mark.parametrize("words", [SHRINK, ("prune", "--remove", "1")], ids=lambda words: words[0])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_several_processes_are_refused_where_one_does_the_work(
    writer, tmp_path, monkeypatch, words, rank
):
    for name, value in {"RANK": rank, "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    current_ranks.cache_clear()
    code, said, _ = call(*words, "--model", writer.model, "--out", tmp_path / "out")
    assert code == 2
    assert said == (rank == "0") * (
        f"Error: cannot {words[0]} in 2 processes: only sweep and recover share their work. Start "
        "it without torchrun."
    )
    assert list(tmp_path.iterdir()) == [] and current_ranks.cache_info().currsize == 0


# Killed


def raised(error: BaseException, debug: bool) -> int:
    raise error


def kills_of(run: Callable[[Path], object], folder: Path) -> int:
    """Operations that change files while a command runs."""
    KILLER.kill(lambda: run(folder), sys.maxsize, folder)
    return sys.maxsize - KILLER.left


@pytest.mark.slow
@COMMANDS
def test_a_command_killed_at_any_operation_ends_with_the_same_files(
    writer, fake, tmp_path, monkeypatch, command
):
    """Each one behind the measuring, and a few before, where other tests look closely."""

    def run(folder: Path, *words: str) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(cli, "explain", raised)
            call(*command, *writer.words, *FURTHER, "--out", folder / "out", *words)

    monkeypatch.setattr(Hub, "upload_folder", sent_with_a_step(Hub.upload_folder))
    n_operations = kills_of(run, tmp_path / "whole")
    whole = hashes_in(tmp_path / "whole" / "out")
    last = n_operations - LAST
    for after in chain(range(0, last, last // EARLIER), range(last, n_operations)):
        folder = tmp_path / f"killed-{after}"
        fake.__init__()
        assert KILLER.kill(lambda to=folder: run(to), after, folder)
        run(folder, "--resume")
        assert hashes_in(folder / "out") == whole
        assert [path for path in folder.rglob("*") if disk.is_left_over(path)] == []
        assert fake.taken == {"me/small"} and "model.safetensors" in fake.files


LAST, EARLIER = 40, 8
"""Operations behind the measuring (tables, folder, GGUF, upload), and so many of those before."""


def step_if_killing() -> None:
    if KILLER.folder is not None:
        KILLER.step()


def sent_with_a_step(plainly):
    """A kill may come before the transfer, and after it."""

    def sent(self, **words):
        step_if_killing()
        plainly(self, **words)
        step_if_killing()

    return sent
