"""The commands `prune` and `verify`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pruning_kit.cli import options as opt
from pruning_kit.cli.console import notes, out
from pruning_kit.plans.plan import Plan

if TYPE_CHECKING:
    from pruning_kit.export.verification import Check


def prune(
    ctx: typer.Context,
    remove: Annotated[str, typer.Option(help="Blocks to remove, such as 1,3 or 7-9.")],
    out_folder: Annotated[
        Path, typer.Option("--out", help="The model folder to write; it must not exist yet.")
    ],
    model: opt.Model = None,
    run_folder: Annotated[
        Path | None,
        typer.Option("--run", help="Take the numbers for the model card from this sweep."),
    ] = None,
) -> None:
    """Cut blocks out of a model, verify the result, and save it as a Hugging Face folder.

    [bold]Example[/]

      pruning-kit prune --remove 1,3 --out ./pruned
    """
    plan = Plan.parse(remove, "--remove")
    from pruning_kit.export.huggingface import export
    from pruning_kit.inputs.models import find_model, load_model
    from pruning_kit.runs.results import load_run, measured_numbers

    run = load_run(run_folder) if run_folder else None
    source = find_model(model or (run.facts.model.name if run else None))
    if source.note:
        notes.say(f"{source.note}: pruning the demo model.", "Note:", "bold yellow")
    loaded = load_model(source)
    numbers = measured_numbers(run, plan, loaded.weights_sha256) if run else None
    checks = export(loaded, plan, out_folder, numbers, ctx.obj)
    _print_checks(checks)
    out.say(f"{source.name} without {plan.short} is saved in {out_folder}.")


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
