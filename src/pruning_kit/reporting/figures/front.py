"""Pictures of a run, one function each, for print, for the page and for notebooks.

Colour-blind people can read their colours and the maps cividis and PuOr; every figure also reads
in grey by its labels. Names of models and texts are drawn as they are: a dollar sign in them
starts no formula, a control character is drawn as its escape.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import BoundaryNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.sizes import PlanRow
from pruning_kit.machine import disk
from pruning_kit.plans.plan import Plan
from pruning_kit.printable import printable
from pruning_kit.reporting.figures import bars
from pruning_kit.reporting.figures.scales import GREY, RED, scale_perplexity
from pruning_kit.reporting.words.advice import what_is_the_front
from pruning_kit.reporting.words.numbers import format_windows
from pruning_kit.runs.facts import SPLITS, Role
from pruning_kit.runs.results import Run

WIDTH_IN = 7.2
CAPTION_COLUMNS = 118
MIN_PLACES = 3
SINGLES_IN = 3.0
MAX_STEPS = 12
MAX_POINT_LABEL = 24
LABEL_HEIGHT, LETTER_WIDTH = 0.04, 0.0145  # of the axes
IMAGE_FORMATS = ("png", "svg")
STYLE: dict[str, Any] = {
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": "#999999",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#e4e4e4",
    "savefig.dpi": 160,
    "svg.fonttype": "path",
    "svg.hashsalt": "pruning-kit",
}


def new_figure(height_in: float, title: str) -> tuple[Figure, Axes]:
    """An empty figure in the kit's style, without a window."""
    figure, (axes,) = new_panels([height_in], title)
    return figure, axes


def new_panels(heights_in: Sequence[float], title: str) -> tuple[Figure, list[Axes]]:
    """An empty figure of panels one above the other."""
    with style.context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, sum(heights_in)), layout="constrained")
        parts = figure.subfigures(len(heights_in), 1, height_ratios=heights_in, squeeze=False)
        axes = [part.subplots() for part in parts[:, 0]]
    figure.suptitle(
        printable(title), x=0.01, ha="left", fontsize=11, fontweight="bold", parse_math=False
    )
    return figure, axes


def caption(run: Run, role: Role = "reported") -> list[str]:
    """Model, text and protocol of a figure, and what was substituted."""
    model, text = run.facts.model, run.facts.texts[role]
    part = f", {text.part}" if text.part else ""
    lines = [
        f"Model: {model.name} ({run.n_blocks} blocks). Text: {text.title}{part}; "
        f"{int(run.targets(role).sum()):,} tokens scored, "
        f"{format_windows(run.facts.protocol)}."
    ]
    if model.name == "demo":
        lines.append("This is the kit's small embedded demo model, not distilgpt2.")
    if text.note:
        lines.append("The embedded text was scored in place of the one asked for.")
    return lines


def add_caption(figure: Figure, lines: Sequence[str]) -> None:
    """Write lines under the picture, wrapped to its width."""
    text = "\n".join(textwrap.fill(printable(line), CAPTION_COLUMNS) for line in lines)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=7.5, color=GREY, parse_math=False)


def measured(run: Run) -> pd.DataFrame:
    """The rows of the reported text but for the empty stack, plans that failed included."""
    frame = run.frame()
    return frame[(frame["split"] == SPLITS["reported"]) & (frame["mode"] != "empty")]


def perplexity_bars(run: Run) -> Figure | None:
    """Perplexity of each plan; of more than 24, every single block and the best of each size.

    Where so many blocks have no room among the plans they stand above them, in their order. None
    where there is but one plan.
    """
    frame = measured(run)
    if len(frame) < 2:
        return None
    shown = bars.choose_bars(frame)
    base = _baseline(frame)
    panels = [SINGLES_IN] * (shown.singles is not None)
    if shown.singles is None or (shown.rows["blocks"] < run.n_blocks - 1).any():
        panels.append(1.0 + bars.rows_height_in(shown.rows))
    figure, axes = new_panels(panels, "Perplexity by removed blocks")
    logarithmic = []
    if shown.singles is not None:
        logarithmic.append(_draw_singles(axes.pop(0), shown.singles, base))
    logarithmic += [bars.plan_bars(rest, shown.rows, base) for rest in axes]
    notes = _bar_notes(frame, shown, below=bool(axes))
    if any(logarithmic):
        notes.append("Bars start at the whole model: their length is the cost.")
    add_caption(figure, [*caption(run), *notes])
    return figure


def _draw_singles(axes: Axes, singles: pd.DataFrame, base: float) -> bool:
    """Every single block, the costliest with its perplexity."""
    by_block = {
        int(name): ppl for name, ppl in zip(singles["removed"], singles["ppl"], strict=True)
    }
    blocks = sorted(by_block)
    ppl = [by_block[block] for block in blocks]
    ranked = sorted((b for b in blocks if math.isfinite(by_block[b])), key=by_block.__getitem__)
    return bars.block_bars(axes, blocks, ppl, base, ppl, ranked[-1:])


def _bar_notes(frame: pd.DataFrame, shown: bars.Shown, below: bool) -> list[str]:
    """What of many plans is drawn."""
    if not below:
        return []
    rows = shown.rows
    if len(rows) == len(frame):
        return []
    sizes, every = rows["blocks"].nunique(), frame["blocks"].nunique()
    best = "The best plans of each size"
    if sizes < every:
        best = f"The best plan of each of the {sizes} smallest sizes"
    singles = [int((table["mode"] == "sequential").sum()) for table in (rows, frame)]
    all_singles = shown.singles is not None or singles[0] == singles[1]
    too = " and every single block" if all_singles else ""
    return [f"{best}{too}, out of {len(frame):,} plans."]


def _baseline(frame: pd.DataFrame) -> float:
    """Perplexity of the whole model; NaN where it was not measured."""
    found = frame.loc[frame["removed"] == "none", "ppl"]
    return float(found.iloc[0]) if len(found) else math.nan


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
    add_caption(figure, [*caption(run), *_speed_notes(run, analysis)])
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
        lines = ["Lines: 95 % intervals."] * (analysis.scores.resampling is not None)
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
    if analysis.selection == analysis.reported:
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


def save_figures(run: Run, analysis: Analysis, folder: Path) -> list[Path]:
    """Write the figures of a saved sweep as PNG and SVG, whole; none where only one plan ran."""
    return save_all(
        {"perplexity": perplexity_bars(run), "speed": speed_against_perplexity(run, analysis)},
        folder,
    )


def save_all(figures: Mapping[str, Figure | None], folder: Path) -> list[Path]:
    """Write figures by their names; what an earlier save left of one that is None is removed."""
    paths = []
    for name, figure in figures.items():
        if figure is not None:
            paths += save(figure, folder, name)
            continue
        for kind in IMAGE_FORMATS:
            (folder / f"{name}.{kind}").unlink(missing_ok=True)
    return paths


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write one figure as `name.png` and `name.svg`, whole, and return the paths."""
    paths = []
    for kind in IMAGE_FORMATS:
        path = folder / f"{name}.{kind}"
        disk.write_file(path, image(figure, kind))
        paths.append(path)
    return paths


def image(figure: Figure, kind: str) -> bytes:
    """A figure as a PNG or SVG file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with style.context(STYLE), warnings.catch_warnings():
        # A model may be named in any script; where the font lacks a letter, a box is drawn.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()
