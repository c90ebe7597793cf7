"""Shrinkings: what one set out to do, kept beside its runs, to be gone on with."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from pruning_kit.errors import RunError
from pruning_kit.machine import disk
from pruning_kit.machine.typed import Count, MisfitError, fit
from pruning_kit.runs.store import RESTORE

SHRINKING_FILE = "shrink.json"


class Shrinking(Struct, frozen=True, kw_only=True):
    """What was asked for, and what was decided by timings, which would differ the next time."""

    asked: dict[str, str]
    candidates: str
    """Which sets are measured, as a proposer's text form."""
    candidate_windows: Count
    """Of each text, at most."""
    result_windows: Count
    untrained: str | None = None
    """Why nothing is trained, once that is known."""


def read_shrinking(folder: Path, resume: bool) -> Shrinking | None:
    """What was set out to do in a folder; None where nothing was.

    Raises:
        RunError: if it is damaged, or there and not to be gone on with.
    """
    path = folder / SHRINKING_FILE
    with disk.disk_errors(str(folder)):
        if not path.exists():
            return None
    if not resume:
        raise RunError(
            f"cannot shrink into {folder}: a run is already there. Choose another with `output`, "
            "or go on with it by `resume`."
        )
    try:
        return fit(disk.read_json(path, RESTORE), Shrinking)
    except MisfitError as misfit:
        raise RunError(f"cannot read {path}: it {misfit.of_one}. {RESTORE}") from None


def write_shrinking(folder: Path, shrinking: Shrinking) -> None:
    """Keep it.

    Raises:
        RunError: if the disk refuses.
    """
    with disk.disk_errors(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
    disk.write_json(folder / SHRINKING_FILE, shrinking)
