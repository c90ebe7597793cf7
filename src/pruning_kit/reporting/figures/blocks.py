"""Figures of single blocks: perplexity without each, and Shapley values."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.evidence import Interval
from pruning_kit.findings.importance import Shapley
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.figures.bars import block_bars
from pruning_kit.reporting.figures.canvas import add_caption, caption, new_figure
from pruning_kit.reporting.figures.scales import BLUE, GREY
from pruning_kit.runs.results import Run

MAX_LABELLED = 16


def perplexity_by_removed_block(run: Run, analysis: Analysis) -> Figure | None:
    """Perplexity with each single block removed, with 95 % intervals."""
    items = analysis.importance.items
    if not items:
        return None
    rows = [analysis.row[Plan((item.block,))] for item in items]
    ppl = [row.ppl for row in rows]
    base = analysis.row[Plan()].ppl.value
    blocks = [item.block for item in items]
    labelled = blocks if len(blocks) <= MAX_LABELLED else analysis.importance.ranking.most[:1]
    figure, axes = new_figure(3.6, "Perplexity when one block is removed")
    values = [interval.value for interval in ppl]
    tops = [interval.value if interval.high is None else interval.high for interval in ppl]
    logarithmic = block_bars(axes, blocks, values, base, tops, labelled)
    _error_bars(axes, blocks, ppl, "y")
    notes = ["Bars start at the whole model: their height is the cost."] * logarithmic
    add_caption(
        figure, [*caption(run, bridged=analysis.judged_bridged), *notes, _interval_note(ppl[0])]
    )
    return figure


def shapley_values(run: Run, analysis: Analysis) -> Figure | None:
    """Each block's share of what the whole stack is worth, with 95 % intervals."""
    shapley = analysis.shapley
    if not isinstance(shapley, Shapley):
        return None
    order = list(shapley.ranking.blocks)
    values = [shapley.values[block] for block in order]
    figure, axes = new_figure(1.5 + 0.26 * len(order), "Shapley value of each block")
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
    add_caption(
        figure,
        [*caption(run, bridged=analysis.judged_bridged), f"{how} {_interval_note(values[0])}"],
    )
    return figure


def _sampled(shapley: Shapley) -> str:
    return f"Estimated from {shapley.n_permutations:,} permutations."


def _error_bars(axes: Axes, at: Sequence[float], values: Sequence[Interval], which: str) -> None:
    """95 % intervals as thin lines, where there are any."""
    for position, value in zip(at, values, strict=True):
        if value.low is not None and value.high is not None and math.isfinite(value.high):
            ends, here = [value.low, value.high], [position, position]
            x, y = (here, ends) if which == "y" else (ends, here)
            axes.plot(x, y, color="black", linewidth=1.4, solid_capstyle="butt")


def _interval_note(value: Interval) -> str:
    return "Lines: 95 % intervals." if value.low is not None else "No intervals: too few windows."
