"""Intents: what a command set out to do, kept beside what it made, to be gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, TypeVar

from msgspec import Struct

from pruning_kit.errors import RunError
from pruning_kit.machine import disk
from pruning_kit.machine.typed import Count
from pruning_kit.runs import files


class Recovery(Struct, frozen=True, kw_only=True):
    """A recovery: what was asked for, and what came of it."""

    verb: ClassVar[str] = "recover"
    noun: ClassVar[str] = "recovery"
    file: ClassVar[str] = f"{files.RECOVERIES}/intent.json"

    asked: dict[str, str]
    tokens: tuple[Count, ...]
    """Of each training, the longest last: where minutes were asked for, by a trial."""
    max_windows: Count | None = None
    """Of each text, which are measured at the end; None: all that were asked for."""


class Shrinking(Struct, frozen=True, kw_only=True):
    """A shrinking: what was asked for, and what timings decided, which would differ next time."""

    verb: ClassVar[str] = "shrink"
    noun: ClassVar[str] = "shrinking"
    file: ClassVar[str] = "shrink.json"

    asked: dict[str, str]
    candidates: str
    """Which sets are measured, as a proposer's text form."""
    candidate_windows: Count
    """Of the text chosen on, at most."""
    result_windows: Count
    untrained: str | None = None
    """Why nothing is trained, once that is known."""


Intent = TypeVar("Intent", Recovery, Shrinking)


def refuse_taken(folder: Path, kind: type[Recovery | Shrinking], resume: bool) -> None:
    """Refuse a folder with anything in it but what is to be gone on with.

    Raises:
        RunError: naming it.
    """
    with disk.disk_errors(str(folder)):
        begun = (folder / kind.file).exists()
        is_free = not folder.exists() or (folder.is_dir() and files.is_blank(folder))
    if begun and not resume:
        raise RunError(
            f"cannot {kind.verb} into {folder}: a {kind.noun} is already there. Choose another "
            "with `output`, or go on with it by `resume`."
        )
    if not (begun or is_free):
        raise RunError(
            f"cannot {kind.verb} into {folder}: it is no empty folder, and no {kind.noun} was "
            "begun there. Choose another with `output`."
        )


def read_intent(folder: Path, kind: type[Intent]) -> Intent | None:
    """What a stopped command set out to do; None where none was begun.

    Raises:
        RunError: if it is damaged.
    """
    return files.read_if_there(folder, kind.file, kind)


def write_intent(folder: Path, intent: Recovery | Shrinking) -> None:
    """Keep it.

    Raises:
        RunError: if the disk refuses.
    """
    files.write(folder, intent.file, intent)


def refuse_other(folder: Path, stored: Mapping[str, str], asked: Mapping[str, str]) -> None:
    """Refuse to go on with something else than was begun.

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
