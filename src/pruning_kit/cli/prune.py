"""The commands `prune` and `verify`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pruning_kit.cli import options as opt
from pruning_kit.cli.console import notes, out
from pruning_kit.errors import RunError
from pruning_kit.plans.plan import Plan

if TYPE_CHECKING:
    from pruning_kit.export.verification import Check
    from pruning_kit.inputs.models import LoadedModel
    from pruning_kit.pruning.bridges.bridging import Bridges
    from pruning_kit.runs.results import Run


def prune(
    ctx: typer.Context,
    remove: Annotated[str, typer.Option(help="Blocks to remove, such as 1+3 or 7-9.")],
    out_folder: Annotated[
        Path, typer.Option("--out", help="The model folder to write; it must not exist yet.")
    ],
    model: opt.Model = None,
    run_folder: Annotated[
        Path | None,
        typer.Option("--run", help="Take the numbers for the model card from this sweep."),
    ] = None,
    bridge: Annotated[
        bool,
        typer.Option(
            "--bridge", help="Bridge the gaps: fold into the blocks before them what they lack."
        ),
    ] = False,
    calibrate_on: opt.CalibrateOn = None,
    device: opt.Device = "auto",
) -> None:
    """Cut blocks out of a model, verify the result, and save it as a Hugging Face folder.

    [bold]Examples[/]

      pruning-kit prune --remove 1+3 --out ./pruned
      pruning-kit prune --remove 1+3 --bridge --out ./pruned
    """
    plan = Plan.parse(remove, "--remove")
    if not bridge:
        opt.refuse_unbridged(ctx)
    from pruning_kit.export.huggingface import check_target, export
    from pruning_kit.inputs.models import find_model, load_model
    from pruning_kit.plans.variant import BRIDGED, Variant
    from pruning_kit.runs.results import load_run, measured_numbers

    run = load_run(run_folder) if run_folder else None
    check_target(out_folder)
    source = find_model(model or (run.facts.model.name if run else None))
    if source.note:
        notes.say(f"{source.note}: pruning the demo model.", "Note:", "bold yellow")
    if bridge:
        loaded, bridges = _bridged(plan, source.name, run, calibrate_on, device)
    else:
        loaded, bridges = load_model(source), None
    variant = Variant(plan, BRIDGED if bridge else None)
    numbers = measured_numbers(run, variant, loaded.weights_sha256) if run else None
    checks = export(loaded, plan, out_folder, numbers, ctx.obj, bridges)
    _print_checks(checks)
    with_bridges = f", {', '.join(map(str, bridges.fits))} bridged," if bridges else ""
    out.say(f"{source.name} without {plan.short}{with_bridges} is saved in {out_folder}.")


def _bridged(
    plan: Plan, model: str, run: Run | None, calibrate_on: str | None, device: str
) -> tuple[LoadedModel, Bridges]:
    """The model and the bridges of a plan, as the run has them if there is one.

    Raises:
        RunError: if the run has no bridges.
        CorpusError: if it has those of another text.
        PlanError: if there are none that help.
    """
    from pruning_kit.cli.terminal import TerminalObserver
    from pruning_kit.sweeps import refitting
    from pruning_kit.sweeps.building import find, prepare
    from pruning_kit.sweeps.settings import WorkbenchSettings

    stored = run.bridges if run else None
    if run and stored is None:
        raise RunError(
            f"cannot take the bridges of {run.folder}: it has none. Leave out --run, or --bridge."
        )
    like = refitting.settings_of_run(run.facts, stored) if run and stored else {}
    given = {"model": model, "device": device, "calibrate_on": calibrate_on}
    like |= {name: value for name, value in given.items() if value is not None}
    observer = TerminalObserver(notes)
    found = find(WorkbenchSettings(**like), observer, plan.check)
    if stored and found.texts.parts:
        refitting.refuse_other_text(stored.fitting, found.texts.parts.fitting)
    workbench = prepare(found, observer)
    bridges = refitting.bridges_of(plan, workbench)
    fitting = bridges.calibration.fitting
    if run and stored:
        strengths = {text: gap.strength for text, gap in stored.gaps.items()}
        for other in refitting.other_strengths(bridges, strengths):
            notes.say(
                f"{run.folder} bridged {other}: its numbers are not quite those of this folder.",
                "Note:",
                "bold yellow",
            )
    notes.say(f"Bridges were fitted on {fitting.corpus.title}, {len(fitting.ids):,} tokens.")
    return workbench.loaded, bridges


def verify(
    folder: Annotated[Path, typer.Argument(help="A model folder.", metavar="DIR")],
    device: opt.Device = "cpu",
) -> None:
    """Check a model folder: structure, weights, cache, generation, recipe.

    [bold]Example[/]

      pruning-kit verify ./pruned
    """
    from pruning_kit.export.verification import verify_folder
    from pruning_kit.machine.devices import choose_device

    checks = verify_folder(folder, choose_device(device))
    _print_checks(checks)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


def _print_checks(checks: Sequence[Check]) -> None:
    for check in checks:
        mark, style = ("passed", "green") if check.passed else ("FAILED", "bold red")
        out.say(f" {check.name}: {check.detail}", mark, style)
