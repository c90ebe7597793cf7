"""Making: one variant outside of a sweep, as a sweep or a recipe has it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pruning_kit.errors import CorpusError, NoGainError, PlanError, RunError
from pruning_kit.export.recipe import BridgesRecipe
from pruning_kit.inputs.corpora import Corpus
from pruning_kit.inputs.models import LoadedModel
from pruning_kit.machine.devices import using_threads
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.bridges.bridging import Bridges, Bridging
from pruning_kit.pruning.recovered import Recovered
from pruning_kit.pruning.recovery import check, has_own_weights
from pruning_kit.runs.facts import RunFacts
from pruning_kit.runs.recoveries import BridgesFacts
from pruning_kit.sweeps.building import find, open_workbench, prepare
from pruning_kit.sweeps.observer import Observer
from pruning_kit.sweeps.settings import WorkbenchSettings
from pruning_kit.sweeps.shelf import Shelf
from pruning_kit.sweeps.texts import CALIBRATION
from pruning_kit.sweeps.workbench import Workbench

EMBEDDED = "demo"
"""A text that is always at hand."""


class Made(NamedTuple):
    """A model, and what a variant of it is made of."""

    loaded: LoadedModel
    bridges: Bridges | None
    """None where a variant began with the model as cut."""
    recovered: Recovered | None
    """None where the variant is bridged alone."""


class Named(Protocol):
    """What a run or a recipe says of a text."""

    @property
    def title(self) -> str: ...

    @property
    def sha256(self) -> str: ...


def bridges_of(plan: Plan, workbench: Workbench) -> Bridges:
    """The bridges of one plan, fitted and judged as in a sweep on this workbench.

    Raises:
        PlanError: if the model has no such plan, nothing can be bridged in it, or the plan is
            better as cut.
    """
    bridging = workbench.bridging
    if isinstance(bridging, str):
        raise PlanError(
            f"cannot bridge the gaps of {plan.short}: {bridging}. Prune with `bridges=None`."
        )
    workbench.fit([plan.check(workbench.n_blocks)])
    with using_threads(workbench.threads):
        return bridging.bridges(plan)


def made_of(variant: Variant, workbench: Workbench) -> Made:
    """What a variant that was measured on a workbench is made of."""
    bridges = None
    if variant.recovery is not None and isinstance(workbench.bridging, Bridging):
        with suppress(NoGainError):
            bridges = bridges_of(variant.plan, workbench)
    own = workbench.shelf[variant] if has_own_weights(variant) else None
    return Made(workbench.loaded, bridges, own)


def take_from(run: Path, variant: Variant, settings: Mapping[str, Any], observer: Observer) -> Made:
    """A trained variant with the weights that a run has of it.

    Args:
        run: the run folder.
        variant: trained there.
        settings: of the workbench, as `settings_of_run` gives them, with the model's name.
        observer: is told of progress and of substitutions.

    Raises:
        RunError: if the weights are gone or damaged.
    """
    workbench = open_workbench(**settings, observer=observer)
    shelf = Shelf(run, workbench.loaded.saved_dtype, writes=False)
    if variant not in shelf:
        raise RunError(
            f"cannot take the weights of {variant} from {run}: they are gone or damaged. Sweep "
            "again with `resume`, or train it with the command recover."
        )
    return made_of(variant, replace(workbench, shelf=shelf))


def make_again(
    variant: Variant, settings: Mapping[str, Any], fitted: Named | None, observer: Observer
) -> Made:
    """A model and what its variant is made of, on a workbench of its own.

    Args:
        variant: bridged, or what begins with bridges.
        settings: of the workbench, as `settings_of_run` and `settings_of_recipe` give them, with
            the model's name.
        fitted: the text that they are to be fitted on; None: whichever the settings mean.
        observer: is told of progress and of substitutions.

    Raises:
        CorpusError: if that text is not the one that the settings mean.
        PlanError: as `bridges_of`, or if the recovery gains nothing.
    """
    asked = WorkbenchSettings(**settings)
    if asked.calibrate_on not in (None, CALIBRATION):  # no figure is taken: no text is fetched
        asked = replace(asked, dataset=EMBEDDED)
    found = find(asked, observer, partial(check, variant))
    if fitted is not None and found.texts.parts is not None:
        refuse_other_text(fitted, found.texts.parts.fitting)
    workbench = prepare(found, observer)
    bridges, recovered = bridges_of(variant.plan, workbench), None
    if has_own_weights(variant):
        workbench.recover([variant])
        recovered = workbench.shelf[variant]
    return Made(workbench.loaded, bridges, recovered)


def settings_of_run(facts: RunFacts, bridges: BridgesFacts | None) -> dict[str, Any]:
    """Of a workbench that fits the bridges of a run again; its texts are yet to be compared."""
    return {
        "dataset": facts.texts["reported"].name,
        "calibrate_on": None if bridges is None else _file(bridges.fitting.name),
        "context": facts.protocol.context,
        "stride": facts.protocol.stride,
        "bos": facts.protocol.bos is not None,
    }


def settings_of_recipe(bridges: BridgesRecipe) -> dict[str, Any]:
    """Of a workbench that fits the bridges of a folder again; as `settings_of_run`."""
    return {
        "calibrate_on": _file(bridges.fitting.name),
        "context": bridges.context,
        "stride": bridges.stride,
        "bos": bridges.bos is not None,
    }


def _file(name: str) -> str | None:
    """A text by its name, if that is a file's; others belong to the reported text."""
    return name if os.path.isfile(name) else None  # noqa: PTH113 - raises for very long names


def refuse_other_text(fitted: Named, found: Corpus) -> None:
    """Refuse to fit on another text what is to be as it was.

    Raises:
        CorpusError: if the hash of the one that was found is another.
    """
    if found.sha256 != fitted.sha256:
        raise CorpusError(
            f"cannot fit the same bridges again: they were fitted on {fitted.title} (hash "
            f"{fitted.sha256[:8]}), and this is {found.title} (hash {found.sha256[:8]}). Give that "
            "text with `calibrate_on`."
        )


def other_strengths(bridges: Bridges, stored: Mapping[str, float | None]) -> list[str]:
    """Gaps of a plan that were bridged with another strength elsewhere, in words.

    Args:
        bridges: those of the plan fitted here.
        stored: the strengths of all gaps there, None where one is not bridged.
    """
    here = {
        gap: bridges.fits[gap].strength if gap in bridges.fits else None for gap in bridges.gaps
    }
    return [
        f"{gap} with {_strength(stored.get(str(gap)))} and not, as here, {_strength(strength)}"
        for gap, strength in here.items()
        if stored.get(str(gap)) != strength
    ]


def _strength(value: float | None) -> str:
    return "no bridge" if value is None else f"strength {value:g}"
