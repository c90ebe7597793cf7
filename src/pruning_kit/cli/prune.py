"""The commands `prune` and `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pruning_kit.cli import options as opt
from pruning_kit.cli.console import notes, out
from pruning_kit.cli.invocation import refuse_several
from pruning_kit.cli.outputs import Outputs, print_checks
from pruning_kit.errors import PlanError, RunError
from pruning_kit.plans.distilled import is_trained
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import BRIDGED, MARK, REFITTED, Recovery, Variant

if TYPE_CHECKING:
    from pruning_kit.export.verification import Check
    from pruning_kit.inputs.models import ModelSource
    from pruning_kit.runs.results import Run
    from pruning_kit.sweeps.making import Made


Remove = Annotated[
    str,
    typer.Option(
        help="Blocks to remove, such as 1+3 or 7-9; or a variant of --run, such as "
        "1+3~distilled:2M."
    ),
]
FromRun = Annotated[
    Path | None,
    typer.Option(
        "--run",
        help="Take the numbers for the model card from this sweep, and what it has trained.",
    ),
]
Bridge = Annotated[
    bool,
    typer.Option(
        "--bridge", help="Bridge the gaps: fold into the blocks before them what they lack."
    ),
]
Refit = Annotated[
    bool,
    typer.Option(
        "--refit", help="Bridge the gaps, then fit anew what is behind them, if that helps."
    ),
]


def prune(
    ctx: typer.Context,
    remove: Remove,
    out_folder: opt.OutFolder,
    model: opt.Model = None,
    run_folder: FromRun = None,
    bridge: Bridge = False,
    refit: Refit = False,
    calibrate_on: opt.CalibrateOn = None,
    device: opt.Device = "auto",
    dtype: opt.SavedFormat = None,
    gguf: opt.Gguf = None,
    push_to_hub: opt.PushToHub = None,
    public: opt.Public = False,
) -> None:
    """Cut blocks out of a model, verify the result, and save it as a Hugging Face folder.

    [bold]Examples[/]

      pruning-kit prune --remove 1+3 --out ./pruned
      pruning-kit prune --remove 1+3 --bridge --out ./pruned
      pruning-kit prune --remove 1+3 --refit --out ./pruned
      pruning-kit prune --remove 1+3 --gguf q8_0 --out ./pruned
    """
    refuse_several("prune")
    variant = _asked(remove, bridge, refit)
    if variant.recovery is None:
        opt.refuse_unbridged(ctx)
    from pruning_kit.inputs.models import find_model
    from pruning_kit.reporting.card import card_numbers

    run = _run_with(variant, run_folder)
    source = find_model(model or (run.facts.model.name if run else None))
    saving = Outputs(out_folder, dtype, gguf, push_to_hub, public).check(source)
    if source.note:
        notes.say(f"{source.note}: pruning the demo model.", "Note:", "bold yellow")
    made = _made(variant, source, run, calibrate_on, device)
    numbers = card_numbers(run, variant, made.loaded.weights_sha256) if run else None
    print_checks(saving.save(made, variant.plan, numbers, ctx.obj))
    how = [f"{', '.join(map(str, made.bridges.fits))} bridged"] if made.bridges else []
    how += [str(variant.recovery)] if made.recovered else []
    title = ", ".join([f"{source.name} without {variant.plan.short}", *how])
    out.say(f"{title}{',' * bool(how)} is saved in {out_folder}.")
    saving.go_further(title)


def _run_with(variant: Variant, folder: Path | None) -> Run | None:
    """The run that was named, if it measured what is recovered; None where none was.

    Raises:
        PlanError: if there is none and only a run has the variant.
        RunError: if it did not measure the variant.
    """
    from pruning_kit.runs.results import load_run, measured_numbers

    if folder is None:
        if is_trained(variant):
            raise PlanError(
                f"cannot prune by {variant} alone: it is trained, which takes long. Give a run "
                "that has it with --run, or train it with the command recover."
            )
        return None
    run = load_run(folder)
    if variant.recovery is not None:  # refused before what takes long
        measured_numbers(run, variant, run.facts.model.weights_sha256)
    return run


def _asked(remove: str, bridge: bool, refit: bool) -> Variant:
    """The blocks that were named, and how what they cost is recovered.

    Raises:
        PlanError: if they cannot be read, or two ways are named.
    """
    plan, mark, recovery = remove.partition(MARK)
    if mark and (bridge or refit):
        raise PlanError(
            f"cannot use --bridge or --refit with --remove {remove}: both say how what is lost is "
            "recovered. Give one."
        )
    how = REFITTED if refit else BRIDGED if bridge else None
    return Variant(Plan.parse(plan, "--remove"), Recovery.parse(recovery) if mark else how)


def _made(
    variant: Variant, source: ModelSource, run: Run | None, calibrate_on: str | None, device: str
) -> Made:
    """The model and what a variant is made of, as the run has it if there is one.

    Raises:
        RunError, CorpusError, PlanError: as `_bridged`, or if the run's weights are gone.
    """
    from pruning_kit.cli.terminal import TerminalObserver
    from pruning_kit.inputs.models import load_model
    from pruning_kit.sweeps import making

    if variant.recovery is None:
        return making.Made(load_model(source), None, None)
    given = _given(source.name, calibrate_on, device)
    if run and is_trained(variant):
        like = making.settings_of_run(run.facts, run.bridges) | given
        return making.take_from(run.folder, variant, like, TerminalObserver(notes))
    return _bridged(variant, run, given)


def _bridged(variant: Variant, run: Run | None, given: dict[str, str]) -> Made:
    """A variant that begins with bridges, made again; what differs from the run is said.

    Raises:
        RunError: if the run has no bridges.
        CorpusError: if it has those of another text.
        PlanError: if there are none that help.
    """
    from pruning_kit.cli.terminal import TerminalObserver
    from pruning_kit.sweeps import making

    stored = run.bridges if run else None
    if run and stored is None:
        raise RunError(
            f"cannot take the bridges of {run.folder}: it has none. Leave out --run, or --bridge."
        )
    like = (making.settings_of_run(run.facts, stored) if run and stored else {}) | given
    fitted = stored.fitting if stored else None
    made = making.make_again(variant, like, fitted, TerminalObserver(notes))
    assert made.bridges is not None, "it begins with them"
    fitting = made.bridges.calibration.fitting
    if run and stored:
        strengths = {text: gap.strength for text, gap in stored.gaps.items()}
        for other in making.other_strengths(made.bridges, strengths):
            notes.say(
                f"{run.folder} bridged {other}: its numbers are not quite those of this folder.",
                "Note:",
                "bold yellow",
            )
    facts = run.recovered.get(variant) if run else None
    if facts and made.recovered and facts.sha256 != made.recovered.sha256:
        notes.say(
            f"{run.folder if run else ''} has other weights for {variant}: its numbers are not "
            "quite those of this folder.",
            "Note:",
            "bold yellow",
        )
    notes.say(f"Bridges were fitted on {fitting.corpus.title}, {len(fitting.ids):,} tokens.")
    return made


def _given(model: str, calibrate_on: str | None, device: str) -> dict[str, str]:
    """The settings that were typed."""
    given = {"model": model, "calibrate_on": calibrate_on, "device": device}
    return {name: value for name, value in given.items() if value is not None}


def verify(
    folder: Annotated[Path, typer.Argument(help="A model folder.", metavar="DIR")],
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="Make the model again from this one, fit its bridges again, and compare all "
            "weights.",
        ),
    ] = None,
    calibrate_on: opt.CalibrateOn = None,
    device: opt.Device = "cpu",
) -> None:
    """Check a model folder: structure, weights, cache, generation, recipe.

    [bold]Examples[/]

      pruning-kit verify ./pruned
      pruning-kit verify ./pruned --base demo
    """
    if calibrate_on and base is None:
        raise PlanError(
            "cannot use --calibrate-on without --base: it says how bridges are fitted again. Give "
            "both, or neither."
        )
    from pruning_kit.export.verification import verify_folder
    from pruning_kit.machine.devices import choose_device

    checks = verify_folder(folder, choose_device(device))
    if base is not None and all(check.passed for check in checks):
        checks += _repeated(folder, base, calibrate_on, device)
    print_checks(checks)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)


def _repeated(folder: Path, base: str, calibrate_on: str | None, device: str) -> list[Check]:
    """What making the folder again from its base tells."""
    from pruning_kit.cli.terminal import TerminalObserver
    from pruning_kit.export.recipe import read_recipe
    from pruning_kit.export.repetition import check_base, repeat
    from pruning_kit.inputs.models import find_model, load_model
    from pruning_kit.sweeps import making

    recipe = read_recipe(folder)
    loaded, bridges, recovered = load_model(find_model(base)), None, None
    is_base = check_base(recipe, loaded)
    variant = recipe.repeatable
    if is_base.passed and recipe.bridges is not None and variant is not None:
        like = making.settings_of_recipe(recipe.bridges) | _given(base, calibrate_on, device)
        fitted, observer = recipe.bridges.fitting, TerminalObserver(notes)
        loaded, bridges, recovered = making.make_again(variant, like, fitted, observer)
    return [is_base, *(repeat(folder, loaded, bridges, recovered) if is_base.passed else ())]
