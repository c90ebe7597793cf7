"""Sentences on how sure choices are: best sets against others, both texts, what was not tested."""

from __future__ import annotations

from collections.abc import Iterable

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.evidence import exp
from pruning_kit.findings.sizes import Size
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.words.numbers import (
    change,
    first_few,
    listed,
    name_blocks,
    percent,
    series,
)
from pruning_kit.reporting.words.texts import on_selection

MIN_MEASURED = 3  # sets whose median says how the texts differ


def of_the_choice(analysis: Analysis) -> list[str]:
    """Whether the set to take, or the cheapest one, is separated from the next best."""
    size = analysis.cheapest
    if analysis.recommended != Plan():
        (size,) = (s for s in analysis.sizes if s.n_removed == analysis.recommended.size)
    if size is None:
        return []
    if not _tested(analysis, size):
        alone = f"{name_blocks(size.best).capitalize()} {_is(size)} the only {_kind(size)}. "
        return [f"{alone * (size.n_measured == 1)}Nothing was retrained."]
    return [f"{_separation(analysis, size)}{_elsewhere(analysis, size)}. Nothing was retrained."]


def _tested(analysis: Analysis, size: Size) -> bool:
    return size.n_measured > 1 and analysis.selection_scores.resampling is not None


def _separation(analysis: Analysis, size: Size) -> str:
    name = name_blocks(size.best).capitalize()
    what = f"the cheapest {_kind(size)}{on_selection(analysis, ' on {}')}"
    others = [plan for plan in size.group if plan != size.best]
    if others:
        return f"{name} cannot be told from {_some(others)} as {what}"
    runner_up = min(
        (row for row in analysis.rows if row.plan.size == size.n_removed and row.plan != size.best),
        key=lambda row: (not row.selection_ratio > 0, row.selection_ratio),
    )
    return (
        f"{name} {_is(size)} clearly {what}, by a test against all others at once (next: "
        f"{runner_up.plan.short}, {change(runner_up.selection_ratio)})"
    )


def _is(size: Size) -> str:
    return "is" if size.n_removed == 1 else "are"


def _kind(size: Size) -> str:
    kind = "single block" if size.n_removed == 1 else f"set of {size.n_removed}"
    return kind if size.complete else f"measured {kind}"


def _some(plans: list[Plan]) -> str:
    return listed(first_few([plan.short for plan in plans]))


def _elsewhere(analysis: Analysis, size: Size) -> str:
    """Whether the reported text has the same best set."""
    if analysis.selection == analysis.reported:
        return ""
    on_text = f" on {analysis.reported.short}"
    if size.best_reported == size.best:
        return f", and the cheapest{on_text} too"
    return f"; {on_text.strip()} {size.best_reported.short} is cheaper"


def of_every_size(analysis: Analysis) -> list[str]:
    """Which best sets are separated from the others of their size."""
    tested = [size for size in analysis.sizes if _tested(analysis, size)]
    clear = [size.best for size in tested if len(size.group) == 1]
    tied = [size for size in tested if len(size.group) > 1]
    on_text = on_selection(analysis)
    found = []
    if clear:
        found.append(
            "Clearly the best of their size, by a test that holds for all sets of a size at "
            f"once{on_text}: {_some(clear)}."
        )
    if tied:
        named = [f"{size.best.short} ({_tie(size)})" for size in tied]
        found.append(
            f"Best but not distinguishable from others{on_text}: {listed(first_few(named))}."
        )
    return found


def _tie(size: Size) -> str:
    others = size.group[1:]
    return f"from {others[0].short}" if len(others) == 1 else f"from {len(others):,} others"


def on_both_texts(analysis: Analysis) -> list[str]:
    """Whether the same sets are best on both texts, and how their costs differ."""
    sizes = [size for size in analysis.sizes if size.optimism is not None and size.n_measured > 1]
    return [_hindsight(analysis, sizes), *_changes(analysis, sizes)] if sizes else []


def _hindsight(analysis: Analysis, sizes: list[Size]) -> str:
    missed = [size for size in sizes if size.best_reported != size.best]
    if not missed:
        return "The same sets are best on both texts, at every number of blocks removed."
    gains = [
        (size, analysis.row[size.best_reported].ppl.value / analysis.row[size.best].ppl.value)
        for size in missed
    ]
    names = [
        (s.n_removed, f"{s.best_reported.short} ({percent(ratio, 2)} %)") for s, ratio in gains
    ]
    return (
        f"In hindsight another set is best on {analysis.reported.short} (in brackets its "
        f"perplexity relative to the chosen one's), by blocks removed: {series(names)}."
    )


def _changes(analysis: Analysis, sizes: list[Size]) -> list[str]:
    """How the costs of the chosen sets, and of the median set, differ between the texts."""
    several = [size for size in sizes if size.n_measured >= MIN_MEASURED]
    if not several:
        return []
    chosen = _range(exp(size.optimism or 0.0) for size in several)
    median = _range(exp(size.text_shift or 0.0) for size in several)
    return [
        f"From {analysis.selection.short} to {analysis.reported.short} the cost (perplexity in "
        f"units of the whole model's) of the chosen sets changed by {chosen}, in the median over "
        f"all sets of a size by {median}."
    ]


def _range(ratios: Iterable[float]) -> str:
    """The lowest and the highest of some ratios as changes in per cent."""
    values = list(ratios)
    ends = dict.fromkeys(f"{percent(end)} %" for end in (min(values), max(values)))
    return " to ".join(ends)
