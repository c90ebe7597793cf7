"""Plans that do the same work, and which of them are timed for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plans.plan import Plan
from pruning_kit.pruning.surgery import block_signature
from pruning_kit.speed.timings import Entry


def pool_plans(decoder: Decoder, plans: Sequence[Plan]) -> tuple[tuple[Plan, ...], ...]:
    """Plans grouped by the work they leave: as many kept blocks of each signature. Whole first."""
    kinds = [repr(block_signature(decoder, block)) for block in range(decoder.n_blocks)]
    pools: dict[frozenset[tuple[str, int]], list[Plan]] = {}
    for plan in sorted({Plan(), *plans}):
        kept = plan.check(decoder.n_blocks).kept(decoder.n_blocks)
        work = frozenset(Counter(kinds[block] for block in kept).items())
        pools.setdefault(work, []).append(plan)
    return tuple(tuple(pool) for pool in pools.values())


def choose_entries(pools: Sequence[Sequence[Plan]], per_plan: bool) -> list[Entry]:
    """The plans to time: the whole model twice, then one of each pool, or all of it.

    By turns that is a pool's first plan and its last, which keep the last blocks and the first: a
    block that few entries keep is colder in the processor's caches, and their plans seem slower.
    One of each pool leaves nothing to test the pooling with, so the largest pool sends both.
    """
    largest = max(range(len(pools)), key=lambda index: len(pools[index]))
    entries = [Entry(Plan(), 0)]
    for index, pool in enumerate(pools):
        ends = (pool[0], pool[-1])
        chosen = dict.fromkeys(ends) if index == largest else (ends[(index + 1) % 2],)
        entries += [Entry(plan, index) for plan in (pool if per_plan else chosen)]
    return entries


def middle_plan(pools: Sequence[Sequence[Plan]]) -> Plan:
    """The first plan of the pool in the middle by size; the whole model where it is alone."""
    by_size = sorted((pool[0] for pool in pools[1:]), key=lambda plan: plan.size)
    return by_size[len(by_size) // 2] if by_size else Plan()
