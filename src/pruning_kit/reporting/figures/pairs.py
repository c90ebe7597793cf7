"""Figures of pairs of blocks: perplexity without both, and what that costs beyond their sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.importance import Interaction
from pruning_kit.reporting.figures.canvas import add_caption, caption, new_figure
from pruning_kit.reporting.figures.scales import GREY, explodes, short_number
from pruning_kit.reporting.words.interactions import ruined_pairs
from pruning_kit.reporting.words.numbers import format_ppl
from pruning_kit.runs.results import Run

MAX_CELL_TEXT = 16
PALE = "#ececec"
MIN_PAIRS = 3


def pair_heatmap(run: Run, analysis: Analysis) -> Figure | None:
    """Perplexity with each pair of blocks removed, from three pairs on; singles on the diagonal."""
    n_blocks = run.n_blocks
    ppl_LL = np.full((n_blocks, n_blocks), np.nan)
    for row in analysis.rows:
        if row.plan.size in (1, 2) and not row.failed:
            ppl_LL[row.plan.removed[-1], row.plan.removed[0]] = row.ppl.value
    finite = ppl_LL[np.isfinite(ppl_LL)]
    if np.isfinite(ppl_LL[np.tril_indices(n_blocks, -1)]).sum() < MIN_PAIRS:
        return None
    title = "Perplexity when two blocks are removed (diagonal: one)"
    figure, axes = new_figure(4.2, title)
    low, high = float(finite.min()), float(finite.max())
    norm = LogNorm(low, high) if explodes(finite) else Normalize(low, high)
    _draw_matrix(figure, axes, ppl_LL, norm, "cividis_r", "Perplexity", format_ppl)
    add_caption(figure, [*caption(run, bridged=analysis.judged_bridged), _blank_note(ppl_LL)])
    return figure


def _blank_note(values_LL: np.ndarray) -> str:
    lower = values_LL[np.tril_indices(len(values_LL))]
    missing = int(np.isnan(lower).sum())
    return f"Blank: {missing:,} plans that failed or were not measured." if missing else ""


def _draw_matrix(
    figure: Figure,
    axes: Axes,
    values_LL: np.ndarray,
    norm: Normalize,
    colours: str,
    label: str,
    write: Callable[[float], str],
) -> None:
    """A lower triangle of blocks against blocks, with numbers in it where they fit."""
    n_blocks = len(values_LL)
    image = axes.imshow(values_LL, cmap=colours, norm=norm, aspect="auto")
    bar = figure.colorbar(image, ax=axes, label=label, pad=0.02)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    bar.ax.yaxis.set_minor_formatter(FuncFormatter(lambda _value, _: ""))
    if n_blocks <= MAX_CELL_TEXT:
        _write_cells(axes, values_LL, norm, image.cmap, write)
    axes.xaxis.set_major_locator(MaxNLocator(min(n_blocks, 16), integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(min(n_blocks, 16), integer=True))
    axes.grid(visible=False)
    axes.set_xlabel("Block removed")
    axes.set_ylabel("Block removed")


def _write_cells(
    axes: Axes,
    values_LL: np.ndarray,
    norm: Normalize,
    colour_map: Callable[[float], tuple[float, float, float, float]],
    write: Callable[[float], str],
) -> None:
    size = _cell_text_size(len(values_LL))
    for i, j in zip(*np.nonzero(np.isfinite(values_LL)), strict=True):
        value = float(values_LL[i, j])
        red, green, blue, _ = colour_map(float(norm(value)))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        colour = "white" if dark else "black"
        axes.text(j, i, write(value), ha="center", va="center", fontsize=size, color=colour)


def _cell_text_size(n_blocks: int) -> float:
    return 9 if n_blocks <= 8 else 6.5


def interaction_matrix(run: Run, analysis: Analysis) -> Figure | None:
    """What each pair of blocks costs beyond the sum of its two, in log PPL, from three pairs on.

    Pairs with a block that ruins the model alone are greyed and count for nothing.
    """
    usable = analysis.sound_interactions
    if len(usable) < MIN_PAIRS:
        return None
    excess_LL = np.full((run.n_blocks, run.n_blocks), np.nan)
    for pair in usable:
        excess_LL[pair.second, pair.first] = pair.excess.value
    figure, axes = new_figure(4.2, "Extra cost of removing two blocks together")
    extreme = max(float(np.nanmax(np.abs(excess_LL))), 1e-9)
    norm = TwoSlopeNorm(0.0, -extreme, extreme)
    label = "Extra cost (nats per token)"
    _draw_matrix(figure, axes, excess_LL, norm, "PuOr_r", label, _signed)
    for pair in analysis.interactions:
        if pair not in usable:
            _grey_out(axes, pair, run.n_blocks)
        elif pair.is_clear:
            axes.add_patch(_cell(pair, 0.92, fill=False, edgecolor="black", linewidth=1))
    add_caption(
        figure,
        [*caption(run, bridged=analysis.judged_bridged), *_interaction_notes(analysis, usable[0])],
    )
    return figure


def _grey_out(axes: Axes, pair: Interaction, n_blocks: int) -> None:
    """A grey cell, its number in grey too."""
    axes.add_patch(_cell(pair, 1.0, facecolor=PALE, edgecolor="none"))
    if n_blocks <= MAX_CELL_TEXT:
        axes.text(
            pair.first,
            pair.second,
            _signed(pair.excess.value),
            ha="center",
            va="center",
            fontsize=_cell_text_size(n_blocks),
            color=GREY,
        )


def _cell(pair: Interaction, side: float, **look: Any) -> Rectangle:
    return Rectangle((pair.first - side / 2, pair.second - side / 2), side, side, **look)


def _interaction_notes(analysis: Analysis, drawn: Interaction) -> list[str]:
    notes = ["Above zero, removing both costs more than the sum of each alone."]
    if drawn.adjusted_p is None:
        notes.append("Too few windows to tell which differ from zero.")
    else:
        notes.append("Framed: differs from zero by a test that holds for all pairs at once.")
    if analysis.ruinous:
        notes.append(f"Grey: {ruined_pairs(analysis)}; a ruined model has little more to lose.")
    return notes


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−") if abs(value) >= 0.005 else "0"
