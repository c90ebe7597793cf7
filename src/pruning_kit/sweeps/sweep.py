"""A sweep: what a proposer asks for is measured on a workbench, round by round, into a run folder.

Rounds are only ever appended. A stopped sweep is gone on with by a replay: the proposer is asked
again from the start and sent the stored sums, until it asks for something new.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pruning_kit.errors import PlanError
from pruning_kit.inputs.models import LoadedModel
from pruning_kit.machine.devices import available_cores
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning import recovery
from pruning_kit.pruning.surgery import parameters_by_plan
from pruning_kit.runs import opening
from pruning_kit.runs.facts import Role, RoundFacts, VariantFacts
from pruning_kit.runs.ranks import Ranks
from pruning_kit.runs.recoveries import remove_weights
from pruning_kit.runs.results import Run, load_run, plans_of, variants_of
from pruning_kit.runs.store import RunFolder
from pruning_kit.search.named import parse
from pruning_kit.search.proposer import Proposer, next_round
from pruning_kit.search.together import Together
from pruning_kit.sweeps.bridges import with_bridges
from pruning_kit.sweeps.building import find, prepare
from pruning_kit.sweeps.observer import Observer, Work
from pruning_kit.sweeps.opening import open_run
from pruning_kit.sweeps.recovering import with_recovered
from pruning_kit.sweeps.samples import check_samples, sample
from pruning_kit.sweeps.settings import SweepSettings
from pruning_kit.sweeps.timing import check_timing, refuse_other_timings, time_plans
from pruning_kit.sweeps.workbench import Workbench
from pruning_kit.walk.measures import MEASURES, NLL, Measure

ALONE = Ranks()
Group = tuple[int, int, int]
"""Windows that are computed together: its number, the first window, and the one after the last."""


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
    refuse_unbridged(proposer, workbench)
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
    refuse_unbridged(proposer, workbench)
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


def refuse_unbridged(proposer: Proposer, workbench: Workbench) -> None:
    """Refuse what begins with bridges where there are none.

    Raises:
        PlanError: naming the variant, and why.
    """
    for variant in _first_round(proposer, workbench.n_blocks):
        if recovery.needs_bridges(variant) and isinstance(workbench.bridging, str):
            raise PlanError(f"cannot recover {variant}: {workbench.bridging}. Leave it out.")


def _first_round(proposer: Proposer, n_blocks: int) -> Sequence[Variant]:
    """What is asked for before anything is measured."""
    return next_round(proposer.propose(n_blocks)) or []


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


def measure(
    run: RunFolder,
    proposer: Proposer,
    workbench: Workbench,
    ranks: Ranks,
    goes_on: bool,
    measures: Sequence[Measure] | None = None,
) -> None:
    """Measure every round that the proposer asks for and that is not on the disk yet.

    The whole model is measured in the first one, asked for or not.

    Args:
        run: where to, opened for this proposer and workbench.
        proposer: asks for variants and is sent what they cost.
        workbench: what they are measured on.
        ranks: the processes that share the work.
        goes_on: whether the run was there before.
        measures: what each round takes; by default every measure there is.
    """
    taken = measures or tuple(MEASURES.values())
    costs: dict[Variant, float] = {}
    number = 0
    asking = proposer.propose(workbench.n_blocks)
    asked: Sequence[Variant] | None = next_round(asking) or []
    while asked is not None:
        new = [one for one in dict.fromkeys([Variant(), *asked]) if one not in costs]
        if new:
            for variant in new:
                recovery.check(variant, workbench.n_blocks)
            costs |= dict.fromkeys(new, math.nan)  # of what no recovery makes better
            new = with_bridges(run, number, new, workbench, ranks)
            new = with_recovered(run, number, new, workbench, ranks)
            _measure_round(run, number, new, workbench, ranks, goes_on or number > 0, taken)
            costs |= _costs(run, number, new)
            number += 1
        asked = next_round(asking, costs)
    if ranks.leads:
        run.finish()


def _measure_round(
    run: RunFolder,
    number: int,
    variants: Sequence[Variant],
    workbench: Workbench,
    ranks: Ranks,
    goes_on: bool,
    measures: Sequence[Measure],
) -> None:
    """Walk every window group of a round that this process takes and that is not on the disk."""
    if ranks.leads:
        run.add_round(number, describe_round(variants, workbench, measures))
    ranks.share(f"round/{number}", "stored" if ranks.leads else None)
    todo, n_left = {}, 0
    for role in workbench.texts:
        todo[role], n_of_all = _groups_to_measure(run, number, role, ranks)
        n_left += n_of_all
    if ranks.leads:
        _expect(todo, n_left, variants, workbench, ranks.size, goes_on)
    for role, groups in todo.items():
        title = f"perplexity, {workbench.texts[role].corpus.title}"
        with workbench.observer.track(title, len(variants) * _count(groups)) as advance:
            for group, first, end in groups:
                found = workbench.measure(
                    variants, role, range(first, end), measures, batch_size=end - first
                )
                run.write_part(number, role, group, found.sums, found.facts)
                advance(len(variants) * (end - first))
    ranks.wait_for_all(f"measured/{number}")


def _expect(
    todo: Mapping[Role, Sequence[Group]],
    n_left: int,
    variants: Sequence[Variant],
    workbench: Workbench,
    n_processes: int,
    goes_on: bool,
) -> None:
    """Say what this process is about to measure, and how long that takes by its largest group."""
    left = [(role, group) for role, groups in todo.items() for group in groups]
    if not left:
        return
    role, (_, first, end) = max(left, key=lambda one: _count([one[1]]))
    work = Work(
        n_blocks=workbench.n_blocks,
        n_variants=len(variants),
        n_texts=len({role for role, _ in left}),
        n_windows=_count(group for _, group in left),
        n_windows_of_all=n_left,
        n_processes=n_processes,
        seconds_per_window=_seconds_per_window(variants, workbench, role, range(first, end)),
        goes_on=goes_on,
    )
    workbench.observer.expect(work)


def _count(groups: Iterable[Group]) -> int:
    """Windows in all."""
    return sum(end - first for _, first, end in groups)


def describe_round(
    variants: Sequence[Variant], workbench: Workbench, measures: Sequence[Measure]
) -> RoundFacts:
    """What a round measures, to be stored before its first part."""
    parameters = parameters_by_plan(workbench.decoder, [variant.plan for variant in variants])
    return RoundFacts(
        variants=tuple(
            VariantFacts(variant=str(variant), parameters=parameters[variant.plan])
            for variant in variants
        ),
        measures=tuple(measure.name for measure in measures),
        texts=tuple(workbench.texts),
    )


def _groups_to_measure(
    run: RunFolder, number: int, role: Role, ranks: Ranks
) -> tuple[list[Group], int]:
    """Groups not on the disk that this process takes, and the count of all such windows.

    Which these are is what the first process saw, lest one that looks later leave a group that
    another counts as its own.
    """
    groups = run.facts.windows[role].groups
    left = [group for group in range(len(groups)) if not run.has_part(number, role, group)]
    seen = ranks.share(f"left/{number}/{role}", json.dumps(left) if ranks.leads else None)
    left = json.loads(seen)
    sizes = [groups[group][1] - groups[group][0] for group in left]
    mine = ranks.takes(sizes)
    return [(left[piece], *groups[left[piece]]) for piece in mine], sum(sizes)


def _seconds_per_window(
    variants: Sequence[Variant], workbench: Workbench, role: Role, windows: range
) -> float:
    """What each of these windows costs under all variants, if each is walked as cut."""
    calls = workbench.count_calls(variants)
    return workbench.cost_per_window(role, windows).seconds(1, calls, len(variants))


def _costs(run: RunFolder, number: int, variants: Sequence[Variant]) -> dict[Variant, float]:
    """Nats per token of a round's variants, on the text that plans are chosen on."""
    role = run.facts.choosing_role
    windows = run.facts.windows[role]
    parts = [run.read_part(number, role, group)[0] for group in range(len(windows.groups))]
    totals = sum(part[NLL.name].sum(axis=1) for part in parts)
    return dict(zip(variants, (totals / sum(windows.targets)).tolist(), strict=True))
