"""Sentences on which blocks matter: removed alone, and by their Shapley values."""

from __future__ import annotations

import math

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.evidence import Interval
from pruning_kit.findings.importance import NotAvailable, Ranking, Shapley
from pruning_kit.plans.permutations import count_shapley_plans
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.words.numbers import first_few, format_change, format_nats, listed
from pruning_kit.search.together import MAX_PLANS

LEGEND = " (> a clear difference, ≈ none found, by a test of all pairs at once)"


def extremes(analysis: Analysis) -> list[str]:
    importance = analysis.importance
    if len(importance.items) < 2:
        return [
            f"Without block {item.block} the perplexity changes by {format_change(item.ppl_ratio)}."
            for item in importance.items
        ]
    ratio = {item.block: item.ppl_ratio for item in importance.items}
    scope = "" if importance.complete else f" of the {len(ratio)} measured"
    most, least = importance.ranking.most, importance.ranking.least
    if len(most) == len(ratio):
        return [
            f"Removed alone, block {most[0]}{scope} matters most "
            f"(perplexity {format_change(ratio[most[0]])}), but the others cannot be told from it."
        ]
    return [
        f"Removed alone, block {most[0]}{scope} matters most "
        f"(perplexity {format_change(ratio[most[0]])}){_tied(most)}, "
        f"block {least[0]} least ({format_change(ratio[least[0]])}){_tied(least)}."
    ]


def ranking_sentences(analysis: Analysis) -> list[str]:
    importance = analysis.importance
    if len(importance.items) < 2:
        return []
    return [f"From most to least costly to remove alone: {_order(importance.ranking, True)}."]


def shapley_options(n_blocks: int, n_permutations: int | None) -> str:
    """The options of a sweep that measures so many sampled orders; None: all sets of blocks."""
    if n_permutations is None:
        return "--mode combinatorial"
    count = count_shapley_plans(n_blocks, n_permutations)
    more = f" --max-plans {count}" * (count > MAX_PLANS)
    return f"--try shapley:{n_permutations}{more}"


def shapley_sentences(analysis: Analysis) -> list[str]:
    shapley = analysis.shapley
    if isinstance(shapley, NotAvailable):
        options = shapley_options(analysis.n_blocks, shapley.n_permutations)
        return [
            f"Shapley values: not available, since {shapley.reason}. "
            f"`{analysis.same_sweep} {options}` measures the plans that they need."
        ]
    if analysis.n_blocks == 1:
        return [f"The only block carries all {format_nats(shapley.total)} nats per token."]
    how = f"exact, from all {2**analysis.n_blocks - 1:,} plans and the stack without any block"
    if shapley.sampling_error is not None:
        how = (
            f"estimated from {shapley.n_permutations:,} permutations, sampling error at most "
            f"{math.ceil(1e3 * max(shapley.sampling_error)) / 1e3:.3f}"
        )
    most, least = shapley.ranking.most, shapley.ranking.least
    single = len(analysis.importance.items) > 1
    return [
        "A block's Shapley value is what removing it costs, averaged over all orders in which the "
        "blocks could be removed one after another.",
        f"Shapley values ({how}) add up to what log perplexity rises by without any block, "
        f"{format_nats(shapley.total)} nats per token: block {most[0]} carries most, "
        f"{format_nats(shapley.values[most[0]])}{_tied(most)}; block {least[0]} least, "
        f"{format_nats(shapley.values[least[0]])}{_tied(least)}. From most to least: "
        f"{_order(shapley.ranking, not single)}.",
        *_which_to_trust(analysis, shapley),
        *_last_step(analysis, shapley),
    ]


def _which_to_trust(analysis: Analysis, shapley: Shapley) -> list[str]:
    """Where the two orders differ: which one to choose by."""
    importance = analysis.importance
    if not importance.complete or importance.ranking.blocks == shapley.ranking.blocks:
        return []
    return [
        "To choose, go by single removals and best sets: Shapley values average over nearly empty "
        "models too, and here their order is another."
    ]


def _last_step(analysis: Analysis, shapley: Shapley) -> list[str]:
    """How much of each value is the loss of the last block, where that is more than half of all.

    A stack without any block predicts nothing, and this alone makes Shapley values look alike.
    """
    whole = range(analysis.n_blocks)
    alone = [Plan(tuple(block for block in whole if block != kept)) for kept in whole]
    if not all(plan in analysis.scores.row for plan in alone):
        return []
    empty = analysis.scores.log_ppl(Plan(tuple(whole)))
    steps = [(empty - analysis.scores.log_ppl(plan)) / len(alone) for plan in alone]
    if sum(steps) < shapley.total.value / 2:
        return []
    least, most = (format_nats(Interval(end)) for end in (min(steps), max(steps)))
    return [
        f"{least} to {most} nats of each value are the loss of the last block left, whichever it "
        "is: compare differences."
    ]


def _order(ranking: Ranking, legend: bool) -> str:
    if ranking.separated is None:
        return f"{ranking} (order of the estimates, not tested)"
    return f"{ranking}{LEGEND * legend}"


def _tied(blocks: tuple[int, ...]) -> str:
    return f", not distinguishable from {listed(first_few(blocks[1:]))}" if len(blocks) > 1 else ""
