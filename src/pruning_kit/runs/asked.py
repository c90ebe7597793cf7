"""Asked: what each proposer of a finished run asked for. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pruning_kit.errors import RunError
from pruning_kit.plans.variant import Variant
from pruning_kit.runs.files import RESTORE
from pruning_kit.runs.store import FINISHED_FILE, RunFolder


@dataclass(frozen=True, slots=True)
class Asked:
    """What one proposer asked for."""

    proposer: str
    """Its text form: a word of `try`, or a mode."""
    rows: tuple[Variant, ...]
    """What came of it, but for the whole model."""
    evaluations: float
    """Sets that it had measured on the text that plans are chosen on, those on a part of it
    counted in proportion, and the whole model."""


def read_asked(run: RunFolder) -> tuple[Asked, ...]:
    """What was kept when a run was finished; nothing of what was named by hand.

    Raises:
        RunError: if the mark is damaged, or names what was not measured.
    """
    mark = run.mark()
    rounds = [one for one in run.rounds() if not one.is_screening]
    rows = {facts.variant: facts.parsed for one in rounds for facts in one.variants}
    stored = () if mark is None else mark.asked
    if strange := {name for one in stored for name in one.variants} - rows.keys():
        raise RunError(
            f"cannot read run {run.folder}: its {FINISHED_FILE} names a row {min(strange)!r:.40}, "
            f"which was not measured. {RESTORE}"
        )
    return tuple(
        Asked(one.proposer, tuple(map(rows.__getitem__, one.variants)), one.evaluations)
        for one in stored
    )


def proposed_by(asked: Iterable[Asked]) -> dict[Variant, str]:
    """Who asked for each row, several with spaces between them."""
    found: dict[Variant, list[str]] = {}
    for one in asked:
        for variant in one.rows:
            found.setdefault(variant, []).append(one.proposer)
    return {variant: " ".join(by) for variant, by in found.items()}
