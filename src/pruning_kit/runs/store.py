"""The store: a run folder that is always whole, however the process ends.

    run.json          everything needed to repeat the run, written before the first part
    parts/            NLL sums of one window group each, safetensors, written whole and renamed
    latency.json      raw timing samples
    results.csv, …    derived from the above at any time

Window groups, batch size, kernel and threads are fixed before the first part, so a run that was
killed goes on with the same arithmetic. Several processes may share a folder: each takes whole
groups, and a group done twice is harmless.

Schema versions: 1, the first.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pruning_kit.errors import RunError, first_line
from pruning_kit.forms import what_is_missing

SCHEMA = 1
RUN_FILE = "run.json"
PARTS = "parts"
FORM = {
    "command": str,
    "created": str,
    "identity": {"plans_sha256": str},
    "model": {
        "name": str,
        "revision": str | None,
        "weights_sha256": str,
        "model_type": str,
        "n_blocks": int,
    },
    "texts": dict,
    "protocol": {"context": int, "stride": int},
    "numerics": {
        "dtype": str,
        "device": str,
        "device_name": str,
        "kernel": str,
        "attention": str,
        "batch_size": int,
        "threads": int,
    },
    "choice": {"seed": int},
    "plans": [str],
    "parameters": dict,
    "windows": dict,
    "versions": dict,
    "git_commit": str | None,
}
"""What a `run.json` holds at least; `texts` and `windows` hold these for each text."""
TEXT = {
    "name": str,
    "title": str,
    "sha256": str,
    "n_tokens": int | None,
    "n_bytes": int,
    "part": str | None,
}
WINDOWS = {"groups": [[int]], "targets": [int]}
RESTORE = "Restore the file from a copy, or sweep again into another folder."
LEFT_OVER_S = 3600


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn what the disk refuses into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"cannot write {what}: no space left on the disk. "
                "Free some space, then run the same command with --resume."
            ) from error
        raise RunError(
            f"cannot write {what}: {error.strerror or error}. Choose another place with --output."
        ) from error


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file whole: under a temporary name first, then renamed into place.

    Raises:
        RunError: if the disk refuses; nothing half-written is left.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with disk_errors(str(path)):
        try:
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file whole."""
    write_file(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.
        remedy: what to do where it is damaged, as a sentence.

    Raises:
        RunError: if the file is missing, unreadable or no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(
            f"cannot read {path}: {error.strerror}. Make it a file that you may read."
        ) from None
    except ValueError as error:  # neither UTF-8 nor JSON
        raise RunError(
            f"cannot read {path}: it is no valid JSON ({first_line(error)}). {remedy}"
        ) from None
    if not isinstance(value, dict):
        raise RunError(f"cannot read {path}: it holds no JSON object. {remedy}")
    return value


def read_info(folder: Path) -> dict[str, Any]:
    """The `run.json` of a run folder.

    Raises:
        RunError: if the folder is no run folder, of a schema that this version cannot read, or
            its `run.json` is damaged.
    """
    if not (folder / RUN_FILE).is_file():
        raise RunError(
            f"cannot read run {folder}: it holds no {RUN_FILE}. Give a folder that a sweep wrote."
        )
    info = read_json(folder / RUN_FILE, RESTORE)
    if info.get("schema") != SCHEMA:
        raise RunError(
            f"cannot read run {folder}: its schema is {info.get('schema')!r}, this version reads "
            f"{SCHEMA}. Use the version of pruning-kit that wrote it."
        )
    missing = what_is_missing(info, FORM) or what_is_missing(info, _form_of_lists(info))
    if missing:
        raise RunError(
            f"cannot read run {folder}: its {RUN_FILE} lacks {missing}, or holds it in another "
            f"form. {RESTORE}"
        )
    for split, windows in info["windows"].items():
        if not all(count > 0 for count in windows["targets"]):
            raise RunError(
                f"cannot read run {folder}: its {RUN_FILE} names windows of the text {split!r} "
                f"without scored tokens. {RESTORE}"
            )
        if not _cover(windows["groups"], len(windows["targets"])):
            raise RunError(
                f"cannot read run {folder}: the window groups in its {RUN_FILE} do not cover the "
                f"{len(windows['targets'])} windows of the text {split!r}. {RESTORE}"
            )
    return info


def _form_of_lists(info: Mapping[str, Any]) -> dict[str, Any]:
    """What is held for each plan and each text."""
    splits = {"test": None, **info["windows"]}
    return {
        "parameters": dict.fromkeys(info["plans"], int),
        **({"samples": dict.fromkeys(info["samples"], str)} if "samples" in info else {}),
        "texts": dict.fromkeys(splits, TEXT),
        "windows": dict.fromkeys(splits, WINDOWS),
    }


def _cover(groups: list[list[int]], n_windows: int) -> bool:
    """Whether groups, as (first, end), follow each other from the first window to the last."""
    ends = [0, *(group[-1] if group else 0 for group in groups)]
    return ends[-1] == n_windows > 0 and groups == [list(pair) for pair in pairwise(ends)]


class RunFolder:
    """A run folder that is being written."""

    def __init__(self, folder: Path, info: dict[str, Any]) -> None:
        self.folder = folder
        self.info = info

    @classmethod
    def create(cls, folder: Path, info: dict[str, Any]) -> RunFolder:
        """Make a new folder and write its `run.json`.

        Raises:
            RunError: if the folder exists and is not empty, or cannot be written.
        """
        if folder.is_dir() and not _is_blank(folder):
            raise RunError(
                f"cannot write a new run to {folder}: the folder is not empty. "
                "Choose another with --output, or go on with it by --resume."
            )
        if folder.exists() and not folder.is_dir():
            raise RunError(
                f"cannot write a run to {folder}: it is a file. Choose another --output."
            )
        existed = folder.is_dir()
        try:
            with disk_errors(str(folder)):
                (folder / PARTS).mkdir(parents=True, exist_ok=True)
            write_json(folder / RUN_FILE, {"schema": SCHEMA, **info})
        except RunError:
            if not existed:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(folder, {"schema": SCHEMA, **info})

    def remove_left_overs(self, clock: Callable[[], float] = time.time) -> None:
        """Delete temporary files of writers that were killed: those older than an hour."""
        for file in [*self.folder.glob(".*.part"), *self.folder.glob(f"{PARTS}/.*.part")]:
            with disk_errors(str(file)), suppress(FileNotFoundError):
                if clock() - file.stat().st_mtime > LEFT_OVER_S:
                    file.unlink()

    @classmethod
    def open(cls, folder: Path) -> RunFolder:
        """Go on with an existing folder."""
        return cls(folder, read_info(folder))

    def part_path(self, split: str, group: int) -> Path:
        """Where the sums of a window group are or will be."""
        return self.folder / PARTS / f"{split}-{group:06d}.safetensors"

    def has_part(self, split: str, group: int) -> bool:
        """Whether the sums of a window group are on the disk."""
        return self.part_path(split, group).exists()

    def is_complete(self) -> bool:
        """Whether the sums of every window group are on the disk."""
        return all(
            self.has_part(split, group)
            for split, windows in self.info["windows"].items()
            for group in range(len(windows["groups"]))
        )

    def write_part(
        self, split: str, group: int, nll_PW: np.ndarray, facts: Mapping[str, str]
    ) -> None:
        """Store the sums of one window group: nats, float64, shape (plans, windows)."""
        content = save(
            {"nll_nats": np.ascontiguousarray(nll_PW, dtype=np.float64)},
            metadata={"plans": self.info["identity"]["plans_sha256"], **facts},
        )
        write_file(self.part_path(split, group), content)

    def read_part(self, split: str, group: int) -> tuple[np.ndarray, dict[str, str]]:
        """The sums of one window group, and the facts stored with them.

        Raises:
            RunError: if the part is missing, damaged, or of another set of plans.
        """
        path = self.part_path(split, group)
        try:
            with safe_open(path, framework="numpy") as part:
                facts = dict(part.metadata() or {})
                nll_PW = part.get_tensor("nll_nats")
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"cannot read part {path}: {error}. Delete it and run again with --resume."
            ) from None
        first, end = self.info["windows"][split]["groups"][group]
        expected = (len(self.info["plans"]), end - first)
        if facts.get("plans") != self.info["identity"]["plans_sha256"] or nll_PW.shape != expected:
            raise RunError(
                f"cannot use part {path}: it belongs to another run ({nll_PW.shape} sums, not "
                f"{expected}). Delete it and run again with --resume."
            )
        return nll_PW, facts


def _is_blank(folder: Path) -> bool:
    """Whether a folder is empty, or what a run leaves that was killed before its first file."""
    return all(path.name == PARTS and not any(path.iterdir()) for path in folder.iterdir())


def first_difference(
    stored: Mapping[str, Any], wanted: Mapping[str, Any]
) -> tuple[str, Any, Any] | None:
    """The first fact in which two identities differ: its name, the stored and the wanted value."""
    for name in [*wanted, *(key for key in stored if key not in wanted)]:
        if stored.get(name) != wanted.get(name):
            return name, stored.get(name), wanted.get(name)
    return None
