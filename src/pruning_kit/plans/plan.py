"""Plans: which units to remove. Block numbers are those of the original model, from 0."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from pruning_kit.errors import PlanError
from pruning_kit.plans.unit import MAX_DIGITS, WHOLE, Unit

MAX_ECHO = 40

_PART = re.compile(r"(\d+)(?:-(\d+)|([am]?))")


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """A set of units to remove; `Plan()` is the whole model. It knows no model.

    Blocks and sublayers may be given in any order and with repetitions. They are stored sorted and
    unique, and both sublayers of a block are that block.
    """

    removed: tuple[int, ...] = ()
    """Blocks that are removed whole."""
    sublayers: tuple[Unit, ...] = ()
    """Of blocks that otherwise stay."""

    def __post_init__(self) -> None:
        blocks = set(self.removed)
        if self.sublayers:
            parts = [(block, {part for _, part in units}) for block, units in self._by_block()]
            blocks |= {block for block, found in parts if WHOLE in found or len(found) == 2}
            left = {unit for unit in self.sublayers if unit.block not in blocks}
            object.__setattr__(self, "sublayers", tuple(sorted(left)))
        if blocks and min(blocks) < 0:
            raise PlanError(
                f"cannot remove block {min(blocks)}: blocks are numbered from 0. "
                "Give the number counted from the start of the model."
            )
        object.__setattr__(self, "removed", tuple(sorted(blocks)))

    def _by_block(self) -> Iterator[tuple[int, Iterator[Unit]]]:
        return groupby(sorted(self.sublayers), key=lambda unit: unit.block)

    @classmethod
    def of(cls, units: Iterable[Unit]) -> Plan:
        """The plan that removes these units; the inverse of `units`."""
        return cls((), tuple(units))

    @classmethod
    def parse(cls, text: str, option: str = "a plan") -> Plan:
        """Read `1+3`, `1,3`, `1-3`, `1+3a` or `none`; the inverse of `str` and of `short`.

        Raises:
            PlanError: if a part is neither a unit nor a range of blocks.
        """
        if text.strip().lower() in ("none", ""):
            return cls()
        units: list[Unit] = []
        for part in re.split(r"[+,]", text):
            where = f"cannot read {_echo(part.strip())!r} in {option} {_echo(text)!r}"
            match = _PART.fullmatch(part.strip())
            if match is None:
                raise PlanError(f"{where}: write block numbers and ranges, such as 3,7-9.")
            first, last = match[1], match[2] or match[1]
            if max(len(first), len(last)) > MAX_DIGITS:
                raise PlanError(f"{where}: no model has that many blocks. Write smaller numbers.")
            low, high = int(first), int(last)
            if high < low:
                raise PlanError(f"{where}: a range goes upwards. Write {high}-{low}.")
            units.extend(Unit(block, match[3] or WHOLE) for block in range(low, high + 1))
        return cls.of(units)

    @property
    def units(self) -> tuple[Unit, ...]:
        """All that is removed, sorted."""
        return tuple(sorted((*map(Unit, self.removed), *self.sublayers)))

    def __str__(self) -> str:
        return "+".join(map(str, self.units)) or "none"

    def __repr__(self) -> str:
        return f"Plan.parse({str(self)!r})"

    @property
    def short(self) -> str:
        """The plan for people, with ranges where they are shorter: `0+3-5+9`.

        `Plan.parse` reads it back. Stored results and keys have the long form, `str`.
        """
        runs: list[list[Unit]] = []
        for unit in self.units:
            follows = runs and runs[-1][-1] == (unit.block - 1, WHOLE) and unit.part == WHOLE
            if follows:
                runs[-1].append(unit)
            else:
                runs.append([unit])
        parts = [f"{run[0]}-{run[-1]}" if len(run) > 2 else "+".join(map(str, run)) for run in runs]
        return "+".join(parts) or str(self)

    def __lt__(self, other: Plan) -> bool:
        """Order by number of removed blocks, then by the blocks themselves, then by sublayers."""
        return self._order < other._order

    @property
    def _order(self) -> tuple[int, tuple[int, ...], tuple[Unit, ...]]:
        return len(self.removed), self.removed, self.sublayers

    @property
    def size(self) -> int:
        """Number of blocks that are removed whole."""
        return len(self.removed)

    @property
    def mode(self) -> str:
        """The mode this plan belongs to: baseline (0 removed), sequential (1) or combinatorial."""
        n_units = len(self.removed) + len(self.sublayers)
        return ("baseline", "sequential")[n_units] if n_units < 2 else "combinatorial"

    def kept(self, n_blocks: int) -> tuple[int, ...]:
        """The blocks of which something stays, numbered as in the original model."""
        gone = set(self.removed)
        return tuple(block for block in range(n_blocks) if block not in gone)

    def check(self, n_blocks: int) -> Plan:
        """Return the plan itself if a model of `n_blocks` blocks can be cut so.

        Raises:
            PlanError: if a block does not exist or none would be left.
        """
        last = self.units[-1].block if self.removed or self.sublayers else 0
        if last >= n_blocks:
            raise PlanError(
                f"cannot remove block {last}: the model has {n_blocks} blocks, "
                f"numbered 0 to {n_blocks - 1}."
            )
        if self.size >= n_blocks == 1:
            raise PlanError(
                "cannot remove the only block: a model needs at least one. "
                "Give a model of two blocks or more."
            )
        if self.size >= n_blocks:
            raise PlanError(
                f"cannot remove all {n_blocks} blocks: a model needs at least one. "
                "Leave one block out of the plan."
            )
        for unit in self.sublayers:
            raise PlanError(
                f"cannot remove {unit} alone: only whole blocks can be cut out. Name the block, "
                f"{unit.block}."
            )
        return self


def _echo(text: str) -> str:
    """A word of the user's as a message shows it."""
    return text if len(text) <= MAX_ECHO else f"{text[: MAX_ECHO - 1]}…"
