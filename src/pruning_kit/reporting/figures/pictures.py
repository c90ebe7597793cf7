"""Pictures of an analysis: which blocks matter, which belong together, what each size costs.

Each function gives a figure, or None where the run does not hold what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.evidence import Interval
from pruning_kit.findings.importance import Interaction, Shapley
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import STRATEGIES
from pruning_kit.reporting.figures import bars, front, scales
from pruning_kit.reporting.figures.scales import BLUE, GREEN, GREY, ORANGE, RED
from pruning_kit.reporting.words.numbers import first_few, format_ppl, listed
from pruning_kit.reporting.words.sections import ruined_pairs
from pruning_kit.runs.results import Run

MARKERS = dict(zip(STRATEGIES, "<>sDx", strict=True))
PALE = "#ececec"
DODGE = 0.1
MAX_CELL_TEXT = 16
MIN_PAIRS = 3
MAX_TEXT_NAME = 28


def perplexity_by_removed_block(run: Run, analysis: Analysis) -> Figure | None:
    """Perplexity with each single block removed, with 95 % intervals."""
    items = analysis.importance.items
    if not items:
        return None
    rows = [analysis.row[Plan((item.block,))] for item in items]
    ppl = [row.ppl for row in rows]
    base = analysis.row[Plan()].ppl.value
    blocks = [item.block for item in items]
    labelled = blocks if len(blocks) <= MAX_CELL_TEXT else analysis.importance.ranking.most[:1]
    figure, axes = front.new_figure(3.6, "Perplexity when one block is removed")
    values = [interval.value for interval in ppl]
    tops = [interval.value if interval.high is None else interval.high for interval in ppl]
    logarithmic = bars.block_bars(axes, blocks, values, base, tops, labelled)
    _error_bars(axes, blocks, ppl, "y")
    notes = ["Bars start at the whole model: their height is the cost."] * logarithmic
    front.add_caption(figure, [*front.caption(run), *notes, _interval_note(ppl[0])])
    return figure


def _error_bars(axes: Axes, at: Sequence[float], values: Sequence[Interval], which: str) -> None:
    """95 % intervals as thin lines, where there are any."""
    for position, value in zip(at, values, strict=True):
        if value.low is not None and value.high is not None and math.isfinite(value.high):
            ends, here = [value.low, value.high], [position, position]
            x, y = (here, ends) if which == "y" else (ends, here)
            axes.plot(x, y, color="black", linewidth=1.4, solid_capstyle="butt")


def _interval_note(value: Interval) -> str:
    return "Lines: 95 % intervals." if value.low is not None else f"{value.reason.capitalize()}."


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
    figure, axes = front.new_figure(4.2, title)
    low, high = float(finite.min()), float(finite.max())
    norm = LogNorm(low, high) if scales.explodes(finite) else Normalize(low, high)
    _draw_matrix(figure, axes, ppl_LL, norm, "cividis_r", "Perplexity", format_ppl)
    front.add_caption(figure, [*front.caption(run), _blank_note(ppl_LL)])
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
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: scales.short_number(value)))
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
    figure, axes = front.new_figure(4.2, "Extra cost of removing two blocks together")
    extreme = max(float(np.nanmax(np.abs(excess_LL))), 1e-9)
    norm = TwoSlopeNorm(0.0, -extreme, extreme)
    label = "Extra cost (nats per token)"
    _draw_matrix(figure, axes, excess_LL, norm, "PuOr_r", label, _signed)
    for pair in analysis.interactions:
        if pair not in usable:
            _grey_out(axes, pair, run.n_blocks)
        elif pair.is_clear:
            axes.add_patch(_cell(pair, 0.92, fill=False, edgecolor="black", linewidth=1))
    front.add_caption(figure, [*front.caption(run), *_interaction_notes(analysis, usable[0])])
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
        notes.append(f"{drawn.excess.reason.capitalize()}.")
    else:
        notes.append("Framed: differs from zero by a test that holds for all pairs at once.")
    if analysis.ruinous:
        notes.append(f"Grey: {ruined_pairs(analysis)}; a ruined model has little more to lose.")
    return notes


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−") if abs(value) >= 0.005 else "0"


def shapley_values(run: Run, analysis: Analysis) -> Figure | None:
    """Each block's share of what the whole stack is worth, with 95 % intervals."""
    shapley = analysis.shapley
    if not isinstance(shapley, Shapley):
        return None
    order = list(shapley.ranking.blocks)
    values = [shapley.values[block] for block in order]
    figure, axes = front.new_figure(1.5 + 0.26 * len(order), "Shapley value of each block")
    at = list(range(len(order)))
    axes.barh(at, [value.value for value in values], color=BLUE, height=0.7)
    _error_bars(axes, at, values, "x")
    axes.axvline(0, color=GREY, linewidth=1)
    for position, value in zip(at, values, strict=True):
        end = max(0.0, value.value if value.high is None else value.high)
        axes.annotate(
            f"{value.value:.3f}".replace("-", "−"),
            (end, position),
            (4, 0),
            textcoords="offset points",
            va="center",
        )
    axes.margins(x=0.12)
    axes.set_yticks(at, [str(block) for block in order])
    axes.set_ylim(max(len(order), 3) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_ylabel("Block")
    axes.set_xlabel("Log perplexity, averaged over all orders of removal (nats per token)")
    how = "Exact, from all plans." if shapley.n_permutations is None else _sampled(shapley)
    front.add_caption(figure, [*front.caption(run), f"{how} {_interval_note(values[0])}"])
    return figure


def _sampled(shapley: Shapley) -> str:
    return f"Estimated from {shapley.n_permutations:,} permutations."


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
    figure, axes = front.new_figure(4.6, title)
    everything = [value for _, values in lines.values() for value in values]
    logarithmic = scales.scale_perplexity(axes, everything, "y")
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
    caption = front.caption(run, analysis.selection.role)
    front.add_caption(figure, [*caption, *_size_notes(analysis)])
    return figure


def _text_chosen_on(analysis: Analysis) -> str:
    """` on Emma` where neighbouring pictures are of another text."""
    if analysis.selection == analysis.reported:
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


PICTURES: dict[str, Callable[[Run, Analysis], Figure | None]] = {
    "removed-block": perplexity_by_removed_block,
    "pairs": pair_heatmap,
    "interactions": interaction_matrix,
    "shapley": shapley_values,
    "sizes": perplexity_by_size,
}


def draw_all(run: Run, analysis: Analysis) -> dict[str, Figure]:
    """The pictures that the run has the values for, by name."""
    drawn = {name: draw(run, analysis) for name, draw in PICTURES.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def save_pictures(run: Run, analysis: Analysis, folder: Path) -> list[Path]:
    """Write the pictures as PNG and SVG, whole, beside those of every sweep."""
    drawn = draw_all(run, analysis)
    return front.save_all({name: drawn.get(name) for name in PICTURES}, folder)
