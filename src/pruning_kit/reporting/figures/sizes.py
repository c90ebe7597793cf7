"""The figure of sizes: best, median and worst set of each, and where fixed strategies land."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pruning_kit.findings.analysis import Analysis
from pruning_kit.plans.sets import STRATEGIES
from pruning_kit.reporting.figures.canvas import add_caption, caption, new_figure
from pruning_kit.reporting.figures.scales import BLUE, GREEN, ORANGE, RED, scale_perplexity
from pruning_kit.reporting.words.numbers import first_few, listed
from pruning_kit.runs.results import Run

MARKERS = dict(zip(STRATEGIES, "<>sDx", strict=True))
DODGE = 0.1
MAX_TEXT_NAME = 28


def perplexity_by_size(run: Run, analysis: Analysis) -> Figure | None:
    """Best, median and worst set of each size, and where fixed strategies land between them.

    None where there are fewer than two sizes, or but one measured set of each.
    """
    sizes = analysis.sizes
    if len(sizes) < 2 or not analysis.offers_choice:
        return None
    removed = [0, *(size.n_removed for size in sizes)]
    ratio = {row.plan: row.selection_ratio for row in analysis.rows}
    lines = {
        "worst": (RED, _finite([1.0, *(ratio[size.worst] for size in sizes)])),
        "median": (ORANGE, _finite([1.0, *(size.median_ratio for size in sizes)])),
        "best": (BLUE, _finite([1.0, *(ratio[size.best] for size in sizes)])),
    }
    title = f"Perplexity{_text_chosen_on(analysis)} by number of blocks removed"
    figure, axes = new_figure(4.6, title)
    everything = [value for _, values in lines.values() for value in values]
    logarithmic = scale_perplexity(axes, everything, "y")
    at, upper_is_wider = _widest_gap([values for _, values in lines.values()])
    for name, (colour, values) in lines.items():
        above = name == "worst" or (name == "median" and upper_is_wider)
        axes.plot(removed, values, color=colour, marker="o", markersize=4, linewidth=1.6)
        axes.annotate(
            name,
            (removed[at], values[at]),
            (-6, 4) if above else (6, -11),
            textcoords="offset points",
            ha="right" if above else "left",
            color=colour,
            fontweight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
        )
    for place, (name, marker) in enumerate(MARKERS.items()):
        aside = DODGE * (place - (len(MARKERS) - 1) / 2)
        plans = [(size.n_removed + aside, size.strategies[name]) for size in sizes]
        points = [(across, ratio[plan]) for across, plan in plans if plan is not None]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(
                x, _finite(y), marker, markersize=5, color=GREEN, fillstyle="none", label=name
            )
    if axes.get_legend_handles_labels()[0]:
        axes.legend(title="Fixed strategies", frameon=False, fontsize=8, loc="upper left")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.1)
    axes.set_xlabel("Blocks removed")
    axes.set_ylabel(f"Relative to the whole model{' (logarithmic axis)' if logarithmic else ''}")
    add_caption(
        figure,
        [*caption(run, analysis.selection.role, analysis.judged_bridged), *_size_notes(analysis)],
    )
    return figure


def _text_chosen_on(analysis: Analysis) -> str:
    """` on Emma` where neighbouring figures are of another text."""
    if not analysis.two_texts:
        return ""
    name = analysis.selection.short
    return f" on {name if len(name) <= MAX_TEXT_NAME else name[: MAX_TEXT_NAME - 1] + '…'}"


def _widest_gap(lines: Sequence[np.ndarray]) -> tuple[int, bool]:
    """Where three lines, the highest first, lie farthest apart, and whether the upper two do."""
    logs = np.log(np.array(lines))
    upper, lower = logs[0] - logs[1], logs[1] - logs[2]
    at = int(np.nan_to_num(np.minimum(upper, lower), nan=-1.0).argmax())
    return at, bool(upper[at] > lower[at])


def _finite(values: Sequence[float]) -> np.ndarray:
    """Values to draw; what is beyond float64 leaves a gap."""
    return np.where(np.isfinite(values), values, np.nan)


def _size_notes(analysis: Analysis) -> list[str]:
    notes = ["Strategies stand a little aside where they would cover each other."]
    partial = [str(size.n_removed) for size in analysis.sizes if not size.complete]
    if partial:
        notes.append(f"Not all sets were measured of sizes {listed(first_few(partial))}.")
    return notes
