"""The figure of what bridging changes: perplexity of plans as cut, bridged and recovered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.bridging import Both, Bridging, Ranks
from pruning_kit.findings.evidence import exp
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.figures.bars import LINE_IN, MAX_LABEL, ROW_IN
from pruning_kit.reporting.figures.canvas import add_caption, caption, new_figure
from pruning_kit.reporting.figures.scales import BLUE, GREEN, GREY, ORANGE, scale_perplexity
from pruning_kit.reporting.words.numbers import format_ppl, in_lines
from pruning_kit.reporting.words.texts import on_selection
from pruning_kit.runs.results import Run

MAX_SINGLES, MAX_SETS = 16, 10
AROUND_IN = 1.6
LEAST_IN = 1.1
"""For the axes, whose label is as high."""
GAP_IN = 0.6 * ROW_IN
"""Between single blocks and larger sets."""


def perplexity_bridged(run: Run, analysis: Analysis) -> Figure | None:
    """Bridged single blocks, and the best bridged set of each size: from as cut to bridged.

    And on to what a recovery with weights of its own made of it, where there is one. The block
    that costs least bridged stands first, so that circles out of order are ranks that change. None
    where nothing is bridged.
    """
    found = analysis.bridging
    if found is None:
        return None
    shown = [*_singles(found), *_sets(found)]
    if not shown:
        return None
    labels = [in_lines(ranks.plan.short, MAX_LABEL) for ranks in shown]
    heights = [ROW_IN + LINE_IN * label.count("\n") for label in labels]
    gaps = [GAP_IN * (ranks.plan.size > shown[0].plan.size == 1) for ranks in shown]
    height = AROUND_IN + max(LEAST_IN, sum(heights) + max(gaps))
    recovered = _recovered(analysis)
    figure, axes = new_figure(height, _title(shown, recovered))
    bottoms = [bottom + gap for bottom, gap in zip(accumulate(heights), gaps, strict=True)]
    at = [bottom - height / 2 for bottom, height in zip(bottoms, heights, strict=True)]
    _draw(axes, found.reported, shown, at, recovered)
    axes.set_yticks(at, labels)
    axes.set_ylim(bottoms[-1], -ROW_IN)
    add_caption(figure, [*caption(run), *_notes(analysis, shown)])
    return figure


def _recovered(analysis: Analysis) -> dict[Plan, float]:
    """The perplexity of the best model with weights of its own of each plan that has one."""
    found: dict[Plan, float] = {}
    for row in analysis.recovered:
        if row.has_own_weights and math.isfinite(row.ppl.value):
            plan = row.variant.plan
            found[plan] = min(row.ppl.value, found.get(plan, math.inf))
    return found


def _title(shown: Sequence[Ranks], recovered: Mapping[Plan, float]) -> str:
    if any(ranks.plan in recovered for ranks in shown):
        return "Perplexity as cut (circle), bridged (dot) and trained (diamond)"
    return "Perplexity as cut (circle) and bridged (dot)"


def _singles(found: Bridging) -> list[Ranks]:
    """Bridged single blocks, the cheapest first."""
    of_one = [size for size in found.sizes if size.n_removed == 1]
    ranks = [ranks for size in of_one for ranks in size.ranks]
    return [one for one in ranks if one.plan in found.reported.judged.bridged][:MAX_SINGLES]


def _sets(found: Bridging) -> list[Ranks]:
    """Of each larger size the set that was chosen bridged."""
    larger = [size for size in found.sizes if size.n_removed > 1]
    ranks = [ranks for size in larger for ranks in size.ranks if ranks.plan == size.best]
    return [one for one in ranks if one.plan in found.reported.judged.bridged][:MAX_SETS]


def _draw(
    axes: Axes,
    both: Both,
    shown: Sequence[Ranks],
    at: Sequence[float],
    recovered: Mapping[Plan, float],
) -> None:
    """Lines from as cut to bridged and further, with the numbers, and the whole model."""
    cut, bridged = (
        np.array([exp(scores.log_ppl(ranks.plan)) for ranks in shown])
        for scores in (both.as_cut, both.judged)
    )
    base = exp(both.as_cut.log_ppl(Plan()))
    further = np.array([recovered.get(ranks.plan, np.nan) for ranks in shown])
    drawn = np.array([*cut, *bridged, *further, base])
    drawn = drawn[np.isfinite(drawn)]
    logarithmic = scale_perplexity(axes, drawn, "x")
    colours = [BLUE if better else ORANGE for better in bridged <= cut]
    axes.hlines(at, cut, bridged, colors=colours, linewidth=2.5, alpha=0.45)
    axes.scatter(cut, at, s=36, facecolors="white", edgecolors=GREY, zorder=3)
    axes.scatter(bridged, at, s=40, c=colours, zorder=3)
    axes.hlines(at, bridged, further, colors=GREEN, linewidth=2.5, alpha=0.45)
    axes.scatter(further, at, s=40, c=GREEN, marker="D", zorder=3)
    axes.axvline(base, color=GREY, linewidth=1, linestyle="--")
    for ranks, before, after, where in zip(shown, cut, bridged, at, strict=True):
        numbers = _numbers(ranks, before, after, recovered.get(ranks.plan))
        _write(axes, numbers, max(before, after), where, (8, 0), "black")
    _write(axes, f"whole model {format_ppl(base)}", base, at[0], (4, 16), GREY)
    _margins(axes, drawn, logarithmic)
    axes.grid(axis="y", visible=False)
    axes.set_ylabel("Blocks removed")
    axes.set_xlabel(f"Perplexity, lower is better{' (logarithmic axis)' if logarithmic else ''}")


def _numbers(ranks: Ranks, before: float, after: float, further: float | None) -> str:
    """What a plan costs and where it ranks: `85.1 → 39.1 → 36.0, rank 5 → 1`."""
    moved = f", rank {ranks.as_cut} → {ranks.bridged}" * bool(ranks.moved)
    steps = [before, after, *([] if further is None else [further])]
    return " → ".join(map(format_ppl, steps)) + moved


def _write(
    axes: Axes, text: str, x: float, y: float, aside: tuple[float, float], colour: str
) -> None:
    if math.isfinite(x):
        axes.annotate(
            text, (x, y), aside, textcoords="offset points", va="center", color=colour, fontsize=8
        )


def _margins(axes: Axes, values: np.ndarray, logarithmic: bool) -> None:
    """Room for numbers to the right."""
    low, high = float(values.min()), float(values.max())
    if logarithmic:
        spread = high / low
        axes.set_xlim(low / spread**0.04, high * spread**0.45)
    else:
        axes.set_xlim(low - 0.04 * (high - low), high + 0.45 * (high - low))


def _notes(analysis: Analysis, shown: Sequence[Ranks]) -> list[str]:
    """What marks mean, and which plans are drawn."""
    plans = [ranks.plan for ranks in shown]
    what = ["single blocks, the one that costs least bridged first"] * (plans[0].size == 1)
    best = f"the best set of each size, chosen bridged{on_selection(analysis, ' on {}')}"
    what += [best] * (plans[-1].size > 1)
    return [f"Drawn: {'; '.join(what)}. Rank: among sets of the same size, 1 costs least."]
