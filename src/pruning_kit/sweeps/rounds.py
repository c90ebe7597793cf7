"""The rounds of a run: what a proposer asks for, measured on a workbench and stored.

Rounds are only ever appended. A stopped run is gone on with by a replay: the proposer is asked
again from the start and sent the stored sums, until it asks for something new.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from msgspec import structs

from pruning_kit.plans.variant import Variant
from pruning_kit.pruning import recovery
from pruning_kit.pruning.surgery import parameters_by_plan
from pruning_kit.runs.facts import AskedFacts, Role, RoundFacts, VariantFacts
from pruning_kit.runs.ranks import Ranks
from pruning_kit.runs.store import RunFolder
from pruning_kit.search.costs import Costs, Lacking
from pruning_kit.search.limits import granted
from pruning_kit.search.proposer import Proposer, Request, Scoring, Screening, next_round
from pruning_kit.sweeps.bridges import as_judged, with_bridges
from pruning_kit.sweeps.observer import Work
from pruning_kit.sweeps.pace import expect_searches
from pruning_kit.sweeps.recovering import with_recovered
from pruning_kit.sweeps.scoring import scored
from pruning_kit.sweeps.workbench import Workbench
from pruning_kit.walk.measures import MEASURES, NLL, Measure

Group = tuple[int, int, int]
"""Windows that are computed together: its number, the first window, and the one after the last."""


def measure(
    run: RunFolder,
    proposer: Proposer,
    workbench: Workbench,
    ranks: Ranks,
    goes_on: bool,
    measures: Sequence[Measure] | None = None,
) -> None:
    """Measure every round that the proposer asks for and that is not on the disk yet.

    The whole model is measured in the first one, asked for or not.

    Args:
        run: where to, opened for this proposer and workbench.
        proposer: asks for variants and is sent what they cost.
        workbench: what they are measured on.
        ranks: the processes that share the work.
        goes_on: whether the run was there before.
        measures: what each round takes; by default every measure there is.
    """
    taken = measures or tuple(MEASURES.values())
    windows = run.facts.windows[run.facts.choosing_role]
    costs = Costs(windows.targets, windows.groups)
    number = 0
    proposer = granted(proposer, run.facts.proposal.evaluations, run.facts.proposal.sizes)
    if ranks.leads and not goes_on:
        expect_searches(proposer, workbench, run.facts.numerics.batch_size, ranks.size)
    asking = proposer.propose(workbench.n_blocks)
    request: Request | None = next_round(asking) or []
    while request is not None:
        if isinstance(request, Scoring):
            costs.scores |= scored(run, request.names, workbench, ranks)
        for lacking in costs.lacking(request):
            round_ = _round(run, number, lacking, request, workbench, ranks, taken)
            used = (NLL,) if round_.is_screening else taken
            _measure_round(run, number, round_, workbench, ranks, goes_on or number > 0, used)
            _take_in(costs, run, number, lacking)
            number += 1
        request = next_round(asking, costs)
    if ranks.leads:
        shares = costs.shares or {str(proposer): costs}
        run.finish([_asked(name, share) for name, share in shares.items() if name])


def _asked(name: str, share: Costs) -> AskedFacts:
    """What a proposer asked for, and what that took."""
    rows = tuple(str(variant) for variant in share.rows if variant != Variant())
    return AskedFacts(proposer=name, variants=rows, evaluations=share.evaluations)


def _round(
    run: RunFolder,
    number: int,
    lacking: Lacking,
    request: Request,
    workbench: Workbench,
    ranks: Ranks,
    measures: Sequence[Measure],
) -> RoundFacts:
    """What is to be measured of a request, with its bridges fitted."""
    if not (isinstance(request, Screening) and lacking.windows):
        asked = lacking.variants
        for variant in asked:
            recovery.check(variant, workbench.n_blocks)
        variants = with_bridges(run, number, asked, workbench, ranks)
        variants = with_recovered(run, number, variants, workbench, ranks)
        return describe_round(variants, workbench, measures)
    plans = [plan.check(workbench.n_blocks) for plan in lacking.plans]
    variants = as_judged(run, number, plans, workbench, ranks)
    described = describe_round(variants, workbench, (NLL,))
    return structs.replace(
        described,
        variants=tuple(
            structs.replace(facts, proposed_by=request.proposed[facts.parsed.plan])
            for facts in described.variants
        ),
        texts=(run.facts.choosing_role,),
        windows=lacking.windows,
    )


def _measure_round(
    run: RunFolder,
    number: int,
    round_: RoundFacts,
    workbench: Workbench,
    ranks: Ranks,
    goes_on: bool,
    measures: Sequence[Measure],
) -> None:
    """Walk every window group of a round that this process takes and that is not on the disk."""
    variants = [facts.parsed for facts in round_.variants]
    if ranks.leads:
        run.add_round(number, round_)
    ranks.share(f"round/{number}", "stored" if ranks.leads else None)
    todo, n_left = {}, 0
    for role in round_.texts:
        todo[role], n_of_all = _groups_to_measure(run, number, role, ranks)
        n_left += n_of_all
    if ranks.leads and not round_.is_screening:  # timing each of hundreds would take long itself
        _expect(todo, n_left, variants, workbench, ranks.size, goes_on)
    for role, groups in todo.items():
        what = "search" if round_.is_screening else "perplexity"
        title = f"{what}, {workbench.texts[role].corpus.title}"
        with workbench.observer.track(title, len(variants) * _count(groups)) as advance:
            for group, first, end in groups:
                found = workbench.measure(
                    variants, role, range(first, end), measures, batch_size=end - first
                )
                run.write_part(number, role, group, found.sums, found.facts)
                advance(len(variants) * (end - first))
    ranks.wait_for_all(f"measured/{number}")


def _expect(
    todo: Mapping[Role, Sequence[Group]],
    n_left: int,
    variants: Sequence[Variant],
    workbench: Workbench,
    n_processes: int,
    goes_on: bool,
) -> None:
    """Say what this process is about to measure, and how long that takes by its largest group."""
    left = [(role, group) for role, groups in todo.items() for group in groups]
    if not left:
        return
    role, (_, first, end) = max(left, key=lambda one: _count([one[1]]))
    work = Work(
        n_blocks=workbench.n_blocks,
        n_variants=len(variants),
        n_texts=len({role for role, _ in left}),
        n_windows=_count(group for _, group in left),
        n_windows_of_all=n_left,
        n_processes=n_processes,
        seconds_per_window=_seconds_per_window(variants, workbench, role, range(first, end)),
        goes_on=goes_on,
    )
    workbench.observer.expect(work)


def _count(groups: Iterable[Group]) -> int:
    """Windows in all."""
    return sum(end - first for _, first, end in groups)


def describe_round(
    variants: Sequence[Variant], workbench: Workbench, measures: Sequence[Measure]
) -> RoundFacts:
    """What a round measures, to be stored before its first part."""
    parameters = parameters_by_plan(workbench.decoder, [variant.plan for variant in variants])
    return RoundFacts(
        variants=tuple(
            VariantFacts(variant=str(variant), parameters=parameters[variant.plan])
            for variant in variants
        ),
        measures=tuple(measure.name for measure in measures),
        texts=tuple(workbench.texts),
    )


def _groups_to_measure(
    run: RunFolder, number: int, role: Role, ranks: Ranks
) -> tuple[list[Group], int]:
    """Groups not on the disk that this process takes, and the count of all such windows.

    Which these are is what the first process saw, lest one that looks later leave a group that
    another counts as its own.
    """
    groups = run.groups(number, role)
    left = [group for group in range(len(groups)) if not run.has_part(number, role, group)]
    seen = ranks.share(f"left/{number}/{role}", json.dumps(left) if ranks.leads else None)
    left = json.loads(seen)
    sizes = [groups[group][1] - groups[group][0] for group in left]
    mine = ranks.takes(sizes)
    return [(left[piece], *groups[left[piece]]) for piece in mine], sum(sizes)


def _seconds_per_window(
    variants: Sequence[Variant], workbench: Workbench, role: Role, windows: range
) -> float:
    """What each of these windows costs under all variants, if each is walked as cut."""
    calls = workbench.count_calls(variants)
    return workbench.cost_per_window(role, windows).seconds(1, calls, len(variants))


def _take_in(costs: Costs, run: RunFolder, number: int, lacking: Lacking) -> None:
    """Let the proposer know what a round found on the text that plans are chosen on."""
    role = run.facts.choosing_role
    groups = range(len(run.groups(number, role)))
    nats_VN = np.concatenate(
        [run.read_part(number, role, group)[0][NLL.name] for group in groups], axis=1
    )
    if lacking.windows is None:
        variants = [facts.parsed for facts in run.rounds()[number].variants]
        costs.add_rows(variants, nats_VN)
        costs.add_absent(lacking.variants)
    else:
        costs.add_screened(lacking.plans, lacking.windows, nats_VN)
