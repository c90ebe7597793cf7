"""Courses: how the minutes of a shrinking are spent, by a timing of this model on this machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pruning_kit.errors import ArchitectureError, PlanError
from pruning_kit.inputs.calibration import FITTING_TOKENS
from pruning_kit.machine.devices import using_threads
from pruning_kit.plans.distilled import Amount, count
from pruning_kit.plans.paths import as_cut, count_calls
from pruning_kit.plans.plan import Plan
from pruning_kit.pruning.distillation.pace import Pace, pace_of
from pruning_kit.pruning.recovered import pruned_copy
from pruning_kit.pruning.surgery import count_parameters
from pruning_kit.search.best import TOKENS, BestDistilled
from pruning_kit.search.combinatorial import Combinatorial
from pruning_kit.search.sized import FINALISTS
from pruning_kit.search.text import as_ranges
from pruning_kit.speed.protocol import LatencyProtocol
from pruning_kit.sweeps.recover import SAVED_BYTES_PER_S, SAVING_S
from pruning_kit.sweeps.workbench import Workbench
from pruning_kit.walk.estimates import WindowCost

MOST_SETS = 100
"""Of more, the best are searched for."""
CANDIDATES_SHARE, RESULT_SHARE = 0.15, 0.15
"""Of the minutes, for measuring candidates, and the result beside the whole model."""
LEAST_WINDOWS = 8
"""Of a text: with fewer nothing is chosen or said."""
LEAST_EVALUATIONS, EVALUATIONS_PER_BLOCK = 24, 4
"""Of a search."""
RESULT_ROWS = 4
"""Whole, as cut, bridged, distilled."""
SUMS_OF_A_BLOCK, SUMS_OF_A_GAP = 3, 1
"""What fitting adds up for each block before gaps and for each gap, in calls of a block."""
FORWARDS_OF_A_STEP = 3
"""As long as a forward and a backward take."""
REPORT_S = 15.0
"""Of figures and pages."""
TRIED, TRIED_SHARE = 3, 0.25
"""Sets that are distilled a little, to choose among them: so many, and their share of the time for
distilling."""
TIMING_SHARE, LEAST_TIMING_S, MOST_TIMING_S = 0.08, 2.0, 25.0


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
    """Of the text chosen on; of others `LEAST_WINDOWS`, since nothing is chosen by them."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Trials:
    """The best few sets, distilled alike to choose among them."""

    asked: BestDistilled
    stage: Stage


@dataclass(frozen=True, slots=True)
class Course:
    """What is done in which order, and what that takes."""

    candidates: Candidates
    result_windows: int
    """Of each text, for the result and the whole model."""
    trials: Trials | None
    """None where the best bridged set is taken."""
    stages: tuple[Stage, ...]

    @property
    def searched(self) -> str:
        """All that sets are chosen by, as a proposer's text form."""
        found = self.candidates.text
        return found if self.trials is None else f"{found} {self.trials.asked}"


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
        first, others = self._first_stage(candidates), self._last_stages(n_windows)
        left = self._left(first, *others)
        trials = self._trials(left)
        tried = () if trials is None else (trials.stage,)
        best = Stage("distil the best of them", self._left(first, *tried, *others), "recover")
        return Course(candidates, n_windows, trials, (first, *tried, best, *others))

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

    @property
    def _n_beside(self) -> int:
        """Windows that each set is measured on besides those of the text chosen on."""
        return LEAST_WINDOWS * (len(self.bench.texts) - 1)

    def _all_sets(self) -> Candidates:
        """All sets of the sizes, each as cut and bridged."""
        asked, n_blocks = Combinatorial(tuple(self.sizes)), self.bench.n_blocks
        plans = [Plan(), *asked.plans(n_blocks)]
        calls = count_calls(as_cut(plan, n_blocks) for plan in plans)
        each_s = self._cost.seconds(1, 2 * calls, 2 * len(plans))
        n_windows = self._windows(CANDIDATES_SHARE * self.seconds / each_s - self._n_beside)
        return Candidates(str(asked), n_windows, (n_windows + self._n_beside) * each_s)

    def _searched(self) -> Candidates:
        """The best of each size, found on the text chosen on, then measured on all texts."""
        n_rows = 1 + 2 * FINALISTS * len(self.sizes)
        wanted = max(LEAST_EVALUATIONS, EVALUATIONS_PER_BLOCK * self.bench.n_blocks)
        n_beside = n_rows * self._n_beside
        n_forwards = CANDIDATES_SHARE * self.seconds / self._whole_s - n_beside
        n_windows = self._windows(n_forwards / (wanted + n_rows))
        n_evaluations = max(LEAST_EVALUATIONS, int(n_forwards / n_windows) - n_rows)
        text = f"search:{as_ranges(self.sizes)},evaluations={n_evaluations}"
        n_forwards = (n_evaluations + n_rows) * n_windows + n_beside
        return Candidates(text, n_windows, n_forwards * self._whole_s)

    def _fitting_s(self) -> float:
        """Of bridges over every run of blocks that a set may lack."""
        bench, n_blocks = self.bench, self.bench.n_blocks
        if isinstance(bench.bridging, str):
            return 0.0
        n_gaps = sum(n_blocks - length for length in range(1, max(self.sizes) + 1))
        calls = n_blocks + SUMS_OF_A_BLOCK * (n_blocks - 1) + SUMS_OF_A_GAP * n_gaps
        context = bench.texts["reported"].typical_window()[0].shape[1]
        return self._cost.seconds(1, calls, 0) * FITTING_TOKENS / context

    def _first_stage(self, candidates: Candidates) -> Stage:
        timed_s = self._timed_s * self.times_all
        return Stage(
            "measure candidates as cut and bridged",
            self._fitting_s() + candidates.seconds + timed_s,
            "sweep",
        )

    def _last_stages(self, n_windows: int) -> tuple[Stage, ...]:
        """What comes after distilling."""
        n_texts = len(self.bench.texts) - ("selection" in self.bench.texts)
        n_bytes = 4 * count_parameters(self.bench.decoder.model)
        return (
            Stage(
                "measure the result beside the whole model",
                n_windows * n_texts * RESULT_ROWS * self._whole_s,
                "sweep",
            ),
            Stage("time both", self._timed_s, "sweep"),
            Stage("write the report", REPORT_S, "report"),
            Stage("verify and save", SAVING_S + n_bytes / SAVED_BYTES_PER_S, "prune"),
        )

    @property
    def _timed_s(self) -> float:
        return 0.0 if self.timing is None else self.timing.budget_s

    def _left(self, *others: Stage) -> float:
        """Seconds that other stages leave.

        Raises:
            PlanError: if they take more than there is.
        """
        left = self.seconds - sum(stage.seconds for stage in others)
        if left < 0:
            needed = math.ceil((self.seconds - left) / 6) / 10
            raise PlanError(
                f"cannot shrink in {self.seconds / 60:g} minutes: measuring, timing and saving "
                f"alone take about {needed:g} here. Give `minutes` that many at least."
            )
        return left

    def _trials(self, left: float) -> Trials | None:
        """The best few distilled alike, where a share of the time for it lets each learn enough.

        Args:
            left: seconds for all distilling.
        """
        size, *further = self.sizes
        n_tried = min(TRIED, self._count(size))
        each_s = TRIED_SHARE * left / n_tried
        if further or n_tried == 1 or self._tokens_at_most(size, each_s) < TOKENS:
            return None
        pace = self._pace(size)
        if pace is None:
            return None
        share = self.bench.learning.share_written
        tokens = pace.tokens(each_s, share) // TOKENS * TOKENS
        if not tokens:
            return None
        asked = BestDistilled(n_tried, tokens, size)
        what = f"distil the best {n_tried} of them on {count(tokens)} tokens each"
        seconds = n_tried * pace.seconds(tokens, share)
        return Trials(asked, Stage(what, seconds, f"sweep --top {n_tried}"))

    def _tokens_at_most(self, size: int, seconds: float) -> float:
        """That a training reads if its forwards and backwards are as fast as the walk is."""
        n_blocks, (tokens_BT, *_) = self.bench.n_blocks, self.bench.texts["reported"].tensors(0, 1)
        calls = n_blocks + FORWARDS_OF_A_STEP * (n_blocks - size)
        return seconds / self._cost.seconds(1, calls, 1) * tokens_BT.shape[1]

    def _pace(self, size: int) -> Pace | None:
        """Of training a model without so many blocks, tried; None where none can be trained.

        Why it cannot is said where the best of them is to be.
        """
        bench = self.bench
        try:
            student = pruned_copy(bench.decoder, Plan(tuple(range(size))), {})
            with using_threads(bench.threads):
                return pace_of(bench.learning, student, Amount(TOKENS))
        except (PlanError, ArchitectureError):
            return None
