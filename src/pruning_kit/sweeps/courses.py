"""Courses: how the minutes of a shrinking are spent, by a timing of this model on this machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pruning_kit.errors import PlanError
from pruning_kit.inputs.calibration import FITTING_TOKENS
from pruning_kit.plans.paths import as_cut, count_calls
from pruning_kit.plans.plan import Plan
from pruning_kit.pruning.surgery import count_parameters
from pruning_kit.search.combinatorial import Combinatorial
from pruning_kit.search.sized import FINALISTS
from pruning_kit.search.text import as_ranges
from pruning_kit.speed.protocol import LatencyProtocol
from pruning_kit.sweeps.recover import SAVED_BYTES_PER_S, SAVING_S
from pruning_kit.sweeps.workbench import Workbench
from pruning_kit.walk.estimates import WindowCost

MOST_SETS = 100
"""Of more, the best are searched for."""
CANDIDATES_SHARE, RESULT_SHARE = 0.25, 0.15
"""Of the minutes, for measuring candidates, and the result beside the whole model."""
LEAST_WINDOWS = 8
"""Of a text, without which there are no intervals."""
LEAST_EVALUATIONS, EVALUATIONS_PER_BLOCK = 24, 4
"""Of a search."""
RESULT_ROWS = 4
"""Whole, as cut, bridged, distilled."""
SUMS_OF_A_BLOCK, SUMS_OF_A_GAP = 3, 1
"""What fitting adds up for each block before gaps and for each gap, in calls of a block."""
REPORT_S = 15.0
"""Of figures and pages."""
TIMING_SHARE, LEAST_TIMING_S, MOST_TIMING_S = 0.1, 2.0, 25.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a shrinking."""

    what: str
    seconds: float
    alone: str
    """The command that does it alone."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Which sets are measured to choose from, and on how much of each text."""

    text: str
    """Of the proposer."""
    n_windows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Course:
    """What is done in which order, and what that takes."""

    candidates: Candidates
    result_windows: int
    """Of each text, for the result and the whole model."""
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
        searched, n_sets = self._searched(), sum(self._count(size) for size in self.sizes)
        every = self._all_sets() if n_sets <= MOST_SETS else searched
        candidates = every if every.n_windows >= searched.n_windows else searched
        n_windows = self._windows(RESULT_SHARE * self.seconds / (RESULT_ROWS * self._whole_s))
        return Course(candidates, n_windows, self._stages(candidates, n_windows))

    @cached_property
    def _cost(self) -> WindowCost:
        return self.bench.cost_per_usual_window()

    @property
    def _whole_s(self) -> float:
        """Seconds of the whole model for such a window."""
        return self._cost.seconds(1, self.bench.n_blocks, 1)

    def _count(self, size: int) -> int:
        return math.comb(self.bench.n_blocks, size)

    def _windows(self, affordable: float) -> int:
        """No more than the longest text has, and not too few."""
        longest = max(len(text.windows) for text in self.bench.texts.values())
        return min(longest, max(LEAST_WINDOWS, int(affordable)))

    def _all_sets(self) -> Candidates:
        """All sets of the sizes, each as cut and bridged, on all texts."""
        asked = Combinatorial(tuple(self.sizes))
        n_blocks, n_texts = self.bench.n_blocks, len(self.bench.texts)
        plans = [Plan(), *asked.plans(n_blocks)]
        calls = count_calls(as_cut(plan, n_blocks) for plan in plans)
        each_s = n_texts * self._cost.seconds(1, 2 * calls, 2 * len(plans))
        n_windows = self._windows(CANDIDATES_SHARE * self.seconds / each_s)
        return Candidates(str(asked), n_windows, n_windows * each_s)

    def _searched(self) -> Candidates:
        """The best of each size, found on the text chosen on, then measured on all texts."""
        n_rows = (1 + 2 * FINALISTS * len(self.sizes)) * len(self.bench.texts)
        wanted = max(LEAST_EVALUATIONS, EVALUATIONS_PER_BLOCK * self.bench.n_blocks)
        n_forwards = CANDIDATES_SHARE * self.seconds / self._whole_s
        n_windows = self._windows(n_forwards / (wanted + n_rows))
        n_evaluations = max(LEAST_EVALUATIONS, int(n_forwards / n_windows) - n_rows)
        text = f"search:{as_ranges(self.sizes)},evaluations={n_evaluations}"
        return Candidates(text, n_windows, (n_evaluations + n_rows) * n_windows * self._whole_s)

    def _fitting_s(self) -> float:
        """Of bridges over every run of blocks that a set may lack."""
        bench, n_blocks = self.bench, self.bench.n_blocks
        if isinstance(bench.bridging, str):
            return 0.0
        n_gaps = sum(n_blocks - length for length in range(1, max(self.sizes) + 1))
        calls = n_blocks + SUMS_OF_A_BLOCK * (n_blocks - 1) + SUMS_OF_A_GAP * n_gaps
        context = bench.texts["reported"].typical_window()[0].shape[1]
        return self._cost.seconds(1, calls, 0) * FITTING_TOKENS / context

    def _stages(self, candidates: Candidates, n_windows: int) -> tuple[Stage, ...]:
        """All of them; what is left of the time is for distilling.

        Raises:
            PlanError: if the others alone take more than there is.
        """
        n_texts = len(self.bench.texts) - ("selection" in self.bench.texts)
        timed_s = 0.0 if self.timing is None else self.timing.budget_s
        n_bytes = 4 * count_parameters(self.bench.decoder.model)
        first = Stage(
            "measure candidates as cut and bridged",
            self._fitting_s() + candidates.seconds + timed_s * self.times_all,
            "sweep",
        )
        others = (
            Stage(
                "measure the result beside the whole model",
                n_windows * n_texts * RESULT_ROWS * self._whole_s,
                "sweep",
            ),
            Stage("time both", timed_s, "sweep"),
            Stage("write the report", REPORT_S, "report"),
            Stage("verify and save", SAVING_S + n_bytes / SAVED_BYTES_PER_S, "prune"),
        )
        left = self.seconds - first.seconds - sum(stage.seconds for stage in others)
        if left < 0:
            needed = math.ceil((self.seconds - left) / 6) / 10
            raise PlanError(
                f"cannot shrink in {self.seconds / 60:g} minutes: measuring, timing and saving "
                f"alone take about {needed:g} here. Give `minutes` that many at least."
            )
        return (first, Stage("distil the best of them", left, "recover"), *others)
