"""Sentences: what an analysis says, in plain English made from its numbers.

Every sentence is true of the numbers by construction: it names a difference only where a test
found one, and says what was not measured. Changes of perplexity below a doubling are written in
per cent, others as a factor (`3.98×`); square brackets hold the bounds of the 95 % interval.
"""

from __future__ import annotations

import math

from pruning_kit.findings.analysis import COLLAPSE_RATIO, Analysis
from pruning_kit.findings.evidence import Interval, exp
from pruning_kit.findings.importance import Interaction, NotAvailable, Ranking, Shapley
from pruning_kit.plans.permutations import count_shapley_plans
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.words import advice, sureness
from pruning_kit.reporting.words.numbers import (
    change,
    count_blocks,
    first_few,
    format_change,
    format_nats,
    format_ppl,
    listed,
    some_plans,
)
from pruning_kit.search.together import MAX_PLANS


def summary_sentences(analysis: Analysis) -> list[str]:
    """The conclusions in a few sentences, for the end of a terminal table."""
    found = _importance_extremes(analysis)
    if any(size.n_removed > 1 for size in analysis.sizes):
        found += advice.best_of_each_size(analysis)
    found += advice.to_avoid(analysis)
    found = found or _baseline(analysis)
    return [*found, *_failed(analysis), *_few_windows(analysis)]


def section_sentences(analysis: Analysis) -> dict[str, list[str]]:
    """All sentences for a report, by section; a section without anything to say is empty."""
    return {
        "summary": [
            *advice.recommendation(analysis),
            *sureness.of_the_choice(analysis),
            *_baseline(analysis),
            *_importance_extremes(analysis),
            *advice.to_avoid(analysis),
            *_failed(analysis),
            *_few_windows(analysis),
        ],
        "importance": [*_importance_extremes(analysis), *_importance_ranking(analysis)],
        "shapley": _shapley(analysis),
        "interactions": _interactions(analysis),
        "sizes": [*advice.steps(analysis), *advice.efficiency(analysis)],
        "strategies": advice.strategies(analysis),
        "front": advice.front(analysis),
        "choices": advice.ladder(analysis),
        "avoid": advice.to_avoid(analysis),
        "uncertainty": [
            *advice.two_texts(analysis),
            *sureness.of_every_size(analysis),
            *sureness.on_both_texts(analysis),
            _sentence(analysis.uncertainty_note),
        ],
    }


def _few_windows(analysis: Analysis) -> list[str]:
    return [_sentence(analysis.scores.reason)] if analysis.scores.reason else []


def _sentence(note: str) -> str:
    return f"{note[0].upper()}{note[1:]}."


def _baseline(analysis: Analysis) -> list[str]:
    row = analysis.baseline
    if row is None or row.failed:
        return ["The whole model was not measured in full, so nothing is relative to it."]
    bounds = ""
    if row.ppl.low is not None and row.ppl.high is not None:
        bounds = f" [95 % interval {format_ppl(row.ppl.low)} to {format_ppl(row.ppl.high)}]"
    numbered = ", numbered from 0" if analysis.n_blocks > 1 else ""
    sentence = (
        f"The whole model ({count_blocks(analysis.n_blocks)}{numbered}) has a perplexity of "
        f"{format_ppl(row.ppl.value)}{bounds} on {analysis.reported.title}; lower is better."
    )
    if len(analysis.rows) > 1:
        return [sentence]
    return [sentence, "No plan that removes a block was measured."]


def _failed(analysis: Analysis) -> list[str]:
    plans = [row.plan for row in analysis.failed]
    if not plans:
        return []
    count = f"{len(plans):,} plan{'s' * (len(plans) != 1)}"
    return [f"{count} failed (not finite) and left out of every statement: {some_plans(plans)}."]


def _importance_extremes(analysis: Analysis) -> list[str]:
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


def _tied(blocks: tuple[int, ...]) -> str:
    return f", not distinguishable from {listed(first_few(blocks[1:]))}" if len(blocks) > 1 else ""


LEGEND = " (> a clear difference, ≈ none found, by a test of all pairs at once)"


def _order(ranking: Ranking, legend: bool) -> str:
    if ranking.separated is None:
        return f"{ranking} (order of the estimates, not tested)"
    return f"{ranking}{LEGEND * legend}"


def _importance_ranking(analysis: Analysis) -> list[str]:
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
    return f"--plans shapley:{n_permutations}{more}"


def _shapley(analysis: Analysis) -> list[str]:
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


def _interactions(analysis: Analysis) -> list[str]:
    pairs = analysis.interactions
    if not pairs:
        return []
    clear = sorted((pair for pair in pairs if pair.is_clear), key=lambda pair: pair.excess.value)
    if not clear:
        if analysis.scores.reason:
            return [
                f"None of the {len(pairs)} pairs was tested against the sum of its two single "
                f"costs ({analysis.scores.reason})."
            ]
        return [f"None of the {len(pairs)} pairs differs clearly from the sum of its single costs."]
    sound = analysis.sound_interactions
    usable = [pair for pair in clear if pair in sound]
    found = [_count(analysis, usable)] if sound else []
    if usable and usable[-1].excess.value > 0:
        found.append(_pair(usable[-1], "more"))
    if usable and usable[0].excess.value < 0:
        found.append(_pair(usable[0], "less"))
    if analysis.ruinous:
        pairs_left_out = ruined_pairs(analysis).capitalize()
        found.append(
            f"{pairs_left_out}, are left out here: a ruined model has little more to lose."
        )
    return found


def ruined_pairs(analysis: Analysis) -> str:
    """Which pairs mean little, and why, where there are some."""
    each = "each of " * (len(analysis.ruinous) > 1)
    return (
        f"pairs with block {_ruinous(analysis)}, {each}which alone multiplies perplexity by more "
        f"than {COLLAPSE_RATIO:g}"
    )


def _count(analysis: Analysis, clear: list[Interaction]) -> str:
    """How many sound pairs cost more or less together than apart."""
    pairs = analysis.sound_interactions
    without = f" without block {_ruinous(analysis)}" if analysis.ruinous else ""
    many = len(pairs) > 1
    those = f"Of the {len(pairs)} pairs{without}," if many else f"Of the one pair{without},"
    worse = sum(pair.excess.value > 0 for pair in clear)
    return (
        f"{those} {worse} cost clearly more together than the sum of their single costs in log "
        f"perplexity, {len(clear) - worse} clearly less."
    )


def _ruinous(analysis: Analysis) -> str:
    return listed(first_few(analysis.ruinous), "or")


def _pair(pair: Interaction, direction: str) -> str:
    size = pair.excess if direction == "more" else pair.excess.negated
    return (
        f"Blocks {pair.first} and {pair.second} together cost {direction} than expected from "
        f"removing each alone, by {format_nats(size)} nats per token (perplexity "
        f"{change(exp(pair.excess.value))})."
    )
