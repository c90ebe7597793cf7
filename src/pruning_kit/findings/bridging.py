"""What bridging changes: how much it takes back, how plans rank, what choosing as cut costs.

Plans are chosen on the selection scores and reported by the reported ones, as everywhere. Costs are
log PPL above the whole model, nats per token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from pruning_kit.findings.comparison import order_agreement
from pruning_kit.findings.evidence import Interval, Scores
from pruning_kit.findings.importance import p_values
from pruning_kit.intervals.windows import LEVEL
from pruning_kit.plans.costs import Cost
from pruning_kit.plans.plan import Plan

if TYPE_CHECKING:
    from pruning_kit.findings.analysis import Text

MIN_DAMAGE = 0.01
"""Nats below which it is not asked which share of a cost is taken back."""


@dataclass(frozen=True, eq=False)
class Both:
    """The same plans on one text by either cost."""

    as_cut: Scores
    judged: Scores
    """Bridged where there is a bridge, else as cut."""

    def by(self, cost: Cost) -> Scores:
        """The scores by one cost."""
        return self.judged if cost is Cost.bridged else self.as_cut

    @property
    def plans(self) -> set[Plan]:
        """Those measured in full by both, where the whole model was."""
        found = set(self.as_cut.place) & set(self.judged.place)
        return found if Plan() in found else set()

    def costs(self, plan: Plan) -> tuple[float, float]:
        """What a plan costs as cut, and as it is judged."""
        whole = self.as_cut.log_ppl(Plan())
        return self.as_cut.log_ppl(plan) - whole, self.judged.log_ppl(plan) - whole

    def taken_back(self, plan: Plan) -> float | None:
        """The share of what a plan costs as cut that is gone when bridged; None of next to none."""
        as_cut, judged = self.costs(plan)
        return 1 - judged / as_cut if as_cut > MIN_DAMAGE else None


@dataclass(frozen=True)
class Ranks:
    """A plan's places among those of its size on the reported text; 1 costs least."""

    plan: Plan
    as_cut: int
    bridged: int

    @property
    def moved(self) -> int:
        """By how many places."""
        return abs(self.as_cut - self.bridged)


@dataclass(frozen=True)
class SizeBridged:
    """The plans that remove `n_removed` blocks, as cut and bridged.

    `best_as_cut` and `best` are the best by either cost on the text chosen on; `regret` is what the
    first one, bridged, costs more than the second on the reported text, paired.
    """

    n_removed: int
    n_bridged: int
    ranks: tuple[Ranks, ...]
    """Of every plan of the size, the one that costs least bridged first."""
    median_taken_back: float | None
    """Of the bridged plans."""
    taken_back: float | None
    """Of the best plan."""
    best_as_cut: Plan
    best: Plan
    regret: Interval
    adjusted_p: float | None
    """Whether the regret is zero, for all sizes at once; None where that was not tested."""
    order_agreement: float | None
    """Kendall's tau of both orders; None where it is not defined."""

    @property
    def is_clear(self) -> bool:
        """Whether the regret differs from zero by a test that holds for all sizes at once."""
        return self.adjusted_p is not None and self.adjusted_p <= 1 - LEVEL


@dataclass(frozen=True)
class OnText:
    """On one text, the bridged plans against the same as cut, by a test of all of them at once."""

    text: Text
    n_bridged: int
    better: tuple[Plan, ...]
    """Clearly better bridged."""
    worse: tuple[Plan, ...]
    """Clearly worse bridged."""
    tested: bool


@dataclass(frozen=True, eq=False)
class Bridging:
    """What bridging changes in a run."""

    reported: Both
    """Any further number, on the text that figures belong to."""
    n_plans: int
    """Plans that remove some blocks and leave some."""
    bridged: tuple[Plan, ...]
    sizes: tuple[SizeBridged, ...]
    texts: tuple[OnText, ...]
    """The reported one first."""

    @property
    def moved(self) -> tuple[Ranks, ...]:
        """Plans whose rank among their size changes, those that move farthest first."""
        found = [ranks for size in self.sizes for ranks in size.ranks if ranks.moved]
        return tuple(sorted(found, key=lambda ranks: (-ranks.moved, ranks.bridged, ranks.plan)))


def bridging(
    reported: Both, selection: Both, texts: Sequence[tuple[Text, Both]], n_blocks: int
) -> Bridging | None:
    """What bridging changes; None where no plan is bridged.

    Args:
        reported: the scores that plans are reported by.
        selection: those that they are chosen by.
        texts: all texts that plans are compared on, with their scores.
        n_blocks: of the whole model.
    """
    if not reported.judged.bridged:
        return None
    plans = [plan for plan in sorted(reported.plans) if 0 < plan.size < n_blocks]
    return Bridging(
        reported,
        len(plans),
        tuple(plan for plan in plans if plan in reported.judged.bridged),
        _sizes(reported, selection, n_blocks),
        tuple(_on_text(text, both) for text, both in texts),
    )


def _on_text(text: Text, both: Both) -> OnText:
    plans = sorted(both.judged.bridged & both.plans)
    series_PN = both.judged.series(plans) - both.as_cut.series(plans)
    estimates = both.judged.estimate(series_PN)
    differs = [p is not None and p <= 1 - LEVEL for p in p_values(estimates.adjusted_p_C)]
    clear = [(p, v) for p, v, d in zip(plans, estimates.value_C, differs, strict=True) if d]
    return OnText(
        text,
        len(plans),
        tuple(plan for plan, value in clear if value < 0),
        tuple(plan for plan, value in clear if value > 0),
        both.judged.has_intervals,
    )


def _sizes(reported: Both, selection: Both, n_blocks: int) -> tuple[SizeBridged, ...]:
    """Each size that has a bridged plan; regrets are tested for all of them at once."""
    plans = sorted(reported.plans & selection.plans)
    found = []
    for n_removed in range(1, n_blocks):
        of_size = [plan for plan in plans if plan.size == n_removed]
        if reported.judged.bridged.intersection(of_size):
            best = [min(of_size, key=cost) for cost in _costs(selection)]
            found.append((of_size, best[0], best[1]))
    scores = reported.judged
    series_CN = scores.series(as_cut for _, as_cut, _ in found) - scores.series(
        best for _, _, best in found
    )
    tested = scores.estimate(series_CN)
    regrets = zip(scores.intervals(tested), p_values(tested.adjusted_p_C), strict=True)
    return tuple(
        _size(reported, *of_size, *regret) for of_size, regret in zip(found, regrets, strict=True)
    )


def _costs(both: Both) -> tuple[Callable[[Plan], float], Callable[[Plan], float]]:
    return both.as_cut.log_ppl, both.judged.log_ppl


def _size(
    reported: Both,
    plans: Sequence[Plan],
    best_as_cut: Plan,
    best: Plan,
    regret: Interval,
    adjusted_p: float | None,
) -> SizeBridged:
    bridged = [plan for plan in plans if plan in reported.judged.bridged]
    shares = [s for plan in bridged if (s := reported.taken_back(plan)) is not None]
    as_cut, judged = ([cost(plan) for plan in plans] for cost in _costs(reported))
    return SizeBridged(
        n_removed=best.size,
        n_bridged=len(bridged),
        ranks=_ranks(plans, as_cut, judged),
        median_taken_back=median(shares) if shares else None,
        taken_back=reported.taken_back(best),
        best_as_cut=best_as_cut,
        best=best,
        regret=regret if best != best_as_cut else Interval(0.0, 0.0, 0.0),
        adjusted_p=adjusted_p if best != best_as_cut else None,
        order_agreement=order_agreement(as_cut, judged),
    )


def _ranks(
    plans: Sequence[Plan], as_cut: Iterable[float], judged: Iterable[float]
) -> tuple[Ranks, ...]:
    places = [places_of(costs) for costs in (as_cut, judged)]
    found = [Ranks(plan, *ranks) for plan, *ranks in zip(plans, *places, strict=True)]
    return tuple(sorted(found, key=lambda ranks: ranks.bridged))


def places_of(costs: Iterable[float]) -> list[int]:
    """The rank of each cost, 1 for the lowest; equal ones in their order."""
    values = list(costs)
    order = sorted(range(len(values)), key=lambda at: (values[at], at))
    places = dict(zip(order, range(1, len(order) + 1), strict=True))
    return [places[at] for at in range(len(values))]
