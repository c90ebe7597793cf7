"""Other systems: nothing that only POSIX has, no encoding that is the system's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pruning_kit.machine import user_cache

ROOT = Path(__file__).parents[1]


@pytest.fixture
def as_on_windows(tmp_path):
    """Run a command in a process without what only POSIX has; its output."""
    script = [sys.executable, "-X", "warn_default_encoding", "-W", "ignore::EncodingWarning"]
    own = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONIOENCODING": "cp1252"}
    own["PYTHONPATH"] = str(ROOT / "src")

    def run(*words: str) -> str:
        done = subprocess.run(
            [*script, str(ROOT / "tests" / "as_on_windows.py"), *words],
            cwd=tmp_path,
            env=os.environ | own,
            capture_output=True,
        )
        said = (done.stdout + done.stderr).decode("cp1252")
        assert done.returncode == 0, said
        return said

    return run


@pytest.mark.slow
def test_measuring_reporting_and_pruning_need_nothing_of_posix(as_on_windows, tmp_path):
    few = ("--max-windows", "2", "--no-speed", "--no-bridges", "--device", "cpu")
    said = as_on_windows("sweep", "--try", "4", "--model", "demo", *few, "--save_results")
    assert "Removed" in said and "Traceback" not in said
    (run,) = (tmp_path / "results").iterdir()
    assert not set(run.name) & set('<>:"/\\|?*')
    as_on_windows("report", str(run), "--format", "html")
    said = as_on_windows("prune", "--remove", "4", "--run", str(run), "--out", "p", "--gguf", "f16")
    assert "FAILED" not in said
    assert (tmp_path / "p-f16.gguf").exists()


def test_the_cache_is_where_the_system_has_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        "platformdirs.user_cache_path", lambda name, **how: tmp_path / f"{name} {how}"
    )
    how = "pruning-kit {'appauthor': False, 'opinion': False}"
    assert user_cache.path("runs") == tmp_path / how / "runs"


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_no_call_is_unguarded_that_the_system_lacks(platform, tmp_path):
    from mypy import api

    words = ["--platform", platform, "--cache-dir", str(tmp_path)]
    said, _, code = api.run(
        [*words, "--config-file", str(ROOT / "pyproject.toml"), str(ROOT / "src")]
    )
    assert code == 0, said
