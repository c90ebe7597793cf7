"""The command `shrink`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pruning_kit.bounds import BUDGETS, Range, Setting
from pruning_kit.cli import options as opt
from pruning_kit.cli.console import notes, out
from pruning_kit.cli.invocation import with_option
from pruning_kit.cli.outputs import Outputs
from pruning_kit.errors import PlanError
from pruning_kit.inputs.hub_text import HubText
from pruning_kit.plans.plan import Plan
from pruning_kit.printable import copyable
from pruning_kit.pruning.distillation.settings import DistillationSettings
from pruning_kit.sweeps.settings import SweepSettings, WorkbenchSettings
from pruning_kit.sweeps.targets import Target

if TYPE_CHECKING:
    from pruning_kit.runs.results import Run
    from pruning_kit.sweeps.courses import Course
    from pruning_kit.sweeps.shrink import Shrinker, Shrunk

MINUTES = 10.0


def _target(help: str, allowed: Range) -> Any:
    return opt.option(Setting(help, "", PlanError, allowed))


@opt.with_settings(WorkbenchSettings, HubText, DistillationSettings)
def shrink(
    ctx: typer.Context,
    out_folder: Annotated[
        Path, typer.Option("--out", help="The model folder to write; it must not exist yet.")
    ],
    max_params: Annotated[
        float | None,
        _target("Millions of parameters that may stay, such as 6.", BUDGETS["--max-params"]),
    ] = None,
    max_latency: Annotated[
        float | None,
        _target("Milliseconds per token, end to end, such as 2.5.", BUDGETS["--max-latency"]),
    ] = None,
    size: Annotated[int | None, _target("Blocks to remove.", Range(1, 10_000))] = None,
    ratio: Annotated[
        float | None,
        _target(
            "Share of the blocks to remove, such as 0.25. Default: a third.",
            Range(0, 1, strictly=True),
        ),
    ] = None,
    max_ppl_increase: Annotated[
        float | None,
        _target(
            "Per cent of perplexity above the whole model's that bridged sets may cost on the text "
            "chosen on, such as 15.",
            BUDGETS["--max-ppl-increase"],
        ),
    ] = None,
    minutes: Annotated[
        float,
        opt.option(
            Setting("Time for the whole command.", "", PlanError, Range(0, 100_000, strictly=True))
        ),
    ] = MINUTES,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and how long it takes.")
    ] = False,
    speed: opt.Speed = True,
    output: Annotated[
        Path | None,
        typer.Option(help="The folder of the runs. Default: DIR-run, beside the model folder."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped command.")] = False,
    save_dtype: Annotated[
        str | None,
        typer.Option(
            help="Number format of the saved weights; by default that of the base model's."
        ),
    ] = None,
    gguf: opt.Gguf = None,
    push_to_hub: opt.PushToHub = None,
    public: opt.Public = False,
    **typed: Any,
) -> None:
    """Make a smaller model: search, bridge, distil, verify, time and report, in so many minutes.

    [bold]Examples[/]

      python main.py shrink --model demo --max-params 6 --minutes 4 --out ./smaller
      pruning-kit shrink --model HuggingFaceTB/SmolLM2-135M --ratio 0.2 --minutes 30 --out ./smaller
      pruning-kit shrink --model gpt2 --max-ppl-increase 15 --dry-run --out ./smaller
    """
    began = time.monotonic()
    target = Target(
        size=size,
        ratio=ratio,
        max_params=opt.parameter_limit(max_params),
        max_latency=max_latency,
        max_ppl_increase=max_ppl_increase,
    )
    if max_latency and not speed:
        raise PlanError(
            f"cannot use --max-latency {max_latency:g} with --no-speed: nothing is timed then. "
            "Leave one out."
        )
    from pruning_kit.inputs.models import find_model
    from pruning_kit.runs.opening import check_place

    outputs = Outputs(out_folder, save_dtype, gguf, push_to_hub, public)
    repository = outputs.refuse_early(find_model(typed["model"]))
    folder = output or Path(f"{out_folder}-run")
    check_place(folder)
    settings = opt.settings_from(
        SweepSettings,
        typed,
        hub_text=opt.settings_from(HubText, typed),
        distillation=opt.settings_from(DistillationSettings, typed),
        output=folder,
        resume=resume,
        command=ctx.obj,
    )
    shrinker = _shrinker(target, 60 * minutes, settings, speed, began)
    if dry_run:
        _show(shrinker.course(), minutes)
        return
    try:
        shrunk = shrinker.carry_out()
    except KeyboardInterrupt:
        again = copyable(with_option(ctx.obj, "--resume"))
        notes.show_line(f"Stopped. What was done is in {folder}; go on with: {again}")
        raise typer.Exit(130) from None
    _finish(ctx, shrunk, outputs, repository)


def _shrinker(
    target: Target, seconds: float, settings: SweepSettings, speed: bool, began: float
) -> Shrinker:
    from pruning_kit.cli.terminal import TerminalObserver
    from pruning_kit.sweeps.shrink import Shrinker

    def choose(run: Run) -> Plan:
        return choose_within(run, target)

    observer = TerminalObserver(notes)
    return Shrinker(target, seconds, settings, speed, choose, observer, began, time.monotonic)


def choose_within(run: Run, target: Target) -> Plan:
    """The best set of the size that was asked for, or the one that a limit allows.

    Raises:
        PlanError: if no measured set keeps to it, or the whole model does.
    """
    from pruning_kit.findings.analysis import analyse
    from pruning_kit.findings.budgets import Budget
    from pruning_kit.reporting.words.budget import budget_sentences
    from pruning_kit.sweeps.recover import best_of

    if target.is_size:
        return best_of(run, max(plan.size for plan in run.plans))
    latency_s = None
    if target.max_latency is not None and run.timings is not None:
        whole = run.timings.summary(Plan())
        n_tokens = whole.end_to_end_tokens_per_s * whole.end_to_end_s.median_s
        latency_s = target.max_latency * n_tokens / 1e3
    analysis = analyse(run)
    budget = Budget(latency_s, target.max_params, target.max_ppl_increase)
    choice = analysis.choose(budget)
    if choice.row is None or choice.row.plan == Plan():
        found = " ".join(budget_sentences(analysis, choice)).rstrip(".")
        raise PlanError(
            f"cannot shrink by what was measured in {run.folder}: {found[0].lower()}{found[1:]}. "
            "Give another limit, or a --size."
        )
    return choice.row.plan


def _show(course: Course, minutes: float) -> None:
    """What would be done."""
    from pruning_kit.reporting.words.numbers import duration

    for number, stage in enumerate(course.stages, 1):
        out.say(f"{number}. {stage.what}: about {duration(stage.seconds)} (alone: {stage.alone})")
    candidates = course.candidates
    out.say(
        f"Candidates: --try {candidates.text}, on at most {candidates.n_windows:,} windows of each "
        f"text; the result on {course.result_windows:,}."
    )
    out.say(f"All of it: {minutes:g} minutes. Nothing was written.")


def _finish(ctx: typer.Context, shrunk: Shrunk, outputs: Outputs, repository: str | None) -> None:
    """Write the report, then the model, and say in six lines what came of it."""
    from pruning_kit.cli.prune import print_checks
    from pruning_kit.export.huggingface import export
    from pruning_kit.findings.analysis import analyse
    from pruning_kit.reporting.figures import OF_EVERY_SWEEP, save_figures
    from pruning_kit.reporting.formats import Format, write_report
    from pruning_kit.reporting.words.shrunk import shrunk_lines
    from pruning_kit.runs.results import measured_numbers, write_csv
    from pruning_kit.sweeps.making import made_of

    run, bench, variant = shrunk.run, shrunk.bench, shrunk.variant
    report = run.folder / "report.html"
    for found in (shrunk.searched, run):
        analysis = analyse(found)
        write_csv(found, found.folder / "results.csv")
        write_report(found, found.folder / report.name, Format.html, None, analysis)
    save_figures(run, analysis, run.folder, OF_EVERY_SWEEP)
    outputs.say_format(bench.loaded)
    numbers = measured_numbers(run, variant, bench.loaded.weights_sha256)
    made = made_of(variant, bench)
    folder, title = outputs.folder, f"{bench.loaded.source.name} without {variant.plan.short}"
    checks = export(
        made.loaded,
        variant.plan,
        folder,
        numbers,
        ctx.obj,
        made.bridges,
        made.recovered,
        outputs.dtype,
    )
    print_checks(checks)
    outputs.go_further(title, repository)
    if shrunk.untrained is not None:
        out.say(f"Not distilled: the kit {opt.spell_settings(shrunk.untrained)}")
    out.line()
    for line in shrunk_lines(shrunk.searched, run, variant, folder, report):
        out.show_line(line)
