"""Plans: which blocks to remove. Block numbers are those of the original model, from 0."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pruning_kit.errors import PlanError

MAX_DIGITS = 5  # no model has blocks of longer numbers
MAX_ECHO = 40

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True, slots=True)
class Plan:
    """A set of blocks to remove; `Plan()` is the whole model.

    `removed` may be given in any order and with repetitions; it is stored sorted and unique.
    """

    removed: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        blocks = tuple(sorted(set(self.removed)))
        if blocks and blocks[0] < 0:
            raise PlanError(
                f"cannot remove block {blocks[0]}: blocks are numbered from 0. "
                "Give the number counted from the start of the model."
            )
        object.__setattr__(self, "removed", blocks)

    @classmethod
    def parse(cls, text: str, option: str = "a plan") -> Plan:
        """Read `1+3`, `1,3`, `1-3` or `none`; the inverse of `str` and of `short`.

        Raises:
            PlanError: if a part is neither a block number nor a range.
        """
        if text.strip().lower() in ("none", ""):
            return cls()
        blocks: list[int] = []
        for part in re.split(r"[+,]", text):
            where = f"cannot read {_echo(part.strip())!r} in {option} {_echo(text)!r}"
            match = _RANGE.fullmatch(part.strip())
            if match is None:
                raise PlanError(f"{where}: write block numbers and ranges, such as 3,7-9.")
            first, last = match[1], match[2] or match[1]
            if max(len(first), len(last)) > MAX_DIGITS:
                raise PlanError(f"{where}: no model has that many blocks. Write smaller numbers.")
            low, high = int(first), int(last)
            if high < low:
                raise PlanError(f"{where}: a range goes upwards. Write {high}-{low}.")
            blocks.extend(range(low, high + 1))
        return cls(tuple(blocks))

    def __str__(self) -> str:
        return "+".join(map(str, self.removed)) or "none"

    @property
    def short(self) -> str:
        """The plan for people, with ranges where they are shorter: `0+3-5+9`.

        `Plan.parse` reads it back. Stored results and keys have the long form, `str`.
        """
        runs: list[list[int]] = []
        for block in self.removed:
            if runs and runs[-1][-1] == block - 1:
                runs[-1].append(block)
            else:
                runs.append([block])
        parts = [f"{run[0]}-{run[-1]}" if len(run) > 2 else "+".join(map(str, run)) for run in runs]
        return "+".join(parts) or str(self)

    def __lt__(self, other: Plan) -> bool:
        """Order by number of removed blocks, then by the blocks themselves."""
        return (len(self.removed), self.removed) < (len(other.removed), other.removed)

    @property
    def size(self) -> int:
        """Number of removed blocks."""
        return len(self.removed)

    @property
    def mode(self) -> str:
        """The mode this plan belongs to: baseline (0 removed), sequential (1) or combinatorial."""
        return ("baseline", "sequential")[self.size] if self.size < 2 else "combinatorial"

    def kept(self, n_blocks: int) -> tuple[int, ...]:
        """The blocks that stay, numbered as in the original model."""
        gone = set(self.removed)
        return tuple(block for block in range(n_blocks) if block not in gone)

    def check(self, n_blocks: int) -> Plan:
        """Return the plan itself if a model of `n_blocks` blocks can be cut so.

        Raises:
            PlanError: if a block does not exist or none would be left.
        """
        if self.removed and self.removed[-1] >= n_blocks:
            raise PlanError(
                f"cannot remove block {self.removed[-1]}: the model has {n_blocks} blocks, "
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
        return self


def _echo(text: str) -> str:
    """A word of the user's as a message shows it."""
    return text if len(text) <= MAX_ECHO else f"{text[: MAX_ECHO - 1]}…"


def parse_plans(texts: Iterable[str]) -> list[Plan]:
    """Read plans from option values; one value may hold several, separated by spaces."""
    return [Plan.parse(word, "--plans") for text in texts for word in text.split()]
