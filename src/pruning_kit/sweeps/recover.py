"""Recovering one plan: bridged, trained, and measured beside the whole and the cut model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from pruning_kit.errors import PlanError, RunError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.texts import window_sizes
from pruning_kit.intervals.windows import MIN_WINDOWS
from pruning_kit.machine.devices import using_threads
from pruning_kit.plans.distilled import ADAPTERS, Amount, count
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import BRIDGED, Variant
from pruning_kit.pruning import recovery as recoveries
from pruning_kit.pruning.bridges.bridging import Bridging
from pruning_kit.pruning.distillation.distilled import forms_of
from pruning_kit.pruning.distillation.pace import Pace, amount_within, pace_of
from pruning_kit.pruning.distillation.settings import DistillationSettings
from pruning_kit.pruning.recovered import pruned_copy
from pruning_kit.pruning.surgery import count_parameters
from pruning_kit.runs.intents import (
    Recovery,
    read_intent,
    refuse_other,
    refuse_taken,
    write_intent,
)
from pruning_kit.runs.opening import check_place
from pruning_kit.runs.ranks import Ranks
from pruning_kit.runs.results import Run, load_run
from pruning_kit.search.named import parse
from pruning_kit.search.together import Together
from pruning_kit.sweeps import bridges
from pruning_kit.sweeps.building import find, prepare
from pruning_kit.sweeps.keeping import Kept
from pruning_kit.sweeps.observer import Observer
from pruning_kit.sweeps.opening import open_run
from pruning_kit.sweeps.recovering import make_or_refuse
from pruning_kit.sweeps.rounds import measure
from pruning_kit.sweeps.settings import SweepSettings
from pruning_kit.sweeps.shelf import Shelf
from pruning_kit.sweeps.sweep import threads_of
from pruning_kit.sweeps.workbench import Workbench

SAVING_S, SAVED_BYTES_PER_S = 5.0, 2e8
"""Of verifying and saving a model."""
FIRST_TOKENS = 250_000
"""Of the first of several trainings."""
LONGEST = 8_000_000
"""Tokens of the last of several, where nothing bounds them."""
MEASURED_SHARE = 0.2
"""Of the minutes, at the end, where nobody says how many windows."""
LONG_S = 60.0
"""A time that is told beforehand."""


@dataclass(frozen=True, slots=True)
class Goal:
    """How long to train, and what."""

    amount: Amount | None
    """Tokens that were named."""
    seconds: float | None
    """For everything, where no tokens were named."""
    nats: float | None
    """Of unseen text, at which it is enough."""
    adapters: bool

    @classmethod
    def parse(
        cls, tokens: str | None, minutes: float | None, until_ppl: float | None, adapters: bool
    ) -> Goal:
        """What was typed.

        Raises:
            PlanError: if the tokens cannot be read, or are too few.
        """
        return cls(
            None if tokens is None else Amount.read(tokens, adapters),
            None if minutes is None else 60 * minutes,
            None if until_ppl is None else math.log(until_ppl),
            adapters,
        )


@dataclass(eq=False)
class Recovering:
    """One plan on its way back.

    Args:
        plan: what is removed.
        goal: how long to train.
        settings: of workbench and run; the folder is named.
        observer: is told of progress.
        ranks: the processes that take part.
        began: when the command did, by `clock`.
        clock: in seconds.
        bridges_from: a run whose bridges are taken over, where it has their weights.
    """

    plan: Plan
    goal: Goal
    settings: SweepSettings
    observer: Observer
    ranks: Ranks
    began: float
    clock: Callable[[], float]
    bridges_from: Path | None = None
    trained: Variant | None = field(default=None, init=False)
    """The training whose model is best by unseen text; the longest where none gained."""
    refused: str | None = field(default=None, init=False)
    """Why that model is not kept, if it is not."""

    @property
    def folder(self) -> Path:
        """Of the run."""
        assert self.settings.output is not None
        return self.settings.output

    def carry_out(self) -> tuple[Run, Workbench, Variant]:
        """Train, then measure beside the whole model and the one as cut.

        Returns:
            The run, its workbench, and the variant to keep: trained if that gained, else bridged,
            else as cut.

        Raises:
            PruningKitError: if anything asked for cannot be had.
        """
        bench, amounts = self._begin(self._open())
        asked = self.trained = self._train(bench, amounts)
        proposer = Together((parse(f"{self.plan} {asked}"),))
        run, bench = open_run(self.settings, bench, proposer, self.ranks, begun=True)
        measure(run, proposer, bench, self.ranks, self.settings.resume)
        self.ranks.wait_for_all("measured")  # the first one marks the run as finished
        found = load_run(run.folder)
        kept = (asked, Variant(self.plan, BRIDGED), Variant(self.plan))
        return found, bench, next(one for one in kept if one in found.variants)

    def _open(self) -> Workbench:
        """The workbench, which keeps what is trained in the folder of the run."""
        self.settings.check()
        if self.ranks.leads:
            refuse_taken(self.folder, Recovery, self.settings.resume)
        found = find(
            self.settings,
            self.observer,
            partial(recoveries.check, Variant(self.plan, BRIDGED)),
            self.ranks.local_rank,
        )
        bench = prepare(found, self.observer, threads_of(self.ranks))
        bench.check_learning()
        shelf = Shelf(self.folder, bench.loaded.saved_dtype, writes=self.ranks.leads)
        return bench.in_run(bench.threads, shelf, Kept(self.folder), self.ranks)

    def _begin(self, bench: Workbench) -> tuple[Workbench, list[Amount]]:
        """What to measure on, and the trainings to make, each longer than the one before.

        As a stopped one set out, or by timings here, which are kept.
        """
        asked = self._asked(bench)
        intent = read_intent(self.folder, Recovery) if self.settings.resume else None
        if intent is None:
            bench, tokens = self._set_out(bench, asked)
        else:
            refuse_other(self.folder, intent.asked, asked)
            bench, tokens = self._measuring(bench, intent.max_windows), intent.tokens
        if isinstance(bench.bridging, Bridging):  # all begin with those of the first process
            bridges.restore(self.folder, bench.bridging)
        return bench, [Amount(one, self.goal.adapters) for one in tokens]

    def _set_out(
        self, bench: Workbench, asked: dict[str, str]
    ) -> tuple[Workbench, tuple[int, ...]]:
        """Decide by timings, in which all processes take part; the first one keeps what it is."""
        n_windows = self._max_windows(bench) if self.ranks.leads else None
        n_windows = int(self.ranks.share("windows", str(n_windows or 0))) or None
        bench = self._measuring(bench, n_windows)
        # the bridges of the others are for the timing alone: later they take those of the first
        tokens = self._tokens(bench if self.ranks.leads else replace(bench))
        if self.ranks.leads:
            write_intent(self.folder, Recovery(asked=asked, tokens=tokens, max_windows=n_windows))
            self._keep_bridges(bench)
        self.ranks.wait_for_all("set out")
        return bench, tokens

    def _measuring(self, bench: Workbench, max_windows: int | None) -> Workbench:
        """On so many windows of each text, and with the bridges that another run has."""
        bench = bench if max_windows is None else bench.with_windows(max_windows)
        if self.bridges_from is not None and isinstance(bench.bridging, Bridging):
            bridges.restore(self.bridges_from, bench.bridging)
        return bench

    def _max_windows(self, bench: Workbench) -> int | None:
        """Of each text, that leave time to train; None: all that were asked for."""
        if self.goal.seconds is None or self.settings.max_windows is not None:
            return None
        longest = max(len(text.windows) for text in bench.texts.values())
        affordable = int(MEASURED_SHARE * self.goal.seconds / self._per_window_s(bench))
        n_windows = max(MIN_WINDOWS, affordable)
        if n_windows >= longest:
            return None
        self.observer.say(
            f"The first {n_windows} of {longest} windows are measured at the end, so that "
            f"{self.goal.seconds / 60:g} minutes leave time to train."
        )
        return n_windows

    def _asked(self, bench: Workbench) -> dict[str, str]:
        """What has to agree for a stopped recovery to be gone on with."""
        goal, training = self.goal, self.settings.distillation
        texts, inputs = bench.found_texts, bench.loaded
        context, stride = window_sizes(inputs, self.settings.context, self.settings.stride)
        asked = {
            "plan": self.plan,
            "model": inputs.weights_sha256,
            "tokens": goal.amount and goal.amount.tokens,
            "minutes": goal.seconds and f"{goal.seconds / 60:g}",
            "until_ppl": goal.nats and f"{math.exp(goal.nats):g}",
            "method": ADAPTERS if goal.adapters else "full",
            "calibrate_on": texts.calibration and texts.calibration.sha256,
            "text": texts.training and texts.training.sha256,
            "context": context,
            "stride": stride,
            "bos": bench.texts["reported"].bos,
            **asdict(training),
        }
        return {name: str(value) for name, value in asked.items()}

    def _tokens(self, bench: Workbench) -> tuple[int, ...]:
        """Of each training, by what was named or by a trial; what it will take is said."""
        bench.fit([self.plan])
        with using_threads(bench.threads):
            forms = forms_of(self.plan, bench.material)
            student = pruned_copy(bench.decoder, self.plan, forms)
            student.model.to(bench.learning.whole.device)
            longest, pace = self._longest(bench, student)
        share = bench.learning.share_written
        tokens = (longest,) if self.goal.nats is None else _doubling(longest)
        seconds = sum(pace.seconds(one, share) for one in tokens)
        if seconds > LONG_S:
            most = " at most" * (len(tokens) > 1)
            self.observer.say(
                f"Training {self.plan} on {count(sum(tokens))} tokens will take{most} about "
                f"{seconds:,.0f} seconds."
            )
        return tokens

    def _keep_bridges(self, bench: Workbench) -> None:
        """Store what training begins with, which the run finds in its folder."""
        if isinstance(bench.bridging, Bridging):
            for fit in bench.bridging.fits.values():
                bridges.keep(self.folder, fit, bench.bridging, bench)

    def _longest(self, bench: Workbench, student: Decoder) -> tuple[int, Pace]:
        """Tokens of the longest training, and the pace of its batches."""
        goal, learning = self.goal, replace(bench.learning, clock=self.clock)
        if goal.seconds is None:
            amount = goal.amount or Amount(LONGEST, goal.adapters)
            return amount.tokens, pace_of(learning, student, amount)
        left = goal.seconds - (self.clock() - self.began) - self._afterwards_s(bench)
        if goal.nats is not None:
            left /= 2  # so long are all trainings before the longest one
        amount, pace = amount_within(left, learning, student, goal.adapters)
        return amount.tokens, pace

    def _afterwards_s(self, bench: Workbench) -> float:
        """Seconds of measuring, verifying and saving."""
        n_windows = max(len(text.windows) for text in bench.texts.values())
        n_bytes = 4 * count_parameters(bench.decoder.model)
        return n_windows * self._per_window_s(bench) + SAVING_S + n_bytes / SAVED_BYTES_PER_S

    def _per_window_s(self, bench: Workbench) -> float:
        """Seconds for a window of each text: the whole model twice, and the plan in three forms."""
        calls = 2 * bench.n_blocks + 3 * (bench.n_blocks - self.plan.size)
        n_texts = len(bench.texts)
        return n_texts * bench.cost_per_usual_window().seconds(1, calls, 5) / self.ranks.size

    def _train(self, bench: Workbench, amounts: Sequence[Amount]) -> Variant:
        """The training whose model is best; it is on the shelf, or all are refused there."""
        found: dict[Variant, float] = {}
        for amount in amounts:
            asked = Variant(self.plan, amount.recovery)
            self.refused = make_or_refuse(asked, bench, self.ranks)
            self.ranks.wait_for_all(f"trained/{asked}")
            if self.refused is None:
                found[asked] = min(point.nats for point in bench.shelf[asked].curve)
                if self.goal.nats is not None and found[asked] <= self.goal.nats:
                    break
        if found:
            self.refused = None
        return min(found, key=found.__getitem__, default=asked)


def check_kept_text(path: Path, training: DistillationSettings) -> None:
    """Refuse to keep what the whole model wrote where it writes nothing, or where it cannot be.

    Raises:
        PlanError: if it writes nothing.
        RunError: if the file cannot be written.
    """
    if not training.writes:
        raise PlanError(
            f"cannot keep in {path} what the whole model writes: it writes nothing with `train_on` "
            f"{training.train_on}. Leave out `keep_text`, or learn from self or mixed text."
        )
    if path.is_dir():
        raise RunError(f"cannot write {path}: it is a folder. Give `keep_text` the name of a file.")
    check_place(path.parent)


def written_text(bench: Workbench, trained: Variant) -> str:
    """What the whole model wrote for a training, a line for each sequence; empty if nothing."""
    learning = bench.learning
    assert trained.recovery is not None
    rows_KT = learning.mixture(learning.schedule(Amount.of(trained.recovery))).written_KT
    texts = [bench.loaded.tokenizer.decode(row) for row in rows_KT.tolist()]
    return "".join(f"{' '.join(text.split())}\n" for text in texts)


def _doubling(longest: int) -> tuple[int, ...]:
    """Amounts of which each is twice the one before, up to the longest."""
    found = [longest]
    while found[0] // 2 >= FIRST_TOKENS:
        found.insert(0, found[0] // 2)
    return tuple(found)
