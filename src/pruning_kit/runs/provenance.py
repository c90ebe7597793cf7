"""Provenance: what a result was made from and with, as plain JSON values."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pruning_kit.inputs.models import LoadedModel
from pruning_kit.inputs.texts import PreparedText
from pruning_kit.plan import Plan

PACKAGES = ("torch", "transformers", "tokenizers", "numpy")


def identity(
    loaded: LoadedModel, texts: Mapping[str, PreparedText], plans: Sequence[Plan]
) -> dict[str, Any]:
    """What is measured: the facts in which two runs must agree for their sums to be mixed."""
    return {
        "weights_sha256": loaded.weights_sha256,
        "texts_sha256": {split: text.corpus.sha256 for split, text in texts.items()},
        "windows": {split: len(text.windows) for split, text in texts.items()},
        "tokens_sha256": {split: text.ids_sha256 for split, text in texts.items()},
        "plans_sha256": hash_plans(plans),
        "attention": str(loaded.model.config._attn_implementation),
        "versions": versions(),
    }


def hash_plans(plans: Sequence[Plan]) -> str:
    """SHA-256 of the list of plans, in order."""
    return hashlib.sha256(" ".join(map(str, plans)).encode()).hexdigest()


def describe_model(loaded: LoadedModel, n_blocks: int) -> dict[str, Any]:
    """The model, for `run.json`."""
    return {
        "name": loaded.source.name,
        "revision": loaded.source.revision,
        "weights_sha256": loaded.weights_sha256,
        "model_type": loaded.model.config.model_type,
        "n_blocks": n_blocks,
        "stored_dtype": loaded.stored_dtype,
        "context_limit": loaded.context_limit,
        "note": loaded.source.note,
    }


def describe_text(text: PreparedText) -> dict[str, Any]:
    """A text, for `run.json`."""
    whole = len(text.windows) == text.n_windows_in_all
    of_all = f" of {text.n_windows_in_all}" if text.n_windows_in_all is not None else ""
    count = len(text.windows)
    part = f"first {count}{of_all} window{'s' * (count != 1 or bool(of_all))}"
    return {
        "name": text.corpus.name,
        "title": text.corpus.title,
        "sha256": text.corpus.sha256,
        "n_tokens": text.n_tokens_in_all,
        "n_bytes": text.n_bytes,
        "n_windows_in_all": text.n_windows_in_all,
        "part": None if whole else part,
        "note": text.corpus.note,
    }


def describe_windows(text: PreparedText, batch_size: int) -> dict[str, Any]:
    """Groups and scored tokens, for `run.json`."""
    return {
        "groups": [list(group) for group in text.groups(batch_size)],
        "targets": [window.n_targets for window in text.windows],
    }


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
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return None
    changed = subprocess.run(
        [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False
    )
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def now() -> str:
    """The present in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
