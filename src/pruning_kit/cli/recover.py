"""The command `recover`."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pruning_kit.bounds import Range, Setting
from pruning_kit.cli import options as opt
from pruning_kit.cli.console import notes, out
from pruning_kit.cli.endings import resumable
from pruning_kit.cli.outputs import Outputs, Saving, print_checks, title_of
from pruning_kit.errors import PlanError
from pruning_kit.inputs.hub_text import HubText
from pruning_kit.machine import disk
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import BRIDGED, Variant
from pruning_kit.printable import quoted
from pruning_kit.pruning.distillation.settings import TRAINING, DistillationSettings
from pruning_kit.sweeps.settings import WorkbenchSettings

if TYPE_CHECKING:
    from pruning_kit.runs.results import Run
    from pruning_kit.sweeps.recover import Recovering
    from pruning_kit.sweeps.workbench import Workbench

MINUTES = 5.0
FULL, LORA = "full", "lora"


def _training(help: str, error: type[PlanError] = PlanError, allowed: Range | None = None) -> Any:
    return opt.option(Setting(help, TRAINING, error, allowed))


Remove = Annotated[str | None, typer.Option(help="Blocks to remove, such as 1+3 or 7-9.")]
FromRun = Annotated[
    Path | None,
    typer.Option(
        "--run", help="Take model and plan from this sweep: the best of --size when bridged."
    ),
]
Size = Annotated[
    int | None,
    opt.option(
        Setting("Blocks to remove, with --run. Default: 1.", "", PlanError, Range(1, 10_000))
    ),
]
Tokens = Annotated[str | None, _training("Tokens to learn from, such as 500k or 8M.")]
Minutes = Annotated[
    float | None,
    _training(
        f"Time for the whole command, measuring and saving included. Default: {MINUTES:g}, "
        "where no tokens are named.",
        allowed=Range(0, 100_000, strictly=True),
    ),
]
UntilPpl = Annotated[
    float | None,
    _training(
        "Stop at this perplexity of unseen calibration text: trainings of twice the length "
        "each, up to --tokens or --minutes.",
        allowed=Range(1, 10**9, strictly=True),
    ),
]
HowTrained = Annotated[
    Literal["full", "lora"],
    _training("full: all weights; lora: low-rank adapters, merged at the end."),
]
KeepText = Annotated[Path | None, _training("Keep what the whole model wrote in this file.")]


@opt.with_settings(WorkbenchSettings, HubText, DistillationSettings)
def recover(
    ctx: typer.Context,
    out_folder: opt.OutFolder,
    remove: Remove = None,
    run_folder: FromRun = None,
    size: Size = None,
    tokens: Tokens = None,
    minutes: Minutes = None,
    until_ppl: UntilPpl = None,
    method: HowTrained = "full",
    keep_text: KeepText = None,
    output: opt.RunsFolder = None,
    resume: opt.Resume = False,
    save_dtype: opt.SaveDtype = None,
    gguf: opt.Gguf = None,
    push_to_hub: opt.PushToHub = None,
    public: opt.Public = False,
    **typed: Any,
) -> None:
    """Cut blocks out of a model, bridge the gaps, and train back what was lost.

    [bold]Examples[/]

      python main.py recover --model demo --remove 1+4 --out ./smaller
      pruning-kit recover --run results/RUN --size 2 --tokens 8M --out ./smaller
      torchrun --nproc-per-node 2 -m pruning_kit recover --remove 1+4 --tokens 32M --out ./smaller
    """
    began = time.monotonic()
    _refuse_two_lengths(tokens, minutes)
    outputs = Outputs(out_folder, save_dtype, gguf, push_to_hub, public)
    plan, like = _asked(remove, run_folder, size)
    typed |= {name: value for name, value in like.items() if typed[name] is None}
    from pruning_kit.inputs.models import find_model

    folder = outputs.runs_in(output)
    saving = outputs.check(find_model(typed["model"]), folder if resume else None)
    settings = opt.sweep_settings(typed, output=folder, resume=resume, command=ctx.obj)
    from pruning_kit.cli.terminal import TerminalObserver
    from pruning_kit.runs.ranks import current_ranks
    from pruning_kit.sweeps.observer import SilentObserver
    from pruning_kit.sweeps.recover import Goal, Recovering, check_kept_text

    if keep_text is not None:
        check_kept_text(keep_text, settings.distillation)
    goal = Goal.parse(tokens, minutes or (None if tokens else MINUTES), until_ppl, method == LORA)
    ranks = current_ranks()
    observer = TerminalObserver(notes) if ranks.leads else SilentObserver()
    recovering = Recovering(plan, goal, settings, observer, ranks, began, time.monotonic)
    with resumable(f"What was learnt is in {folder}", ctx.obj, ranks.leads):
        found = recovering.carry_out()
        if ranks.leads:
            _finish(ctx, recovering, *found, saving, keep_text)


def _refuse_two_lengths(tokens: str | None, minutes: float | None) -> None:
    """Refuse to be told twice how long.

    Raises:
        PlanError: naming both.
    """
    if tokens and minutes:
        raise PlanError(
            f"cannot use both --tokens {tokens} and --minutes {minutes:g}: each says how long. "
            "Give one."
        )


def _asked(
    remove: str | None, run_folder: Path | None, size: int | None
) -> tuple[Plan, dict[str, Any]]:
    """What is removed, and the settings of the run that it is taken from.

    Raises:
        PlanError: if nothing says what, or two things do.
        RunError: if there is no such run.
    """
    if size and (remove or run_folder is None):
        raise PlanError(
            f"cannot use --size {size} here: it chooses among the plans of --run, where --remove "
            "names none. Leave it out."
        )
    plan = None if remove is None else Plan.parse(remove, "--remove")
    if run_folder is not None:
        from pruning_kit.runs.results import load_run
        from pruning_kit.sweeps.choosing import best_of
        from pruning_kit.sweeps.making import settings_of_run

        run = load_run(run_folder)
        like = {"model": run.facts.model.name, **settings_of_run(run.facts, run.bridges)}
        return plan or best_of(run, size or 1), like
    if plan is None:
        raise PlanError(
            "cannot recover without a plan: nothing says what to remove. Name blocks with "
            "--remove, or a sweep with --run."
        )
    return plan, {}


def _finish(
    ctx: typer.Context,
    recovering: Recovering,
    run: Run,
    bench: Workbench,
    variant: Variant,
    saving: Saving,
    keep_text: Path | None,
) -> None:
    """Save the model, write results and figures, and print what was won."""
    from pruning_kit.cli.terminal import describe_run, sweep_table
    from pruning_kit.findings.analysis import analyse
    from pruning_kit.reporting.card import card_numbers
    from pruning_kit.reporting.figures import OF_EVERY_SWEEP, save_figures
    from pruning_kit.reporting.formats import rich_table
    from pruning_kit.reporting.recovered import recovered_table
    from pruning_kit.reporting.words.recovered import won_sentences
    from pruning_kit.runs.results import write_csv
    from pruning_kit.sweeps.making import made_of
    from pruning_kit.sweeps.recover import written_text

    analysis = analyse(run)  # the folder comes last: what is killed before can be gone on with
    write_csv(run, run.folder / "results.csv")
    figures = save_figures(run, analysis, run.folder, OF_EVERY_SWEEP)
    if keep_text is not None:
        assert recovering.trained is not None
        _keep_text(written_text(bench, recovering.trained), keep_text)
    numbers = card_numbers(run, variant, bench.loaded.weights_sha256)
    checks = saving.save(made_of(variant, bench), variant.plan, numbers, ctx.obj)
    for line in describe_run(run):
        out.say(line)
    out.line()
    table = recovered_table(analysis) or sweep_table(run, analysis, None, saved=True)
    out.show(rich_table(table))
    out.line()
    for sentence in won_sentences(analysis):
        out.say(sentence)
    print_checks(checks)
    out.say(_what_training_did(recovering, bench, variant))
    title = title_of(bench.loaded.source.name, variant)
    out.say(f"{title}{',' * bool(variant.recovery)} is saved in {saving.asked.folder}")
    saving.go_further(title)
    drawn = [path.name for path in figures if path.suffix == ".png"]
    out.say(f"The run is saved in {run.folder}: {', '.join(['results.csv', 'run.json', *drawn])}")
    program = str(ctx.find_root().info_name)
    out.show_line(f"Next: {program} report {quoted(str(run.folder))} --format html")


def _keep_text(text: str, path: Path) -> None:
    disk.remove_left_overs(path.parent, path.name)
    if text:
        disk.write_file(path, text)
        return
    notes.say(
        f"There is no {path}: the whole model wrote nothing, since the text at hand is longer "
        "than what was read. Ask for --text self."
    )


def _what_training_did(recovering: Recovering, bench: Workbench, variant: Variant) -> str:
    """Told by the text that nothing was fitted on."""
    if recovering.refused is not None:
        what = "bridged" if variant.recovery == BRIDGED else "as cut"
        return f"The model {what} is kept: the kit {opt.spell_settings(recovering.refused)}"
    made = bench.shelf[variant]
    start, best = made.curve[0], min(made.curve, key=lambda point: point.nats)
    said = (
        f"Perplexity of unseen calibration text: {math.exp(start.nats):.2f} at the start, "
        f"{math.exp(best.nats):.2f} after {best.tokens:,} tokens and {best.seconds:,.0f} seconds."
    )
    if made.details["diverged"]:
        said += f" Then it diverged: what it had after {best.tokens:,} tokens is kept."
    until = recovering.goal.nats
    if until is not None and best.nats > until:
        said += f" The {math.exp(until):g} that was asked for was not reached."
    return said
