"""The figure of trainings: perplexity of text that nothing is trained on, while models learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.evidence import exp
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.distillation.settings import NATS_OF_WHOLE, WATCHED
from pruning_kit.reporting.figures.canvas import add_caption, model_line, new_panels
from pruning_kit.reporting.figures.scales import (
    BLUE,
    GREEN,
    GREY,
    LOG_ABOVE,
    ORANGE,
    RED,
    scale_perplexity,
    short_number,
)
from pruning_kit.reporting.words.numbers import format_ppl
from pruning_kit.runs.recovered import PointFacts, RecoveredFacts
from pruning_kit.runs.results import Run

MAX_LINES = 12
COLOURS = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9")
STYLES = ("-", "--")
"""As many lines as colours times styles can be told apart."""
PANELS_IN = (2.9, 2.6)
LEGEND_COLUMNS, LEGEND_ROW_IN, LEGEND_IN = 2, 0.19, 0.2
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))

Curves = Mapping[Variant, RecoveredFacts]


def training_curves(run: Run, analysis: Analysis) -> Figure | None:
    """Perplexity of the unseen text against tokens, and against seconds, of each trained variant.

    A circle is the start, the dot the look that was kept. Of many the best are drawn. None where
    nothing was trained.
    """
    trained = {v: facts for v, facts in run.recovered.items() if len(facts.curve) > 1}
    if not trained:
        return None
    shown = dict(sorted(trained.items(), key=lambda item: _best(item[1]).nats or 0)[:MAX_LINES])
    rows = -(-(len(shown) + 1) // LEGEND_COLUMNS)
    heights = [*PANELS_IN, LEGEND_IN + LEGEND_ROW_IN * rows]
    title = "Perplexity of unseen text while models were trained"
    figure, (by_tokens, by_seconds, legend) = new_panels(heights, title)
    _draw(by_tokens, shown, lambda point: point.tokens, "Tokens learnt from", _in_units)
    _draw(by_seconds, shown, lambda point: point.seconds, "Seconds of training", short_number)
    legend.axis("off")
    legend.legend(
        *by_tokens.get_legend_handles_labels(),
        loc="upper left",
        ncols=LEGEND_COLUMNS,
        frameon=False,
        fontsize=8,
        borderaxespad=0,
    )
    add_caption(figure, [model_line(run, _watched(shown)), _marks(len(trained), len(shown))])
    return figure


def _draw(
    axes: Axes,
    curves: Curves,
    across: Callable[[PointFacts], float],
    label: str,
    number: Callable[[float], str],
) -> None:
    """A line for each variant, with its start and what was kept of it."""
    whole = _whole(curves)
    drawn = [_ppl(point) for facts in curves.values() for point in facts.curve]
    logarithmic = scale_perplexity(axes, [*drawn, *([] if whole is None else [whole])], "y")
    looks = zip(curves.items(), cycle(_looks()))
    for (variant, facts), (style, colour) in looks:
        x, y = [across(p) for p in facts.curve], [_ppl(p) for p in facts.curve]
        kept = facts.curve.index(_best(facts))
        name = f"{variant.plan.short} {variant.recovery}"
        said = f"{name}: {format_ppl(y[0])} → {format_ppl(y[kept])}"
        axes.plot(x, y, linestyle=style, color=colour, linewidth=1.5, label=said)
        axes.plot(x[0], y[0], "o", color=colour, fillstyle="none", markersize=6, clip_on=False)
        axes.plot(x[kept], y[kept], "o", color=colour, markersize=5)
    if whole is not None:
        name = f"whole model: {format_ppl(whole)}"
        axes.axhline(whole, color=GREY, linewidth=1, linestyle=":", label=name)
    _scale_across(axes, [[across(p) for p in facts.curve] for facts in curves.values()])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.set_xlabel(label)
    axes.set_ylabel(f"Perplexity{' (logarithmic axis)' if logarithmic else ''}")


def _looks() -> list[tuple[str, str]]:
    return [(style, colour) for style in STYLES for colour in COLOURS]


def _scale_across(axes: Axes, series: Sequence[Sequence[float]]) -> None:
    """From 0 on; where trainings are of very different lengths, logarithmic behind first looks."""
    ends = [values[-1] for values in series]
    first = min(values[1] for values in series)
    if first > 0 and max(ends) > LOG_ABOVE * min(ends):
        axes.set_xscale("symlog", linthresh=first, linscale=0.3)
    axes.set_xlim(left=0)


def _best(facts: RecoveredFacts) -> PointFacts:
    """What was kept."""
    return min(facts.curve, key=lambda point: np.inf if point.nats is None else point.nats)


def _ppl(point: PointFacts) -> float:
    return np.nan if point.nats is None else exp(point.nats)


def _whole(curves: Curves) -> float | None:
    """The whole model's perplexity of the same text, where it was measured."""
    found = [facts.details.get(NATS_OF_WHOLE) for facts in curves.values()]
    return next((exp(nats) for nats in found if isinstance(nats, float)), None)


def _watched(curves: Curves) -> str:
    """The text, as its trainings call it."""
    return next((str(f.details[WATCHED]) for f in curves.values() if WATCHED in f.details), "")


def _in_units(tokens: float) -> str:
    """`500k`, `2M`."""
    size, unit = next((one for one in UNITS if tokens >= one[0]), (1.0, ""))
    return f"{tokens / size:g}{unit}"


def _marks(n_trained: int, n_shown: int) -> str:
    """What marks mean, and which lines are left out."""
    of_many = f" The best {n_shown} of {n_trained} are drawn." * (n_shown < n_trained)
    return (
        "Circle: the start, with the gaps bridged where that helps. Dot: what was kept. Nothing is "
        f"trained or fitted on this text, and no reported figure is of it.{of_many}"
    )
