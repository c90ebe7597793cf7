"""Files of a run folder: JSON read as its type, and what a killed writer may have left of one."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from pruning_kit.errors import RunError
from pruning_kit.machine import disk
from pruning_kit.machine.typed import MisfitError, fit

ROUNDS, RECOVERIES = "rounds", "recoveries"
"""Folders in a run folder."""
RESTORE = "Restore the file from a copy, or sweep again into another folder."

Kind = TypeVar("Kind", bound=Struct)


def read(folder: Path, name: str, kind: type[Kind]) -> Kind:
    """A file of a run folder, as its type.

    Raises:
        RunError: if it is missing or damaged, naming the first fact that does not fit.
    """
    try:
        return fit(disk.read_json(folder / name, RESTORE), kind)
    except MisfitError as misfit:
        raise unfit(folder, name, misfit) from None


def read_if_there(folder: Path, name: str, kind: type[Kind]) -> Kind | None:
    """The same; None where there is no such file.

    Raises:
        RunError: if it is damaged, or the folder may not be entered.
    """
    with disk.disk_errors(str(folder)):
        is_there = (folder / name).exists()
    return read(folder, name, kind) if is_there else None


def write(folder: Path, name: str, value: Struct) -> None:
    """Write a file of a run folder whole, in place of an earlier one; folders are made for it.

    Raises:
        RunError: if the disk refuses.
    """
    path = folder / name
    with disk.disk_errors(str(path.parent)):
        path.parent.mkdir(parents=True, exist_ok=True)
    disk.write_json(path, value)


def unfit(folder: Path, name: str, misfit: MisfitError) -> RunError:
    """What to say of a file that holds what it cannot."""
    return RunError(f"cannot read run {folder}: its {name} {misfit.of_one}. {RESTORE}")


def is_blank(folder: Path, kept: Collection[str] = ()) -> bool:
    """Whether a folder is empty, or what a command leaves that was killed before its first file.

    Args:
        folder: it exists.
        kept: names of what may be in it besides.
    """
    return all(
        is_blank(path)
        if path.is_dir() and path.name in (ROUNDS, RECOVERIES)
        else disk.is_left_over(path)
        for path in folder.iterdir()
        if path.name not in kept
    )
