"""Which folder a run goes to: a new one, or that of a stopped run with the same identity."""

from __future__ import annotations

import errno
import filecmp
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from pruning_kit.errors import RunError, first_line
from pruning_kit.machine import disk, user_cache
from pruning_kit.runs import store

RESULTS = Path("results")
SETTINGS = {"reported": "`dataset`", "selection": "`select_on`", "also": "`also_on`"}
"""Of each text's role, without its number."""
MAX_PROPOSAL = 60


def cache_folder() -> Path:
    """Where runs go that were not asked to be saved: the user's cache.

    Raises:
        RunError: if the system names no home for this user.
    """
    try:
        return user_cache.path("runs")
    except OSError as error:
        raise RunError(
            f"cannot keep the run in the user's cache: {first_line(error)}. Choose another place "
            "with `output`."
        ) from None


def place_for(save_results: bool) -> Path:
    """Where a new run goes that nobody named a folder for."""
    return RESULTS if save_results else cache_folder()


def check_place(folder: Path) -> None:
    """Refuse a folder that could not be made or written to, before anything is computed for it.

    Raises:
        RunError: naming the folder and why.
    """
    with disk.disk_errors(str(folder)):
        place = next(path for path in (folder, *folder.absolute().parents) if _is_there(path))
        for part in folder.parts:
            _is_there(place / part)  # too long a name, or one in a folder not to be entered
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def new_folder(base: Path, name: str) -> Path:
    """Make a folder under `base` that nobody has used yet, also if others start just now.

    Raises:
        RunError: if the disk refuses.
    """
    readable = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
    stem = f"{readable}-{datetime.now():%Y%m%d-%H%M%S}"
    for number in range(1, 1000):
        folder = base / (stem if number == 1 else f"{stem}-{number}")
        try:
            with disk.disk_errors(str(folder)):
                folder.mkdir(parents=True)
        except RunError as error:
            if isinstance(error.__cause__, FileExistsError) and folder.is_dir():
                continue
            raise
        return folder
    raise AssertionError(stem)


def named_folder(folder: Path, resume: bool) -> Path:
    """A folder the user named, if it may be written to.

    Raises:
        RunError: if a run is there and the user did not say to go on with it, or the folder may
            not be entered.
    """
    with disk.disk_errors(str(folder)):
        is_run = (folder / store.RUN_FILE).exists()
    if is_run and not resume:
        raise RunError(
            f"cannot write a new run to {folder}: a run is already there. "
            "Choose another with `output`, or go on with it by `resume`."
        )
    return folder


def find_run(bases: Sequence[Path], identity: Mapping[str, Any]) -> Path | None:
    """The run with this identity to go on with: an unfinished one before others, the newest."""
    runs = []
    for file in (file for base in bases for file in base.glob(f"*/{store.RUN_FILE}")):
        try:
            run = store.RunFolder.open(file.parent)
            if run.facts.identity == dict(identity):
                runs.append((not run.is_finished(), run.facts.created, file.parent))
        except RunError:
            continue  # a foreign or older folder beside ours is not what we look for
    return max(runs)[2] if runs else None


def tidy(cache: Path, results: Path) -> None:
    """Finish what earlier runs were killed at: delete left-overs, and what was moved already.

    Args:
        cache: where runs are moved from.
        results: where they are moved to.
    """
    for base in (cache, results):
        disk.remove_left_overs(base)
    for source in (file.parent for file in cache.glob(f"*/{store.RUN_FILE}")):
        with suppress(OSError):  # another process may do the same
            if _holds_all_of(results / source.name, source):
                disk.remove_folder(source)


def _holds_all_of(target: Path, source: Path) -> bool:
    """Whether a run is a whole copy of another."""
    first, second = source / store.RUN_FILE, target / store.RUN_FILE
    if source.samefile(target) or not filecmp.cmp(first, second, shallow=False):
        return False
    old, new = (
        {(file.relative_to(folder), file.stat().st_size) for file in folder.rglob("*.*")}
        for folder in (source, target)
    )
    return old <= new


def move_under(folder: Path, base: Path) -> Path:
    """Move a run to another place, such as from the cache to where results are saved.

    Raises:
        RunError: if the place is taken or the disk refuses.
    """
    target = base / folder.name
    if target.exists():
        raise RunError(
            f"cannot move {folder} to {target}: it exists. Go on with either by `output`."
        )
    with disk.disk_errors(str(target)):
        base.mkdir(parents=True, exist_ok=True)
        disk.move_folder(folder, target)
    return target


def refuse_to_mix(
    run: store.RunFolder, identity: Mapping[str, Any], numerics: Mapping[str, Any]
) -> None:
    """Stop if the folder was measured otherwise than this run would.

    Args:
        run: the folder to go on with.
        identity: what this run measures.
        numerics: how this run computes, where it is not free to compute as the folder says.

    Raises:
        RunError: naming the first fact that differs.
    """
    wanted = {**identity, **numerics}
    used = {name: getattr(run.facts.numerics, name) for name in numerics}
    stored = {**run.facts.identity, **used}
    difference = disk.first_difference(stored, wanted)
    if difference:
        raise RunError(
            f"cannot resume {run.folder}: it was measured {_in_words(*difference)}. Ask for the "
            "same again, or leave out `resume` and give another `output` to start a new run."
        )


def _in_words(name: str, then: Any, now: Any) -> str:
    """A fact that differs: how the run was measured, and what this one asks for."""
    if isinstance(then, dict) and isinstance(now, dict):
        part = disk.first_difference(then, now)
        assert part is not None
        return _part_in_words(name, *part)
    if name.endswith("_sha256"):
        return f"with other {name.removesuffix('_sha256')}"
    if name == "proposal":
        return _plans_in_words(_cut(then), _cut(now))
    return f"with {name}={then}, this run uses {now}"


def _plans_in_words(then: str, now: str) -> str:
    return f"with plans={then}, this run uses {now}" if then != now else "with other plans"


def _cut(proposal: str) -> str:
    """A proposer's text form, which may name many plans."""
    return textwrap.shorten(str(proposal), MAX_PROPOSAL, placeholder=" …")


def _part_in_words(name: str, part: str, then: Any, now: Any) -> str:
    """The same for a fact that each text or library has."""
    if name == "versions":
        return f"with {part} {then}, this run uses {now}"
    kind, _, number = part.partition("-")
    setting = f"{SETTINGS.get(kind, kind)}{f' (text {number})' * bool(number)}"
    if then is None:
        return f"without {setting}, this run uses it"
    if now is None:
        return f"with {setting}, this run leaves it out"
    if name == "windows":
        return (
            f"on {then} windows of the text of {setting}, this run asks for {now} (`max_windows`)"
        )
    return f"with other {name.removesuffix('_sha256')} of {setting}"
