"""The command line: each verb parses, calls the library and prints.

Exit codes: 0 done, 1 a check failed or nobody reads the output, 2 an input that cannot be used or
an output that takes nothing, 3 some plans failed, 70 a mistake of the kit's own, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pruning_kit.cli import interrupts
from pruning_kit.cli import options as opt
from pruning_kit.cli.console import notes, out, replace_what_is_lacking, say_what_is_lost
from pruning_kit.cli.endings import explain
from pruning_kit.cli.invocation import check_start, command_of, with_option
from pruning_kit.errors import RunError
from pruning_kit.plans.plan import Plan
from pruning_kit.printable import copyable, printable, quoted
from pruning_kit.search.choice import MAX_PLANS, Mode

if TYPE_CHECKING:
    from pruning_kit.export.verification import Check
    from pruning_kit.findings.analysis import Analysis
    from pruning_kit.runs.results import Run
    from pruning_kit.sweeps.sweep import Sweep

app = typer.Typer(
    name="pruning-kit",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
DEBUG = "--debug"
EPILOG = f"With {DEBUG} anywhere, an error shows its traceback."
VERBS = ("sweep", "prune", "verify", "report", "compare")


RunArgument = Annotated[Path, typer.Argument(help="Folder that a sweep wrote.", metavar="RUN")]


def main(
    argv: Sequence[str] | None = None,
    default_verb: str | None = None,
    program: str = "pruning-kit",
) -> int:
    """Run the command line and return its exit code.

    `default_verb` stands in where the first word is an option, as in the historic interface.
    """
    replace_what_is_lacking((sys.stdout, sys.stderr))
    typed = list(sys.argv[1:] if argv is None else argv)
    words = [word for word in typed if word != DEBUG]
    try:
        _run(words, default_verb, program)
        code = 0
    except BaseException as error:
        code = explain(error, debug=DEBUG in typed)
    return (say_what_is_lost() and 1) or code


def _run(words: list[str], default_verb: str | None, program: str) -> None:
    interrupts.raise_again()
    check_start(words)
    command = command_of(program, words)
    if default_verb and not (words and words[0] in VERBS):
        words = [default_verb, *words]
    words = words or ["--help"]
    parser = typer.main.get_command(app)
    with parser.make_context(printable(program), words, obj=command) as context:
        parser.invoke(context)


@app.callback(epilog=EPILOG)
def kit() -> None:
    """Remove transformer blocks from a language model and see what each choice costs and wins."""


@app.command(epilog=EPILOG)
def sweep(
    ctx: typer.Context,
    mode: opt.Mode = None,
    plans: opt.Plans = None,
    strategies: opt.Strategies = None,
    sizes: opt.Sizes = None,
    ratios: opt.Ratios = None,
    max_removed: opt.MaxRemoved = None,
    max_plans: opt.MaxPlans = MAX_PLANS,
    seed: opt.Seed = 0,
    model: opt.Model = None,
    dataset: opt.Dataset = None,
    dataset_config: opt.DatasetConfig = None,
    dataset_split: opt.DatasetSplit = "test",
    text_column: opt.TextColumn = "text",
    select_on: opt.SelectOn = None,
    context: opt.Context = None,
    stride: opt.Stride = None,
    max_windows: opt.MaxWindows = None,
    bos: opt.Bos = None,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    attention: opt.Attention = None,
    batch_size: opt.BatchSize = None,
    threads: opt.Threads = None,
    speed: opt.Speed = True,
    latency_budget: opt.LatencyBudget = 25.0,
    latency_target: opt.LatencyTarget = 0.02,
    prompt_tokens: opt.PromptTokens = 128,
    new_tokens: opt.NewTokens = 16,
    batch: opt.Batch = 1,
    batch_sweep: opt.BatchSweep = None,
    per_plan: opt.PerPlan = False,
    compiled: opt.Compiled = False,
    cuda_graphs: opt.CudaGraphs = False,
    save_results: opt.SaveResults = False,
    samples: opt.Samples = False,
    output: opt.Output = None,
    resume: opt.Resume = False,
) -> None:
    """Measure perplexity, speed and parameters of many pruned models at once.

    [bold]Examples[/]

      python main.py --mode baseline
      python main.py --mode sequential --save_results
      python main.py --mode combinatorial --max-windows 64
      pruning-kit sweep --mode combinatorial --sizes 2,3 --model gpt2
      pruning-kit sweep --plans 1+3 --plans 2+4 --model demo
      pruning-kit sweep --strategies first,last,alternate --ratios 0.25,0.5
    """
    choice = opt.plan_choice(mode, plans, strategies, sizes, ratios, max_removed, max_plans, seed)
    opt.refuse_absurd(ctx)
    opt.refuse_untimed(speed, batch_sweep, per_plan, compiled, cuda_graphs)
    batches = opt.batch_sizes(batch_sweep)
    from pruning_kit.runs.opening import check_place, place_for
    from pruning_kit.runs.ranks import current_ranks

    check_place(output or place_for(save_results))
    ranks = current_ranks()
    from pruning_kit.cli.terminal import TerminalObserver
    from pruning_kit.inputs.corpora import HubText
    from pruning_kit.speed.workload import LatencyProtocol, choose_mode
    from pruning_kit.sweeps.observer import SilentObserver
    from pruning_kit.sweeps.settings import SweepSettings
    from pruning_kit.sweeps.sweep import Sweep

    protocol = LatencyProtocol(
        prompt_tokens=prompt_tokens,
        batch_size=batch,
        batches=batches,
        new_tokens=new_tokens,
        target=latency_target,
        budget_s=latency_budget,
        mode=choose_mode(compiled, cuda_graphs),
        per_plan=per_plan,
        threads=threads,
    )
    settings = SweepSettings(
        choice=choice,
        model=model,
        dataset=dataset,
        hub_text=HubText(dataset_config, dataset_split, text_column),
        select_on=select_on,
        context=context,
        stride=stride,
        max_windows=max_windows,
        bos=bos,
        device=device,
        dtype=dtype,
        attention=attention,
        batch_size=batch_size,
        threads=threads,
        timing=protocol if speed else None,
        samples=samples,
        output=output,
        resume=resume,
        save_results=save_results,
        command=ctx.obj,
    )
    observer = TerminalObserver(notes) if ranks.leads else SilentObserver()
    prepared = Sweep(settings, observer, ranks)
    _carry_out(prepared, ctx.obj)
    if ranks.leads:
        _finish(ctx, prepared.run.folder, mode, save_results)


def _carry_out(prepared: Sweep, command: str) -> None:
    """Do the work; Ctrl-C ends it in one line that says how to go on."""
    try:
        prepared.measure()
        prepared.time()
        prepared.sample()
    except KeyboardInterrupt:
        again = copyable(with_option(command, "--resume"))
        if prepared.ranks.leads:
            notes.show_line(
                f"Stopped. What was measured is in {prepared.run.folder}; go on with: {again}"
            )
        raise typer.Exit(130) from None


def _finish(ctx: typer.Context, folder: Path, mode: Mode | None, save_results: bool) -> None:
    """Write what was asked for, then print the table and its conclusions."""
    from pruning_kit.cli.terminal import describe_run, sweep_table
    from pruning_kit.findings.analysis import analyse
    from pruning_kit.reporting.words.doubts import warnings
    from pruning_kit.reporting.words.sections import summary_sentences
    from pruning_kit.runs.results import load_run, write_csv

    run = load_run(folder)
    analysis = analyse(run)
    written = ["results.csv", "run.json"]
    if save_results:  # before anything is printed, since the terminal may be gone
        from pruning_kit.reporting.figures import save_figures

        write_csv(run, folder / "results.csv")
        figures = save_figures(run, analysis, folder)
        written += [path.name for path in figures if path.suffix == ".png"]
    for line in describe_run(run):
        out.say(line)
    out.show(sweep_table(run, analysis, mode, save_results))
    for sentence in summary_sentences(analysis):
        out.say(sentence)
    if run.timings_note is not None:
        notes.say(run.timings_note, "Note:", "bold yellow")
    if run.timings is not None:
        for sentence in warnings(run.timings):
            notes.say(sentence, "Speed is doubtful:", "yellow")
    if save_results:
        out.line()
        out.say(f"Saved in {folder}: {', '.join(written)}")
    else:
        again = with_option(with_option(ctx.obj, "--save_results"), "--resume")
        out.line()
        out.show_line(
            f"The sums are in {folder}. For CSV and figures, without measuring again: "
            f"{copyable(again)}"
        )
    program = str(ctx.find_root().info_name)
    out.show_line(f"Next: {_next_step(program, folder, analysis)}")
    _exit_if_failed(run)


def _next_step(program: str, folder: Path, analysis: Analysis) -> str:
    """What to do with a finished run."""
    if len(analysis.rows) == 1 and analysis.n_blocks > 1:
        return "--mode sequential, which removes each block alone."
    return f"{program} report {quoted(str(folder))} --format html"


def _exit_if_failed(run: Run) -> None:
    failed = [row for split in run.splits for row in run.rows(split) if row["status"] == "failed"]
    if failed:
        named = "; ".join(f"{row['removed']} ({row['note']})" for row in failed[:5])
        notes.say(f"{named}.", f"{len(failed)} rows failed:", "bold red")
        raise typer.Exit(3)


@app.command(epilog=EPILOG)
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
    source = find_model(model or (str(run.info["model"]["name"]) if run else None))
    if source.note:
        notes.say(f"{source.note}: pruning the demo model.", "Note:", "bold yellow")
    loaded = load_model(source)
    numbers = measured_numbers(run, plan, loaded.weights_sha256) if run else None
    checks = export(loaded, plan, out_folder, numbers, ctx.obj)
    _print_checks(checks)
    out.say(f"{source.name} without {plan.short} is saved in {out_folder}.")


@app.command(epilog=EPILOG)
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


@app.command(epilog=EPILOG)
def report(
    run_folder: RunArgument,
    form: Annotated[
        Literal["terminal", "md", "html"], typer.Option("--format", help="How to write it.")
    ] = "terminal",
    output: Annotated[
        Path | None,
        typer.Option(help="File for md and html. Default: report.md or report.html in RUN."),
    ] = None,
    figures: Annotated[
        bool, typer.Option("--figures", help="Also write every picture as PNG and SVG into RUN.")
    ] = False,
    max_latency: Annotated[
        float | None, typer.Option(help="Budget: milliseconds end to end, such as 300.")
    ] = None,
    max_params: Annotated[
        float | None, typer.Option(help="Budget: millions of parameters, such as 60.")
    ] = None,
    max_ppl_increase: Annotated[
        float | None,
        typer.Option(help="Budget: per cent of perplexity above the whole model's, such as 50."),
    ] = None,
) -> None:
    """Say what a stored run shows: blocks that matter, what to remove, how sure that is.

    [bold]Examples[/]

      pruning-kit report results/demo-combinatorial-20260101-120000
      pruning-kit report RUN --format html
      pruning-kit report RUN --max-ppl-increase 50
    """
    from pruning_kit.findings.analysis import analyse
    from pruning_kit.findings.budgets import Budget
    from pruning_kit.reporting.formats import terminal_report, write_report
    from pruning_kit.runs.results import load_run

    budget = Budget(
        max_latency_s=None if max_latency is None else max_latency / 1e3,
        max_params=opt.parameter_limit(max_params),
        max_ppl_increase_pct=max_ppl_increase,
    )
    budget.check()
    asked = None if budget == Budget() else budget
    if output and form == "terminal":
        raise RunError(
            f"cannot write the report to {output}: --format terminal prints it. Add --format "
            "md or --format html."
        )
    run = load_run(run_folder)
    analysis = analyse(run)
    file = None if form == "terminal" else output or run_folder / f"report.{form}"
    if file:
        write_report(run, file, form, asked, analysis)
    if figures:
        from pruning_kit.reporting.figures import save_figures, save_pictures

        written = save_figures(run, analysis, run_folder)
        written += save_pictures(run, analysis, run_folder)
        out.say(f"{len(written)} figures are in {run_folder}.")
    if file:
        out.say(f"The report is in {file}.")
    else:
        out.show(terminal_report(run, analysis, asked))


@app.command(epilog=EPILOG)
def compare(
    first: RunArgument,
    second: Annotated[
        Path | None, typer.Argument(help="Another run; leave out with --published.", metavar="RUN2")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Against the published distilgpt2 table.")
    ] = False,
) -> None:
    """Lay two runs side by side, or a run of distilgpt2 beside the published table.

    [bold]Examples[/]

      pruning-kit compare RUN1 RUN2
      pruning-kit compare RUN --published
    """
    from pruning_kit.findings.comparison import compare_runs
    from pruning_kit.findings.published import compare_published
    from pruning_kit.reporting.comparison import comparison_document, published_document
    from pruning_kit.reporting.formats import renderable
    from pruning_kit.runs.results import load_run

    if second is None and not published:
        raise RunError(
            f"cannot compare {first}: there is nothing to compare it with. Give a second run, "
            "or --published."
        )
    if second is not None and published:
        raise RunError(
            f"cannot compare {first} with {second} and with the published table at once. "
            "Leave out --published or the second run."
        )
    run = load_run(first)
    document = (
        published_document(compare_published(run))
        if second is None
        else comparison_document(compare_runs(run, load_run(second)))
    )
    out.show(renderable(document))
