"""Which run folder a sweep goes on with or makes, and the facts that are written into it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pruning_kit.errors import RunError
from pruning_kit.inputs.texts import window_sizes
from pruning_kit.inputs.windows import even_batch_size
from pruning_kit.machine import versions
from pruning_kit.machine.devices import device_name, dtype_name
from pruning_kit.runs import opening, provenance
from pruning_kit.runs.facts import NumericsFacts, ProposalFacts, ProtocolFacts, RunFacts
from pruning_kit.runs.ranks import Ranks
from pruning_kit.runs.store import RUN_FILE, RunFolder
from pruning_kit.search.limits import bounded_in_minutes, granted
from pruning_kit.search.proposer import Proposer
from pruning_kit.speed.protocol import LatencyProtocol
from pruning_kit.sweeps.budgets import sizes_asked_for
from pruning_kit.sweeps.keeping import Kept
from pruning_kit.sweeps.pace import seconds_per_evaluation
from pruning_kit.sweeps.settings import SweepSettings
from pruning_kit.sweeps.shelf import Shelf
from pruning_kit.sweeps.workbench import Workbench


def open_run(
    settings: SweepSettings,
    workbench: Workbench,
    proposer: Proposer,
    ranks: Ranks,
    begun: bool = False,
) -> tuple[RunFolder, Workbench]:
    """The run to go on with, or a new one; all processes open the same.

    Args:
        settings: of workbench and run.
        workbench: what is measured on.
        proposer: what is measured.
        ranks: the processes that share the run.
        begun: whether recoveries were made in the folder already.

    Returns:
        The run, and the workbench with as many threads as the run began with, which keeps
        recovered models in the run folder.

    Raises:
        RunError: if the folder is taken, or its run is another one.
    """
    identity = identify(workbench, proposer)
    first = None
    if ranks.leads:
        first = str(_find_or_make(settings, workbench, proposer, identity, ranks.size, begun))
    run = RunFolder.open(Path(ranks.share("folder", first)))
    asked = {
        "kernel": workbench.kernel.name,
        "batch_size": workbench.settings.batch_size,
        "threads": workbench.settings.threads,
    }
    opening.refuse_to_mix(
        run, identity, {name: value for name, value in asked.items() if value is not None}
    )
    shelf = Shelf(run.folder, workbench.loaded.saved_dtype, writes=ranks.leads)
    return run, workbench.in_run(run.facts.numerics.threads, shelf, Kept(run.folder), ranks)


def _find_or_make(
    settings: SweepSettings,
    workbench: Workbench,
    proposer: Proposer,
    identity: Mapping[str, Any],
    n_processes: int,
    begun: bool,
) -> Path:
    """The folder to go on with, or a new one; its `run.json` is there."""
    folder = _find(settings, workbench, identity)
    if folder and (folder / RUN_FILE).exists():
        run = RunFolder.open(folder)
    else:
        facts = describe(settings, workbench, proposer, identity, n_processes)
        place = opening.place_for(settings.save_results)
        folder = folder or opening.new_folder(place, _name(workbench, proposer))
        run = RunFolder.create(folder, facts, begun)
    run.remove_left_overs()
    return run.folder


def _find(
    settings: SweepSettings, workbench: Workbench, identity: Mapping[str, Any]
) -> Path | None:
    """The folder that was named, or that of a stopped run of the same identity."""
    if settings.output is not None:
        return opening.named_folder(settings.output, settings.resume)
    with suppress(RunError):  # who has no home has nothing there to tidy
        opening.tidy(opening.cache_folder(), opening.RESULTS)
    if not settings.resume:
        return None
    bases = (opening.RESULTS, opening.cache_folder())
    found = opening.find_run(bases, identity)
    if found is None:
        workbench.observer.say(f"Nothing to resume under {bases[0]} or {bases[1]}: a new run.")
    elif settings.save_results and found.parent == opening.cache_folder():
        found = opening.move_under(found, opening.RESULTS)
    if found:
        workbench.observer.say(f"Going on with {found}.")
    return found


def _name(workbench: Workbench, proposer: Proposer) -> str:
    model = Path(workbench.loaded.source.name).resolve().name
    return f"{model}-{proposer.mode or 'plans'}"


def identify(workbench: Workbench, proposer: Proposer) -> dict[str, Any]:
    """The facts in which two runs must agree for their sums to be mixed."""
    settings = workbench.settings
    context, stride = window_sizes(workbench.loaded, settings.context, settings.stride)
    calibration = workbench.found_texts.calibration
    return {
        "context": context,
        "stride": stride,
        "bos": workbench.texts["reported"].bos,
        "bridges_sha256": calibration.sha256 if calibration else None,
        "distillation": asdict(settings.distillation),
        **provenance.identity(workbench.loaded, workbench.texts, str(proposer)),
        "dtype": dtype_name(workbench.dtype),
        "device": workbench.device.type,
        "device_name": device_name(workbench.device),
    }


def describe(
    settings: SweepSettings,
    workbench: Workbench,
    proposer: Proposer,
    identity: Mapping[str, Any],
    n_processes: int,
) -> RunFacts:
    """Everything needed to repeat the run, for `run.json`.

    Raises:
        PlanError: if a limit on the model cannot be kept to.
    """
    sizes = sizes_asked_for(proposer, workbench, settings.timing or LatencyProtocol())
    proposer = granted(proposer, None, sizes)
    proposer.check(workbench.n_blocks)
    batch_size = _batch_size(workbench, proposer, n_processes)
    kernel, texts = workbench.kernel, workbench.texts
    return RunFacts(
        command=settings.command,
        created=versions.now(),
        identity=dict(identity),
        model=provenance.describe_model(workbench.loaded, workbench.n_blocks),
        texts={role: provenance.describe_text(text) for role, text in texts.items()},
        protocol=ProtocolFacts(
            context=identity["context"],
            stride=identity["stride"],
            bos=identity["bos"],
            max_windows=workbench.settings.max_windows,
        ),
        numerics=NumericsFacts(
            dtype=dtype_name(kernel.dtype),
            device=identity["device"],
            device_name=identity["device_name"],
            kernel=kernel.name,
            note=kernel.note or None,
            attention=identity["attention"],
            batch_size=batch_size,
            threads=workbench.threads,
        ),
        proposal=ProposalFacts(
            text=str(proposer),
            mode=proposer.mode,
            seed=proposer.seed,
            evaluations=_evaluations(workbench, proposer, batch_size, n_processes),
            sizes=sizes,
        ),
        windows={
            role: provenance.describe_windows(text, batch_size) for role, text in texts.items()
        },
        versions=versions.versions(),
        git_commit=versions.git_commit(),
        unbridged=_unbridged(workbench, proposer),
    )


def _unbridged(workbench: Workbench, proposer: Proposer) -> str | None:
    """Why no gap is bridged; None where some can be, or none is left."""
    if not proposer.most_removed(workbench.n_blocks):
        return None
    return workbench.bridging if isinstance(workbench.bridging, str) else None


def _evaluations(
    workbench: Workbench, proposer: Proposer, batch_size: int, n_processes: int
) -> int | None:
    """What searches may make in the minutes that they are given; None where they are given none.

    As if no two candidates shared a block's call, so that the time is kept rather than used up.
    """
    searches = bounded_in_minutes(proposer)
    if not searches:
        return None
    seconds = seconds_per_evaluation(workbench, batch_size)
    minutes = sum(search.minutes or 0 for search in searches)
    return max(1, int(60 * minutes * n_processes / seconds))


def _batch_size(workbench: Workbench, proposer: Proposer, n_processes: int) -> int:
    """Windows at a time: what was asked for, or what memory allows, the same for each rank."""
    if workbench.settings.batch_size:
        return workbench.settings.batch_size
    largest = workbench.choose_batch_size(proposer.most_removed(workbench.n_blocks))
    shapes = [window.shape for window in workbench.texts["reported"].windows]
    n_alike = shapes.count(shapes[len(shapes) // 2])  # the first and the last go alone
    return even_batch_size(n_alike, largest, n_processes)
