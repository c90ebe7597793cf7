"""A replay: what a proposer would have asked for, answered from costs that are known already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pruning_kit.inputs.windows import places_of
from pruning_kit.plans.plan import Plan
from pruning_kit.search.costs import Costs, Group, Lacking
from pruning_kit.search.proposer import Proposer, Request, Scoring, next_round
from pruning_kit.search.ranked import Scores


def replay(
    proposer: Proposer,
    n_blocks: int,
    nats: Mapping[Plan, np.ndarray],
    targets: Sequence[int],
    groups: Sequence[Group],
    scores: Mapping[str, Scores] | None = None,
) -> Costs:
    """Carry out a search on known costs.

    Args:
        proposer: the search.
        n_blocks: of the model.
        nats: of every set of blocks that may be asked for, over each window: (W,).
        targets: scored tokens of each window.
        groups: windows that are computed together.
        scores: of every ranking that may be asked for.

    Returns:
        What it asked for. A plan's row is that of its variant as cut, whatever the nats are of.
    """
    costs = Costs(targets, groups)
    asking = proposer.propose(n_blocks)
    request: Request | None = next_round(asking) or []
    while request is not None:
        if isinstance(request, Scoring):
            costs.scores |= {name: (scores or {})[name] for name in request.names}
        for lacking in costs.lacking(request):
            _answer(costs, lacking, nats)
        request = next_round(asking, costs)
    return costs


def _answer(costs: Costs, lacking: Lacking, nats: Mapping[Plan, np.ndarray]) -> None:
    if lacking.windows is None:
        plans = [variant.plan for variant in lacking.variants]
        costs.add_rows(lacking.variants, np.stack([nats[plan] for plan in plans]))
    else:
        places = places_of(lacking.windows)
        found = np.stack([nats[plan][places] for plan in lacking.plans])
        costs.add_screened(lacking.plans, lacking.windows, found)
