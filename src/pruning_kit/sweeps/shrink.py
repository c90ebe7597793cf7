"""Shrinking: from a model to a smaller one in so many minutes, each stage one that is there alone.

DIR-run/search     candidates, measured as cut and bridged; one of them is chosen
DIR-run/recovery   that one as cut, bridged and, where time allows, distilled; timed
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from msgspec import structs

from pruning_kit.errors import ArchitectureError, PlanError
from pruning_kit.inputs.models import LoadedModel
from pruning_kit.machine import disk
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import BRIDGED, Variant
from pruning_kit.pruning.bridges.bridging import Bridging
from pruning_kit.pruning.surgery import parameters_of
from pruning_kit.runs.intents import (
    Shrinking,
    read_intent,
    refuse_other,
    refuse_taken,
    write_intent,
)
from pruning_kit.runs.ranks import Ranks
from pruning_kit.runs.recoveries import remove_weights
from pruning_kit.runs.results import Run, load_run, plans_of, variants_of
from pruning_kit.runs.store import RunFolder
from pruning_kit.search.named import parse
from pruning_kit.search.together import Together
from pruning_kit.speed.protocol import LatencyProtocol
from pruning_kit.sweeps import bridges
from pruning_kit.sweeps.building import Found, find, prepare
from pruning_kit.sweeps.courses import LEAST_WINDOWS, REPORT_S, Course, Planner, timing_s
from pruning_kit.sweeps.observer import Observer, SilentObserver
from pruning_kit.sweeps.opening import open_run
from pruning_kit.sweeps.recover import Goal, Recovering
from pruning_kit.sweeps.rounds import measure
from pruning_kit.sweeps.settings import SweepSettings
from pruning_kit.sweeps.targets import Target
from pruning_kit.sweeps.texts import CALIBRATION
from pruning_kit.sweeps.timing import check_timing, refuse_other_timings, time_plans
from pruning_kit.sweeps.workbench import Workbench

ALONE = Ranks()
SEARCH, RECOVERY = "search", "recovery"
"""Folders of the runs."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What came of it."""

    searched: Run
    """The candidates."""
    run: Run
    """The whole model, and the chosen set in each form that was measured."""
    bench: Workbench
    variant: Variant
    """The form to keep."""
    untrained: str | None
    """Why it was not trained, or why what was trained is not kept; None where it is."""


@dataclass(eq=False)
class Shrinker:
    """A model on its way to a smaller one.

    Args:
        target: how far.
        seconds: for everything.
        settings: of workbench and runs; the folder that holds the runs is named.
        timing: whether whole and result are timed.
        choose: the set to take of a run of candidates.
        observer: is told of progress.
        began: when the command did, by `clock`.
        clock: in seconds.
    """

    target: Target
    seconds: float
    settings: SweepSettings
    timing: bool
    choose: Callable[[Run], Plan]
    observer: Observer
    began: float
    clock: Callable[[], float]

    @property
    def folder(self) -> Path:
        """Of the runs."""
        assert self.settings.output is not None
        return self.settings.output

    def course(self) -> Course:
        """What would be done, and what that takes; nothing is written.

        Raises:
            PruningKitError: if anything asked for cannot be had.
        """
        return self._course(self._prepared)

    def carry_out(self) -> Shrunk:
        """Search, choose, distil, measure and time.

        Raises:
            PruningKitError: if anything asked for cannot be had.
        """
        self.settings.check()
        refuse_taken(self.folder, Shrinking, self.settings.resume)
        begun = self._begin()
        searched = self._search(begun)
        plan = self.choose(searched)
        run, bench, variant, untrained = self._recover(plan, begun)
        if self.protocol is not None:
            folder = RunFolder.open(run.folder)
            refuse_other_timings(folder, bench, self.protocol)
            time_plans(folder, [Plan(), plan], bench, self.protocol)
        return Shrunk(searched, load_run(run.folder), bench, variant, untrained)

    def tidy(self) -> None:
        """Delete what nothing needs once the result is saved."""
        remove_weights(self.folder / SEARCH)

    @property
    def protocol(self) -> LatencyProtocol | None:
        """How models are timed; None: not at all."""
        return LatencyProtocol(budget_s=timing_s(self.seconds)) if self.timing else None

    @cached_property
    def _found(self) -> Found:
        """What is meant by the settings; sets are chosen on the calibration text if there is one.

        Raises:
            PruningKitError: if anything asked for cannot be had.
        """
        found = find(self.settings, self.observer, Plan((0,)).check)
        if self.settings.select_on:
            return found
        if found.texts.calibration is None:
            self.observer.warn(
                "Sets are chosen on the text that figures are reported on, which flatters them: "
                f"there is no calibration text ({found.texts.unbridged})."
            )
            return found
        return find(replace(self.settings, select_on=CALIBRATION), SilentObserver())

    @cached_property
    def _prepared(self) -> Workbench:
        """The model, and all windows of its texts."""
        return prepare(self._found, self.observer, check=self._check_timing)

    def _check_timing(self, loaded: LoadedModel) -> None:
        """Refuse a model that cannot be timed, before any work."""
        if self.protocol is not None:
            check_timing(loaded, self._found.device, self.protocol)

    def _course(self, bench: Workbench) -> Course:
        """See `course`.

        Raises:
            PlanError: if the target cannot be met, or not in this time.
        """
        sizes = self.target.sizes(*parameters_of(bench.decoder))
        times_all = self.target.max_latency is not None
        return Planner(bench, sizes, self.seconds, self.protocol, times_all).course()

    def _begin(self) -> Shrinking:
        """What to do: as a stopped one set out, or by a timing here, which is kept.

        Raises:
            RunError: if another one was begun in the folder.
        """
        disk.remove_left_overs(self.folder)
        begun = read_intent(self.folder, Shrinking)
        asked = self._asked(self._prepared)
        if begun is None:
            course = self._course(self._prepared)
            begun = Shrinking(
                asked=asked,
                candidates=course.searched,
                candidate_windows=course.candidates.n_windows,
                result_windows=course.result_windows,
            )
            write_intent(self.folder, begun)
            for stage in course.stages:
                self.observer.say(f"To {stage.what}: about {stage.seconds:,.0f} seconds.")
        refuse_other(self.folder, begun.asked, asked)
        return begun

    def _asked(self, bench: Workbench) -> dict[str, str]:
        """What has to agree for a stopped one to be gone on with."""
        return {
            "target": str(self.target),
            "minutes": f"{self.seconds / 60:g}",
            "timed": str(self.timing),
            "model": bench.loaded.weights_sha256,
            **{f"text {role}": text.ids_sha256 for role, text in bench.texts.items()},
        }

    def _search(self, begun: Shrinking) -> Run:
        """The candidates, measured; their bridges stay in the folder for what comes after."""
        settings = replace(
            self.settings,
            output=self.folder / SEARCH,
            select_on=self._found.settings.select_on,
            max_windows=begun.candidate_windows,
            timing=self.protocol if self.target.max_latency is not None else None,
        )
        proposer = Together((parse(begun.candidates),))
        bench = _judging(self._prepared.with_windows(begun.candidate_windows))
        del (
            self._prepared
        )  # what comes after reads the model anew, for texts without the one chosen on
        run, bench = open_run(settings, bench, proposer, ALONE)
        measure(run, proposer, bench, ALONE, settings.resume)
        if settings.timing is not None:
            time_plans(run, plans_of(variants_of(run.rounds())), bench, settings.timing)
        return load_run(run.folder)

    def _recover(self, plan: Plan, begun: Shrinking) -> tuple[Run, Workbench, Variant, str | None]:
        """The chosen set distilled, or bridged where it cannot be: why, which is kept."""
        settings = replace(  # nothing is chosen any more
            self.settings,
            output=self.folder / RECOVERY,
            max_windows=begun.result_windows,
            select_on=None,
        )
        if begun.untrained is None:
            afterwards_s = REPORT_S + (self.protocol.budget_s if self.protocol else 0.0)
            goal = Goal(None, self.seconds - afterwards_s, None, adapters=False)
            recovering = Recovering(
                plan,
                goal,
                settings,
                self.observer,
                ALONE,
                self.began,
                self.clock,
                self.folder / SEARCH,
            )
            try:
                return *recovering.carry_out(), recovering.refused
            except (PlanError, ArchitectureError) as error:
                begun = structs.replace(begun, untrained=str(error))
                write_intent(self.folder, begun)
        self.observer.warn(f"Nothing is trained: the kit {begun.untrained}")
        return *self._bridge(plan, settings), begun.untrained

    def _bridge(self, plan: Plan, settings: SweepSettings) -> tuple[Run, Workbench, Variant]:
        """The chosen set beside the whole model, bridged where that helps."""
        bench = prepare(find(settings, SilentObserver()), self.observer)
        if isinstance(bench.bridging, Bridging):
            bridges.restore(self.folder / SEARCH, bench.bridging)
        proposer = Together((parse(str(plan)),))
        run, bench = open_run(settings, bench, proposer, ALONE, begun=True)
        measure(run, proposer, bench, ALONE, settings.resume)
        found, bridged = load_run(run.folder), Variant(plan, BRIDGED)
        return found, bench, bridged if bridged in found.variants else Variant(plan)


def _judging(bench: Workbench) -> Workbench:
    """A workbench that reads no more than it must of texts that nothing is chosen on."""
    chosen_on, asked = bench.chosen_on, bench.settings.max_windows
    assert asked is not None, "it was given a number of windows"
    beside = bench.with_windows(min(LEAST_WINDOWS, asked)).texts
    texts = {
        role: text if text is chosen_on else beside[role] for role, text in bench.texts.items()
    }
    return replace(bench, texts=texts)
