"""A sweep: what a proposer asks for is measured on a workbench, round by round, into a run folder,
then timed and sampled where that is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pruning_kit.errors import PlanError
from pruning_kit.inputs.models import LoadedModel
from pruning_kit.machine.devices import available_cores
from pruning_kit.plans.distilled import is_trained
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning import recovery
from pruning_kit.runs import opening
from pruning_kit.runs.ranks import Ranks
from pruning_kit.runs.recoveries import remove_weights
from pruning_kit.runs.results import Run, load_run, plans_of, variants_of
from pruning_kit.runs.store import RunFolder
from pruning_kit.search.named import parse
from pruning_kit.search.proposer import Proposer, Scoring, Screening, next_round
from pruning_kit.search.together import Together
from pruning_kit.sweeps.building import find, prepare
from pruning_kit.sweeps.observer import Observer
from pruning_kit.sweeps.opening import open_run
from pruning_kit.sweeps.rounds import measure
from pruning_kit.sweeps.samples import check_samples, sample
from pruning_kit.sweeps.settings import SweepSettings
from pruning_kit.sweeps.timing import check_timing, refuse_other_timings, time_plans
from pruning_kit.sweeps.workbench import Workbench
from pruning_kit.walk.measures import Measure

ALONE = Ranks()


def sweep(
    proposer: Proposer | str,
    workbench: Workbench,
    folder: Path | str,
    resume: bool = False,
    measures: Sequence[Measure] | None = None,
) -> Run:
    """Measure what a proposer asks for into a folder, and read it back.

    Args:
        proposer: asks for variants and is sent what they cost; or its text form, such as
            `combinatorial` or `1+3 first:0.25`, of which at most 5,000 variants are measured; for
            more give a `search.together.Together` that allows them.
        workbench: what they are measured on.
        folder: the run folder; new or empty, unless a stopped run is gone on with.
        resume: go on with a run that is there.
        measures: what to add up, NLL among them; by default every measure there is.

    Raises:
        PlanError: if the model has no such variants, or there are too many.
        RunError: if the folder is taken, or its run is another one.
    """
    if isinstance(proposer, str):
        proposer = Together((parse(proposer),))
    check_asked(proposer, workbench.n_blocks)
    refuse_unrecovered(proposer, workbench)
    settings = SweepSettings(output=Path(folder), resume=resume)
    run, workbench = open_run(settings, workbench, proposer, ALONE)
    measure(run, proposer, workbench, ALONE, resume, measures)
    return load_run(run.folder)


def start(
    settings: SweepSettings,
    proposer: Proposer,
    observer: Observer,
    ranks: Ranks = ALONE,
) -> tuple[RunFolder, Workbench]:
    """Build the workbench and open the run folder; what cannot be done is refused before that.

    Args:
        settings: what is asked for.
        proposer: asks for variants.
        observer: is told of substitutions and slow steps.
        ranks: the processes that share the run.

    Raises:
        PruningKitError: if anything asked for cannot be had; nothing is left behind then.
    """
    settings.check()
    if settings.output is not None and ranks.leads:
        opening.named_folder(settings.output, settings.resume)

    def check_model(loaded: LoadedModel) -> None:
        if settings.timing:
            check_timing(loaded, found.device, settings.timing)
        if settings.samples:
            check_samples(loaded, observer)

    def check_plans(n_blocks: int) -> None:
        check_asked(proposer, n_blocks)

    found = find(settings, observer, check_plans, ranks.local_rank)
    workbench = prepare(found, observer, threads_of(ranks), check_model)
    refuse_unrecovered(proposer, workbench)
    run, workbench = open_run(settings, workbench, proposer, ranks)
    if settings.timing:
        refuse_other_timings(run, workbench, settings.timing)
    return run, workbench


def check_asked(proposer: Proposer, n_blocks: int) -> None:
    """Refuse what no model of so many blocks has, or no recovery makes.

    Raises:
        PlanError: if there is such a thing, or too much of it.
    """
    proposer.check(n_blocks)
    for variant in _first_round(proposer, n_blocks):
        recovery.check(variant, n_blocks)


def refuse_unrecovered(proposer: Proposer, workbench: Workbench) -> None:
    """Refuse what begins with bridges where there are none, or learns where it cannot.

    Raises:
        PlanError, ArchitectureError: saying why.
    """
    asked = _first_round(proposer, workbench.n_blocks)
    for variant in asked:
        if recovery.needs_bridges(variant) and isinstance(workbench.bridging, str):
            raise PlanError(f"cannot recover {variant}: {workbench.bridging}. Leave it out.")
    will_train = isinstance(proposer, Together) and proposer.trains
    if will_train or any(map(is_trained, asked)):
        workbench.check_learning()


def _first_round(proposer: Proposer, n_blocks: int) -> Sequence[Variant]:
    """What is asked for before anything is measured."""
    request = next_round(proposer.propose(n_blocks)) or []
    return [] if isinstance(request, Screening | Scoring) else request


def threads_of(ranks: Ranks) -> int | None:
    """Threads of each of several processes; torchrun's default of one would leave cores idle."""
    return None if ranks.size == 1 else max(1, available_cores() // ranks.local_size)


def carry_out(
    run: RunFolder,
    proposer: Proposer,
    workbench: Workbench,
    settings: SweepSettings,
    ranks: Ranks = ALONE,
) -> None:
    """Measure, then time and sample, if asked for; the last two are done by one process."""
    measure(run, proposer, workbench, ranks, settings.resume)
    if ranks.leads and settings.timing:
        plans = plans_of(variants_of(run.rounds()))
        time_plans(run, plans, workbench, settings.timing)
    if ranks.leads and settings.samples:
        sample(run, workbench)
    if ranks.leads:
        remove_weights(run.folder)
