"""What a search takes by itself, and what kept states of its rounds would save.

    python -m benchmarks.search_rounds [search:6@30@8 …]

A case is a search, the blocks of the model, and how many blocks the head costs as much as: 8 by its
weights in SmolLM2-135M, 2.6 in GPT-2 XL.

Each search is carried out on costs that are made up: of blocks, dear at both ends of the model, of
pairs, and of noise that every set has of its own in every window. Its own time is that of one
processor thread (set OMP_NUM_THREADS=1). Work is that of the walk in calls of a block, heads among
them; the candidates of a round share equal beginnings. Then comes how much less it would be if
states were kept from round to round, on every window: those of the whole model after each block;
those and the ones of the two best sets; all that there ever were, which no memory holds.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from pruning_kit.plans.plan import Plan
from pruning_kit.search.costs import Costs, Group, Lacking
from pruning_kit.search.named import parse
from pruning_kit.search.proposer import Asking, Proposer, Request, next_round
from pruning_kit.search.replay import replay

CASES = (
    "greedy:6@30@8",
    "search:6@30@8",
    "search:4-7@30@8",
    "greedy:12@48@2.6",
    "search:12@48@2.6",
)
TARGETS = [512] * 64
GROUPS = [(first, first + 4) for first in range(0, 64, 4)]
NOISE = 0.1
"""Nats per token, standard deviation."""


class MadeUp(dict[Plan, np.ndarray]):
    """Nats of any set over windows: (W,)."""

    def __init__(self, n_blocks: int, seed: int = 1) -> None:
        super().__init__()
        generator, depth_L = np.random.default_rng(seed), np.linspace(0, 1, n_blocks)
        self.seed, self.shared_W = seed, generator.normal(3.3, 0.3, len(TARGETS))
        self.of_blocks_L = generator.uniform(0.02, 0.4, n_blocks)
        self.of_blocks_L += 3 * np.maximum(0, 0.3 - depth_L) + 2 * np.maximum(0, depth_L - 0.75)
        self.of_pairs_LL = np.triu(generator.uniform(-0.02, 0.1, (n_blocks, n_blocks)), 1)

    def __missing__(self, plan: Plan) -> np.ndarray:
        blocks = list(plan.removed)
        more = self.of_blocks_L[blocks].sum() + self.of_pairs_LL[np.ix_(blocks, blocks)].sum()
        own_W = np.random.default_rng([self.seed, *blocks]).normal(0, NOISE, len(TARGETS))
        self[plan] = (self.shared_W + more + own_W * bool(blocks)) * TARGETS
        return self[plan]


State = int
"""Which blocks were called so far: bits."""


def states_of(plans: Iterable[Plan], n_blocks: int) -> set[State]:
    """All states that the walk computes for plans as they are cut, one for each call of a block."""
    found = set()
    for plan in plans:
        state = 0
        for block in plan.kept(n_blocks):
            state |= 1 << block
            found.add(state)
    return found


@dataclass(eq=False)
class Watched:
    """A search whose rounds are counted."""

    search: Proposer
    head: float
    """Calls of a block that it costs as much as."""
    work: float = 0.0
    saved: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    passed: dict[Group, set[State]] = field(default_factory=lambda: defaultdict(set))

    def propose(self, n_blocks: int) -> Asking:
        """As the search does."""
        asking = self.search.propose(n_blocks)
        request: Request | None = next_round(asking)
        costs = yield request or []
        while (request := next_round(asking, costs)) is not None:
            for lacking in costs.lacking(request):
                self._count(lacking, costs, n_blocks)
            costs = yield request

    def _count(self, lacking: Lacking, costs: Costs, n_blocks: int) -> None:
        states = states_of(lacking.plans, n_blocks)
        of_whole = states_of([Plan()], n_blocks)
        of_best = states_of(_best(costs, lacking.plans), n_blocks)
        for group in lacking.windows or ():
            n_windows, before = group[1] - group[0], self.passed[group] | of_whole
            self.work += n_windows * (len(states) + self.head * len(lacking.plans))
            for name, kept in {
                "whole": of_whole,
                "best": of_whole | of_best & before,
                "all": before,
            }.items():
                self.saved[name] += n_windows * len(states & kept)
            self.passed[group] |= states


def _best(costs: Costs, beside: Sequence[Plan]) -> list[Plan]:
    """The two best sets that are known of the sizes that a round may come from."""
    sizes = {beside[0].size - 1, beside[0].size} - {0} if beside else set()
    return sorted((plan for plan in costs.plans if plan.size in sizes), key=costs.increase)[:2]


def line(case: str) -> str:
    """A row of the table."""
    text, blocks, head = case.split("@")
    n_blocks, search = int(blocks), parse(text)
    nats: Mapping[Plan, np.ndarray] = MadeUp(n_blocks)
    replay(search, n_blocks, nats, TARGETS, GROUPS)  # which makes up the costs
    began = time.process_time()
    costs = replay(search, n_blocks, nats, TARGETS, GROUPS)
    seconds = time.process_time() - began
    watched = Watched(search, float(head))
    replay(cast(Proposer, watched), n_blocks, nats, TARGETS, GROUPS)
    saved = [f"{100 * count / watched.work:.0f} %" for count in watched.saved.values()]
    cells = [text, blocks, f"{len(costs.plans):,}", f"{costs.evaluations:,.0f}", f"{seconds:.1f}"]
    return f"| {' | '.join([*cells, f'{watched.work:,.0f}', *saved])} |"


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*", help="as search:6@30@8")
    print("| search | blocks | sets | evaluations | own s | work | whole | best | all |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in parser.parse_args().cases or CASES:
        print(line(case), flush=True)


if __name__ == "__main__":
    main()
