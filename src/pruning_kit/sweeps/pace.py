"""Pace: how long searches take, by a timing before they start."""

from __future__ import annotations

from pruning_kit.search.limits import searches_of
from pruning_kit.search.proposer import Proposer
from pruning_kit.sweeps.workbench import Workbench


def seconds_per_evaluation(workbench: Workbench, batch_size: int) -> float:
    """One set on all of the text chosen on, as if it shared no block's call with another."""
    text = workbench.chosen_on
    role = next(role for role, one in workbench.texts.items() if one is text)
    first, end = max(text.groups(batch_size), key=lambda group: group[1] - group[0])
    cost = workbench.cost_per_window(role, range(first, end))
    return cost.seconds(len(text.windows), workbench.n_blocks, 1)


def expect_searches(
    proposer: Proposer, workbench: Workbench, batch_size: int, n_processes: int
) -> None:
    """Say how many evaluations the searches of a proposer make at most, and how long they take."""
    searches = searches_of(proposer)
    if searches:
        evaluations = sum(search.allowed(workbench.n_blocks) for search in searches)
        seconds = evaluations * seconds_per_evaluation(workbench, batch_size) / n_processes
        workbench.observer.expect_searches(evaluations, seconds)
