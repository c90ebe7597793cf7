"""Versions: of the kit, its libraries and its source."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "transformers", "tokenizers", "numpy")


def versions() -> dict[str, str]:
    """Versions of the kit and of the libraries whose arithmetic it uses."""
    found = {name: version(name) for name in PACKAGES}
    return {"pruning_kit": kit_version(), **found}


def kit_version() -> str:
    """The installed version, or that of the source tree if the kit is run from there."""
    try:
        return version("distilgpt2-pruning-kit")
    except PackageNotFoundError:
        import tomllib

        project = Path(__file__).parents[3] / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


def git_commit() -> str | None:
    """Commit of the source tree the kit runs from, with `+` if it was changed; None elsewhere."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], capture_output=True, encoding="utf-8", check=False
    )
    if head.returncode:
        return None
    changed = subprocess.run(
        [*git, "status", "--porcelain", "-uno"], capture_output=True, encoding="utf-8", check=False
    )
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def now() -> str:
    """The present in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
