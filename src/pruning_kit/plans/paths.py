"""The calls that walk what a plan leaves."""

from __future__ import annotations

from collections.abc import Iterable

from pruning_kit.plans.plan import Plan


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
