"""Files that are whole however the process ends, and what killed writers left of theirs.

A file or folder is written under a temporary name beside its own, `.NAME.HEX.part`, made durable
and renamed. Its writer holds a lock on it meanwhile, which the system takes from a process that
dies, on whichever machine: what can be locked has no writer any more.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from pruning_kit.errors import RunError, first_line

_LEFT_OVER = re.compile(r"\..+\.[0-9a-f]+\.part")
RETRIES = 2


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn what the disk refuses into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"cannot write {what}: no space left on the disk. "
                "Free some space, then run the same with `resume`."
            ) from error
        raise RunError(
            f"cannot write {what}: {error.strerror or error}. Choose another place with `output`."
        ) from error


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file whole: under a temporary name first, then renamed into place.

    Raises:
        RunError: if the disk refuses; nothing half-written is left.
    """
    data = content.encode() if isinstance(content, str) else content
    with disk_errors(str(path)):
        for _ in range(RETRIES):
            # Where locks do not reach, a sweep that starts takes a temporary for a left-over.
            with suppress(FileNotFoundError):
                _write_and_rename(path, data)
                return
        _write_and_rename(path, data)


def _write_and_rename(path: Path, data: bytes) -> None:
    with being_written(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def being_written(path: Path) -> Iterator[Path]:
    """An empty file that takes the name `path` once it is written, or vanishes on any failure.

    Raises:
        OSError: if the disk refuses.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("x+b") as stream, _locked(temporary):
            yield temporary
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any] | msgspec.Struct) -> None:
    """Write a JSON file whole."""
    plain = msgspec.to_builtins(value)
    write_file(path, json.dumps(plain, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.
        remedy: what to do where it is damaged, as a sentence.

    Raises:
        RunError: if the file is missing, unreadable or no JSON object.
    """
    try:
        if not path.is_file():  # a pipe or a device may be read for ever
            raise FileNotFoundError(errno.ENOENT, "there is no such file")
        value = parse_json(path.read_bytes())
    except OSError as error:
        raise RunError(
            f"cannot read {path}: {error.strerror}. Make it a file that you may read."
        ) from None
    except ValueError as error:
        raise RunError(
            f"cannot read {path}: it is no valid JSON ({first_line(error)}). {remedy}"
        ) from None
    if not isinstance(value, dict):
        raise RunError(f"cannot read {path}: it holds no JSON object. {remedy}")
    return value


def parse_json(content: bytes) -> Any:
    """The value of a JSON file: numbers are finite, texts whole characters.

    Raises:
        ValueError: saying what is wrong.
    """
    try:
        return msgspec.json.decode(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except msgspec.ValidationError as error:  # its place is not told where nothing has a type
        raise ValueError(str(error).partition(" - at ")[0]) from None


def move_folder(source: Path, target: Path) -> None:
    """Move a folder, also to another disk: at any moment one of the two is whole.

    A move that is killed leaves at most a left-over beside either, or both folders whole.

    Raises:
        OSError: if the disk refuses; the source is untouched then.
    """
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_whole(source, target)
        remove_folder(source)


def _copy_whole(source: Path, target: Path) -> None:
    temporary = temporary_name(target)
    try:
        temporary.mkdir()
        with _locked(temporary):
            _fill(temporary, source)
            temporary.rename(target)
        _sync_folder(target.parent)  # the source is deleted next
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(folder: Path, source: Path) -> None:
    """Copy what is in a folder, durably."""
    for path in source.iterdir():
        target = folder / path.name
        if path.is_dir():
            target.mkdir()
            _fill(target, path)
        else:
            with path.open("rb") as old, target.open("xb") as new:
                shutil.copyfileobj(old, new)
                new.flush()
                os.fsync(new.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; Windows does so by itself and opens no folders."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Delete a folder so that no half of it is ever taken for a whole one."""
    temporary = temporary_name(folder)
    folder.rename(temporary)
    shutil.rmtree(temporary, ignore_errors=True)


def temporary_name(path: Path) -> Path:
    """A name beside `path` that nobody has used and that `is_left_over` knows."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def is_left_over(path: Path) -> bool:
    """Whether a file or folder has the name of one that is being written, or was."""
    return _LEFT_OVER.fullmatch(path.name) is not None


def remove_left_overs(folder: Path, name: str | None = None) -> None:
    """Delete in a folder what killed writers left of their files and folders; live ones go on.

    What this user may not delete stays, and harms nobody.

    Args:
        folder: it may not be there.
        name: of what the writers were to make; None: all.
    """
    pattern = "*" if name is None else f"{glob.escape(name)}.*"
    for path in filter(is_left_over, folder.glob(f".{pattern}.part")):
        with suppress(OSError), _locked(path) as has_no_writer:
            if has_no_writer:
                (remove_folder if path.is_dir() else Path.unlink)(path)


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold the lock of a file or folder; False if another process holds it.

    Where a file system has no locks, a left-over may be taken from its live writer: `write_file`
    then writes again, and `move_folder` fails with its source untouched. Windows needs no lock: it
    deletes no file that is open.
    """
    if sys.platform == "win32":
        yield True
        return
    import fcntl

    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        free = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        except OSError:
            pass
        yield free
    finally:
        os.close(descriptor)


def first_difference(
    stored: Mapping[str, Any], wanted: Mapping[str, Any]
) -> tuple[str, Any, Any] | None:
    """The first fact in which two identities differ: its name, the stored and the wanted value."""
    for name in [*wanted, *(key for key in stored if key not in wanted)]:
        if stored.get(name) != wanted.get(name):
            return name, stored.get(name), wanted.get(name)
    return None
