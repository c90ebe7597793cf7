"""Pictures of a run, one function each, for print, for the page and for notebooks.

Colours are those of Okabe and Ito (2008) and the maps cividis and PuOr, which colour-blind people
can read; every figure also reads in grey by its labels. Names of models and texts are drawn as
they are: a dollar sign in them starts no formula.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.choices import PlanRow
from pruning_kit.plan import Plan
from pruning_kit.reporting.choices_in_words import what_is_the_front
from pruning_kit.reporting.wording import change, format_ppl, format_windows
from pruning_kit.runs import store
from pruning_kit.runs.results import Run

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
WIDTH_IN = 7.2
CAPTION_COLUMNS = 118
MAX_BARS = 24
MIN_PLACES = 3
LOG_ABOVE = 8.0
MAX_LABEL = 24
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
    with style.context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        axes = figure.subplots()
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", parse_math=False)
    return figure, axes


def caption(run: Run, split: str = "test") -> list[str]:
    """Model, text and protocol of a figure, and what was substituted."""
    model, text = run.info["model"], run.info["texts"][split]
    part = f", {text['part']}" if text.get("part") else ""
    lines = [
        f"Model: {model['name']} ({run.n_blocks} blocks). Text: {text['title']}{part}; "
        f"{int(run.targets(split).sum()):,} tokens scored, "
        f"{format_windows(run.info['protocol'])}."
    ]
    if model["name"] == "demo":
        lines.append("This is the kit's small embedded demo model, not distilgpt2.")
    if text.get("note"):
        lines.append("The embedded text was scored in place of the one asked for.")
    return lines


def add_caption(figure: Figure, lines: Sequence[str]) -> None:
    """Write lines under the picture, wrapped to its width."""
    text = "\n".join(textwrap.fill(line, CAPTION_COLUMNS) for line in lines)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=7.5, color=GREY, parse_math=False)


def explodes(values: Sequence[float] | np.ndarray) -> bool:
    """Whether positive values spread so far that only a logarithmic axis shows them all."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite) & (finite > 0)]
    return finite.size > 1 and bool(finite.max() / finite.min() > LOG_ABOVE)


def scale_perplexity(axes: Axes, values: Sequence[float] | np.ndarray, which: str) -> bool:
    """Make an axis logarithmic where perplexities explode; tells whether it is."""
    logarithmic = explodes(values)
    axis = axes.xaxis if which == "x" else axes.yaxis
    if logarithmic:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        finite = np.asarray(values, dtype=np.float64)
        finite = finite[np.isfinite(finite) & (finite > 0)]
        decades = math.log10(finite.max() / finite.min())
        # numbers need more room beside each other than above each other
        subs = (1.0, 2.0, 5.0) if decades < (2 if which == "x" else 3) else (1.0,)
        axis.set_major_locator(LogLocator(subs=subs, numticks=12))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    return logarithmic


def short_number(value: float) -> str:
    """An axis number: 40, 2,000, 1e+06."""
    huge = value != 0 and (abs(value) >= 1e6 or abs(value) < 1e-3)
    return f"{value:.0e}" if huge else f"{value:,.10g}".replace("-", "−")


def measured(run: Run) -> pd.DataFrame:
    """The rows of the reported text but for the empty stack, plans that failed included."""
    frame = run.frame()
    return frame[(frame["split"] == "test") & (frame["mode"] != "empty")]


def perplexity_bars(run: Run) -> Figure | None:
    """Perplexity of each plan; of more than 24, every single block and the best of each size.

    On a logarithmic axis bars start at the whole model, so that their length is the cost. None
    where there is but one plan.
    """
    frame = measured(run)
    if len(frame) < 2:
        return None
    rows = _rows_to_show(frame)
    base = _baseline(frame)
    figure, axes = new_figure(1.5 + 0.24 * len(rows), "Perplexity by removed blocks")
    ppl = rows["ppl"].to_numpy(dtype=np.float64)
    logarithmic = scale_perplexity(axes, ppl, "x")
    start = base if logarithmic and math.isfinite(base) else 0.0
    end = np.where(np.isfinite(ppl), ppl, start)
    at = np.arange(len(rows))
    colours = [GREY if name == "none" else BLUE for name in rows["removed"]]
    axes.barh(at, end - start, left=start, color=colours, height=0.72)
    if math.isfinite(base):
        axes.axvline(base, color=GREY, linewidth=1, linestyle="--")
    for position, row in enumerate(rows.to_dict("records")):
        label_at = (max(float(end[position]), start), position)
        axes.annotate(_bar_label(row), label_at, (4, 0), textcoords="offset points", va="center")
    _room_for_labels(axes, ppl, start, logarithmic)
    axes.set_yticks(at, [plan_label(name) for name in rows["removed"]])
    axes.set_ylim(max(len(rows), 3) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_ylabel("Blocks removed")
    axes.set_xlabel(f"Perplexity, lower is better{' (logarithmic axis)' if logarithmic else ''}")
    notes = []
    if len(rows) < len(frame):
        singles = [int((table["mode"] == "sequential").sum()) for table in (rows, frame)]
        too = " and every single block" if singles[0] == singles[1] else ""
        notes.append(f"The best plans of each size{too}, out of {len(frame):,} plans.")
    if logarithmic:
        notes.append("Bars start at the whole model: their length is the cost.")
    add_caption(figure, [*caption(run), *notes])
    return figure


def _rows_to_show(frame: pd.DataFrame) -> pd.DataFrame:
    """At most 24 rows, sizes in order and the best first; single blocks all, if they fit."""
    ranked = frame.sort_values(
        ["blocks", "ppl"], ascending=[False, True], kind="stable", na_position="last"
    )
    if len(ranked) <= MAX_BARS:
        return ranked
    place = ranked.groupby("blocks").cumcount()
    single = ranked["mode"] == "sequential"
    n_sizes = ranked["blocks"].nunique()
    if single.sum() + n_sizes - 1 <= MAX_BARS:
        place = place.where(~single, 0)
    for depth in range(MAX_BARS, 0, -1):
        if (place < depth).sum() <= MAX_BARS:
            return ranked[place < depth]
    return ranked[place < 1].head(MAX_BARS)


def _baseline(frame: pd.DataFrame) -> float:
    """Perplexity of the whole model; NaN where it was not measured."""
    found = frame.loc[frame["removed"] == "none", "ppl"]
    return float(found.iloc[0]) if len(found) else math.nan


def plan_label(removed: str) -> str:
    """A plan for a tick; a long one with ranges, as `--plans` also reads them."""
    if removed == "none":
        return "whole model"
    if len(removed) <= MAX_LABEL // 2:
        return removed
    runs: list[list[int]] = []
    for block in Plan.parse(removed).removed:
        if runs and runs[-1][-1] == block - 1:
            runs[-1].append(block)
        else:
            runs.append([block])
    parts = [f"{run[0]}-{run[-1]}" if len(run) > 2 else "+".join(map(str, run)) for run in runs]
    label = "+".join(parts)
    return label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 1].rpartition('+')[0]}+…"


def _bar_label(row: dict[Any, Any]) -> str:
    if not math.isfinite(row["ppl"]):
        return "failed: not finite" if row["status"] == "failed" else "too large to write"
    if row["removed"] == "none":
        return format_ppl(row["ppl"])
    return f"{format_ppl(row['ppl'])}  ({change(1 + row['ppl_change_pct'] / 100)})"


def _room_for_labels(axes: Axes, ppl: np.ndarray, start: float, logarithmic: bool) -> None:
    """Leave a third of the width to the right of the longest bar."""
    finite = ppl[np.isfinite(ppl)]
    if not finite.size:
        axes.set_xlim(0, 1)
        return
    top = float(finite.max())
    if logarithmic and start > 0:
        low = min(start, float(finite.min())) / 1.1
        axes.set_xlim(low, top * (top / low) ** 0.5)
    else:
        axes.set_xlim(0, top * 1.4)


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
    points = axes.scatter(
        x,
        y,
        c=[row.plan.size for row in rows],
        cmap="cividis",
        vmin=0,
        vmax=max(1, run.n_blocks - 1),
        s=14 if len(rows) > 200 else 30,
        edgecolors="white",
        linewidths=0.4,
        rasterized=len(rows) > 500,
    )
    figure.colorbar(
        points, ax=axes, label="Blocks removed", ticks=MaxNLocator(integer=True), pad=0.02
    )
    front = [index for index in np.argsort(x, kind="stable") if rows[index].on_front]
    on_front = [rows[index] for index in front]
    _draw_intervals(axes, x[front], on_front, across.name == "latency")
    _draw_front(axes, x[front], y[front], [str(row.plan) for row in on_front])
    axes.set_xlabel(across.label)
    axes.set_ylabel(f"Perplexity{' (logarithmic axis)' if logarithmic else ''}")
    add_caption(figure, [*caption(run), *_speed_notes(run, analysis)])
    return figure


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
    labels = [plan_label(name) for name in names]
    for index in _places_for_labels(axes, x, y, labels):
        # Below and to the left of a plan on the front there is hardly any other plan.
        axes.annotate(
            labels[index],
            (x[index], y[index]),
            (-4, -4),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8,
        )


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
        store.write_file(path, image(figure, kind))
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
