"""A ridge: fits surrogates to what is known of sets, as more of them come to be known.

Shapes: L blocks, P plans, D features: the blocks, then the pairs of blocks.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from pruning_kit.plans.plan import Plan
from pruning_kit.search.quadratic import Quadratic, indicators

PAIRS_TO_SINGLES = 0.25
"""Prior variance of what a pair adds, relative to a block's own."""
NOISE = 0.01
"""Prior variance of what neither tells, relative to a block's own."""
LEAST = 1e-3
"""Nats per token that the logarithm of a cost is taken of at least."""


class Ridge:
    """Surrogates that order sets of one size, fitted to the costs of whatever sets are known.

    What a set costs beside the whole model grows by factors, so its logarithm is fitted, with a
    level of its own for each size. What blocks and pairs do not tell is noise. Features are summed
    once for each set, so a fit takes as long however many sets are known: D**3 / 3 products.

    Source: Baptista & Poloczek (2018), Bayesian optimization of combinatorial structures.
    """

    def __init__(self, n_blocks: int) -> None:
        """Nothing is known of the sets of so many blocks."""
        self.n_blocks = n_blocks
        self._pairs = np.triu_indices(n_blocks, 1)
        n_pairs = len(self._pairs[0])
        self._scale_D = np.repeat([1.0, np.sqrt(PAIRS_TO_SINGLES)], [n_blocks, n_pairs])
        self._shared_DD = np.zeros((n_blocks + n_pairs, n_blocks + n_pairs))
        self._plans: dict[Plan, None] = {}

    def learn(self, costs: Mapping[Plan, float]) -> None:
        """Know these costs, and no others.

        Args:
            costs: beside the whole model, in nats per token; positive where removing costs.
        """
        plans = {plan: None for plan in costs if plan.size}
        self._count(plans.keys() - self._plans.keys(), 1.0)
        self._count(self._plans.keys() - plans.keys(), -1.0)  # a forward has failed since
        self._plans = plans
        self._removed_PL = indicators(plans, self.n_blocks)
        prices_P = np.array([costs[plan] for plan in plans])
        self._prices_P = _levelled(prices_P, self._removed_PL.sum(axis=1))
        scaled_DD = self._scale_D[:, None] * self._shared_DD * self._scale_D
        scaled_DD[np.diag_indices_from(scaled_DD)] += NOISE
        self._factor = cho_factor(scaled_DD, lower=True, overwrite_a=True, check_finite=False)

    def _count(self, plans: Collection[Plan], sign: float) -> None:
        """In how many sets two features meet: whole numbers, whatever the order of the sets."""
        if not plans:
            return
        removed_PL = indicators(plans, self.n_blocks)
        pairs_PD = removed_PL[:, self._pairs[0]] * removed_PL[:, self._pairs[1]]
        features_PD = np.concatenate([removed_PL, pairs_PD], axis=1)
        self._shared_DD += sign * (features_PD.T @ features_PD)

    @property
    def likeliest(self) -> Quadratic:
        """What fits best."""
        return self._fitting(self._prices_P)

    def drawn(self, chance: random.Random) -> Quadratic:
        """One of the surrogates that fit as well as what is known allows."""
        rest_P = self._prices_P - self.likeliest.prices_of(self._removed_PL)
        spread = float(self._prices_P @ rest_P) / NOISE / max(1, len(rest_P))
        generator = np.random.default_rng(chance.getrandbits(64))
        guess = _drawn(self.n_blocks, float(np.sqrt(max(0.0, spread))), generator)
        beside = self._fitting(self._prices_P - guess.prices_of(self._removed_PL))
        return Quadratic(
            guess.of_blocks_L + beside.of_blocks_L, guess.of_pairs_LL + beside.of_pairs_LL
        )

    def _fitting(self, prices_P: np.ndarray) -> Quadratic:
        """The surrogate of the least squares, shrunk, for prices of the sets that are known."""
        of_pairs_LL = (self._removed_PL.T * prices_P) @ self._removed_PL
        sums_D = np.concatenate([np.diagonal(of_pairs_LL), of_pairs_LL[self._pairs]])
        scaled_D = cho_solve(self._factor, self._scale_D * sums_D, check_finite=False)
        weights_D = self._scale_D * scaled_D
        of_pairs_LL = np.zeros_like(of_pairs_LL)
        of_pairs_LL[self._pairs] = weights_D[self.n_blocks :]
        return Quadratic(weights_D[: self.n_blocks], of_pairs_LL + of_pairs_LL.T)


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
