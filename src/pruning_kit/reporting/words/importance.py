"""Which blocks matter, in sentences: removed alone, and by their Shapley values."""

from __future__ import annotations

import math

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.evidence import Interval
from pruning_kit.findings.importance import MAX_EXACT_BLOCKS, NotAvailable, Ranking, Shapley
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.words.bridging import bridged
from pruning_kit.reporting.words.numbers import first_few, format_change, format_nats, listed

LEGEND = " (> clear, ≈ not told apart)"
COUNTS_EMPTY = "Shapley values count nearly empty models too"


def extremes(analysis: Analysis) -> list[str]:
    """The blocks that matter most and least alone, for the end of a terminal table."""
    importance = analysis.importance
    if len(importance.items) < 2:
        return [
            f"Without block {item.block} the perplexity changes by {format_change(item.ppl_ratio)}."
            for item in importance.items
        ]
    ratio = {item.block: item.ppl_ratio for item in importance.items}
    scope = "" if importance.complete else f" of the {len(ratio)} measured"
    most, least = importance.ranking.most, importance.ranking.least
    first = (
        f"Removed alone{bridged(analysis)}, block {most[0]}{scope} matters most "
        f"(perplexity {format_change(ratio[most[0]])})"
    )
    if len(most) == len(ratio):
        return [f"{first}, but the others cannot be told from it."]
    return [
        f"{first}{_tied(most)}, block {least[0]} least ({format_change(ratio[least[0]])})"
        f"{_tied(least)}."
    ]


def ranking_sentences(analysis: Analysis) -> list[str]:
    """All blocks in the order of their single costs."""
    importance = analysis.importance
    if len(importance.items) < 2:
        return []
    scope = "" if importance.complete else f", of the {len(importance.items)} measured"
    return [
        f"Most costly alone first{scope}{bridged(analysis)}: {_order(importance.ranking, True)}."
    ]


def shapley_sentences(analysis: Analysis) -> list[str]:
    """The order by Shapley values and how far to trust it, or why there are none."""
    shapley = analysis.shapley
    if isinstance(shapley, NotAvailable):
        return [_not_available(shapley, analysis.n_blocks)]
    if analysis.n_blocks == 1:
        return [f"The only block carries all {format_nats(shapley.total)} nats per token."]
    legend = len(analysis.importance.items) < 2
    return [
        f"By Shapley value ({_how(shapley)}{bridged(analysis)}): {_order(shapley.ranking, legend)}."
        f"{_which_to_trust(analysis, shapley)}"
    ]


def _not_available(lack: NotAvailable, n_blocks: int) -> str:
    if lack.missing is not None:
        name = "the whole model" if lack.missing == Plan() else "the stack without any block"
        return f"Shapley values: not available, since {name} was not measured in full."
    every = f"{2**n_blocks:,}" if n_blocks <= MAX_EXACT_BLOCKS else f"2^{n_blocks}"
    was = "was" if lack.n_measured == 1 else "were"
    return (
        f"Shapley values: not available, since {lack.n_measured:,} of {every} sets of blocks {was} "
        "measured in full."
    )


def _how(shapley: Shapley) -> str:
    if shapley.sampling_error is None:
        return "exact"
    return (
        f"from {shapley.n_permutations:,} sampled orders, sampling error at most "
        f"{math.ceil(1e3 * max(shapley.sampling_error)) / 1e3:.3f}"
    )


def _which_to_trust(analysis: Analysis, shapley: Shapley) -> str:
    """Where the two orders differ: which one to choose by."""
    importance = analysis.importance
    if not importance.complete or importance.ranking.blocks == shapley.ranking.blocks:
        return ""
    return f" Choose by the first: {_last_step(analysis, shapley)}."


def _last_step(analysis: Analysis, shapley: Shapley) -> str:
    """That values count nearly empty models; by how much, where that is more than half of all.

    A stack without any block predicts nothing, and this alone makes Shapley values look alike.
    """
    whole = range(analysis.n_blocks)
    alone = [Plan(tuple(block for block in whole if block != kept)) for kept in whole]
    if not all(plan in analysis.scores.place for plan in alone):
        return COUNTS_EMPTY
    empty = analysis.scores.log_ppl(Plan(tuple(whole)))
    steps = [(empty - analysis.scores.log_ppl(plan)) / len(alone) for plan in alone]
    if sum(steps) < shapley.total.value / 2:
        return COUNTS_EMPTY
    least, most = (format_nats(Interval(end)) for end in (min(steps), max(steps)))
    return f"{least} to {most} nats of each value are the loss of the last block left"


def _order(ranking: Ranking, legend: bool) -> str:
    if ranking.separated is None:
        return f"{ranking} (order of the estimates, not tested)"
    return f"{ranking}{LEGEND * legend}"


def _tied(blocks: tuple[int, ...]) -> str:
    return f", not distinguishable from {listed(first_few(blocks[1:]))}" if len(blocks) > 1 else ""
