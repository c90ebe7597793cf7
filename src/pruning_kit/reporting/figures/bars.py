"""Bars of perplexity: plans one below the other, single blocks in their order.

On a logarithmic axis bars start at the whole model, so that their length is the cost.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.figures.canvas import add_caption, caption, new_panels
from pruning_kit.reporting.figures.scales import BLUE, GREY, scale_perplexity
from pruning_kit.reporting.words.numbers import change, format_ppl, in_lines
from pruning_kit.runs.facts import SPLITS
from pruning_kit.runs.results import Run

MAX_BARS = 24
MAX_LABEL = 24
MAX_TICKS = 24
ROW_IN, LINE_IN, BAR_IN = 0.24, 0.15, 0.17
SINGLES_IN = 3.0


@dataclass(frozen=True)
class Shown:
    """What of a table of plans is drawn.

    `rows` stand one below the other; where the single blocks have no room among them, `singles`
    holds them all for a panel of their own.
    """

    rows: pd.DataFrame
    singles: pd.DataFrame | None


def measured(run: Run) -> pd.DataFrame:
    """The rows of plans on the reported text but for the empty stack, failed ones included."""
    frame = run.frame()
    shown = frame["variant"].isin(map(str, run.plans)) & (frame["mode"] != "empty")
    return frame[shown & (frame["split"] == SPLITS["reported"])]


def perplexity_bars(run: Run) -> Figure | None:
    """Perplexity of each plan; of more than 24, every single block and the best of each size.

    Where so many blocks have no room among the plans they stand above them, in their order. None
    where there is but one plan.
    """
    frame = measured(run)
    if len(frame) < 2:
        return None
    shown = choose_bars(frame)
    base = _baseline(frame)
    panels = [SINGLES_IN] * (shown.singles is not None)
    if shown.singles is None or (shown.rows["blocks"] < run.n_blocks - 1).any():
        panels.append(1.0 + rows_height_in(shown.rows))
    as_cut = ", as cut" * (run.bridges is not None)
    figure, axes = new_panels(panels, f"Perplexity by removed blocks{as_cut}")
    logarithmic = []
    if shown.singles is not None:
        logarithmic.append(_draw_singles(axes.pop(0), shown.singles, base))
    logarithmic += [plan_bars(rest, shown.rows, base) for rest in axes]
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
    return block_bars(axes, blocks, ppl, base, ppl, ranked[-1:])


def _bar_notes(frame: pd.DataFrame, shown: Shown, below: bool) -> list[str]:
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


def choose_bars(frame: pd.DataFrame) -> Shown:
    """All plans, or of more than 24 every single block and the best of each size.

    Sizes stand in order and the best plan first. Of many sizes the smallest are shown.
    """
    ranked = frame.sort_values(
        ["blocks", "ppl"], ascending=[False, True], kind="stable", na_position="last"
    )
    if len(ranked) <= MAX_BARS:
        return Shown(ranked, None)
    single = ranked["mode"] == "sequential"
    place = ranked.groupby("blocks").cumcount()
    if single.sum() + ranked["blocks"].nunique() - 1 <= MAX_BARS:
        return Shown(_best(ranked, place.where(~single, 0)), None)
    return Shown(_best(ranked[~single | (place == 0)], place), ranked[single])


def _best(ranked: pd.DataFrame, place: pd.Series) -> pd.DataFrame:
    """As many of the best plans of each size as there is room for."""
    place = place[ranked.index]
    for depth in range(MAX_BARS, 0, -1):
        if (place < depth).sum() <= MAX_BARS:
            return ranked[place < depth]
    return ranked[place < 1].head(MAX_BARS)


def plan_label(name: str) -> str:
    """A plan for a tick, whole, in as many lines as it takes."""
    return "whole model" if name == "none" else in_lines(Plan.parse(name).short, MAX_LABEL)


def rows_height_in(rows: pd.DataFrame) -> float:
    """Inches that the bars of these plans take."""
    return sum(map(_row_height_in, map(plan_label, rows["removed"])))


def _row_height_in(label: str) -> float:
    return ROW_IN + LINE_IN * label.count("\n")


def plan_bars(axes: Axes, rows: pd.DataFrame, base: float) -> bool:
    """Draw plans one below the other; tells whether the axis is logarithmic."""
    ppl = rows["ppl"].to_numpy(dtype=np.float64)
    logarithmic = scale_perplexity(axes, ppl, "x")
    start = base if logarithmic and math.isfinite(base) else 0.0
    end = np.where(np.isfinite(ppl), ppl, start)
    labels = [plan_label(name) for name in rows["removed"]]
    bottoms = list(accumulate(map(_row_height_in, labels)))
    at = [bottom - _row_height_in(label) / 2 for bottom, label in zip(bottoms, labels, strict=True)]
    colours = [GREY if name == "none" else BLUE for name in rows["removed"]]
    axes.barh(at, end - start, left=start, color=colours, height=BAR_IN)
    if math.isfinite(base):
        axes.axvline(base, color=GREY, linewidth=1, linestyle="--")
    for where, reach, row in zip(at, end, rows.to_dict("records"), strict=True):
        label_at = (max(float(reach), start), where)
        axes.annotate(_bar_label(row), label_at, (4, 0), textcoords="offset points", va="center")
    _room_for_labels(axes, ppl, start, logarithmic)
    axes.set_yticks(at, labels)
    axes.set_ylim(max(bottoms[-1], 3 * ROW_IN), 0)
    axes.grid(axis="y", visible=False)
    axes.set_ylabel("Blocks removed")
    axes.set_xlabel(f"Perplexity, lower is better{' (logarithmic axis)' if logarithmic else ''}")
    return logarithmic


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


def block_bars(
    axes: Axes,
    blocks: Sequence[int],
    ppl: Sequence[float],
    base: float,
    tops: Sequence[float],
    labelled: Collection[int],
) -> bool:
    """Draw the perplexity without each block, in block order; whether the axis is logarithmic.

    Args:
        axes: where to.
        blocks: the blocks.
        ppl: perplexity without each of them.
        base: that of the whole model.
        tops: what labels stand above: the perplexity, or the end of its interval.
        labelled: the blocks whose perplexity is written.
    """
    values = np.array(ppl, dtype=np.float64)
    logarithmic = scale_perplexity(axes, [*values, base], "y")
    start = base if logarithmic and math.isfinite(base) else 0.0
    values = np.where(np.isfinite(values), values, start)
    axes.bar(blocks, values - start, bottom=start, color=BLUE, width=0.7)
    if math.isfinite(base):
        _draw_base(axes, base)
    for block, value, top in zip(blocks, ppl, tops, strict=True):
        if block in labelled:
            at = (block, max(top, start) if math.isfinite(top) else start)
            axes.annotate(format_ppl(value), at, (0, 3), textcoords="offset points", ha="center")
    ends = [*values, base] if math.isfinite(base) else [*values]
    _margins(axes, min(start, *ends), max(ends), logarithmic)
    axes.xaxis.set_major_locator(MaxNLocator(MAX_TICKS, steps=[1, 2, 5, 10], integer=True))
    axes.set_xlim(min(blocks) - 0.7, max(blocks) + 0.7)
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("Block removed")
    axes.set_ylabel(f"Perplexity{' (logarithmic axis)' if logarithmic else ''}")
    return logarithmic


def _draw_base(axes: Axes, base: float) -> None:
    axes.axhline(base, color=GREY, linewidth=1, linestyle="--")
    axes.annotate(
        f"whole model {format_ppl(base)}",
        (1, base),
        (-2, -3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=8,
        color=GREY,
    )


def _margins(axes: Axes, low: float, high: float, logarithmic: bool) -> None:
    """Room for labels above the highest bar and for a name below the baseline."""
    if logarithmic:
        spread = high / low
        axes.set_ylim(low / spread**0.12, high * spread**0.12)
    else:
        axes.set_ylim(0, 1.14 * high)
