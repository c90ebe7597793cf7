"""The path of a search: what it found cheapest of each size, against the evaluations it made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.searching import Step, search_path
from pruning_kit.reporting.figures.canvas import add_caption, caption, new_figure
from pruning_kit.reporting.figures.scales import scale_perplexity
from pruning_kit.runs.results import Run

MOST_SIZES = 8
BEYOND = 4.0
"""Times the worst set that is kept, above which candidates would press all others flat."""


def path_of_search(run: Run, analysis: Analysis) -> Figure | None:
    """The cheapest set of each size so far, and all candidates as dots.

    Of many sizes some are shown, the smallest and the largest among them. None without a search.
    """
    path = search_path(run)
    searched = sorted({size.n_removed for size in analysis.sizes} & {s.plan.size for s in path})
    if not searched:
        return None
    places = np.unique(np.linspace(0, len(searched) - 1, MOST_SIZES).astype(int))
    shown = [searched[place] for place in places]
    figure, axes = new_figure(4.2, f"Path of the search{' of some sizes' * (shown != searched)}")
    of_size = {size: [step for step in path if step.plan.size == size] for size in shown}
    best = {size: _so_far(steps) for size, steps in of_size.items()}
    top = BEYOND * max(values[-1] for values in best.values())
    end = path[-1].evaluations
    colours = colormaps["cividis"](np.linspace(0, 0.85, len(shown)))
    for size, colour in zip(shown, colours, strict=True):
        steps = of_size[size]
        dots = np.array([(step.evaluations, step.ratio) for step in steps if step.ratio <= top])
        axes.scatter(dots[:, 0], dots[:, 1], s=9, color=colour, alpha=0.6, linewidths=0)
        at = [step.evaluations for step in steps]
        axes.step([*at, end], [*best[size], best[size][-1]], where="post", color=colour)
        axes.annotate(
            f"{size}", (end, best[size][-1]), (4, -3), textcoords="offset points", color=colour
        )
    logarithmic = scale_perplexity(axes, [v for values in best.values() for v in values], "y")
    axes.set_ylim(top=min(top, axes.get_ylim()[1] * 1.2))
    axes.set_xlabel("Evaluations: a set on all of the text is one, on a part of it so much less")
    axes.set_ylabel(f"Relative to the whole model{' (logarithmic axis)' if logarithmic else ''}")
    add_caption(
        figure,
        [
            *caption(run, analysis.selection.role, analysis.judged_bridged),
            "Each line: the cheapest set so far of as many blocks as stand at its end, by the "
            "windows that it was read on.",
        ],
    )
    return figure


def _so_far(steps: Sequence[Step]) -> list[float]:
    """The smallest ratio up to each step."""
    return np.fmin.accumulate([step.ratio for step in steps]).tolist()
