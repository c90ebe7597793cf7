"""Budgets: how many blocks go where searches are given a limit on the model instead."""

from __future__ import annotations

from pruning_kit.plans.sets import remove_contiguous
from pruning_kit.pruning.surgery import parameters_of
from pruning_kit.search.limits import searches_of
from pruning_kit.search.proposer import Proposer
from pruning_kit.search.sized import SizedSearch
from pruning_kit.speed.protocol import LatencyProtocol
from pruning_kit.speed.timings import END_TO_END
from pruning_kit.sweeps.targets import sizes_within_parameters, sizes_within_seconds
from pruning_kit.sweeps.timing import timed
from pruning_kit.sweeps.workbench import Workbench


def sizes_asked_for(
    proposer: Proposer, workbench: Workbench, protocol: LatencyProtocol
) -> dict[str, tuple[int, ...]]:
    """Of each search of a proposer that a limit gives its sizes, by its text form.

    Raises:
        PlanError: if a limit asks for no block to go, or for all.
    """
    found = [search for search in searches_of(proposer) if search.is_budgeted]
    return {str(search): tuple(_sizes(search, workbench, protocol)) for search in found}


def _sizes(search: SizedSearch, workbench: Workbench, protocol: LatencyProtocol) -> list[int]:
    if search.params is not None:
        return sizes_within_parameters(search.params, *parameters_of(workbench.decoder))
    assert search.microseconds is not None
    n_blocks = workbench.n_blocks
    half = remove_contiguous(n_blocks, max(1, n_blocks // 2))
    timings = timed([half], workbench, protocol, "latency of the whole model and of half of it")
    line = timings.fit[END_TO_END]
    return sizes_within_seconds(
        search.microseconds / 1e6, line.fixed_s.value, line.per_block_s.value, n_blocks
    )
