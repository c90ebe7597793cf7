"""The user's cache: what can be made again, kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def path(name: str) -> Path:
    """Where the kit's files of one kind go, by the XDG base directory specification."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pruning-kit" / name


def folder(name: str) -> Path:
    """`path`, made for this user alone if it is not there.

    Raises:
        OSError: if the disk refuses.
    """
    found = path(name)
    found.mkdir(mode=0o700, parents=True, exist_ok=True)
    return found
