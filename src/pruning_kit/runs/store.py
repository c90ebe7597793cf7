"""The store: a run folder that is always whole, however the process ends.

    run.json                everything needed to repeat the run, written once, before all else
    rounds/000/             the first round; rounds are appended and never rewritten
        variants.json       what it measures
        reported-000012.…   sums of a window group, safetensors: a tensor (variants, windows) of
                            each measure, a checksum, bound to run.json and to variants.json
    finished.json           that no sum is missing; who asked for which rows
    latency.json            raw timing samples
    samples.json            continuations of a prompt
    scores.json             blocks ranked by one pass
    results.csv, …          derived from the above at any time

Window groups, batch size, kernel and threads are fixed before the first part, so a run that was
killed goes on with the same arithmetic. Several processes may share a folder: each takes whole
groups, and a group done twice is harmless.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pruning_kit.errors import RunError
from pruning_kit.machine import disk
from pruning_kit.machine.typed import MisfitError
from pruning_kit.plans.variant import Variant
from pruning_kit.runs import files, parts
from pruning_kit.runs.facts import (
    SCHEMA,
    AskedFacts,
    FinishedFacts,
    Group,
    Role,
    RoundFacts,
    RunFacts,
)
from pruning_kit.runs.files import RECOVERIES, RESTORE, ROUNDS, is_blank

RUN_FILE = "run.json"
VARIANTS_FILE = "variants.json"
FINISHED_FILE = "finished.json"


class RunFolder:
    """A run folder that is being written or read."""

    def __init__(self, folder: Path, facts: RunFacts) -> None:
        self.folder = folder
        self.facts = facts
        self._rounds: list[RoundFacts] = []
        self._round_hashes: dict[int, str] = {}

    @classmethod
    def create(cls, folder: Path, facts: RunFacts, begun: bool = False) -> RunFolder:
        """Make a new folder and write its `run.json`.

        Args:
            folder: the folder.
            facts: of the run.
            begun: whether recoveries may be there already.

        Raises:
            RunError: if the folder exists and is not empty, or cannot be written.
        """
        kept = {RECOVERIES} if begun else set()
        if folder.is_dir() and not is_blank(folder, kept):
            raise RunError(
                f"cannot write a new run to {folder}: the folder is not empty. "
                "Choose another with `output`, or go on with it by `resume`."
            )
        if folder.exists() and not folder.is_dir():
            raise RunError(
                f"cannot write a run to {folder}: it is a file. Choose another `output`."
            )
        existed = folder.is_dir()
        try:
            with disk.disk_errors(str(folder)):
                (folder / ROUNDS).mkdir(parents=True, exist_ok=True)
            disk.write_json(folder / RUN_FILE, facts)
        except RunError:
            if not existed:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(folder, facts)

    @classmethod
    def open(cls, folder: Path) -> RunFolder:
        """Go on with an existing folder.

        Raises:
            RunError: if the folder is no run folder, of a schema that this version cannot read, or
                its `run.json` is damaged.
        """
        return cls(folder, _read_run_file(folder))

    def remove_left_overs(self) -> None:
        """Delete what killed writers left of their files; those of live ones stay."""
        kept = self.folder / RECOVERIES
        inner = (kept, *kept.glob("*/"), *(self.folder / ROUNDS).glob("*/"))
        for folder in (self.folder, *inner):
            disk.remove_left_overs(folder)

    # --- rounds ------------------------------------------------------------------------------

    def rounds(self) -> list[RoundFacts]:
        """What the rounds measure that are on the disk, in their order.

        Raises:
            RunError: naming a file that is damaged or missing, or a round that cannot be.
        """
        if self._rounds and not (self.folder / _name(len(self._rounds))).exists():
            return list(self._rounds)  # a run of many is not listed again and again
        numbers = list(self._numbers())
        if numbers != list(range(len(numbers))):
            missing = min(set(range(len(numbers))) - set(numbers))
            raise RunError(
                f"cannot read run {self.folder}: {_name(missing)} is missing, although "
                f"{_name(numbers[-1])} is there. Restore the folder from a copy, or sweep again "
                "into another one."
            )
        for number in range(len(self._rounds), len(numbers)):
            name = f"{_name(number)}/{VARIANTS_FILE}"
            round_ = files.read(self.folder, name, RoundFacts)
            try:
                self._check(round_)
            except MisfitError as misfit:
                raise files.unfit(self.folder, name, misfit) from None
            self._rounds.append(round_)
        return list(self._rounds)

    def add_round(self, number: int, round_: RoundFacts) -> None:
        """Append a round; one that is stored already is left as it is.

        Raises:
            RunError: if another one is stored under this number, or the disk refuses.
        """
        stored = self.rounds()
        if number < len(stored):
            if stored[number] == round_:
                return
            raise RunError(
                f"cannot resume {self.folder}: its round {number} measured other variants, or "
                "by other measures, than this run asks for. Ask for the same again, or leave out "
                "`resume` and give another `output` to start a new run."
            )
        assert number == len(stored)
        self._check(round_)
        folder = self.folder / _name(number)
        with disk.disk_errors(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
        disk.write_json(folder / VARIANTS_FILE, round_)
        self._rounds.append(round_)

    def _numbers(self) -> Iterator[int]:
        """The numbers of the rounds that are there, ascending."""
        folders = (self.folder / ROUNDS).glob("*/")
        for folder in sorted(folders, key=lambda path: (len(path.name), path.name)):
            if not re.fullmatch(r"\d{3,}", folder.name):
                continue
            if (folder / VARIANTS_FILE).exists() or not is_blank(folder):
                yield int(folder.name)

    def _check(self, round_: RoundFacts) -> None:
        """See that a round can follow those that are known.

        Raises:
            MisfitError: naming what is wrong with it.
        """
        round_.check(self.facts)
        if not self._rounds and (round_.is_screening or str(Variant()) not in round_.names):
            raise MisfitError("variants", "the first round lacks the whole model")
        known: dict[str, int] = {}
        for earlier in self._rounds:
            known |= {facts.variant: facts.parameters for facts in earlier.variants}
            both = set(earlier.names) & set(round_.names)
            if both and round_.repeats(earlier):
                raise MisfitError("variants", f"an earlier round has measured {min(both)!r}")
        for facts in round_.variants:
            if known.get(facts.variant, facts.parameters) != facts.parameters:
                raise MisfitError("variants", f"{facts.variant!r} had other parameters before")

    def is_measured(self, number: int) -> bool:
        """Whether all sums of a round are on the disk."""
        done, all_of_them = self.count_parts(number)
        return done == all_of_them

    def count_parts(self, number: int) -> tuple[int, int]:
        """How many window groups of a round are on the disk, and how many it has."""
        asked = [
            self.has_part(number, role, group)
            for role in self.rounds()[number].texts
            for group in range(len(self.groups(number, role)))
        ]
        return sum(asked), len(asked)

    def groups(self, number: int, role: Role) -> tuple[Group, ...]:
        """The windows of a text that a round measures, in runs that are computed together."""
        return self.rounds()[number].windows or self.facts.windows[role].groups

    def finish(self, asked: Iterable[AskedFacts] = ()) -> None:
        """Mark the run as one that needs no further round, and keep who asked for what."""
        assert all(self.is_measured(number) for number in range(len(self.rounds())))
        mark = FinishedFacts(rounds=len(self._rounds), asked=tuple(asked))
        disk.write_json(self.folder / FINISHED_FILE, mark)

    def is_finished(self) -> bool:
        """Whether the run was marked as finished, and no round or sum was deleted since.

        Raises:
            RunError: if the mark or a round is damaged.
        """
        mark, n_rounds = self.mark(), len(self.rounds())
        done = mark is not None and mark.rounds == n_rounds
        return done and all(map(self.is_measured, range(n_rounds)))

    def mark(self) -> FinishedFacts | None:
        """What was marked when the run was finished; None where it was not.

        Raises:
            RunError: if it is damaged.
        """
        return files.read_if_there(self.folder, FINISHED_FILE, FinishedFacts)

    # --- parts -------------------------------------------------------------------------------

    def part_path(self, number: int, role: Role, group: int) -> Path:
        """Where the sums of a window group are or will be."""
        return self.folder / _name(number) / f"{role}-{group:06d}.safetensors"

    def has_part(self, number: int, role: Role, group: int) -> bool:
        """Whether the sums of a window group are on the disk."""
        return self.part_path(number, role, group).exists()

    def write_part(
        self, number: int, role: Role, group: int, sums: parts.Sums, facts: Mapping[str, str]
    ) -> None:
        """Store the sums of one window group, each float64, shape (variants, windows).

        With them go facts, the round they belong to and a checksum of it all.
        """
        assert parts.shapes(sums) == self._wanted_shapes(number, role, group)
        bound = {**facts, "run": self._round_sha256(number)}
        parts.write(self.part_path(number, role, group), sums, bound)

    def read_part(
        self, number: int, role: Role, group: int
    ) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """The sums of one window group by measure, and the facts stored with them.

        Raises:
            RunError: if the part is missing, damaged, or does not belong to this run and round.
        """
        path = self.part_path(number, role, group)
        sums, facts = parts.read(path)
        belongs = facts.pop("run", None) == self._round_sha256(number)
        if not belongs or parts.shapes(sums) != self._wanted_shapes(number, role, group):
            raise RunError(
                f"cannot use part {path}: it does not belong to the {RUN_FILE} and "
                f"{VARIANTS_FILE} it lies with, since one of them was changed or is of another run "
                "or round. Restore it from a copy, or sweep again into another folder."
            )
        return sums, facts

    def _wanted_shapes(self, number: int, role: Role, group: int) -> dict[str, tuple[int, ...]]:
        round_ = self.rounds()[number]
        first, end = self.groups(number, role)[group]
        return dict.fromkeys(round_.measures, (len(round_.variants), end - first))

    @cached_property
    def facts_sha256(self) -> str:
        """SHA-256 of what sums are read by: a change of these facts in `run.json` is found."""
        facts = self.facts
        return _sha256(
            facts.identity,
            facts.protocol,
            facts.windows,
            facts.model.n_blocks,
            {role: text.n_bytes for role, text in facts.texts.items()},
        )

    def _round_sha256(self, number: int) -> str:
        """The same with what a round measures: no part fits two runs, nor two rounds."""
        if number not in self._round_hashes:
            self._round_hashes[number] = _sha256(self.facts_sha256, number, self.rounds()[number])
        return self._round_hashes[number]


def _name(number: int) -> str:
    """Where a round is, from the run folder."""
    return f"{ROUNDS}/{number:03d}"


def _read_run_file(folder: Path) -> RunFacts:
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
    schema = disk.read_json(folder / RUN_FILE, RESTORE).get("schema")
    if type(schema) is not int or schema != SCHEMA:
        raise RunError(
            f"cannot read run {folder}: its schema is {schema!r:.40}, this version reads {SCHEMA}. "
            "Use the version of pruning-kit that wrote it, or sweep again."
        )
    return files.read(folder, RUN_FILE, RunFacts)


def _sha256(*facts: Any) -> str:
    """SHA-256 of facts, in whatever order their names stand."""
    text = json.dumps(msgspec.to_builtins(facts), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
