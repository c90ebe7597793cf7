"""How the sets of a run were found: sentences, and a table of the sizes that were searched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.searching import Replayed, Step, is_exhaustive, replayed, search_path
from pruning_kit.plans.costs import Cost
from pruning_kit.plans.variant import Variant
from pruning_kit.reporting.document import Section, Table
from pruning_kit.reporting.words.numbers import format_ratio, listed, times
from pruning_kit.runs.results import Run

MOST_REPLAYED = 8
"""Blocks of a model on whose sets a search is carried out anew for a report: it takes a second."""


def search_section(run: Run, analysis: Analysis) -> Section:
    """What a search looked at, and how far the default one ends from the best, where known."""
    path = search_path(run)
    sentences = [*_looked_at(path, analysis), *_gap(run, analysis)]
    return Section(
        "search",
        "How the sets were found",
        tuple(sentences),
        _table(run, analysis, path) if path else None,
        ("search",) if path else (),
    )


def _looked_at(path: Sequence[Step], analysis: Analysis) -> Iterator[str]:
    if not path:
        return
    by = Counter(step.proposed_by for step in path)
    counts = listed(f"{count:,} by {name}" for name, count in by.most_common())
    yield (
        f"A search looked at {len(path):,} sets on {analysis.selection.title}: {counts}. That is "
        f"as much work as {path[-1].evaluations:,.0f} sets on all of the text, since most were "
        "read only as far as it took to see that they are worse."
    )
    yield (
        "What was measured in full is the best of many: on the text chosen on it looks better "
        "than it is."
    )


def _table(run: Run, analysis: Analysis, path: Sequence[Step]) -> Table:
    looked_at = Counter(step.plan.size for step in path)
    rows = [
        (
            str(size.n_removed),
            size.best.short,
            run.proposed_by.get(Variant(size.best), ""),
            f"{looked_at[size.n_removed]:,}",
            format_ratio(analysis.row[size.best].selection_ratio),
            format_ratio(analysis.row[size.best].ppl_ratio.value),
        )
        for size in analysis.sizes
    ]
    return Table(
        ("Blocks removed", "Best set", "Proposed by", "Looked at", "Chosen on", "Reported"),
        tuple(rows),
        "Ratios to the whole model's perplexity, on the text chosen on and on the reported one.",
    )


def _gap(run: Run, analysis: Analysis) -> Iterator[str]:
    """How far the default search ends from the best of each size, where every set is known."""
    if not is_exhaustive(run) or not 3 <= run.n_blocks <= MOST_REPLAYED or analysis.failed:
        return
    cost = Cost.bridged if analysis.judged_bridged else Cost.as_cut
    (found,) = replayed(run, cost, ["search"])
    yield (
        f"Every set was measured. A search would have found {_what(found)} with "
        f"{found.evaluations:,.0f} evaluations in place of {2**run.n_blocks - 1:,}."
    )


def _what(found: Replayed) -> str:
    missed = [gap for gap in found.gaps if gap.found != gap.best]
    if not missed:
        return "the best of every size"
    worst = max(gap.ratio for gap in missed)
    sizes = listed(gap.size for gap in missed)
    return f"the best of every size but {sizes}, where it ends at most {times(worst)} above it,"
