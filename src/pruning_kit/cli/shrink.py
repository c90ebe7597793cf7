"""The command `shrink`."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pruning_kit.bounds import BUDGETS, Range, Setting
from pruning_kit.cli import options as opt
from pruning_kit.cli.console import notes, out
from pruning_kit.cli.endings import resumable
from pruning_kit.cli.invocation import refuse_several
from pruning_kit.cli.outputs import Outputs, Saving, print_checks, title_of
from pruning_kit.cli.request import in_options, refuse_untimed_limit
from pruning_kit.errors import PlanError
from pruning_kit.inputs.hub_text import HubText
from pruning_kit.plans.costs import Cost
from pruning_kit.plans.distilled import count, is_trained
from pruning_kit.plans.plan import Plan
from pruning_kit.pruning.distillation.settings import DistillationSettings
from pruning_kit.search.best import TOKENS
from pruning_kit.sweeps.settings import SweepSettings, WorkbenchSettings
from pruning_kit.sweeps.targets import Target

if TYPE_CHECKING:
    from pathlib import Path

    from pruning_kit.runs.results import Run
    from pruning_kit.sweeps.courses import Course
    from pruning_kit.sweeps.shrink import Shrinker, Shrunk

MINUTES = 10.0


def _number(help: str, allowed: Range) -> Any:
    return opt.option(Setting(help, "", PlanError, allowed))


MaxParams = Annotated[
    float | None,
    _number("Millions of parameters that may stay, such as 6.", BUDGETS["--max-params"]),
]
MaxLatency = Annotated[
    float | None,
    _number(
        "Milliseconds end to end, such as 300, as the report has them.", BUDGETS["--max-latency"]
    ),
]
Size = Annotated[int | None, _number("Blocks to remove.", Range(1, 10_000))]
Ratio = Annotated[
    float | None,
    _number(
        "Share of the blocks to remove, such as 0.25. Default: a third.",
        Range(0, 1, strictly=True),
    ),
]
MaxPplIncrease = Annotated[
    float | None,
    _number(
        "Per cent of perplexity above the whole model's that bridged sets may cost on the text "
        "chosen on, such as 15.",
        BUDGETS["--max-ppl-increase"],
    ),
]
Minutes = Annotated[float, _number("Time for the whole command.", Range(0, 100_000, strictly=True))]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done and how long it takes.")
]


@opt.with_settings(WorkbenchSettings, HubText, DistillationSettings)
def shrink(
    ctx: typer.Context,
    out_folder: opt.OutFolder,
    max_params: MaxParams = None,
    max_latency: MaxLatency = None,
    size: Size = None,
    ratio: Ratio = None,
    max_ppl_increase: MaxPplIncrease = None,
    minutes: Minutes = MINUTES,
    dry_run: DryRun = False,
    speed: opt.Speed = True,
    output: opt.RunsFolder = None,
    resume: opt.Resume = False,
    save_dtype: opt.SaveDtype = None,
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
    refuse_several("shrink")
    limits = (opt.parameter_limit(max_params), max_latency, max_ppl_increase)
    target = _target(size, ratio, *limits, speed)
    outputs = Outputs(out_folder, save_dtype, gguf, push_to_hub, public)
    from pruning_kit.inputs.models import find_model
    from pruning_kit.sweeps.shrink import RECOVERY

    folder = outputs.runs_in(output)
    saving = outputs.check(find_model(typed["model"]), folder / RECOVERY if resume else None)
    settings = opt.sweep_settings(typed, output=folder, resume=resume, command=ctx.obj)
    shrinker = _shrinker(target, 60 * minutes, settings, speed, began)
    if dry_run:
        _show(shrinker.course(), minutes)
        return
    with resumable(f"What was done is in {folder}", ctx.obj):
        shrunk = shrinker.carry_out()
        _finish(ctx, shrunk, saving)
        shrinker.tidy()


def _target(
    size: int | None,
    ratio: float | None,
    max_params: int | None,
    max_latency: float | None,
    max_ppl_increase: float | None,
    speed: bool,
) -> Target:
    """How far to go.

    Raises:
        PlanError: if that is said twice, or by time where nothing is timed.
    """
    target = Target(
        size=size,
        ratio=ratio,
        max_params=max_params,
        max_latency=max_latency,
        max_ppl_increase=max_ppl_increase,
    )
    refuse_untimed_limit(max_latency, speed)
    return target


def _shrinker(
    target: Target, seconds: float, settings: SweepSettings, speed: bool, began: float
) -> Shrinker:
    from pruning_kit.cli.terminal import TerminalObserver
    from pruning_kit.sweeps.shrink import Shrinker

    chosen, observer = partial(choose, target=target), TerminalObserver(notes)
    return Shrinker(target, seconds, settings, speed, chosen, observer, began, time.monotonic)


def choose(run: Run, target: Target) -> Plan:
    """The set that costs least of those distilled to choose and the best bridged one.

    Some are distilled to choose only where all sets of their size keep to the target.

    Raises:
        PlanError: as `choose_bridged`.
    """
    from pruning_kit.sweeps.choosing import cheapest

    best = choose_bridged(run, target)
    judged = [variant for variant in run.judged_by(Cost.bridged) if variant.plan == best]
    return cheapest(run, [*judged, *filter(is_trained, run.variants)]).plan


def choose_bridged(run: Run, target: Target) -> Plan:
    """The best set of the size that was asked for, or the one that a limit allows.

    Raises:
        PlanError: if no measured set keeps to it, or the whole model does.
    """
    from pruning_kit.findings.analysis import analyse
    from pruning_kit.findings.budgets import Budget
    from pruning_kit.reporting.words.budget import budget_sentences
    from pruning_kit.sweeps.choosing import best_of

    if target.is_size:
        return best_of(run, max(plan.size for plan in run.plans))
    latency_s = None if target.max_latency is None else target.max_latency / 1e3
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
        f"Candidates: {in_options(course.searched)}, on at most {candidates.n_windows:,} windows "
        f"of the text chosen on; the result on {course.result_windows:,}."
    )
    if course.trials is None:
        out.say(
            "Distilled: the best by bridged cost alone. To try several, each would need "
            f"{count(TOKENS)} tokens within a quarter of the time for distilling."
        )
    out.say(f"All of it: {minutes:g} minutes. Nothing was written.")


def _finish(ctx: typer.Context, shrunk: Shrunk, saving: Saving) -> None:
    """Write the report, then the model, and say in six lines what came of it."""
    from pruning_kit.reporting.card import card_numbers
    from pruning_kit.reporting.words.shrunk import shrunk_lines
    from pruning_kit.sweeps.making import made_of

    run, bench, variant = shrunk.run, shrunk.bench, shrunk.variant
    report = _report(shrunk)
    numbers = card_numbers(run, variant, bench.loaded.weights_sha256)
    print_checks(saving.save(made_of(variant, bench), variant.plan, numbers, ctx.obj))
    saving.go_further(title_of(bench.loaded.source.name, variant))
    if shrunk.untrained is not None:
        out.say(f"Not distilled: the kit {opt.spell_settings(shrunk.untrained)}")
    out.line()
    for line in shrunk_lines(shrunk.searched, run, variant, saving.asked.folder, report):
        out.show_line(line)


def _report(shrunk: Shrunk) -> Path:
    """Write tables, pages and figures into the run folders; the page of the result."""
    from pruning_kit.findings.analysis import analyse
    from pruning_kit.reporting.figures import OF_EVERY_SWEEP, save_figures
    from pruning_kit.reporting.formats import Format, write_report
    from pruning_kit.runs.results import write_csv

    for run in (shrunk.searched, shrunk.run):
        analysis, report = analyse(run), run.folder / "report.html"
        write_csv(run, run.folder / "results.csv")
        write_report(run, report, Format.html, None, analysis)
    save_figures(run, analysis, run.folder, OF_EVERY_SWEEP)
    return report
