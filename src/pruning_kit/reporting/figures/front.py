"""The figure of every plan: what it wins against what it costs, and the front."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import BoundaryNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.sizes import PlanRow
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.figures.canvas import add_caption, caption, new_figure
from pruning_kit.reporting.figures.scales import RED, scale_perplexity
from pruning_kit.reporting.words.front import what_is_the_front
from pruning_kit.runs.results import Run

MIN_PLACES = 3
MAX_STEPS = 12
MAX_POINT_LABEL = 24
LABEL_HEIGHT, LETTER_WIDTH = 0.04, 0.0145  # of the axes


@dataclass(frozen=True)
class Across:
    """A quantity of plans that perplexity can be drawn against."""

    name: str
    title: str
    label: str
    value: Callable[[PlanRow], float | None]


def _latency_ms(row: PlanRow) -> float | None:
    return None if row.latency is None else 1e3 * row.latency.median_s


def _parameters_m(row: PlanRow) -> float | None:
    return None if row.parameters is None else row.parameters / 1e6


QUANTITIES = (
    Across("latency", "Speed", "Latency, end to end (ms)", _latency_ms),
    Across("parameters", "Parameters", "Parameters (millions)", _parameters_m),
    Across("size", "Blocks removed", "Blocks removed", lambda row: row.plan.size),
)


def quantities_across(analysis: Analysis) -> list[Across]:
    """The quantities to draw perplexity against: those that put plans at three places or more."""
    rows = [row for row in analysis.rows if math.isfinite(row.ppl.value)]
    return [
        quantity
        for quantity in QUANTITIES
        if len({quantity.value(row) for row in rows} - {None}) >= MIN_PLACES
    ]


def speed_against_perplexity(run: Run, analysis: Analysis) -> Figure | None:
    """Latency against perplexity of each plan; parameters where there is no latency to draw.

    The plans on the front are ringed and carry their 95 % intervals. None where neither quantity
    tells plans apart.
    """
    quantities = quantities_across(analysis)
    if not quantities:
        return None
    across = quantities[0]
    untimed = (
        " (no latency was measured)" if run.timings is None and run.timings_note is None else ""
    )
    figure, axes = new_figure(4.6, f"{across.title} against perplexity{untimed}")
    rows = [
        row
        for row in analysis.rows
        if math.isfinite(row.ppl.value) and across.value(row) is not None
    ]
    x = np.array([across.value(row) for row in rows], dtype=np.float64)
    y = np.array([row.ppl.value for row in rows])
    logarithmic = scale_perplexity(axes, y, "y")
    sizes = [row.plan.size for row in rows]
    points = axes.scatter(
        x,
        y,
        c=sizes,
        cmap="cividis",
        norm=colour_scale(sizes),
        s=14 if len(rows) > 200 else 30,
        edgecolors="white",
        linewidths=0.4,
        rasterized=len(rows) > 500,
    )
    _draw_colours(figure, axes, points)
    front = [index for index in np.argsort(x, kind="stable") if rows[index].on_front]
    on_front = [rows[index] for index in front]
    _draw_intervals(axes, x[front], on_front, across.name == "latency")
    _draw_front(axes, x[front], y[front], [_point_label(row.plan) for row in on_front])
    axes.set_xlabel(across.label)
    axes.set_ylabel(f"Perplexity{' (logarithmic axis)' if logarithmic else ''}")
    add_caption(
        figure, [*caption(run, bridged=analysis.judged_bridged), *_speed_notes(run, analysis)]
    )
    return figure


def colour_scale(sizes: Sequence[int]) -> Normalize:
    """Colours over the sizes that occur: a step for each of few, otherwise a slope over them."""
    present = sorted(set(sizes))
    if len(present) > MAX_STEPS:
        return Normalize(present[0], present[-1])
    ends = [(a + b) / 2 for a, b in pairwise(present)]
    bounds = [present[0] - 0.5, *ends, present[-1] + 0.5]
    return BoundaryNorm(bounds, 256, extend="neither")


def _draw_colours(figure: Figure, axes: Axes, points: PathCollection) -> None:
    """The legend of sizes: each of few by its number."""
    norm, label = points.norm, "Blocks removed"
    if isinstance(norm, BoundaryNorm):
        bar = figure.colorbar(points, ax=axes, label=label, pad=0.02, spacing="uniform")
        sizes = sorted(set(np.asarray(points.get_array()).astype(int).tolist()))
        middles = [(a + b) / 2 for a, b in pairwise(norm.boundaries)]
        bar.set_ticks(middles, labels=[str(size) for size in sizes])
        bar.ax.tick_params(length=0)
        bar.ax.minorticks_off()
    else:
        figure.colorbar(points, ax=axes, label=label, ticks=MaxNLocator(integer=True), pad=0.02)


def _speed_notes(run: Run, analysis: Analysis) -> list[str]:
    found = []
    if analysis.front:
        ringed = f"Ringed: the front over {what_is_the_front(analysis)}."
        lines = ["Lines: 95 % intervals."] * analysis.scores.has_intervals
        found.append(" ".join([ringed, *front_note(analysis), *lines]))
    timed = [row for row in analysis.rows if row.latency is not None and row.plan != Plan()]
    if timed and run.timings is not None and any(len(pool) > 1 for pool in run.timings.pools):
        found.append("Plans that do equal work share one timing.")
    unclear = sum(row.latency is not None and not row.latency.claimed for row in timed)
    if unclear:
        found.append(f"For {unclear:,} plans the gain in speed is not clear of noise.")
    if analysis.failed:
        found.append(f"{len(analysis.failed):,} failed plans are not drawn.")
    return found


def front_note(analysis: Analysis) -> list[str]:
    """Why a plan on the front need not lie lowest, where plans are chosen on a text of their own.

    Everything is drawn at the perplexity on the reported text.
    """
    if not analysis.two_texts:
        return []
    return [
        f"The front was chosen on {analysis.selection.short} and is drawn at the perplexity on "
        f"{analysis.reported.short}, so a plan on it need not lie lowest."
    ]


def _draw_intervals(axes: Axes, x: np.ndarray, rows: Sequence[PlanRow], timed: bool) -> None:
    """95 % intervals of the plans on the front, where there are any."""
    for at, row in zip(x.tolist(), rows, strict=True):
        ppl, ratio = row.ppl, row.latency.ratio if row.latency is not None else None
        if ppl.low is not None and ppl.high is not None:
            axes.plot([at, at], [ppl.low, ppl.high], color="black", linewidth=1)
        if timed and ratio is not None and ratio.low and math.isfinite(ratio.high or math.inf):
            ends = [at * ratio.low / ratio.value, at * (ratio.high or 0.0) / ratio.value]
            axes.plot(ends, [ppl.value, ppl.value], color="black", linewidth=1)


def _draw_front(axes: Axes, x: np.ndarray, y: np.ndarray, names: list[str]) -> None:
    """Ring and name the plans that no other beats, joined by a stepped line."""
    if not len(x):
        return
    axes.step(x, y, where="post", color=RED, linewidth=1, alpha=0.7)
    axes.scatter(x, y, s=60, facecolors="none", edgecolors=RED, linewidths=1.3)
    for index in _places_for_labels(axes, x, y, names):
        # Below and to the left of a plan on the front there is hardly any other plan.
        axes.annotate(
            names[index],
            (x[index], y[index]),
            (-4, -4),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8,
        )


def _point_label(plan: Plan) -> str:
    """A plan beside its point; of a long name the number of blocks."""
    if plan == Plan():
        return "whole model"
    return plan.short if len(plan.short) <= MAX_POINT_LABEL else f"{plan.size} blocks"


def _places_for_labels(
    axes: Axes, x: np.ndarray, y: np.ndarray, labels: Sequence[str]
) -> Iterator[int]:
    """Which points of a front, the rightmost first, have room for a name of their own."""
    axes.margins(x=0.16, y=0.1)
    axes.autoscale_view()
    to_axes = axes.transData + axes.transAxes.inverted()
    at = to_axes.transform(np.stack([x, y], axis=1))
    named: list[float] = []
    for index in range(len(y) - 1, -1, -1):
        across, height = at[index]
        free = all(abs(height - other) > LABEL_HEIGHT for other in named)
        if free and across > LETTER_WIDTH * len(labels[index]):
            yield index
            named.append(height)
