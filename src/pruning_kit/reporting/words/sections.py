"""Sentences: what an analysis says, in plain English made from its numbers.

Every sentence is true of the numbers by construction: it names a difference only where a test
found one, and says what was not measured. Changes of perplexity below a doubling are written in
per cent, others as a factor (`3.98×`); square brackets hold the bounds of the 95 % interval.
"""

from __future__ import annotations

from pruning_kit.findings.analysis import Analysis
from pruning_kit.reporting.words import sureness
from pruning_kit.reporting.words.avoid import to_avoid
from pruning_kit.reporting.words.front import front
from pruning_kit.reporting.words.importance import extremes, ranking_sentences, shapley_sentences
from pruning_kit.reporting.words.interactions import interaction_sentences
from pruning_kit.reporting.words.numbers import count_blocks, format_ppl, some_plans
from pruning_kit.reporting.words.recommendation import ladder, recommendation
from pruning_kit.reporting.words.sizes import best_of_each_size, efficiency, steps
from pruning_kit.reporting.words.strategies import strategies
from pruning_kit.reporting.words.texts import two_texts


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
            *sureness.of_the_choice(analysis),
            *_baseline(analysis),
            *extremes(analysis),
            *to_avoid(analysis),
            *_failed(analysis),
            *_few_windows(analysis),
        ],
        "importance": [*extremes(analysis), *ranking_sentences(analysis)],
        "shapley": shapley_sentences(analysis),
        "interactions": interaction_sentences(analysis),
        "sizes": [*steps(analysis), *efficiency(analysis)],
        "strategies": strategies(analysis),
        "front": front(analysis),
        "choices": ladder(analysis),
        "avoid": to_avoid(analysis),
        "uncertainty": [
            *two_texts(analysis),
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
