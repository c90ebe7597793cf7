"""Scores: what a run folder holds of rankings of blocks by one pass over a text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from pruning_kit.errors import RunError
from pruning_kit.machine import disk
from pruning_kit.machine.typed import Count, MisfitError, fit
from pruning_kit.search.ranked import RANKINGS, Scores

SCORES_FILE = "scores.json"
REMEDY = "Delete the file; `resume` writes it again."
Score = Annotated[float, Meta(ge=0, le=1e15)]


class RankingFacts(Struct, frozen=True, kw_only=True):
    """One ranking."""

    tokens: Count
    """That it counts: all that others are predicted from, or those that are scored."""
    kernel: str
    """What computed the states, or the gradients."""
    scores: tuple[tuple[Score, ...], ...]
    """Of single blocks, of runs of two, and so on; of blocks alone one row. Low: does little."""


class ScoresFacts(Struct, frozen=True, kw_only=True):
    """The rankings of a run."""

    rankings: dict[str, RankingFacts]

    def check(self, n_blocks: int) -> None:
        """See that they are of a model of so many blocks.

        Raises:
            MisfitError: naming what is not.
        """
        for name, facts in self.rankings.items():
            lengths = [len(row) for row in facts.scores]
            wanted = list(range(n_blocks, 1, -1))
            if name not in RANKINGS or lengths not in (wanted, wanted[:1]):
                raise MisfitError(
                    f"rankings.{name:.40}", f"a model of {n_blocks} blocks has no such scores"
                )

    @property
    def by_name(self) -> Mapping[str, Scores]:
        """The scores of each ranking."""
        return {name: facts.scores for name, facts in self.rankings.items()}


def write_scores(folder: Path, facts: ScoresFacts) -> None:
    """Write them whole, in place of earlier ones.

    Raises:
        RunError: if the disk refuses.
    """
    disk.write_json(folder / SCORES_FILE, facts)


def read_scores(folder: Path, n_blocks: int) -> ScoresFacts:
    """The scores of a run; none where none were asked for.

    Raises:
        RunError: if they are damaged, or of another model.
    """
    path = folder / SCORES_FILE
    if not path.exists():
        return ScoresFacts(rankings={})
    try:
        facts = fit(disk.read_json(path, REMEDY), ScoresFacts)
        facts.check(n_blocks)
    except MisfitError as misfit:
        raise RunError(
            f"cannot read the scores in {path}: they {misfit.of_many}. {REMEDY}"
        ) from None
    return facts
