"""Courses: how the minutes of a shrinking are spent, by a timing of this model on this machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pruning_kit.errors import PlanError
from pruning_kit.inputs.calibration import FITTING_TOKENS
from pruning_kit.pruning.surgery import count_parameters
from pruning_kit.search.sized import FINALISTS
from pruning_kit.search.text import as_ranges
from pruning_kit.speed.protocol import LatencyProtocol
from pruning_kit.sweeps.recover import SAVED_BYTES_PER_S, SAVING_S
from pruning_kit.sweeps.workbench import Workbench
from pruning_kit.walk.estimates import WindowCost

MOST_SETS = 100
"""So many are all measured; of more, the best are searched for."""
ROWS_SHARE, SEARCH_SHARE = 0.25, 0.15
"""Of the minutes, for measuring candidates in full, and for finding them."""
LEAST_WINDOWS = 16
"""Of a text, below which hardly any difference can be shown."""
LEAST_EVALUATIONS = 24
RECOVERED_ROWS = 4
"""Whole, as cut, bridged, distilled."""
FITTED_AT_COST_OF = 2
"""Fitting bridges costs about so many forwards of its text."""
REPORT_S = 15.0
"""Of figures and pages."""
TIMING_SHARE, LEAST_TIMING_S, MOST_TIMING_S = 0.1, 2.0, 25.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a shrinking."""

    what: str
    seconds: float
    alone: str
    """The command that does it alone, less model and texts."""


@dataclass(frozen=True, slots=True)
class Course:
    """What is done in which order, and what that takes."""

    candidates: str
    """Which sets are measured, as a proposer's text form."""
    max_windows: int | None
    """Of each text; None: all."""
    stages: tuple[Stage, ...]


def timing_s(seconds: float) -> float:
    """Seconds for timing, of all that there are."""
    return min(MOST_TIMING_S, max(LEAST_TIMING_S, TIMING_SHARE * seconds))


@dataclass(frozen=True)
class Planner:
    """Shares out the time of a shrinking.

    Args:
        bench: model and texts.
        sizes: numbers of removed blocks that are asked for.
        seconds: for everything.
        timing: how whole and result are timed; None: not at all.
        times_all: whether the candidates are timed too.
    """

    bench: Workbench
    sizes: Sequence[int]
    seconds: float
    timing: LatencyProtocol | None
    times_all: bool

    def course(self) -> Course:
        """The course that the time allows.

        Raises:
            PlanError: if it allows none.
        """
        cost = self.bench.cost_per_window("reported", range(1))
        window_s = cost.seconds(1, self.bench.n_blocks, 1) * len(self.bench.texts)
        n_sets = sum(math.comb(self.bench.n_blocks, size) for size in self.sizes)
        n_rows, n_windows, searched = 1 + 2 * n_sets, 0, n_sets > MOST_SETS
        if not searched:
            n_windows = self._windows(ROWS_SHARE, n_rows, window_s)
            searched = n_windows < LEAST_WINDOWS
        if searched:
            n_rows = 1 + 2 * FINALISTS * len(self.sizes)
            n_windows = max(LEAST_WINDOWS, self._windows(SEARCH_SHARE, n_rows, window_s))
        measured = min(n_windows, self._longest)
        found = f"combinatorial:{as_ranges(self.sizes)}"
        search_s = 0.0
        if searched:
            search_s = SEARCH_SHARE * self.seconds
            one_s = measured * window_s / len(self.bench.texts)
            n_evaluations = max(LEAST_EVALUATIONS, int(search_s / one_s))
            found = f"search:{as_ranges(self.sizes)},evaluations={n_evaluations}"
            search_s = n_evaluations * one_s
        stages = self._stages(found, search_s + n_rows * measured * window_s, measured, cost)
        return Course(found, None if measured == self._longest else measured, stages)

    @property
    def _longest(self) -> int:
        return max(len(text.windows) for text in self.bench.texts.values())

    def _windows(self, share: float, n_rows: int, window_s: float) -> int:
        """Of each text, for as many rows, and for the recovered ones."""
        return int(share * self.seconds / (max(n_rows, RECOVERED_ROWS) * window_s))

    def _stages(
        self, found: str, candidates_s: float, n_windows: int, cost: WindowCost
    ) -> tuple[Stage, ...]:
        """All of them; what is left of the time is for distilling.

        Raises:
            PlanError: if the others alone take more than there is.
        """
        bench, n_texts = self.bench, len(self.bench.texts)
        context = bench.texts["reported"].typical_window()[0].shape[1]
        fitting_s = 0.0
        if not isinstance(bench.bridging, str):
            one_s = cost.block_s * bench.n_blocks
            fitting_s = FITTED_AT_COST_OF * one_s * FITTING_TOKENS / context
        timed_s = 0.0 if self.timing is None else self.timing.budget_s
        n_bytes = 4 * count_parameters(bench.decoder.model)
        rows_s = n_windows * cost.seconds(n_texts, RECOVERED_ROWS * bench.n_blocks, RECOVERED_ROWS)
        first = Stage(
            "measure candidates as cut and bridged",
            fitting_s + candidates_s + timed_s * self.times_all,
            f"sweep --try {found}",
        )
        others = (
            Stage("measure the result beside the whole model", fitting_s + rows_s, "recover"),
            Stage("time both", timed_s, "sweep --try SET"),
            Stage("write the report", REPORT_S, "report RUN --format html"),
            Stage("verify and save", SAVING_S + n_bytes / SAVED_BYTES_PER_S, "verify DIR"),
        )
        left = self.seconds - first.seconds - sum(stage.seconds for stage in others)
        if left < 0:
            needed = math.ceil((self.seconds - left) / 6) / 10
            raise PlanError(
                f"cannot shrink in {self.seconds / 60:g} minutes: measuring, timing and saving "
                f"alone take about {needed:g} here. Give `minutes` that many at least."
            )
        return (first, Stage("distil the best of them", left, "recover --minutes"), *others)
