"""The command `sweep`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from pruning_kit.cli import options as opt
from pruning_kit.cli.choice import Choice, Mode
from pruning_kit.cli.console import notes, out
from pruning_kit.cli.invocation import with_option
from pruning_kit.printable import copyable, quoted
from pruning_kit.search.together import MAX_PLANS

if TYPE_CHECKING:
    from pathlib import Path

    from pruning_kit.findings.analysis import Analysis
    from pruning_kit.runs.results import Run


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
    choice = Choice.typed(mode, plans, strategies, sizes, ratios, max_removed, max_plans, seed)
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
    from pruning_kit.sweeps.sweep import carry_out, start

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
    observer = TerminalObserver(notes, choice.narrower) if ranks.leads else SilentObserver()
    run, workbench = start(settings, choice.proposer, observer, ranks, choice.check)
    try:
        carry_out(run, choice.proposer, workbench, settings, ranks)
    except KeyboardInterrupt:
        again = copyable(with_option(ctx.obj, "--resume"))
        if ranks.leads:
            notes.show_line(f"Stopped. What was measured is in {run.folder}; go on with: {again}")
        raise typer.Exit(130) from None
    if ranks.leads:
        _finish(ctx, run.folder, mode, save_results)


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
    failed = [row for role in run.roles for row in run.rows(role) if row["status"] == "failed"]
    if failed:
        named = "; ".join(f"{row['removed']} ({row['note']})" for row in failed[:5])
        notes.say(f"{named}.", f"{len(failed)} rows failed:", "bold red")
        raise typer.Exit(3)
