"""The user's cache: what can be made again, kept between runs."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import platformdirs

GROUP, EVERYBODY = stat.S_IWGRP, stat.S_IWOTH


def path(name: str) -> Path:
    """Where the kit's files of one kind go, by the rules of the system.

    Raises:
        OSError: if the system names no home for this user.
    """
    try:
        base = platformdirs.user_cache_path("pruning-kit", appauthor=False, opinion=False)
    except RuntimeError as error:
        raise OSError("no home is known for this user, HOME is not set") from error
    return base / name


def folder(name: str) -> Path:
    """`path`, made for this user alone if it is not there; for what will be run.

    Raises:
        OSError: if the disk refuses, or others may write there.
    """
    found = path(name)
    found.mkdir(mode=0o700, parents=True, exist_ok=True)
    refuse_foreign(found.parent, EVERYBODY)  # made under any umask; a group may be the user's own
    refuse_foreign(found)
    return found


def refuse_foreign(found: Path, writers: int = GROUP | EVERYBODY) -> None:
    """Refuse what others than this user may have written.

    Args:
        found: a file or folder.
        writers: who may not be allowed to write there, as bits of a mode.

    Raises:
        PermissionError: naming the path.
    """
    if sys.platform == "win32":  # where a user's own folders are nobody else's
        return
    state = found.stat()
    if state.st_uid != os.geteuid() or state.st_mode & writers:
        raise PermissionError(f"others may write to {found}")
