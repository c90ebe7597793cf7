"""Recovered models in sentences: what they won, how they were made, and what is not to be had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.evidence import Interval, exp
from pruning_kit.findings.recovered import RecoveredRow
from pruning_kit.plans.variant import Variant
from pruning_kit.reporting.words.elsewhere import title_of
from pruning_kit.reporting.words.numbers import (
    change,
    duration,
    format_change,
    format_ppl,
    listed,
    name_blocks,
)
from pruning_kit.runs.recovered import RECOVERED_FACTS, Detail, PointFacts, RecoveredFacts
from pruning_kit.runs.results import Run

MAX_NAMED = 3
"""Models of which each is spoken of; of more only what they have in common."""


def recovered_sentences(run: Run, analysis: Analysis) -> list[str]:
    """What recovering won on each text, how models were made, and why others have no row."""
    return [
        *won_sentences(analysis),
        *curve_sentences(run),
        *_how_made(run),
        *(
            f"There is no row of {variant}: the kit {facts.refused}"
            for variant, facts in run.recovered.items()
            if facts.refused is not None
        ),
    ]


def recovered_in_short(analysis: Analysis) -> list[str]:
    """What the recommended set costs as the best of its models with weights of their own."""
    rows = [row for row in analysis.recovered if row.has_own_weights]
    rows = [row for row in rows if row.variant.plan == analysis.recommended] or rows
    if not rows:
        return []
    best = min(rows, key=lambda row: row.ppl.value)
    plan, recovery = best.variant.plan, best.variant.recovery
    cost = f"cost{'s' * (plan.size == 1)} {format_change(best.ratio)} perplexity"
    return [f"Recovered further ({recovery}), {name_blocks(plan)} {cost}."]


def won_sentences(analysis: Analysis) -> list[str]:
    """What models with weights of their own are against what each is made from, text by text."""
    rows = [row for row in analysis.recovered if row.has_own_weights]
    steps = {analysis.reported.short: [(row, row.step) for row in rows if row.step is not None]}
    for one in analysis.elsewhere:
        role = one.text.role
        found = [(row, row.further[role]) for row in rows if role in row.further]
        steps[title_of(analysis, one)] = found
    return [_won(title, found) for title, found in steps.items() if found]


def _won(title: str, steps: Sequence[tuple[RecoveredRow, Interval]]) -> str:
    """By names where they are few."""
    against = f"On {title}, perplexity against what each is made from (bridged, or as cut)"
    if len(steps) <= MAX_NAMED:
        named = [f"{row.variant} {format_change(step)}{_doubt(step)}" for row, step in steps]
        return f"{against}: {'; '.join(named)}."
    values = [step.value for _, step in steps]
    spread = f"{change(min(values))} to {change(max(values))}"
    if any(step.low is None for _, step in steps):
        return f"{against}: {len(steps)} models, {spread}; none was tested."
    better = sum(is_below(step) for _, step in steps)
    worse = sum(is_above(step) for _, step in steps)
    return (
        f"{against}: of {len(steps)} models {better} are clearly better, {worse} clearly worse, "
        f"each by its own interval; {spread}."
    )


def is_below(ratio: Interval) -> bool:
    """Whether the whole interval of a ratio lies below 1."""
    return ratio.high is not None and ratio.high < 1


def is_above(ratio: Interval) -> bool:
    """Whether it lies above 1."""
    return ratio.low is not None and ratio.low > 1


def _doubt(step: Interval) -> str:
    if step.low is None:
        return " (not tested)"
    return "" if is_below(step) or is_above(step) else " (no clear difference)"


def curve_sentences(run: Run) -> list[str]:
    """How the unseen text was predicted before a training and at what was kept of it."""
    trained = {v: facts.curve for v, facts in run.recovered.items() if len(facts.curve) > 1}
    if len(trained) > MAX_NAMED:
        return []
    return [_curve(variant, curve) for variant, curve in trained.items()]


def _curve(variant: Variant, curve: Sequence[PointFacts]) -> str:
    known = [point for point in curve if point.nats is not None]
    best = min(known, key=lambda point: point.nats or 0.0)
    start, end = known[0], curve[-1]
    after = f"after {best.tokens:,} tokens and {duration(best.seconds)}"
    if best != end:
        after += f", the best of {len(curve) - 1} looks (the last was after {end.tokens:,})"
    return (
        f"{variant}: perplexity of text that nothing is fitted or trained on "
        f"{_ppl(start)} at the start, {_ppl(best)} {after}."
    )


def _ppl(point: PointFacts) -> str:
    return format_ppl(exp(point.nats or 0.0))


def _how_made(run: Run) -> list[str]:
    """What models that were recovered alike have in common, and, of few, what is said of each."""
    made = {v: facts for v, facts in run.recovered.items() if facts.details and not facts.refused}
    groups = groupby(sorted(made), key=lambda v: "" if v.recovery is None else v.recovery.name)
    return [said for name, group in groups for said in _alike(name, {v: made[v] for v in group})]


def _alike(name: str, made: Mapping[Variant, RecoveredFacts]) -> list[str]:
    if len(made) == 1:
        return [f"{variant}: {_listed(facts.details)}." for variant, facts in made.items()]
    first, *others = [facts.details for facts in made.values()]
    common = {
        what: value
        for what, value in first.items()
        if all(what in other and other[what] == value for other in others)
    }
    found = [f"All {name} models: {_listed(common)}."] if common else []
    if len(made) > MAX_NAMED:
        return [*found, f"What else is known of each is in {RECOVERED_FACTS}."]
    own = {
        v: {what: one for what, one in facts.details.items() if what not in common}
        for v, facts in made.items()
    }
    return [*found, *(f"{v}: {_listed(details)}." for v, details in own.items() if details)]


def _listed(details: Mapping[str, Detail]) -> str:
    return "; ".join(f"{what}: {_value(value)}" for what, value in details.items())


def _value(value: Detail) -> str:
    if isinstance(value, bool) or value is None:
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def reordered_sentences(analysis: Analysis) -> list[str]:
    """Whether the order of sets and the best of them change when they are recovered."""
    found = []
    for one in analysis.reordered:
        how = str(one.recovery)
        sets = f"Of {len(one.places)} sets of {one.n_removed} block{'s' * (one.n_removed != 1)}"
        if one.best == one.best_bridged:
            choice = f"{one.best.short} costs least bridged, and {how} too"
        else:
            choice = (
                f"{one.best_bridged.short} costs least bridged; {how}, {one.best.short} does, and "
                f"{one.best_bridged.short} has {format_change(one.regret)} perplexity"
                f"{_doubt(one.regret)}"
            )
        found.append(f"{sets}, {choice}.")
        taus = {"as cut": one.tau_as_cut, "bridged": one.tau_bridged}
        said = [f"{tau:.2f} with that {form}" for form, tau in taus.items() if tau is not None]
        if said:
            found.append(
                f"Kendall's tau of their order {how}: {listed(said)} (1 the same, 0 no relation)."
            )
    return found
