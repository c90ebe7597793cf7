"""Sweeps for tests: what is asked for, and each step of carrying it out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pruning_kit.runs.ranks import Ranks
from pruning_kit.runs.results import Run, load_run
from pruning_kit.runs.store import RunFolder
from pruning_kit.search.named import parse
from pruning_kit.search.proposer import Proposer
from pruning_kit.sweeps import sweep as steps
from pruning_kit.sweeps.observer import Observer, SilentObserver
from pruning_kit.sweeps.samples import sample
from pruning_kit.sweeps.settings import SweepSettings
from pruning_kit.sweeps.timing import time_plans
from pruning_kit.sweeps.workbench import Workbench


@dataclass(frozen=True)
class Asked:
    """What a sweep is asked for."""

    settings: SweepSettings
    proposer: Proposer

    @property
    def output(self) -> Path:
        assert self.settings.output is not None
        return self.settings.output

    def but(self, **changes: Any) -> Asked:
        """The same, some settings changed."""
        return Asked(replace(self.settings, **changes), self.proposer)


def asked(choice: Proposer | str = "combinatorial", **settings: Any) -> Asked:
    """What is asked for by a proposer, or its text, and settings; without bridges unless asked."""
    proposer = parse(choice) if isinstance(choice, str) else choice
    return Asked(SweepSettings(**{"bridges": False, **settings}), proposer)


@dataclass
class Begun:
    """A sweep whose folder is open."""

    asked: Asked
    run: RunFolder
    workbench: Workbench
    ranks: Ranks

    def measure(self) -> None:
        resume = self.asked.settings.resume
        steps.measure(self.run, self.asked.proposer, self.workbench, self.ranks, resume)

    def time(self) -> None:
        assert self.asked.settings.timing is not None
        plans = load_run(self.run.folder).plans
        time_plans(self.run, plans, self.workbench, self.asked.settings.timing)

    def sample(self) -> None:
        sample(self.run, self.workbench)


def begin(wanted: Asked, observer: Observer | None = None, ranks: Ranks | None = None) -> Begun:
    """Open a sweep's folder; nothing is measured yet."""
    ranks = ranks or Ranks()
    opened = steps.start(wanted.settings, wanted.proposer, observer or SilentObserver(), ranks)
    return Begun(wanted, *opened, ranks)


def measured(wanted: Asked, ranks: Ranks | None = None) -> Run:
    """A run measured to its end."""
    begun = begin(wanted, ranks=ranks)
    begun.measure()
    return load_run(begun.run.folder)
