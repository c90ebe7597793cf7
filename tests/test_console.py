"""The terminal: what it cannot show, what it must not obey, and what happens when it is lost."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table

from pruning_kit.cli.console import Console
from pruning_kit.cli.terminal import TerminalObserver
from tests.synthetic_runs import write_run

HOSTILE = "m[v2]\x1b]0;x\x07\x9b\u202e:smile:"
SHOWN = r"m[v2]\x1b]0;x\x07\u009b\u202e:smile:"
SOURCES = os.pathsep.join(map(str, [Path(__file__).parents[1] / "src", *filter(None, sys.path)]))


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=40, force_terminal=True, color_system=None)


def test_every_way_to_print_escapes_what_a_terminal_obeys(console):
    console.say(HOSTILE, "Note:", "bold")
    console.show_line(HOSTILE)
    console.print(HOSTILE)
    table = Table(HOSTILE.replace("\x07", ""))
    table.add_row(f"cell\x1b[31m{HOSTILE}")
    console.show(table)
    TerminalObserver(console).warn(HOSTILE)
    text = console.file.getvalue()
    assert text.count(SHOWN) == 3
    assert not any(mark in text for mark in ("\x1b", "\x07", "\x9b", "\u202e"))


def test_progress_names_a_text_without_obeying_it(console):
    console.width = 90
    with TerminalObserver(console).track(f"perplexity, {HOSTILE}", 2) as advance:
        advance(1)
    assert SHOWN in console.file.getvalue()
    assert "\x1b]0" not in console.file.getvalue() and "\u202e" not in console.file.getvalue()


def test_sentences_are_wrapped_between_words_and_lines_to_copy_not_at_all(console):
    path = "/" + "long[v2]/" * 8
    console.say(f"The report is in {path} and it is whole, as far as one can see.")
    console.show_line(f"Next: kit report {path} --format html")
    lines = console.file.getvalue().splitlines()
    assert path in lines and lines[-1] == f"Next: kit report {path} --format html"
    assert all(len(line) <= 40 for line in lines if path not in line)


def test_a_console_for_notes_that_is_lost_lets_the_work_go_on(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("sys.stderr", Full())
    notes = Console(stderr=True)
    notes.say("one")
    notes.say("two")
    with Progress(TextColumn("x"), console=notes):
        pass
    with pytest.raises(SystemExit) as stop:
        Console(file=Full()).say("a result")
    assert stop.value.code == 1


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("stored") / "run")


def report(run_folder, *words, env=None, **options):
    return subprocess.run(
        [sys.executable, "-m", "pruning_kit", "report", str(run_folder), *words],
        env={**os.environ, "PYTHONPATH": SOURCES, **(env or {})},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


@pytest.mark.parametrize(
    "encoding",
    [
        "ascii",
        "cp1252",
        pytest.param("cp437", marks=pytest.mark.slow),
        pytest.param("latin-1", marks=pytest.mark.slow),
    ],
)
def test_a_terminal_without_some_letters_gets_others(run_folder, encoding):
    done = report(run_folder, env={"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(encoding)
    assert "\\u" not in text and "\\x" not in text


def test_minus_sign_and_quotes_have_plain_forms():
    code = (
        "import sys; from pruning_kit.cli.console import out, replace_what_is_lacking as r;"
        "r((sys.stdout, None)); out.say('−1.5 ± 0.1 is 2× “so” … é')"
    )
    env = {**os.environ, "PYTHONPATH": SOURCES, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True)
    assert done.stdout.decode().strip() == '-1.5 +/- 0.1 is 2x "so" ... \\xe9'


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("words", [(), ("--help",)])
def test_a_full_device_is_one_line_and_exit_code_1(run_folder, words):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = report(run_folder, *words, stdout=full)
    assert done.returncode == 1
    assert done.stderr.decode() == (
        "Error: cannot print the result: No space left on device. What was measured and asked for "
        "in files is stored.\n"
    )


def test_a_reader_who_leaves_is_exit_code_1_without_a_word(run_folder):
    reading, writing = os.pipe()
    os.close(reading)
    done = report(run_folder, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_closed_streams_are_no_error(run_folder):
    line = f'"{sys.executable}" -m pruning_kit report "{run_folder}" >&- 2>&-'
    env = {**os.environ, "PYTHONPATH": SOURCES}
    assert subprocess.run(["bash", "-c", line], env=env, check=False).returncode == 0
