"""What searches are made of: contiguous runs, a beam, swaps, and an evolution.

Each is a generator of screenings in a contest; what it finds is in the contest's costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pruning_kit.plans.plan import Plan
from pruning_kit.search.contest import Contest, Method

BEAM_WIDTH = 4
OFFSPRING = 16
MOST_SWAPS = 3
"""Of one mutation."""
BARREN = 10
"""Generations without a new set, or any that are not better, after which an evolution ends."""


def spans_of(n_blocks: int, size: int) -> list[Plan]:
    """Every run of so many neighbouring blocks."""
    return [Plan(tuple(range(at, at + size))) for at in range(n_blocks - size + 1)]


def spans(contest: Contest, sizes: Sequence[int]) -> Method:
    """Every run of neighbouring blocks.

    Source: Gromov et al. (2024), where the run is chosen by angular distance.
    """
    for size in sizes:
        yield from contest.race(dict.fromkeys(spans_of(contest.n_blocks, size), "spans"))


def greedy(contest: Contest, sizes: Sequence[int]) -> Method:
    """The block that costs least removed, again and again.

    Source: Song et al. (2024), SLEB.
    """
    yield from _beam(contest, sizes, 1, "greedy")


def beam(contest: Contest, sizes: Sequence[int]) -> Method:
    """The same, the four best sets of each size kept instead of one."""
    yield from _beam(contest, sizes, BEAM_WIDTH, "beam")


def _beam(contest: Contest, sizes: Sequence[int], width: int, name: str) -> Method:
    held = [Plan()]
    for _ in range(max(sizes)):
        further = [
            Plan((*plan.removed, block)) for plan in held for block in plan.kept(contest.n_blocks)
        ]
        held = yield from contest.race(dict.fromkeys(further, name), width)
        if not held:
            break


def swaps_of(plan: Plan, n_blocks: int) -> Iterator[Plan]:
    """Every set that has one removed block in place of another."""
    for gone in plan.removed:
        rest = [block for block in plan.removed if block != gone]
        yield from (Plan((*rest, block)) for block in plan.kept(n_blocks))


def swaps(contest: Contest, sizes: Sequence[int]) -> Method:
    """From the best run of neighbours, or the best set that is known, swap while that helps."""
    for size in contest.shares(sizes):
        yield from spans(contest, [size])
        before = None
        while contest.best.get(size) != before:
            before = contest.best[size]
            around = swaps_of(before, contest.n_blocks)
            yield from contest.race(dict.fromkeys(around, "swaps"))


def evolution(contest: Contest, sizes: Sequence[int]) -> Method:
    """A parent and its mutated offspring, the best of which is the next parent.

    Source: Sieberling et al. (2024), EvoPress: (1 + λ), survivors measured on more of the text.
    """
    for size in contest.shares(sizes):
        yield from _evolve(contest, size)


def _evolve(contest: Contest, size: int) -> Method:
    chance, blocks = contest.chance, range(contest.n_blocks)
    offspring = [Plan(tuple(chance.sample(blocks, size))) for _ in range(OFFSPRING)]
    barren = 0
    while barren < BARREN:
        n_known = len(contest.known)
        yield from contest.race(dict.fromkeys(offspring, "evolution"))
        if size not in contest.best:
            break
        barren = barren + 1 if len(contest.known) == n_known else 0
        offspring = [_mutated(contest.best[size], contest) for _ in range(OFFSPRING)]


def _mutated(plan: Plan, contest: Contest) -> Plan:
    """Some blocks put back and as many others removed; few of them are likelier than many."""
    chance, kept = contest.chance, plan.kept(contest.n_blocks)
    most = min(MOST_SWAPS, plan.size, len(kept))
    count = min(chance.randint(1, most), chance.randint(1, most))
    gone = chance.sample(plan.removed, count)
    return Plan((*(set(plan.removed) - set(gone)), *chance.sample(kept, count)))
