"""Intents: what a recovery set out to do, kept beside what it made, to be gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from pruning_kit.errors import RunError
from pruning_kit.machine import disk
from pruning_kit.machine.typed import Count, MisfitError, fit
from pruning_kit.runs.store import RECOVERIES, RESTORE

INTENT_FILE = "intent.json"


class Intent(Struct, frozen=True, kw_only=True):
    """What was asked for, and what came of it."""

    asked: dict[str, str]
    tokens: tuple[Count, ...]
    """Of each training, the longest last: where minutes were asked for, by a trial."""
    max_windows: Count | None = None
    """Of each text, which are measured at the end; None: all that were asked for."""


def refuse_taken(folder: Path, resume: bool) -> None:
    """Refuse a folder with anything in it but a recovery that is to be gone on with.

    Raises:
        RunError: naming it.
    """
    with disk.disk_errors(str(folder)):
        begun = _path(folder).exists()
        is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if begun and not resume:
        raise RunError(
            f"cannot recover into {folder}: a recovery is already there. Choose another with "
            "`output`, or go on with it by `resume`."
        )
    if not (begun or is_free):
        raise RunError(
            f"cannot recover into {folder}: it is no empty folder, and no recovery was begun "
            "there. Choose another with `output`."
        )


def read_intent(folder: Path) -> Intent | None:
    """What a stopped recovery set out to do; None where none was begun.

    Raises:
        RunError: if it is damaged.
    """
    path = _path(folder)
    if not path.exists():
        return None
    try:
        return fit(disk.read_json(path, RESTORE), Intent)
    except MisfitError as misfit:
        raise RunError(f"cannot read {path}: it {misfit.of_one}. {RESTORE}") from None


def write_intent(folder: Path, intent: Intent) -> None:
    """Keep it.

    Raises:
        RunError: if the disk refuses.
    """
    with disk.disk_errors(str(folder)):
        _path(folder).parent.mkdir(parents=True, exist_ok=True)
    disk.write_json(_path(folder), intent)


def refuse_other(folder: Path, stored: Mapping[str, str], asked: Mapping[str, str]) -> None:
    """Refuse to go on with something else than was begun: a recovery, or a shrinking.

    Args:
        folder: in which it was.
        stored: what was asked for then.
        asked: what is asked for now.

    Raises:
        RunError: naming the first difference.
    """
    if difference := disk.first_difference(stored, asked):
        name, then, now = difference
        raise RunError(
            f"cannot resume {folder}: it was begun with {name}={then}, this one asks for {now}. "
            "Ask for the same again, or give another `output`."
        )


def _path(folder: Path) -> Path:
    return folder / RECOVERIES / INTENT_FILE
