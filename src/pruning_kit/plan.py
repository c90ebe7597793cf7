"""Plans: which blocks to remove. Block numbers are those of the original model, from 0."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

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


def singles(n_blocks: int) -> list[Plan]:
    """Each block removed alone."""
    return [Plan((block,)) for block in range(n_blocks)]


def subsets(n_blocks: int, sizes: Iterable[int]) -> Iterator[Plan]:
    """Every set of each of the given sizes, smaller sets first."""
    for size in sorted(set(sizes)):
        yield from (Plan(blocks) for blocks in combinations(range(n_blocks), size))


def count_block_calls(plans: Iterable[Plan], n_blocks: int) -> int:
    """Block calls of a walk that shares kept prefixes: the number of distinct ones.

    In their order, a plan adds those prefixes that it does not share with the one before.
    """
    calls, before = 0, tuple[int, ...]()
    for kept in sorted({plan.kept(n_blocks) for plan in plans}):
        pairs = enumerate(zip(before, kept, strict=False))
        shared = next((at for at, (a, b) in pairs if a != b), min(len(before), len(kept)))
        calls += len(kept) - shared
        before = kept
    return calls


def remove_first(n_blocks: int, count: int) -> Plan:
    """The first `count` blocks."""
    return Plan(tuple(range(count)))


def remove_last(n_blocks: int, count: int) -> Plan:
    """The last `count` blocks."""
    return Plan(tuple(range(n_blocks - count, n_blocks)))


def remove_alternate(n_blocks: int, count: int) -> Plan:
    """`count` blocks spread evenly: every second one (1, 3, 5, …) when half are removed."""
    return Plan(tuple((2 * i + 1) * n_blocks // (2 * count) for i in range(count)))


def remove_contiguous(n_blocks: int, count: int) -> Plan:
    """`count` neighbouring blocks in the middle of the model."""
    start = (n_blocks - count + 1) // 2
    return Plan(tuple(range(start, start + count)))


def remove_random(n_blocks: int, count: int, seed: int = 0) -> Plan:
    """`count` blocks drawn without replacement; the same seed gives the same plan."""
    return Plan(tuple(random.Random(f"{seed}:{n_blocks}:{count}").sample(range(n_blocks), count)))


STRATEGIES: dict[str, Callable[[int, int], Plan]] = {
    "first": remove_first,
    "last": remove_last,
    "alternate": remove_alternate,
    "contiguous": remove_contiguous,
    "random": remove_random,
}


def strategy_plan(name: str, n_blocks: int, count: int, seed: int = 0) -> Plan:
    """The plan of a named strategy for `count` removed blocks (`seed` matters for `random`).

    Raises:
        PlanError: if the strategy is unknown or `count` is not between 1 and `n_blocks` - 1.
    """
    if name not in STRATEGIES:
        raise PlanError(
            f"cannot use strategy {name!r}: the strategies are {', '.join(STRATEGIES)}."
        )
    if not 1 <= count < n_blocks:
        raise PlanError(
            f"cannot remove {count} of {n_blocks} blocks by strategy {name!r}: "
            f"choose 1 to {n_blocks - 1}."
        )
    if name == "random":
        return remove_random(n_blocks, count, seed)
    return STRATEGIES[name](n_blocks, count)


def count_for_ratio(ratio: float, n_blocks: int) -> int:
    """Blocks to remove for a share `ratio` of the model, rounded to the nearest, at least one.

    Raises:
        PlanError: if `ratio` is not strictly between 0 and 1.
    """
    if not 0 < ratio < 1:
        raise PlanError(
            f"cannot remove a share of {ratio:g} of the blocks: give a ratio between 0 and 1, "
            "such as 0.25."
        )
    return min(max(1, math.floor(ratio * n_blocks + 0.5)), n_blocks - 1)
