"""Ctrl-C before there is a command line: one line and exit code 130."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pruning_kit.cli import interrupts

INTERRUPTED = "import os, signal; os.kill(os.getpid(), signal.SIGINT); raise OSError('no handler')"
ENTRIES = {
    "main.py": [str(Path(__file__).parents[1] / "main.py")],
    "-m": ["-m", "pruning_kit"],
    "console script": ["-c", "import sys; from pruning_kit.__main__ import main; sys.exit(main())"],
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_ctrl_c_during_imports_is_one_line(entry, tmp_path):
    (tmp_path / "typer.py").write_text(INTERRUPTED)  # found before the real one
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, *entry, "--help"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Stopped.\n")


def test_an_interrupt_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        interrupts.end_at_once()
        interrupts.raise_again()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_can_be_answered_again():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupts.end_at_once()
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        interrupts.raise_again()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
