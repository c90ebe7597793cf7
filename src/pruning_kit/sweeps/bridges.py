"""Bridges of a sweep: fitted once, kept in the run folder, and a row where they help."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from pruning_kit.machine.devices import dtype_name, using_threads
from pruning_kit.plans.paths import as_cut
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import BRIDGED, Variant
from pruning_kit.pruning.bridges.bridging import Bridging, Judgement
from pruning_kit.pruning.bridges.fitting import Fit
from pruning_kit.pruning.bridges.gaps import Gap
from pruning_kit.runs import provenance, recoveries
from pruning_kit.runs.ranks import Ranks
from pruning_kit.runs.recoveries import BridgesFacts, GapFacts, PlanFacts
from pruning_kit.runs.store import RunFolder
from pruning_kit.sweeps.workbench import Workbench
from pruning_kit.walk.kernel import Form

NAMES = ("weight", "bias")
"""Of the tensors of a form."""


def with_bridges(
    run: RunFolder, number: int, asked: Sequence[Variant], workbench: Workbench, ranks: Ranks
) -> list[Variant]:
    """The variants of a round: those asked for and, where that helps, the plans bridged too.

    The first process fits and judges; what it found is in the run folder before others go on. A
    round that is stored is taken as it is.

    Args:
        run: the run.
        number: of the round.
        asked: what the proposer asks for.
        workbench: what they are measured on.
        ranks: the processes that share the run.
    """
    if not any(variant.plan.removed for variant in asked):
        return list(asked)
    bridging = _prepared(run, number, asked, workbench, ranks, judges=True)
    if bridging is None:
        return list(asked)
    return _stored(run, number) or _extended(asked, bridging)


def as_judged(
    run: RunFolder, number: int, plans: Sequence[Plan], workbench: Workbench, ranks: Ranks
) -> list[Variant]:
    """Each candidate of a screening bridged where a gap of it can be, else as cut.

    Whether the bridges of a plan help together is not asked, which would cost as much as the
    screening itself: where they harm, the candidate looks worse than it is.
    """
    asked = [Variant(plan) for plan in plans]
    bridging = _prepared(run, number, asked, workbench, ranks, judges=False)
    if bridging is None:
        return asked
    n_blocks = workbench.n_blocks
    return _stored(run, number) or [
        Variant(plan, BRIDGED if bridging.path(plan) != as_cut(plan, n_blocks) else None)
        for plan in plans
    ]


def _prepared(
    run: RunFolder,
    number: int,
    asked: Sequence[Variant],
    workbench: Workbench,
    ranks: Ranks,
    judges: bool,
) -> Bridging | None:
    """The bridges, with all that a round needs fitted; None where there are none."""
    bridging = workbench.bridging
    if isinstance(bridging, str):
        before = (facts for round_ in run.rounds()[:number] for facts in round_.variants)
        is_first = not any(facts.parsed.plan.removed for facts in before)
        if workbench.settings.bridges and is_first:
            workbench.observer.say(f"Gaps are not bridged: {bridging}.")
        return None
    restore(run.folder, bridging)
    if ranks.leads and not _is_measured(run, number):
        _prepare(run, number, asked, workbench, bridging, judges)
    ranks.share(f"bridges/{number}", "stored" if ranks.leads else None)
    if not ranks.leads:
        restore(run.folder, bridging)
    return bridging


def _is_measured(run: RunFolder, number: int) -> bool:
    """Whether nothing of a round is left to do, nor to fit for it."""
    return number < len(run.rounds()) and run.is_measured(number)


def _stored(run: RunFolder, number: int) -> list[Variant]:
    """The variants of a round that is stored; empty where it is a new one."""
    rounds = run.rounds()[number : number + 1]
    return [facts.parsed for round_ in rounds for facts in round_.variants]


def _extended(asked: Sequence[Variant], bridging: Bridging) -> list[Variant]:
    """Behind each plan as cut its bridged variant, and no other one, where that is better."""
    found: dict[Variant, None] = {}
    for variant in asked:
        if variant.recovery != BRIDGED:
            found[variant] = None
        if variant.recovery is None and bridging.helps(variant.plan):
            found[Variant(variant.plan, BRIDGED)] = None
    return list(found)


def _prepare(
    run: RunFolder,
    number: int,
    asked: Sequence[Variant],
    workbench: Workbench,
    bridging: Bridging,
    judges: bool,
) -> None:
    """Fit what the round needs and, if it is a new one, judge its plans where that is asked."""
    variants = _stored(run, number) or asked
    is_new = variants is asked
    plans = [v.plan for v in variants if is_new or v.recovery == BRIDGED]
    plans = [plan for plan in dict.fromkeys(plans) if plan.kept(workbench.n_blocks)]
    todo = [plan for plan in plans if judges and is_new and plan not in bridging.judged]
    if not todo and not bridging.gaps_to_fit(plans):
        return
    workbench.fit(plans, lambda fit: keep(run.folder, fit, bridging, workbench))
    with using_threads(workbench.threads):
        bridging.judge(todo)
    recoveries.write_facts(run.folder, describe(bridging, workbench))


def keep(folder: Path, fit: Fit, bridging: Bridging, workbench: Workbench) -> None:
    """Store a gap, its weights before what is said of them: a kill loses one at most."""
    if fit.form is not None:
        recoveries.write_weights(folder, str(fit.gap), _arrays(fit.form))
    recoveries.write_facts(folder, describe(bridging, workbench))


def restore(folder: Path, bridging: Bridging) -> None:
    """Take in what the run folder holds: judgements, and the gaps whose weights are whole."""
    facts = recoveries.read_facts(folder)
    if facts is None:
        return
    for text, one in facts.plans.items():
        bridging.judged.setdefault(Plan.parse(text), _judgement(one))
    for text, gap_facts in facts.gaps.items():
        gap = Gap.parse(text)
        if gap not in bridging.fits:
            fit = _restored(folder, gap, gap_facts)
            if fit is not None:
                bridging.fits[gap] = fit


def _restored(folder: Path, gap: Gap, facts: GapFacts) -> Fit | None:
    form = None
    if facts.strength is not None:
        weights = recoveries.read_weights(folder, str(gap))
        if weights is None or NAMES[0] not in weights:
            return None
        form = _form(weights)
    fit = Fit(gap, facts.strength, _nats(facts.nats_as_cut), _nats(facts.nats), form)
    return fit if fit.sha256 == facts.sha256 else None


def _form(weights: Mapping[str, np.ndarray]) -> Form:
    weight, bias = NAMES
    bias_O = torch.from_numpy(weights[bias]) if bias in weights else None
    return Form(torch.from_numpy(weights[weight]), bias_O)


def _arrays(form: Form) -> dict[str, np.ndarray]:
    """Contiguous, since others would be stored by their buffers, which hold another order."""
    pairs = zip(NAMES, form, strict=True)
    return {name: tensor.contiguous().numpy() for name, tensor in pairs if tensor is not None}


def describe(bridging: Bridging, workbench: Workbench) -> BridgesFacts:
    """The bridges that were fitted so far, for the run folder."""
    return BridgesFacts(
        fitting=provenance.describe_text(bridging.calibration.fitting),
        tuning=provenance.describe_text(bridging.calibration.tuning),
        dtype=dtype_name(workbench.loaded.saved_dtype),
        refused={str(block): why for block, why in bridging.refused.items()},
        gaps={str(gap): _describe_fit(fit) for gap, fit in sorted(bridging.fits.items())},
        plans={
            str(plan): PlanFacts(nats_as_cut=_finite(one.nats_as_cut), nats=_finite(one.nats))
            for plan, one in sorted(bridging.judged.items())
        },
    )


def _describe_fit(fit: Fit) -> GapFacts:
    return GapFacts(
        strength=fit.strength,
        nats_as_cut=_finite(fit.nats_as_cut),
        nats=_finite(fit.nats),
        sha256=fit.sha256,
    )


def _judgement(facts: PlanFacts) -> Judgement:
    return Judgement(_nats(facts.nats_as_cut), _nats(facts.nats))


def _finite(nats: float) -> float | None:
    """Nats as a file holds them, which knows no NaN."""
    return None if math.isnan(nats) else nats


def _nats(stored: float | None) -> float:
    return math.nan if stored is None else stored
