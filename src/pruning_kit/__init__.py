"""Remove transformer blocks from a language model and measure what each choice costs and wins.

The public names, each imported when it is first used, so that `--help` starts at once:

    load_run, Run         a stored run and its rows (`Run.frame()`)
    analyse, Analysis     what a run says: intervals, importance, choices
    Plan                  a set of blocks to remove
    PruningKitError       what a user can mend
    Sweep, SweepSettings  measure many plans (imports torch)

Cutting and saving is `pruning_kit.export.huggingface.export`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pruning_kit.errors import PruningKitError
    from pruning_kit.findings.analysis import Analysis, analyse
    from pruning_kit.plans.plan import Plan
    from pruning_kit.runs.results import Run, load_run
    from pruning_kit.sweeps.settings import SweepSettings
    from pruning_kit.sweeps.sweep import Sweep

__all__ = [
    "Analysis",
    "Plan",
    "PruningKitError",
    "Run",
    "Sweep",
    "SweepSettings",
    "analyse",
    "load_run",
]
_HOMES = {
    "findings.analysis": ("Analysis", "analyse"),
    "errors": ("PruningKitError",),
    "plans.plan": ("Plan",),
    "runs.results": ("Run", "load_run"),
    "sweeps.settings": ("SweepSettings",),
    "sweeps.sweep": ("Sweep",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"pruning_kit.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
