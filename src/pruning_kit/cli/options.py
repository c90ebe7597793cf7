"""The options of a sweep: what each takes and how `--help` explains it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from pruning_kit import bounds
from pruning_kit.cli import choice
from pruning_kit.cli.numbers import read_numbers
from pruning_kit.errors import PruningKitError, RunError, TimingError

WHAT, WHERE, HOW, RESULT, SPEED = (
    "What to measure",
    "Model and text",
    "Arithmetic",
    "Result",
    "Speed",
)

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Hub id, local folder, or demo. Default: distilgpt2, or demo without it.",
        rich_help_panel=WHERE,
    ),
]

Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="wikitext2, wikitext2-published, demo, a text file, or a Hub dataset. "
        "Default: WikiText-2 test, or the embedded text where it is not to be had.",
        rich_help_panel=WHERE,
    ),
]

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", rich_help_panel=HOW)]

Mode = Annotated[
    choice.Mode | None,
    typer.Option(
        help="baseline: the whole model; sequential: each block alone; "
        "combinatorial: every set of two or more.",
        rich_help_panel=WHAT,
    ),
]
Plans = Annotated[
    list[str] | None,
    typer.Option(
        help="Chosen sets of blocks, such as 1+3 or 1-3, besides those of --mode and "
        "--strategies; may be repeated. shapley:N adds those of N sampled orders of the blocks.",
        rich_help_panel=WHAT,
    ),
]
Strategies = Annotated[
    str | None,
    typer.Option(
        help="first,last,alternate,contiguous,random at each size or ratio.",
        rich_help_panel=WHAT,
    ),
]
Sizes = Annotated[
    str | None,
    typer.Option(
        help="Numbers of removed blocks, such as 2,3, for combinatorial and --strategies.",
        rich_help_panel=WHAT,
    ),
]
Ratios = Annotated[
    str | None,
    typer.Option(help="Shares to remove by strategy, such as 0.25,0.5.", rich_help_panel=WHAT),
]
MaxRemoved = Annotated[
    int | None,
    typer.Option(
        help="Largest number of removed blocks, for combinatorial and --strategies.",
        rich_help_panel=WHAT,
    ),
]
MaxPlans = Annotated[int, typer.Option(help="Refuse more plans than this.", rich_help_panel=WHAT)]
Seed = Annotated[int, typer.Option(help="For strategy random.", rich_help_panel=WHAT)]
DatasetConfig = Annotated[
    str | None, typer.Option(help="Config of a Hub dataset.", rich_help_panel=WHERE)
]
DatasetSplit = Annotated[str, typer.Option(help="Split of a Hub dataset.", rich_help_panel=WHERE)]
TextColumn = Annotated[str, typer.Option(help="Column of a Hub dataset.", rich_help_panel=WHERE)]
SelectOn = Annotated[
    str | None,
    typer.Option(
        help="A second text to choose plans on: calibration (that of demo or wikitext2), "
        "or a text file.",
        rich_help_panel=WHERE,
    ),
]
Context = Annotated[
    int | None,
    typer.Option(help="Tokens per window. Default: the model's.", rich_help_panel=WHERE),
]
Stride = Annotated[
    int | None,
    typer.Option(help="Tokens windows advance by. Default: half.", rich_help_panel=WHERE),
]
Bos = Annotated[
    bool | None,
    typer.Option(
        "--bos/--no-bos",
        help="Begin every window with the BOS token. Default: where the tokenizer begins texts "
        "with it (Llama, Gemma).",
        rich_help_panel=WHERE,
    ),
]
MaxWindows = Annotated[
    int | None,
    typer.Option(help="A quick look: only the first N windows.", rich_help_panel=WHERE),
]
Dtype = Annotated[
    str,
    typer.Option(
        help="auto (float32 on CPUs, float16 on CUDA), float32, float16, bfloat16.",
        rich_help_panel=HOW,
    ),
]
Attention = Annotated[
    Literal["eager", "sdpa"] | None,
    typer.Option(help="Attention. Default: the model family's.", rich_help_panel=HOW),
]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Windows at a time. Default: from free memory.", rich_help_panel=HOW),
]
Threads = Annotated[
    int | None,
    typer.Option(
        help="CPU threads. Default: all cores; for timing as many of them as can be timed.",
        rich_help_panel=HOW,
    ),
]
Speed = Annotated[
    bool,
    typer.Option(
        "--speed/--no-speed",
        help="Time the models; the other options here say how.",
        rich_help_panel=SPEED,
    ),
]
LatencyBudget = Annotated[
    float,
    typer.Option(
        help="Seconds for timing; more where the first eight rounds need it.",
        rich_help_panel=SPEED,
    ),
]
LatencyTarget = Annotated[
    float, typer.Option(help="Wanted half-width of each ratio.", rich_help_panel=SPEED)
]
PromptTokens = Annotated[int, typer.Option(help="Prompt of the prefill.", rich_help_panel=SPEED)]
NewTokens = Annotated[int, typer.Option(help="Tokens of the decode.", rich_help_panel=SPEED)]
Batch = Annotated[int, typer.Option(help="Sequences in every timed call.", rich_help_panel=SPEED)]
BatchSweep = Annotated[
    str | None,
    typer.Option(
        help="Further batch sizes, such as 2,4,8, at which the whole model and one plan are "
        "timed afterwards, with the budget once more.",
        rich_help_panel=SPEED,
    ),
]
PerPlan = Annotated[
    bool,
    typer.Option(
        "--per-plan", help="Time every plan, not one of each depth.", rich_help_panel=SPEED
    ),
]
Compiled = Annotated[
    bool,
    typer.Option("--compile", help="Time with torch.compile.", rich_help_panel=SPEED),
]
CudaGraphs = Annotated[
    bool,
    typer.Option("--cuda-graphs", help="Time with CUDA graphs.", rich_help_panel=SPEED),
]
SaveResults = Annotated[
    bool,
    typer.Option(
        "--save_results",
        "--save-results",
        help="Write results.csv and figures, under results/ unless --output is given.",
        rich_help_panel=RESULT,
    ),
]
Samples = Annotated[
    bool,
    typer.Option(
        "--samples",
        help="Keep a continuation by the whole model and the best of each size.",
        rich_help_panel=RESULT,
    ),
]
Output = Annotated[
    Path | None, typer.Option(help="The run folder to write.", rich_help_panel=RESULT)
]
Resume = Annotated[bool, typer.Option(help="Go on with a stopped run.", rich_help_panel=RESULT)]


def refuse_absurd(ctx: typer.Context) -> None:
    """Refuse numbers that nobody can mean, before anything is loaded.

    Raises:
        PruningKitError: naming the option and what it may be.
    """
    for param in ctx.command.params:
        value = ctx.params.get(param.name or "")
        if isinstance(value, int | float):
            bounds.check(param.opts[0], value, PruningKitError)


def refuse_untimed(
    speed: bool, batch_sweep: str | None, per_plan: bool, compiled: bool, cuda_graphs: bool
) -> None:
    """Refuse to be asked for timings and for none.

    Raises:
        TimingError: naming the option.
    """
    asked = {
        "--batch-sweep": batch_sweep is not None,
        "--per-plan": per_plan,
        "--compile": compiled,
        "--cuda-graphs": cuda_graphs,
    }
    given = [option for option, is_given in asked.items() if is_given]
    if given and not speed:
        raise TimingError(
            f"cannot use {given[0]} together with --no-speed: one asks for timings, the other for "
            "none. Leave one out."
        )


def parameter_limit(millions: float | None) -> int | None:
    """The number of parameters that `--max-params` means.

    Raises:
        RunError: if the number given can only be a count.
    """
    if millions is None:
        return None
    if not abs(millions) < bounds.RANGES["--max-params"].most:
        raise RunError(
            f"cannot choose under --max-params {millions:.15g}: the unit is millions of "
            f"parameters. Write --max-params {_in_millions(millions)}."
        )
    return round(millions * 1e6)


def batch_sizes(text: str | None) -> tuple[int, ...]:
    """The batch sizes of `--batch-sweep`.

    Raises:
        PruningKitError: if one is not a number, or no size of a batch.
    """
    sizes = tuple(read_numbers(text, int, "--batch-sweep"))
    for size in sizes:
        bounds.check("--batch-sweep", size, TimingError)
    return sizes


def _in_millions(count: float) -> str:
    """An example for who wrote a count: `7 for 7,000,000 of them`."""
    count = abs(count) if math.isfinite(count) else 60e6
    return f"{count / 1e6:g} for {count:,.0f} of them"
