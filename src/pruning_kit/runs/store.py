"""The store: a run folder that is always whole, however the process ends.

    run.json          everything needed to repeat the run, written once, before the first part
    parts/            NLL sums of one window group each, safetensors, written whole and renamed,
                      with a checksum and bound to the facts in run.json that they are read by
    latency.json      raw timing samples
    samples.json      continuations of a prompt
    results.csv, …    derived from the above at any time

Window groups, batch size, kernel and threads are fixed before the first part, so a run that was
killed goes on with the same arithmetic. Several processes may share a folder: each takes whole
groups, and a group done twice is harmless.

Schema versions: 1, the first.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pruning_kit.errors import RunError
from pruning_kit.machine import disk
from pruning_kit.machine.forms import BLOCKS, COUNT, PLAN, Restricted, what_is_missing
from pruning_kit.plans.plan import Plan

SCHEMA = 1
RUN_FILE = "run.json"
PARTS = "parts"
SPLITS = {"test", "calibration"}


def is_command(text: str) -> bool:
    """Whether a shell could take a text apart into words."""
    try:
        shlex.split(text)
    except ValueError:  # a quotation that does not end
        return False
    return True


FORM = {
    "command": Restricted(str, is_command),
    "created": str,
    "identity": {"plans_sha256": str},
    "model": {
        "name": str,
        "revision": str | None,
        "weights_sha256": str,
        "model_type": str,
        "n_blocks": BLOCKS,
    },
    "texts": dict,
    "protocol": {"context": COUNT, "stride": COUNT},
    "numerics": {
        "dtype": str,
        "device": str,
        "device_name": str,
        "kernel": str,
        "attention": str,
        "batch_size": COUNT,
        "threads": COUNT,
    },
    "choice": {"seed": int},
    "plans": Restricted([PLAN], lambda plans: str(Plan()) in plans),
    "parameters": {str: COUNT},
    "windows": Restricted(dict, lambda windows: windows.keys() <= SPLITS),
    "versions": {str: str},
    "git_commit": str | None,
}
"""What a `run.json` holds at least; `texts` and `windows` hold these for each text."""
TEXT = {
    "name": str,
    "title": str,
    "sha256": str,
    "n_tokens": Restricted(int | None, lambda count: count is None or COUNT.allows(count)),
    "n_bytes": COUNT,
    "part": str | None,
}
WINDOWS = {"groups": [[int]], "targets": [COUNT]}
RESTORE = "Restore the file from a copy, or sweep again into another folder."


def read_info(folder: Path) -> dict[str, Any]:
    """The `run.json` of a run folder.

    Raises:
        RunError: if the folder is no run folder, of a schema that this version cannot read, or
            its `run.json` is damaged.
    """
    try:
        is_run = (folder / RUN_FILE).is_file()
    except OSError as error:
        raise RunError(
            f"cannot read run {folder}: {error.strerror}. Give a folder that you may enter."
        ) from None
    if not is_run:
        raise RunError(
            f"cannot read run {folder}: it holds no {RUN_FILE}. Give a folder that a sweep wrote."
        )
    info = disk.read_json(folder / RUN_FILE, RESTORE)
    if info.get("schema") != SCHEMA:
        raise RunError(
            f"cannot read run {folder}: its schema is {info.get('schema')!r:.40}, this version "
            f"reads {SCHEMA}. Use the version of pruning-kit that wrote it."
        )
    missing = what_is_missing(info, FORM) or what_is_missing(info, _form_of_lists(info))
    if missing:
        raise RunError(
            f"cannot read run {folder}: its {RUN_FILE} lacks {missing}, or holds it in another "
            f"form. {RESTORE}"
        )
    for split, windows in info["windows"].items():
        if not _cover(windows["groups"], len(windows["targets"])):
            raise RunError(
                f"cannot read run {folder}: the window groups in its {RUN_FILE} do not cover the "
                f"{len(windows['targets'])} windows of the text {split!r}. {RESTORE}"
            )
    _refuse_odd_plans(folder, info["plans"], info["model"]["n_blocks"])
    return info


def _refuse_odd_plans(folder: Path, plans: list[str], n_blocks: int) -> None:
    seen: set[str] = set()
    for text in plans:
        plan = Plan.parse(text)
        if text in seen or text != str(plan) or plan.removed[-1:] >= (n_blocks,):
            raise RunError(
                f"cannot read run {folder}: its {RUN_FILE} names plan {text!r} twice, or a model "
                f"of {n_blocks} blocks has no such plan. {RESTORE}"
            )
        seen.add(text)


def _form_of_lists(info: Mapping[str, Any]) -> dict[str, Any]:
    """What is held for each plan and each text."""
    splits = {"test": None, **info["windows"]}
    return {
        "parameters": dict.fromkeys(info["plans"], COUNT),
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
            with disk.disk_errors(str(folder)):
                (folder / PARTS).mkdir(parents=True, exist_ok=True)
            disk.write_json(folder / RUN_FILE, {"schema": SCHEMA, **info})
        except RunError:
            if not existed:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(folder, {"schema": SCHEMA, **info})

    def remove_left_overs(self) -> None:
        """Delete what killed writers left of their files; those of live ones stay."""
        disk.remove_left_overs(self.folder)
        disk.remove_left_overs(self.folder / PARTS)

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
        """Store the sums of one window group: nats, float64, shape (plans, windows).

        With them go facts, the run they belong to and a checksum of it all.
        """
        nll_PW = np.ascontiguousarray(nll_PW, dtype=np.float64)
        facts = {**facts, "run": self.facts_sha256}
        content = save({"nll_nats": nll_PW}, metadata={**facts, "sha256": _checksum(nll_PW, facts)})
        disk.write_file(self.part_path(split, group), content)

    def read_part(self, split: str, group: int) -> tuple[np.ndarray, dict[str, str]]:
        """The sums of one window group, and the facts stored with them.

        Raises:
            RunError: if the part is missing, damaged, or does not belong to this `run.json`.
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
        if facts.pop("sha256", None) != _checksum(nll_PW, facts):
            raise RunError(
                f"cannot use part {path}: it is damaged, since its checksum is not that of what it "
                "holds. Delete it and run again with --resume."
            )
        first, end = self.info["windows"][split]["groups"][group]
        if facts.pop("run", None) != self.facts_sha256 or nll_PW.shape[1] != end - first:
            raise RunError(
                f"cannot use part {path}: it does not belong to the {RUN_FILE} beside it, since "
                "one of them was changed or is of another run. Restore it from a copy, or sweep "
                "again into another folder."
            )
        return nll_PW, facts

    @cached_property
    def facts_sha256(self) -> str:
        """SHA-256 of what the sums are read by: a change of these facts in `run.json` is found."""
        named = ("identity", "protocol", "plans", "parameters", "windows")
        facts = {
            **{name: self.info[name] for name in named},
            "n_blocks": self.info["model"]["n_blocks"],
            "n_bytes": {split: text["n_bytes"] for split, text in self.info["texts"].items()},
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _checksum(nll_PW: np.ndarray, facts: Mapping[str, str]) -> str:
    """SHA-256 of sums, with their shape and format, and of the facts beside them."""
    described = json.dumps([str(nll_PW.dtype), nll_PW.shape, sorted(facts.items())])
    return hashlib.sha256(described.encode() + nll_PW.tobytes()).hexdigest()


def _is_blank(folder: Path) -> bool:
    """Whether a folder is empty, or what a run leaves that was killed before its `run.json`."""
    return all(
        all(map(disk.is_left_over, path.iterdir()))
        if path.name == PARTS and path.is_dir()
        else disk.is_left_over(path)
        for path in folder.iterdir()
    )
