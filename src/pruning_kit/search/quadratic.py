"""A quadratic surrogate: what sets cost by their blocks and pairs, solved for any size.

Shapes: L blocks, P plans, K blocks that a plan removes.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, combinations, islice
from math import comb

import numpy as np

from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles

MOST_LISTED = 20_000
"""Sets of a size that are all priced; of more, descents by swaps find the cheapest."""
STARTS = 32


@dataclass(frozen=True, slots=True, eq=False)
class Quadratic:
    """A price for every set of blocks: the sum over its blocks and over its pairs."""

    of_blocks_L: np.ndarray
    of_pairs_LL: np.ndarray
    """Symmetric; nothing on the diagonal."""

    @classmethod
    def exact(cls, costs: Mapping[Plan, float], n_blocks: int) -> Quadratic:
        """From what single blocks and pairs cost beside the whole model, where that is known.

        h_i = C(i), J_ij = C(i, j) - C(i) - C(j). An unknown pair adds nothing; an unknown block
        costs as much as the worst.
        """
        known = [costs[plan] for plan in singles(n_blocks) if plan in costs]
        of_blocks_L = np.array(
            [costs.get(plan, max(known, default=0)) for plan in singles(n_blocks)]
        )
        of_pairs_LL = np.zeros((n_blocks, n_blocks))
        for i, j in combinations(range(n_blocks), 2):
            if Plan((i, j)) in costs:
                added = costs[Plan((i, j))] - of_blocks_L[i] - of_blocks_L[j]
                of_pairs_LL[i, j] = of_pairs_LL[j, i] = added
        return cls(of_blocks_L, of_pairs_LL)

    def prices(self, plans: Collection[Plan]) -> np.ndarray:
        """Of each plan: (P,)."""
        return self.prices_of(indicators(plans, len(self.of_blocks_L)))

    def prices_of(self, removed_PL: np.ndarray) -> np.ndarray:
        """Of plans that remove where there is a 1: (P,)."""
        of_pairs_P = ((removed_PL @ self.of_pairs_LL) * removed_PL).sum(axis=1) / 2
        return np.asarray(removed_PL @ self.of_blocks_L + of_pairs_P)

    def cheapest(
        self,
        size: int,
        count: int,
        chance: random.Random,
        starts: Iterable[Plan] = (),
        known: Collection[Plan] = (),
    ) -> list[Plan]:
        """Up to so many sets of a size that are not known, the cheapest first.

        Where there are too many sets to list, these are where descents by swaps end and all that
        lie beside such an end: of some that are given, of the cheapest blocks and of random ones.
        """
        n_blocks = len(self.of_blocks_L)
        if comb(n_blocks, size) <= MOST_LISTED:
            sets_PK = _every_set(n_blocks, size)
        else:
            drawn = [tuple(chance.sample(range(n_blocks), size)) for _ in range(STARTS)]
            by_block = np.argsort(self.of_blocks_L, kind="stable")[:size]
            begun = [*(plan.removed for plan in starts), tuple(by_block.tolist()), *drawn]
            around = [_within_a_swap(end, n_blocks) for end in self._ends(begun)]
            sets_PK = np.unique(np.concatenate(around), axis=0)
        removed_PL = np.zeros((len(sets_PK), n_blocks))
        np.put_along_axis(removed_PL, sets_PK, 1.0, axis=1)
        order = np.argsort(self.prices_of(removed_PL), kind="stable")
        plans = (Plan(tuple(sets_PK[place].tolist())) for place in order)
        return list(islice((plan for plan in plans if plan not in known), count))

    def _ends(self, begun: Iterable[Sequence[int]]) -> Iterator[tuple[int, ...]]:
        """Where swaps lead as long as they help: each end once."""
        passed: set[bytes] = set()
        for blocks in begun:
            removed_L = np.zeros(len(self.of_blocks_L), dtype=bool)
            removed_L[list(blocks)] = True
            while (place := removed_L.tobytes()) not in passed:  # from there the way is known
                passed.add(place)
                gone, added, change = self._best_swap(removed_L)
                if change >= -1e-12:
                    yield tuple(np.flatnonzero(removed_L).tolist())
                    break
                removed_L[gone], removed_L[added] = False, True

    def _best_swap(self, removed_L: np.ndarray) -> tuple[int, int, float]:
        """Which removed block for which kept one, and what the price changes by."""
        gains_L = self.of_blocks_L + self.of_pairs_LL @ removed_L
        change_LL = gains_L - self.of_pairs_LL - gains_L[:, None]
        change_LL[~removed_L] = change_LL[:, removed_L] = np.inf
        gone, added = divmod(int(change_LL.argmin()), len(removed_L))
        return gone, added, float(change_LL[gone, added])


def _within_a_swap(blocks: Sequence[int], n_blocks: int) -> np.ndarray:
    """A set, and all that have one removed block in place of another: (P, K), each ascending."""
    set_K, kept = np.array(blocks), np.setdiff1d(np.arange(n_blocks), blocks)
    around_KMK = np.tile(set_K, (len(set_K), len(kept), 1))
    for place in range(len(set_K)):
        around_KMK[place, :, place] = kept
    return np.concatenate([set_K[None], np.sort(around_KMK.reshape(-1, len(set_K)), axis=1)])


@lru_cache(maxsize=64)
def _every_set(n_blocks: int, size: int) -> np.ndarray:
    return np.array(list(combinations(range(n_blocks), size)))


def indicators(plans: Collection[Plan], n_blocks: int) -> np.ndarray:
    """Which blocks each plan removes: 0 or 1, (P, L)."""
    removed_PL = np.zeros((len(plans), n_blocks))
    rows = np.repeat(np.arange(len(plans)), [plan.size for plan in plans])
    columns = np.fromiter(chain.from_iterable(plan.removed for plan in plans), dtype=np.int64)
    removed_PL[rows, columns] = 1.0
    return removed_PL
