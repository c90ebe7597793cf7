"""Orders in which blocks are added, and the plans met on the way: what Shapley values sample."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from pruning_kit.plans.plan import Plan


def shapley_permutations(n_blocks: int, seed: int = 0) -> Iterator[tuple[int, ...]]:
    """An endless stream of orders of the blocks, each followed by its reverse (antithetic)."""
    generator = random.Random(f"shapley:{seed}:{n_blocks}")
    while True:
        order = generator.sample(range(n_blocks), n_blocks)
        yield tuple(order)
        yield tuple(reversed(order))


def prefix_plans(order: tuple[int, ...]) -> list[Plan]:
    """The plans met when blocks are added in this order, from no block to the whole model."""
    return [Plan(order[count:]) for count in range(len(order) + 1)]


def count_shapley_plans(n_blocks: int, n_permutations: int) -> int:
    """Plans of `shapley_plans` at most: the orders share their ends, and may share others."""
    return (n_permutations + n_permutations % 2) * (n_blocks - 1) + 2


def permutations_within(n_blocks: int, n_plans: int) -> int:
    """The most permutations, an even number, that need no more than `n_plans` plans."""
    return max(0, n_plans - 2) // max(1, n_blocks - 1) // 2 * 2


def shapley_plans(n_blocks: int, n_permutations: int, seed: int = 0) -> list[Plan]:
    """The plans that `n_permutations` sampled permutations need, sorted.

    An odd number is rounded up, since permutations come in pairs. Among the plans are the whole
    model and the one that removes every block, which is measured but cannot be exported.
    """
    found: set[Plan] = set()
    for order in islice(shapley_permutations(n_blocks, seed), n_permutations + n_permutations % 2):
        found.update(prefix_plans(order))
        if len(found) == 2**n_blocks:  # further orders meet none that is new
            break
    return sorted(found)
