"""All figures by name: what draws them, what they are called where they cannot be seen, and files.

Colour-blind people can read their colours and the maps cividis and PuOr; every figure also reads
in grey by its labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from pruning_kit.findings.analysis import Analysis
from pruning_kit.machine import disk
from pruning_kit.reporting.figures.bars import perplexity_bars
from pruning_kit.reporting.figures.blocks import perplexity_by_removed_block, shapley_values
from pruning_kit.reporting.figures.canvas import image
from pruning_kit.reporting.figures.front import speed_against_perplexity
from pruning_kit.reporting.figures.pairs import interaction_matrix, pair_heatmap
from pruning_kit.reporting.figures.sizes import perplexity_by_size
from pruning_kit.runs.results import Run

IMAGE_FORMATS = ("png", "svg")


@dataclass(frozen=True)
class Picture:
    """A figure of a report: `draw` gives None where the run does not hold what it shows."""

    draw: Callable[[Run, Analysis], Figure | None]
    alt: str


PICTURES = {
    "speed": Picture(
        speed_against_perplexity, "Scatter of all plans: speed or parameters against perplexity"
    ),
    "removed-block": Picture(
        perplexity_by_removed_block, "Bars: perplexity when each single block is removed"
    ),
    "pairs": Picture(pair_heatmap, "Matrix: perplexity when each pair of blocks is removed"),
    "interactions": Picture(
        interaction_matrix, "Matrix: cost of each pair beyond the sum of its two blocks"
    ),
    "shapley": Picture(shapley_values, "Bars: Shapley value of each block"),
    "sizes": Picture(
        perplexity_by_size, "Lines: best, median and worst perplexity by number of blocks removed"
    ),
}
"""Those of a report, by the names that its sections call them by."""
OF_EVERY_SWEEP = ("speed",)
"""Of these, what every saved sweep gets beside its bars of perplexity."""


def draw_all(run: Run, analysis: Analysis) -> dict[str, Figure]:
    """The pictures that the run has the values for, by name."""
    drawn = {name: picture.draw(run, analysis) for name, picture in PICTURES.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def save_figures(run: Run, analysis: Analysis, folder: Path) -> list[Path]:
    """Write the figures of a saved sweep as PNG and SVG, whole; none where only one plan ran."""
    drawn = {name: PICTURES[name].draw(run, analysis) for name in OF_EVERY_SWEEP}
    return save_all({"perplexity": perplexity_bars(run), **drawn}, folder)


def save_pictures(run: Run, analysis: Analysis, folder: Path) -> list[Path]:
    """Write the other pictures as PNG and SVG, whole, beside those of every sweep."""
    others = {name: picture for name, picture in PICTURES.items() if name not in OF_EVERY_SWEEP}
    return save_all({name: picture.draw(run, analysis) for name, picture in others.items()}, folder)


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
