"""The command line, called in this process."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

from pruning_kit.cli import app as cli


class Called(NamedTuple):
    """How a command ended."""

    code: int
    said: str
    """All of it in one line."""
    lines: list[str]


def call(*words: object) -> Called:
    """Call it, on a terminal of 120 columns."""
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(told), redirect_stderr(told):
        patch.setenv("COLUMNS", "120")
        code = cli.main([str(word) for word in words])
    lines = told.getvalue().strip().splitlines()
    return Called(code, " ".join(" ".join(lines).split()), lines)
