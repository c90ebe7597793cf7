"""All figures by name: what draws them, what they are called where they cannot be seen, and files.

Colour-blind people can read their colours and the maps cividis and PuOr; every figure also reads
in grey by its labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from pruning_kit.findings.analysis import Analysis
from pruning_kit.machine import disk
from pruning_kit.reporting.figures.bars import perplexity_bars
from pruning_kit.reporting.figures.blocks import perplexity_by_removed_block, shapley_values
from pruning_kit.reporting.figures.bridging import perplexity_bridged
from pruning_kit.reporting.figures.canvas import image
from pruning_kit.reporting.figures.front import speed_against_perplexity
from pruning_kit.reporting.figures.pairs import interaction_matrix, pair_heatmap
from pruning_kit.reporting.figures.searching import path_of_search
from pruning_kit.reporting.figures.sizes import perplexity_by_size
from pruning_kit.reporting.figures.training import training_curves
from pruning_kit.runs.results import Run

IMAGE_FORMATS = ("png", "svg")


@dataclass(frozen=True)
class Entry:
    """A figure of the catalogue."""

    draw: Callable[[Run, Analysis], Figure | None]
    """None where the run does not hold what it shows."""
    alt: str
    """What it is, where it cannot be seen."""


FIGURES = {
    "perplexity": Entry(lambda run, _: perplexity_bars(run), "Bars: perplexity of each plan"),
    "bridging": Entry(
        perplexity_bridged, "Dots: perplexity of plans as cut and bridged, and the whole model's"
    ),
    "training": Entry(
        training_curves, "Lines: perplexity of unseen text while models were trained"
    ),
    "speed": Entry(
        speed_against_perplexity, "Scatter of all plans: speed or parameters against perplexity"
    ),
    "removed-block": Entry(
        perplexity_by_removed_block, "Bars: perplexity when each single block is removed"
    ),
    "pairs": Entry(pair_heatmap, "Matrix: perplexity when each pair of blocks is removed"),
    "interactions": Entry(
        interaction_matrix, "Matrix: cost of each pair beyond the sum of its two blocks"
    ),
    "shapley": Entry(shapley_values, "Bars: Shapley value of each block"),
    "sizes": Entry(
        perplexity_by_size, "Lines: best, median and worst perplexity by number of blocks removed"
    ),
    "search": Entry(
        path_of_search, "Lines: cheapest set of each size so far, by evaluations of the search"
    ),
}
"""By the names of their files, which the sections of a report call them by."""
OF_EVERY_SWEEP = ("perplexity", "bridging", "training", "speed", "search")


def draw_all(run: Run, analysis: Analysis, names: Iterable[str] = FIGURES) -> dict[str, Figure]:
    """The figures that the run has the values for, by name."""
    drawn = {name: FIGURES[name].draw(run, analysis) for name in names}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def save_figures(
    run: Run, analysis: Analysis, folder: Path, names: Iterable[str] = FIGURES
) -> list[Path]:
    """Write figures as `name.png` and `name.svg`, whole, and return the paths.

    What an earlier call left of one that the run has no values for is removed.
    """
    paths = []
    for name in names:
        figure = FIGURES[name].draw(run, analysis)
        for kind in IMAGE_FORMATS:
            path = folder / f"{name}.{kind}"
            if figure is None:
                path.unlink(missing_ok=True)
            else:
                disk.write_file(path, image(figure, kind))
                paths.append(path)
    return paths
