"""The paper of all figures: style, title, caption, and what becomes of a figure as a file.

Names of models and texts are drawn as they are: a dollar sign in them starts no formula, a control
character is drawn as its escape.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pruning_kit.printable import printable
from pruning_kit.reporting.figures.scales import GREY
from pruning_kit.reporting.words.numbers import format_windows
from pruning_kit.runs.facts import Role
from pruning_kit.runs.results import Run

WIDTH_IN = 7.2
CAPTION_COLUMNS = 118
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


def caption(run: Run, role: Role = "reported", bridged: bool = False) -> list[str]:
    """Model, text and protocol of a figure, what was substituted, and whether plans are bridged."""
    model, text = run.facts.model, run.facts.texts[role]
    part = f", {text.part}" if text.part else ""
    scored = f"{int(run.targets(role).sum()):,} tokens scored"
    lines = [model_line(run, f"{text.title}{part}; {scored}, {format_windows(run.facts.protocol)}")]
    if model.name == "demo":
        lines.append("This is the kit's small embedded demo model, not distilgpt2.")
    if bridged:
        lines.append("Gaps are bridged where that helps.")
    if text.note:
        lines.append("The embedded text was scored in place of the one asked for.")
    return lines


def model_line(run: Run, text: str) -> str:
    """Model and text of a figure."""
    return f"Model: {run.facts.model.name} ({run.n_blocks} blocks). Text: {text}."


def add_caption(figure: Figure, lines: Sequence[str]) -> None:
    """Write lines under the figure, wrapped to its width."""
    text = "\n".join(textwrap.fill(printable(line), CAPTION_COLUMNS) for line in lines)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=7.5, color=GREY, parse_math=False)


def image(figure: Figure, kind: str) -> bytes:
    """A figure as a PNG or SVG file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with style.context(STYLE), warnings.catch_warnings():
        # A model may be named in any script; where the font lacks a letter, a box is drawn.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()
