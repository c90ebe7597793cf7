"""A quadratic surrogate: what sets cost by their blocks and pairs, solved for any size.

Shapes: L blocks, P plans.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles

MOST_LISTED = 20_000
"""Sets of a size that are all priced; of more, descents by swaps find the cheapest."""
STARTS = 32
PAIRS_TO_SINGLES = 0.25
"""Prior variance of what a pair adds, relative to a block's own."""
NOISE = 0.01
"""Prior variance of what neither tells, relative to a block's own."""


LEAST = 1e-3
"""Nats per token that the logarithm of a cost is taken of at least."""


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

    @classmethod
    def fitted(
        cls, costs: Mapping[Plan, float], n_blocks: int, chance: random.Random | None = None
    ) -> Quadratic:
        """From whatever sets are known, by ridge: orders sets of one size.

        What a set costs beside the whole model grows by factors, so its logarithm is fitted, with
        a level of its own for each size. What blocks and pairs do not tell is noise.

        Args:
            costs: beside the whole model; positive where removing costs anything.
            n_blocks: of the model.
            chance: draws one of the surrogates that fit as well as what is known allows; by
                default the likeliest.

        Source: Baptista & Poloczek (2018), Bayesian optimization of combinatorial structures.
        """
        plans = [plan for plan in costs if plan.size]
        removed_PL = indicators(plans, n_blocks)
        prices_P = _levelled(np.array([costs[plan] for plan in plans]), removed_PL.sum(axis=1))
        shared_PP = removed_PL @ removed_PL.T
        pairs_PP = shared_PP * (shared_PP - 1) / 2
        kernel_PP = shared_PP + PAIRS_TO_SINGLES * pairs_PP + NOISE * np.eye(len(plans))
        guess = cls(np.zeros(n_blocks), np.zeros((n_blocks, n_blocks)))
        weights_P = np.linalg.solve(kernel_PP, prices_P)
        if chance is not None:
            scale = float(np.sqrt(max(0.0, float(prices_P @ weights_P)) / max(1, len(plans))))
            guess = _drawn(n_blocks, scale, np.random.default_rng(chance.getrandbits(64)))
            weights_P = np.linalg.solve(kernel_PP, prices_P - guess.prices(plans))
        of_pairs_LL = PAIRS_TO_SINGLES * (removed_PL.T * weights_P) @ removed_PL
        np.fill_diagonal(of_pairs_LL, 0.0)
        return cls(guess.of_blocks_L + removed_PL.T @ weights_P, guess.of_pairs_LL + of_pairs_LL)

    def prices(self, plans: Sequence[Plan]) -> np.ndarray:
        """Of each plan: (P,)."""
        removed_PL = indicators(plans, len(self.of_blocks_L))
        of_pairs_P = ((removed_PL @ self.of_pairs_LL) * removed_PL).sum(axis=1) / 2
        return np.asarray(removed_PL @ self.of_blocks_L + of_pairs_P)

    def cheapest(
        self, size: int, count: int, chance: random.Random, starts: Iterable[Plan] = ()
    ) -> list[Plan]:
        """Up to so many sets of a size, the cheapest first.

        Where there are too many sets to list, these are where descents by swaps end and all that
        lie beside such an end: of some that are given, of the cheapest blocks and of random ones.
        """
        n_blocks = len(self.of_blocks_L)
        if comb(n_blocks, size) <= MOST_LISTED:
            found = {Plan(blocks) for blocks in combinations(range(n_blocks), size)}
        else:
            by_block = np.argsort(self.of_blocks_L, kind="stable")[:size]
            drawn = [tuple(chance.sample(range(n_blocks), size)) for _ in range(STARTS)]
            begun = [*starts, Plan(tuple(by_block.tolist())), *map(Plan, drawn)]
            found = set().union(*map(self._around_the_end_from, begun))
        plans = sorted(found)
        order = np.argsort(self.prices(plans), kind="stable")
        return [plans[place] for place in order[:count]]

    def _around_the_end_from(self, plan: Plan) -> set[Plan]:
        """Where swaps lead as long as they help, with all that is one swap from there."""
        removed_L = indicators([plan], len(self.of_blocks_L))[0].astype(bool)
        while True:
            gains_L = self.of_blocks_L + self.of_pairs_LL @ removed_L
            gone, kept = np.flatnonzero(removed_L), np.flatnonzero(~removed_L)
            pairs_GK = self.of_pairs_LL[np.ix_(gone, kept)]
            change_GK = gains_L[kept][None] - pairs_GK - gains_L[gone][:, None]
            best = np.unravel_index(int(change_GK.argmin()), change_GK.shape)
            if change_GK[best] >= -1e-12:
                break
            removed_L[gone[best[0]]], removed_L[kept[best[1]]] = False, True
        end = set(gone.tolist())
        around = {Plan(tuple((end - {i}) | {j})) for i in end for j in kept.tolist()}
        return around | {Plan(tuple(end))}


def _levelled(costs_P: np.ndarray, sizes_P: np.ndarray) -> np.ndarray:
    """Logarithms of costs, those of each size about zero."""
    prices_P = np.log(np.maximum(LEAST, costs_P))
    for size in np.unique(sizes_P):
        prices_P[sizes_P == size] -= prices_P[sizes_P == size].mean()
    return prices_P


def _drawn(n_blocks: int, scale: float, generator: np.random.Generator) -> Quadratic:
    """A surrogate as it may be before anything is known."""
    of_blocks_L = scale * generator.standard_normal(n_blocks)
    upper_LL = np.triu(generator.standard_normal((n_blocks, n_blocks)), 1)
    return Quadratic(of_blocks_L, scale * np.sqrt(PAIRS_TO_SINGLES) * (upper_LL + upper_LL.T))


def indicators(plans: Sequence[Plan], n_blocks: int) -> np.ndarray:
    """Which blocks each plan removes: 0 or 1, (P, L)."""
    removed_PL = np.zeros((len(plans), n_blocks))
    for row_L, plan in zip(removed_PL, plans, strict=True):
        row_L[list(plan.removed)] = 1.0
    return removed_PL
