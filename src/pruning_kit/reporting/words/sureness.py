"""How sure choices are, in sentences: best sets against others, both texts, what was not tested."""

from __future__ import annotations

from collections.abc import Iterable

from pruning_kit.findings.analysis import CHECKED_AUTOCORRELATION, Analysis
from pruning_kit.findings.evidence import exp
from pruning_kit.findings.sizes import Size
from pruning_kit.intervals.windows import MIN_WINDOWS
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


def few_windows(n_windows: int) -> str:
    """Why nothing has an interval and nothing is tested."""
    return f"no interval: {n_windows} windows, at least {MIN_WINDOWS} needed"


def of_the_intervals(analysis: Analysis) -> list[str]:
    """What intervals cover and what not, or why there are none."""
    if not analysis.scores.has_intervals:
        return [f"{few_windows(analysis.scores.n_windows).capitalize()}."]
    text = analysis.reported.short if analysis.two_texts else "this text"
    found = [
        f"95 % intervals cover the choice of passages from {text}, its chapters included; what "
        "another book or author would give, one text cannot tell."
    ]
    if analysis.autocorrelation > CHECKED_AUTOCORRELATION:
        found.append(
            f"Neighbouring windows correlate by {analysis.autocorrelation:.2f}, beyond the "
            f"{CHECKED_AUTOCORRELATION} up to which the intervals were checked, so they may be too "
            "narrow."
        )
    return found


def of_the_choice(analysis: Analysis) -> list[str]:
    """Whether the set to take, or the cheapest one, is separated from the next best."""
    size = analysis.cheapest
    if analysis.recommended != Plan():
        (size,) = (s for s in analysis.sizes if s.n_removed == analysis.recommended.size)
    if size is None:
        return []
    if size.n_measured == 1:
        return [f"{_named(size)} the only {_kind(size)}."]
    if not analysis.tested:
        return []
    return [f"{_separation(analysis, size)}{_elsewhere(analysis, size)}."]


def _separation(analysis: Analysis, size: Size) -> str:
    what = f"the cheapest {_kind(size)}{on_selection(analysis, ' on {}')}"
    others = [plan for plan in size.group if plan != size.best]
    if others:
        name = name_blocks(size.best).capitalize()
        return f"{name} cannot be told from {_some(others)} as {what}"
    runner_up = min(
        (row for row in analysis.rows if row.plan.size == size.n_removed and row.plan != size.best),
        key=lambda row: (not row.selection_ratio > 0, row.selection_ratio),
    )
    next_best = f"{runner_up.plan.short}, {change(runner_up.selection_ratio)}"
    return f"{_named(size)} clearly {what} (next: {next_best})"


def _named(size: Size) -> str:
    """The best set of a size as the subject of a sentence: `Block 3 is`."""
    return f"{name_blocks(size.best).capitalize()} {'is' if size.n_removed == 1 else 'are'}"


def _kind(size: Size) -> str:
    kind = "single block" if size.n_removed == 1 else f"set of {size.n_removed}"
    return kind if size.complete else f"measured {kind}"


def _some(plans: list[Plan]) -> str:
    return listed(first_few([plan.short for plan in plans]))


def _elsewhere(analysis: Analysis, size: Size) -> str:
    """Whether the reported text has the same best set."""
    if not analysis.two_texts:
        return ""
    text = analysis.reported.short
    if size.best_reported == size.best:
        return f", and the cheapest on {text} too"
    return f"; on {text} {size.best_reported.short} is cheaper"


def of_every_size(analysis: Analysis) -> list[str]:
    """Which best sets are separated from the others of their size."""
    tested = [size for size in analysis.sizes if size.n_measured > 1 and analysis.tested]
    clear = [size.best for size in tested if len(size.group) == 1]
    tied = [f"{size.best.short} (from {_others(size)})" for size in tested if len(size.group) > 1]
    on_text = on_selection(analysis)
    found = []
    if clear:
        found.append(
            f"Clearly best of their size, against all others at once{on_text}: {_some(clear)}."
        )
    if tied:
        found.append(f"Best but not told apart from others{on_text}: {listed(first_few(tied))}.")
    return found


def _others(size: Size) -> str:
    """What cannot be told from the best set of a size."""
    others = size.group[1:]
    return others[0].short if len(others) == 1 else f"{len(others):,} others"


def on_both_texts(analysis: Analysis) -> list[str]:
    """Whether the same sets are best on both texts, and how their costs differ."""
    sizes = [size for size in analysis.sizes if size.optimism is not None and size.n_measured > 1]
    return [_hindsight(analysis, sizes), *_changes(analysis, sizes)] if sizes else []


def _hindsight(analysis: Analysis, sizes: list[Size]) -> str:
    missed = [size for size in sizes if size.best_reported != size.best]
    if not missed:
        return "The same sets are best on both texts, at every number of blocks removed."
    ppl = {row.plan: row.ppl.value for row in analysis.rows}
    names = [
        (
            s.n_removed,
            f"{s.best_reported.short} ({percent(ppl[s.best_reported] / ppl[s.best], 2)} %)",
        )
        for s in missed
    ]
    return (
        f"On {analysis.reported.short} another set than the chosen one is lowest, by blocks "
        f"removed: {series(names)}."
    )


def _changes(analysis: Analysis, sizes: list[Size]) -> list[str]:
    """How the costs of the chosen sets, and of the median set, differ between the texts."""
    several = [size for size in sizes if size.n_measured >= MIN_MEASURED]
    if not several:
        return []
    chosen = _range(exp(size.optimism or 0.0) for size in several)
    median = _range(exp(size.text_shift or 0.0) for size in several)
    return [
        f"From {analysis.selection.short} to {analysis.reported.short} the ratios to the whole "
        f"model changed by {chosen} for the chosen sets, by {median} for the median of a size."
    ]


def _range(ratios: Iterable[float]) -> str:
    """The lowest and the highest of some ratios as changes in per cent."""
    values = list(ratios)
    ends = dict.fromkeys(f"{percent(end)} %" for end in (min(values), max(values)))
    return " to ".join(ends)
