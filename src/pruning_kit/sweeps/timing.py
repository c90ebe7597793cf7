"""Timing the really cut models of a run, and keeping what was timed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pruning_kit.bounds import settings_of
from pruning_kit.errors import RunError
from pruning_kit.inputs.models import LoadedModel
from pruning_kit.machine.devices import using_threads
from pruning_kit.plans.plan import Plan
from pruning_kit.runs.results import LATENCY_FILE, read_timings
from pruning_kit.runs.store import RunFolder
from pruning_kit.speed import latency, stored_timings
from pruning_kit.speed.protocol import LatencyProtocol
from pruning_kit.speed.timings import Timings
from pruning_kit.speed.workload import PROMPT, check_protocol
from pruning_kit.sweeps.workbench import Workbench


def time_plans(
    run: RunFolder, plans: Sequence[Plan], workbench: Workbench, protocol: LatencyProtocol
) -> None:
    """Time plans and store that with their run, unless that was done already."""
    path = run.folder / LATENCY_FILE
    if path.exists():
        workbench.observer.say(f"Already timed: {path} is kept; delete it to time again.")
        return
    stored_timings.write(path, timed(plans, workbench, protocol))


def timed(
    plans: Sequence[Plan], workbench: Workbench, protocol: LatencyProtocol, what: str = "latency"
) -> Timings:
    """Time plans beside the whole model.

    Args:
        plans: the stack without any block among them is left out.
        workbench: whose model is timed, as its user would run it.
        protocol: what is timed and how long.
        what: to be said of it.

    Raises:
        TimingError, DeviceError: as `latency.measure`.
    """
    whole = tuple(range(workbench.n_blocks))
    chosen = [plan for plan in plans if plan.removed != whole]
    decoder, prompt_ids = workbench.decoder_as_used, workbench.prompt_ids
    with workbench.observer.track(what, total=1) as advance:
        shown = 0.0

        def progress(share: float) -> None:
            nonlocal shown
            done = max(shown, share)
            advance(done - shown)
            shown = done

        with using_threads(workbench.threads):
            return latency.measure(decoder, chosen, prompt_ids, protocol, progress=progress)


def refuse_other_timings(run: RunFolder, workbench: Workbench, protocol: LatencyProtocol) -> None:
    """Refuse a folder whose timings are not those that would be taken.

    Raises:
        PruningKitError: if they are of another protocol or machine, or cannot be read.
    """
    stored = read_timings(run)
    if stored is None:
        return
    n_prompt, config = len(workbench.prompt_ids), workbench.loaded.model.config
    with using_threads(workbench.threads):
        wanted = latency.binding_facts(
            protocol, n_prompt, config, workbench.device, workbench.dtype
        )
    difference = latency.first_difference(stored, wanted)
    if difference:
        name, then, now = difference
        raise RunError(
            f"cannot keep the timings in {run.folder / LATENCY_FILE}: they were taken with "
            f"{_as_asked_for(name)} {then}, this run asks for {now}. Delete the file to time "
            "again, or set `timing=None`."
        )


def _as_asked_for(field: str) -> str:
    """What the command line calls a fact of a protocol, in words."""
    said = settings_of(LatencyProtocol).get(field)
    return ((said and said.name) or field).replace("_", " ")


def check_timing(loaded: LoadedModel, device: torch.device, protocol: LatencyProtocol) -> None:
    """Refuse a protocol that does not fit the model or the device, before any work.

    Raises:
        TimingError, DeviceError: naming what does not fit.
    """
    n_prompt = len(loaded.tokenizer(PROMPT)["input_ids"])
    check_protocol(protocol, loaded.model, device, n_prompt)
