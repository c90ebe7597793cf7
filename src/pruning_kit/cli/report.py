"""The commands `report` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pruning_kit.cli import options as opt
from pruning_kit.cli.console import out
from pruning_kit.errors import RunError

RunArgument = Annotated[Path, typer.Argument(help="Folder that a sweep wrote.", metavar="RUN")]


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
        bool, typer.Option("--figures", help="Also write every figure as PNG and SVG into RUN.")
    ] = False,
    as_cut: Annotated[
        bool, typer.Option("--as-cut", help="Judge every plan as cut, also where it is bridged.")
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
    from pruning_kit.plans.costs import Cost
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
    analysis = analyse(run, cost=Cost.as_cut if as_cut else Cost.bridged)
    file = None if form == "terminal" else output or run_folder / f"report.{form}"
    if file:
        write_report(run, file, form, asked, analysis)
    if figures:
        from pruning_kit.reporting.figures import save_figures

        written = save_figures(run, analysis, run_folder)
        out.say(f"{len(written)} figures are in {run_folder}.")
    if file:
        out.say(f"The report is in {file}.")
    else:
        out.show(terminal_report(run, analysis, asked))


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
