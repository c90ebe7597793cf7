"""The registry of proposers by the names that begin their text forms.

To add a search, write a class of the form of `Search` and a line here; the command line lists it.
"""

from __future__ import annotations

import re

from pruning_kit.errors import PlanError
from pruning_kit.plans.distilled import NAME as DISTILLED
from pruning_kit.plans.sets import STRATEGIES
from pruning_kit.search.baseline import Baseline
from pruning_kit.search.best import BestDistilled
from pruning_kit.search.chosen import Chosen
from pruning_kit.search.combinatorial import PAIRS, Combinatorial
from pruning_kit.search.proposer import Proposer, Search
from pruning_kit.search.ranked import RANKINGS, Ranked
from pruning_kit.search.sequential import Sequential
from pruning_kit.search.shapley import ShapleyOrders
from pruning_kit.search.sized import WAYS, SizedSearch
from pruning_kit.search.strategies import Strategies
from pruning_kit.search.together import Together

SEARCHES: dict[str, type[Search]] = {
    "baseline": Baseline,
    "sequential": Sequential,
    "combinatorial": Combinatorial,
    PAIRS: Combinatorial,
    **dict.fromkeys(STRATEGIES, Strategies),
    "shapley": ShapleyOrders,
    **dict.fromkeys(WAYS, SizedSearch),
    **dict.fromkeys(RANKINGS, Ranked),
    DISTILLED: BestDistilled,
    "none": Chosen,
}
"""What reads a word that begins so; one that begins with a number is a plan."""

_NAME = re.compile("[a-z]*")


def parse(text: str) -> Proposer:
    """Read words with spaces between them: `pairs`, `first:0.25 shapley:160 1+3`.

    The inverse of `str`: one way to choose is read as itself, several as their union.

    Raises:
        PlanError: if there is no word, or one cannot be read.
    """
    proposers = tuple(map(_parse_word, text.split()))
    if not proposers:
        raise PlanError(f"cannot choose plans by {text!r}: it names none. Write baseline or 1+3.")
    union = Together(proposers)
    return union.proposers[0] if len(union.proposers) == 1 else union


def forms() -> dict[str, str]:
    """What the words of each search look like, with what they ask for."""
    return {search.form: search.help for search in SEARCHES.values()}


def _parse_word(word: str) -> Proposer:
    match = _NAME.match(word)
    name = match[0] if match else ""
    if name and name not in SEARCHES:
        raise PlanError(
            f"cannot read {word!r:.60} as a way to choose plans: write blocks, such as 1+3, or one "
            f"of {', '.join(SEARCHES)}."
        )
    return SEARCHES[name].parse(word) if name else Chosen.parse(word)
