"""Remove transformer blocks from a language model and measure what each choice costs and wins.

The public names, each imported when it is first used, so that `--help` starts at once:

    open_workbench, Workbench   a model, texts and a kernel, ready to measure variants (torch)
    sweep                       measure what a proposer asks for into a run folder (torch)
    load_run, Run               a stored run and its rows (`Run.frame()`)
    analyse, Analysis           what a run says: intervals, importance, choices
    show                        the summary of a run, for notebooks
    Plan, Variant               a set of units to remove; a plan and its recovery: the key of a row
    Proposer                    which variants a run measures; its text form does as well
    PruningKitError             what a user can mend

Cutting and saving is `pruning_kit.export.huggingface.export`. See docs/library.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pruning_kit.errors import PruningKitError
    from pruning_kit.findings.analysis import Analysis, analyse
    from pruning_kit.plans.plan import Plan
    from pruning_kit.plans.variant import Variant
    from pruning_kit.reporting.notebook import show
    from pruning_kit.runs.results import Run, load_run
    from pruning_kit.search.proposer import Proposer
    from pruning_kit.sweeps.building import open_workbench
    from pruning_kit.sweeps.sweep import sweep
    from pruning_kit.sweeps.workbench import Workbench

__all__ = [
    "Analysis",
    "Plan",
    "Proposer",
    "PruningKitError",
    "Run",
    "Variant",
    "Workbench",
    "analyse",
    "load_run",
    "open_workbench",
    "show",
    "sweep",
]
_HOMES = {
    "errors": ("PruningKitError",),
    "findings.analysis": ("Analysis", "analyse"),
    "plans.plan": ("Plan",),
    "plans.variant": ("Variant",),
    "reporting.notebook": ("show",),
    "runs.results": ("Run", "load_run"),
    "search.proposer": ("Proposer",),
    "sweeps.sweep": ("sweep",),
    "sweeps.building": ("open_workbench",),
    "sweeps.workbench": ("Workbench",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"pruning_kit.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
