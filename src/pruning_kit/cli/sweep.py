"""The command `sweep`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from pruning_kit.cli import options as opt
from pruning_kit.cli.console import notes, out
from pruning_kit.cli.endings import resumable
from pruning_kit.cli.invocation import with_option
from pruning_kit.cli.request import Request, refuse_untimed_limit
from pruning_kit.errors import RunError, TooManyPlansError
from pruning_kit.inputs.hub_text import HubText
from pruning_kit.printable import copyable, quoted
from pruning_kit.search.together import MAX_PLANS
from pruning_kit.speed.protocol import LatencyProtocol
from pruning_kit.sweeps.settings import SweepSettings

if TYPE_CHECKING:
    from pathlib import Path

    from pruning_kit.findings.analysis import Analysis
    from pruning_kit.findings.budgets import Budget
    from pruning_kit.runs.results import Run


@opt.with_settings(SweepSettings, HubText, LatencyProtocol)
def sweep(
    ctx: typer.Context,
    mode: opt.Mode = None,
    tries: opt.Try = None,
    max_removed: opt.MaxRemoved = None,
    max_plans: opt.MaxPlans = MAX_PLANS,
    top: opt.Top = None,
    tokens: opt.Tokens = None,
    search_minutes: opt.SearchMinutes = None,
    max_params: opt.MaxParams = None,
    max_latency: opt.MaxLatency = None,
    speed: opt.Speed = True,
    compiled: opt.Compiled = False,
    cuda_graphs: opt.CudaGraphs = False,
    **typed: Any,
) -> None:
    """Measure perplexity, speed and parameters of many pruned models at once.

    [bold]Examples[/]

      python main.py --mode baseline
      python main.py --mode sequential --save_results
      python main.py --mode combinatorial --max-windows 64
      pruning-kit sweep --try pairs --try 1+3+5 --model gpt2
      pruning-kit sweep --try first,last:0.25 --try shapley:160
      pruning-kit sweep --try search:6 --search-minutes 20
      pruning-kit sweep --try search --max-params 60
    """
    words = tuple(word for text in tries or () for word in text.split())
    parameters = opt.parameter_limit(max_params)
    request = Request(
        mode,
        words,
        max_removed,
        max_plans,
        search_minutes,
        top,
        tokens,
        parameters,
        max_latency,
    )
    budget = _budget(parameters, max_latency, speed)
    proposer = request.proposer
    settings = _settings(ctx, typed, speed, opt.execution(compiled, cuda_graphs))
    from pruning_kit.runs.opening import check_place, place_for
    from pruning_kit.runs.ranks import current_ranks

    check_place(settings.output or place_for(settings.save_results))
    ranks = current_ranks()
    from pruning_kit.cli.terminal import TerminalObserver
    from pruning_kit.sweeps.observer import SilentObserver
    from pruning_kit.sweeps.sweep import carry_out, start

    observer = TerminalObserver(notes, request.narrower) if ranks.leads else SilentObserver()
    try:
        run, workbench = start(settings, proposer, observer, ranks)
    except TooManyPlansError as error:
        raise request.too_many(error) from None
    with resumable(f"What was measured is in {run.folder}", ctx.obj, ranks.leads):
        carry_out(run, proposer, workbench, settings, ranks)
    if ranks.leads:
        _finish(ctx, run.folder, proposer.mode, settings.save_results, budget)


def _budget(max_params: int | None, max_latency: float | None, speed: bool) -> Budget | None:
    """The limits on the model, as a report has them; None where there are none.

    Raises:
        RunError, PlanError: if one is none, or concerns time and nothing is timed.
    """
    if (max_params, max_latency) == (None, None):
        return None
    from pruning_kit.findings.budgets import Budget

    budget = Budget(None if max_latency is None else max_latency / 1e3, max_params)
    budget.check()
    refuse_untimed_limit(max_latency, speed)
    return budget


def _settings(
    ctx: typer.Context, typed: Mapping[str, Any], speed: bool, execution: str
) -> SweepSettings:
    """What a sweep is asked for by the options that were typed.

    Raises:
        TimingError: if it is asked for timings and for none, or for timings that cannot be.
    """
    if not speed:
        opt.refuse_untimed(ctx)
    return opt.sweep_settings(
        typed,
        timing=opt.settings_from(LatencyProtocol, typed, execution=execution) if speed else None,
        command=ctx.obj,
    )


def _finish(
    ctx: typer.Context, folder: Path, mode: str | None, save_results: bool, budget: Budget | None
) -> None:
    """Write what was asked for, then print the table and its conclusions."""
    from pruning_kit.cli.terminal import describe_run, sweep_table
    from pruning_kit.findings.analysis import analyse
    from pruning_kit.reporting.elsewhere import texts_table
    from pruning_kit.reporting.formats import rich_table
    from pruning_kit.reporting.rankings import rankings_table
    from pruning_kit.reporting.words.bridging import how_bridged
    from pruning_kit.reporting.words.doubts import warnings
    from pruning_kit.reporting.words.sections import summary_sentences
    from pruning_kit.runs.results import load_run, write_csv

    run = load_run(folder)
    analysis = analyse(run)
    written = ["results.csv", "run.json"]
    if save_results:  # before anything is printed, since the terminal may be gone
        from pruning_kit.reporting.figures import OF_EVERY_SWEEP, save_figures

        write_csv(run, folder / "results.csv")
        figures = save_figures(run, analysis, folder, OF_EVERY_SWEEP)
        written += [path.name for path in figures if path.suffix == ".png"]
    for line in describe_run(run):
        out.say(line)
    out.line()
    out.show(rich_table(sweep_table(run, analysis, mode, save_results)))
    for sentence in how_bridged(run):
        out.say(sentence, style="dim")
    out.line()
    if ranked := rankings_table(run):
        out.say("Blocks ranked by one pass", style="bold")
        out.show(rich_table(ranked))
        out.line()
    _show_recovered(analysis)
    if analysis.elsewhere:
        out.say("Perplexity on other texts", style="bold")
        out.show(rich_table(texts_table(analysis)))
        out.line()
    for sentence in (*summary_sentences(analysis), *_within(analysis, budget)):
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


def _within(analysis: Analysis, budget: Budget | None) -> list[str]:
    """The best set within the limits, or why none can be told; nothing without limits."""
    from pruning_kit.reporting.words.budget import budget_sentences

    if budget is None:
        return []
    try:
        return budget_sentences(analysis, analysis.choose(budget))
    except RunError as error:  # the timings that were taken are too few; the rest is worth showing
        return [f"Nothing is chosen within the limit: the kit {error}"]


def _show_recovered(analysis: Analysis) -> None:
    """Models with weights of their own, and whether they change which set is best."""
    from pruning_kit.reporting.formats import rich_table
    from pruning_kit.reporting.recovered import recovered_table
    from pruning_kit.reporting.words.recovered import reordered_sentences, won_sentences

    table = recovered_table(analysis)
    if table is None:
        return
    out.say("Recovered models", style="bold")
    out.show(rich_table(table))
    for sentence in (*won_sentences(analysis), *reordered_sentences(analysis)):
        out.say(sentence)
    out.line()


def _next_step(program: str, folder: Path, analysis: Analysis) -> str:
    """What to do with a finished run."""
    if len(analysis.rows) == 1 and analysis.n_blocks > 1:
        return "--mode sequential, which removes each block alone."
    return f"{program} report {quoted(str(folder))} --format html"


def _exit_if_failed(run: Run) -> None:
    failed = [row for role in run.roles for row in run.rows(role) if row["status"] == "failed"]
    if failed:
        named = "; ".join(f"{row['variant']} ({row['note']})" for row in failed[:5])
        notes.say(f"{named}.", f"{len(failed)} rows failed:", "bold red")
        raise typer.Exit(3)
