"""Recovered models of a sweep: made once, kept in the run folder, and a row where they gain."""

from __future__ import annotations

from collections.abc import Sequence

from pruning_kit.errors import NoGainError
from pruning_kit.plans.distilled import is_trained
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.recovery import has_own_weights
from pruning_kit.runs.ranks import Ranks
from pruning_kit.runs.store import RunFolder
from pruning_kit.sweeps.keeping import Kept
from pruning_kit.sweeps.shelf import Shelf
from pruning_kit.sweeps.workbench import Workbench


def with_recovered(
    run: RunFolder, number: int, asked: Sequence[Variant], workbench: Workbench, ranks: Ranks
) -> list[Variant]:
    """The variants of a round without those whose recovery gains nothing, which is said.

    The first process makes the models; they are in the run folder before others go on.

    Args:
        run: the run.
        number: of the round.
        asked: its variants.
        workbench: what they are measured on; it keeps recovered models in the run folder.
        ranks: the processes that share the run.
    """
    own = [variant for variant in asked if has_own_weights(variant)]
    is_measured = number < len(run.rounds()) and run.is_measured(number)
    if not own or is_measured:
        return list(asked)
    shelf = workbench.shelf
    assert isinstance(shelf, Shelf)
    for variant in own:
        if ranks.leads or is_trained(variant):  # all processes train together
            make_or_refuse(variant, workbench, ranks)
    ranks.share(f"recovered/{number}", "stored" if ranks.leads else None)
    refused = shelf.refused
    for variant in own:
        if variant in refused:
            workbench.observer.say(f"There is no row of {variant}: the kit {refused[variant]}")
    return [variant for variant in asked if variant not in refused]


def make_or_refuse(variant: Variant, workbench: Workbench, ranks: Ranks) -> str | None:
    """Make one, unless it is in the run folder or known to gain nothing.

    Returns:
        Why there is none, as sentences; None where there is one.
    """
    shelf, keeping = workbench.shelf, workbench.keeping
    assert isinstance(shelf, Shelf) and isinstance(keeping, Kept)
    refused = shelf.refused.get(variant)
    if refused is None:
        try:
            workbench.recover([variant])
        except NoGainError as error:
            refused = str(error)
            shelf.refuse(variant, refused)
    if ranks.leads:  # what became of it is in the run folder now
        keeping.forget(variant)
    return refused
