"""Commands that a report gives to copy."""

from __future__ import annotations

from pruning_kit.findings.analysis import Analysis
from pruning_kit.plans.plan import Plan
from pruning_kit.printable import quoted
from pruning_kit.reporting.words.numbers import name_blocks
from pruning_kit.runs.results import Run


def recommended_command(run: Run, analysis: Analysis) -> str:
    """The command that makes the recommended model; empty where the whole model is to be kept."""
    plan = analysis.recommended
    if plan == Plan():
        return ""
    return f"# makes the model without {name_blocks(plan)}\n{prune_command(run, plan.short)}"


def prune_command(run: Run, plan: str) -> str:
    """The command that cuts a plan, in its short form, out of the model and saves it."""
    model = quoted(run.facts.model.name)
    return f"pruning-kit prune --model {model} --remove {plan} --out pruned-{plan}"
