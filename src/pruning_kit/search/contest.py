"""A contest: a search under way, what it may still spend, and how its candidates are compared.

Shapes: P plans, N windows.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from scipy.special import stdtrit

from pruning_kit.plans.plan import Plan
from pruning_kit.search.costs import Costs
from pruning_kit.search.proposer import Screening

FEWEST_WINDOWS = 8
SMALLEST_SHARE = 1 / 32
FINAL = 8
"""Sets of a size, at most, that take part in its last race."""
DOUBT = 0.025
"""Chance, at most, that a race loses the set that is best on its text: all comparisons together."""

Race = Generator[Screening, Costs, list[Plan]]
"""Screenings that end in the candidates that are left, the best first."""


Method = Generator[Screening, Costs, None]
"""Screenings whose winners the contest knows."""


@dataclass(slots=True)
class Contest:
    """A search under way."""

    n_blocks: int
    allowed: float
    """Evaluations in all, the whole model's too. A plan on all of the text is one, on a part of it
    so much less."""
    costs: Costs
    chance: random.Random
    best: dict[int, Plan] = field(default_factory=dict)
    """The winner among the sets of each size so far."""

    @property
    def left(self) -> float:
        """Evaluations that may still be made."""
        return self.allowed - self.costs.evaluations

    @property
    def exhausted(self) -> bool:
        """Whether not one more candidate can be read on the fewest windows."""
        return self.left * self.costs.n_windows < self.costs.windows_read(self.rungs[0])

    @contextmanager
    def keeping_back(self, evaluations: float) -> Iterator[None]:
        """Leave so many for the finals, or half of all, where these read more than was read."""
        kept = min(evaluations, self.allowed / 2) if len(self.rungs) > 1 else 0.0
        self.allowed -= kept
        yield
        self.allowed += kept

    def shares(self, sizes: Sequence[int]) -> Iterator[int]:
        """Sizes one after the other, each with an equal part of what is left then."""
        allowed = self.allowed
        for n_left, size in zip(range(len(sizes), 0, -1), sizes, strict=True):
            self.allowed = allowed - (allowed - self.costs.evaluations) * (n_left - 1) / n_left
            yield size
        self.allowed = allowed

    @property
    def rungs(self) -> list[int]:
        """Numbers of windows, each twice the one before, the last all of the text."""
        rungs, n_windows = [], self.costs.n_windows
        at = max(FEWEST_WINDOWS, int(n_windows * SMALLEST_SHARE))
        while at < n_windows:
            rungs.append(at)
            at *= 2
        return [*rungs, n_windows]

    def race(self, proposed: Mapping[Plan, str], keep: int = 1, to_the_end: bool = False) -> Race:
        """Screen candidates of one size on ever more windows, until few enough are left.

        Out is what is surely worse than the last of those that are looked for. The best set of
        the size so far takes part. Where evaluations run out, those that are proposed first, later
        those that cost least, go on.

        Args:
            proposed: the candidates, with the search that each comes from.
            keep: how many are looked for.
            to_the_end: whether these are read on all windows too.
        """
        proposed = self._with_the_best(proposed)
        standing = list(proposed)
        doubt = DOUBT / (max(1, len(standing) - 1) * len(self.rungs))
        for n_windows in self.rungs:
            affordable = self._affordable(standing, n_windows)
            if not affordable:
                break
            self.costs = yield Screening({plan: proposed[plan] for plan in affordable}, n_windows)
            standing = self.standing(affordable, keep, doubt)
            self.best[standing[0].size] = standing[0]
            if len(standing) <= keep and not to_the_end:
                break
        return [plan for plan in standing if plan in self.known][:keep]

    def _with_the_best(self, proposed: Mapping[Plan, str]) -> Mapping[Plan, str]:
        """The best of the size first; who proposed it first is known already."""
        best = [self.best[plan.size] for plan in proposed if plan.size in self.best][:1]
        return dict.fromkeys(best, next(iter(proposed.values()), "")) | dict(proposed)

    def final(self, size: int, name: str, keep: int) -> Race:
        """The best set of a size, and the next of those that all windows could be read of."""
        known = [plan for plan in self.costs.plans if plan.size == size]
        known.sort(key=self.costs.increase)
        if not known:
            return []
        yield from self.race({self.best[size]: name}, to_the_end=True)
        best = yield from self.race(dict.fromkeys(known[:FINAL], name), keep, to_the_end=True)
        n_windows = self.costs.n_windows
        return [p for p in best if p is best[0] or self.costs.windows_known(p) == n_windows]

    def _affordable(self, plans: Sequence[Plan], n_windows: int) -> list[Plan]:
        """The first of these that what is left allows to read on so many windows."""
        left, found = self.left * self.costs.n_windows, []
        n_read = self.costs.windows_read(n_windows)
        for plan in plans:
            left -= max(0, n_read - self.costs.windows_known(plan))
            if left < 0:
                break
            found.append(plan)
        return found

    @property
    def known(self) -> Set[Plan]:
        """All plans that were screened or are rows, in the order in which they came to be."""
        return self.costs.plans

    def standing(self, plans: Sequence[Plan], keep: int = 1, doubt: float = DOUBT) -> list[Plan]:
        """Those that are not surely worse than the last of the best, by the windows of all: sorted.

        Args:
            plans: known ones.
            keep: how many are the best.
            doubt: chance, at most, that one is taken for worse which is not.
        """
        windows_N = self.costs.known_windows(plans)
        nats_PN, targets_N = self.costs.nats(plans, windows_N), self.costs.targets_W[windows_N]
        order = np.argsort(nats_PN.sum(axis=1), kind="stable")
        last = nats_PN[order[min(keep, len(order)) - 1]]
        worse_P = surely_worse(nats_PN, last, targets_N, doubt)
        return [plans[place] for place in order if not worse_P[place]]


def surely_worse(
    nats_PN: np.ndarray, than_N: np.ndarray, targets_N: np.ndarray, doubt: float
) -> np.ndarray:
    """Which plans cost more than another on the same windows by more than chance: bool, (P,).

    By Student's t of the ratio of sums, windows taken as independent: they are spread over the
    text. A plan whose forward failed is out, unless the other failed too.
    """
    if not np.isfinite(than_N).all():
        return np.zeros(len(nats_PN), dtype=bool)
    failed_P = ~np.isfinite(nats_PN).all(axis=1)
    if len(targets_N) == 1:
        return failed_P
    more_PN = np.where(failed_P[:, None], 0.0, nats_PN) - than_N
    more_P, n_windows = more_PN.sum(axis=1), len(targets_N)
    residual_PN = more_PN - (more_P / targets_N.sum())[:, None] * targets_N
    error_P = np.sqrt(np.square(residual_PN).sum(axis=1) * n_windows / (n_windows - 1))
    return np.asarray(failed_P | (more_P > stdtrit(n_windows - 1, 1 - doubt) * error_P))


def without(plans: Iterable[Plan], known: Set[Plan]) -> list[Plan]:
    """Those that are not known, each once, in their order."""
    return [plan for plan in dict.fromkeys(plans) if plan not in known]
