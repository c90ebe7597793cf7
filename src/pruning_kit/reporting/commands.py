"""Commands that a report gives to copy."""

from __future__ import annotations

import math
import shlex
from itertools import pairwise
from pathlib import Path

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.importance import NotAvailable
from pruning_kit.plans.permutations import count_shapley_plans
from pruning_kit.plans.plan import Plan
from pruning_kit.printable import copyable, quoted
from pruning_kit.reporting.words.numbers import name_blocks
from pruning_kit.runs.results import Run
from pruning_kit.search.together import MAX_PLANS

PLAN_OPTIONS = (
    "--mode",
    "--try",
    "--max-removed",
    "--max-plans",
    "--search-minutes",
    "--max-params",
    "--max-latency",
    "--output",
)
"""What says which plans a sweep measures, and where they go."""
PLACE_FLAGS = ("--resume",)
PROGRAMS, OTHERS = ("pruning-kit", "pruning_kit", "main"), ("recover", "shrink")
CALIBRATE_ON = "--calibrate-on"


def recommended_command(run: Run, analysis: Analysis) -> str:
    """The command that makes the recommended model; empty where the whole model is to be kept."""
    plan = analysis.recommended
    if plan == Plan():
        return ""
    command = prune_command(run, plan.short, analysis.row[plan].bridged)
    return f"# makes the model without {name_blocks(plan)}\n{command}"


def prune_command(run: Run, plan: str, bridged: bool = False) -> str:
    """The command that cuts a plan, in its short form, out of the model and saves it."""
    model, bridge = quoted(run.facts.model.name), ""
    if bridged:
        bridge = " --bridge" + "".join(
            f" {CALIBRATE_ON} {quoted(text)}" for text in values_of(run.facts.command, CALIBRATE_ON)
        )
    return f"pruning-kit prune --model {model} --remove {plan}{bridge} --out pruned-{plan}"


def values_of(command: str, option: str) -> list[str]:
    """What an option was given in a command."""
    words = shlex.split(command)
    joined = [word.removeprefix(f"{option}=") for word in words if word.startswith(f"{option}=")]
    return joined + [value for name, value in pairwise(words) if name == option]


def shapley_command(run: Run, analysis: Analysis) -> str:
    """The command that measures what Shapley values need; empty where they are there."""
    lack = analysis.shapley
    if not isinstance(lack, NotAvailable):
        return ""
    options = shapley_options(analysis.n_blocks, lack.n_permutations)
    return f"# measures what Shapley values need\n{same_sweep(run.facts.command)} {options}"


def shapley_options(n_blocks: int, n_permutations: int | None) -> str:
    """The options of a sweep that measures so many sampled orders; None: all sets of blocks."""
    if n_permutations is None:
        return "--mode combinatorial"
    count = count_shapley_plans(n_blocks, n_permutations)
    more = f" --max-plans {count}" * (count > MAX_PLANS)
    return f"--try shapley:{n_permutations}{more}"


def search_command(run: Run, analysis: Analysis, max_params: int) -> str:
    """The command that searches for the best set that leaves so many parameters at most.

    Empty where no number of blocks does, or no measured set tells what a block holds.
    """
    parameters = run.parameters
    whole, sized = parameters[Plan()], [plan for plan in parameters if plan.size]
    if not sized:
        return ""
    of_a_block = min((whole - parameters[plan]) / plan.size for plan in sized)
    size = math.ceil((whole - max_params) / of_a_block)
    if not 0 < size < analysis.n_blocks:
        return ""
    what = f"# searches for the best set of {size} block{'s' * (size > 1)}"
    return f"{what}\n{same_sweep(run.facts.command)} --try search:{size}"


def same_sweep(command: str) -> str:
    """The command of a run less what says which plans it measures, and where they go.

    A run of the library has none, and that of another command is none of a sweep, so that model
    and texts are left to be filled in.
    """
    words = shlex.split(command)
    is_other = any(
        word in OTHERS and Path(before).stem in PROGRAMS for before, word in pairwise(words)
    )
    if not command or is_other:
        return "pruning-kit sweep …"
    kept, left = [], iter(words)
    for word in left:
        option, _, value = word.partition("=")
        if option in PLAN_OPTIONS and not value:
            next(left, None)
        elif option not in PLAN_OPTIONS and word not in PLACE_FLAGS:
            kept.append(word)
    return copyable(shlex.join(kept))
