"""Sentences: what an analysis says, in plain English made from its numbers.

Every sentence is true of the numbers by construction: it names a difference only where a test
found one, and says what was not measured. Changes of perplexity below a doubling are written in
per cent, others as a factor (`3.98×`); square brackets hold the bounds of the 95 % interval.
"""

from __future__ import annotations

from pruning_kit.findings.analysis import Analysis
from pruning_kit.reporting.words import elsewhere, sureness
from pruning_kit.reporting.words.avoid import to_avoid
from pruning_kit.reporting.words.bridging import bridging_sentences
from pruning_kit.reporting.words.front import front
from pruning_kit.reporting.words.importance import extremes, ranking_sentences, shapley_sentences
from pruning_kit.reporting.words.interactions import interaction_sentences
from pruning_kit.reporting.words.numbers import count_blocks, format_ppl, some_plans
from pruning_kit.reporting.words.recommendation import recommendation
from pruning_kit.reporting.words.recovered import recovered_in_short
from pruning_kit.reporting.words.sizes import best_of_each_size, steps
from pruning_kit.reporting.words.strategies import strategies


def summary_sentences(analysis: Analysis) -> list[str]:
    """The conclusions in a few sentences, for the end of a terminal table."""
    found = extremes(analysis)
    if any(size.n_removed > 1 for size in analysis.sizes):
        found += best_of_each_size(analysis)
    found += to_avoid(analysis)
    found = found or _baseline(analysis)
    return [*found, *_failed(analysis), *_few_windows(analysis)]


def section_sentences(analysis: Analysis) -> dict[str, list[str]]:
    """All sentences for a report, by section; a section without anything to say is empty."""
    return {
        "summary": [
            *recommendation(analysis),
            *recovered_in_short(analysis),
            *sureness.of_the_choice(analysis),
            *elsewhere.of_the_choice(analysis),
            *_baseline(analysis),
            *to_avoid(analysis),
            *_failed(analysis),
            *_few_windows(analysis),
        ],
        "importance": [*ranking_sentences(analysis), *shapley_sentences(analysis)],
        "interactions": interaction_sentences(analysis),
        "sizes": [
            *steps(analysis),
            *strategies(analysis),
            *front(analysis),
        ],
        "bridging": bridging_sentences(analysis),
        "elsewhere": elsewhere.elsewhere_sentences(analysis),
        "uncertainty": [
            *sureness.of_every_size(analysis),
            *sureness.on_both_texts(analysis),
            *sureness.of_the_intervals(analysis),
        ],
    }


def _few_windows(analysis: Analysis) -> list[str]:
    return [] if analysis.scores.has_intervals else sureness.of_the_intervals(analysis)


def _baseline(analysis: Analysis) -> list[str]:
    row = analysis.baseline
    if row is None or row.failed:
        return ["The whole model was not measured in full, so nothing is relative to it."]
    bounds = ""
    if row.ppl.low is not None and row.ppl.high is not None:
        bounds = f" [{format_ppl(row.ppl.low)} to {format_ppl(row.ppl.high)}]"
    numbered = ", numbered from 0" if analysis.n_blocks > 1 else ""
    sentence = (
        f"Whole model: perplexity {format_ppl(row.ppl.value)}{bounds}; "
        f"{count_blocks(analysis.n_blocks)}{numbered}."
    )
    if len(analysis.rows) > 1:
        return [sentence]
    return [sentence, "No plan that removes a block was measured."]


def _failed(analysis: Analysis) -> list[str]:
    plans = [row.plan for row in analysis.failed]
    if not plans:
        return []
    count = f"{len(plans):,} plan{'s' * (len(plans) != 1)}"
    return [f"{count} failed (not finite), left out of all that is said: {some_plans(plans)}."]
