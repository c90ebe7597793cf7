"""Costs: what was measured so far on the text that plans are chosen on, window by window.

Rows of the result are known on all windows, screened candidates on the first pieces of an order
that is spread over the text, so that what is known on few windows is a part of what is on more.

Where several proposers are asked together, each has a share: what it asked for itself.

Shapes: P plans, V variants, W windows of the text, N of them that are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence
from itertools import chain, groupby
from typing import NamedTuple

import numpy as np

from pruning_kit.inputs.windows import places_of, spread
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import BRIDGED, Variant
from pruning_kit.search.proposer import Request, Scoring, Screening
from pruning_kit.search.ranked import Scores

N_PIECES = 16
Group = tuple[int, int]


class Lacking(NamedTuple):
    """A round that a request still needs: variants as rows, or plans on some windows alone."""

    variants: Sequence[Variant] = ()
    plans: Sequence[Plan] = ()
    windows: tuple[Group, ...] | None = None
    """Runs of neighbouring windows; None: all of every text."""


class Costs(Mapping[Variant, float]):
    """Nats per token of every variant that is a row so far.

    NaN where a forward failed, and of what was asked for and no recovery made better.
    """

    def __init__(self, targets: Sequence[int], groups: Sequence[Group]) -> None:
        """Nothing is known yet.

        Args:
            targets: scored tokens of each window of the text.
            groups: windows that are computed together.
        """
        self.targets_W = np.asarray(targets, dtype=np.int64)
        self._groups = groups
        self._pieces = spread(groups, N_PIECES)
        order_W = places_of(self._pieces)
        self._ends = np.cumsum([0, *(end - first for first, end in self._pieces)])
        self._windows = [np.sort(order_W[:end]) for end in self._ends]
        self._rows: dict[Variant, np.ndarray] = {}
        self._absent: dict[Variant, None] = {}
        self._screened: dict[Plan, np.ndarray] = {}
        self._n_pieces: dict[Plan, int] = {}
        self._windows_read = 0
        self._increases: dict[Plan, float] = {}
        self.scores: dict[str, Scores] = {}
        """By ranking, of those that were asked for so far."""
        self.shares: dict[str, Costs] = {}
        """What each of several proposers asked for, by their text forms."""

    def __getitem__(self, variant: Variant) -> float:
        if variant in self._absent:
            return math.nan
        return float(self._rows[variant].sum() / self.targets_W.sum())

    def __iter__(self) -> Iterator[Variant]:
        return chain(self._rows, self._absent)

    def __len__(self) -> int:
        return len(self._rows) + len(self._absent)

    # --- what is asked for ---------------------------------------------------------------------

    def lacking(self, request: Request) -> list[Lacking]:
        """The rounds that a request takes beside what is known, each of one shape.

        The whole model is a row from the first. Scores are no round.
        """
        if isinstance(request, Scoring):
            return []
        if not isinstance(request, Screening):
            new = [one for one in dict.fromkeys([Variant(), *request]) if one not in self]
            return [Lacking(variants=new)] if new else []
        n_wanted = self._pieces_for(request.windows)
        known = {plan: self._known(plan) for plan in request.proposed}
        todo = sorted((plan for plan in known if known[plan] < n_wanted), key=known.__getitem__)
        return self.lacking([]) + [
            Lacking((), list(plans), tuple(self._pieces[n_known:n_wanted]))
            for n_known, plans in groupby(todo, key=known.__getitem__)
        ]

    def _pieces_for(self, n_windows: int | None) -> int:
        """How many of the first pieces hold so many windows."""
        if n_windows is None:
            return len(self._pieces)
        return int(np.searchsorted(self._ends, min(n_windows, self.n_windows)))

    def _known(self, plan: Plan) -> int:
        """How many of the first pieces a plan is known on."""
        return self._n_pieces.get(plan, 0)

    # --- what is found -------------------------------------------------------------------------

    def add_rows(self, variants: Sequence[Variant], nats_VW: Iterable[np.ndarray]) -> None:
        """Take in what variants cost on all windows."""
        for variant, nats_W in zip(variants, nats_VW, strict=True):
            self._rows[variant] = nats_W
            if variant.recovery is None:
                self._know(variant.plan, len(self._pieces))
        self._increases.clear()

    def add_absent(self, asked: Sequence[Variant]) -> None:
        """Know of what was asked for and is no row that it will be none."""
        self._absent |= dict.fromkeys(variant for variant in asked if variant not in self._rows)

    def add_screened(
        self, plans: Sequence[Plan], windows: Sequence[Group], nats_PN: np.ndarray
    ) -> None:
        """Take in what candidates cost on the windows that a screening lacked, in their order."""
        places = places_of(windows)
        for plan, nats_N in zip(plans, nats_PN, strict=True):
            nats_W = self._screened.setdefault(plan, np.full(len(self.targets_W), np.nan))
            nats_W[places] = nats_N
            self._know(plan, self._known(plan) + len(windows))
            self._increases.pop(plan, None)

    def _know(self, plan: Plan, n_pieces: int) -> None:
        """Know a plan on so many of the first pieces."""
        self._windows_read += self._held(n_pieces) - self.windows_known(plan)
        self._n_pieces[plan] = n_pieces

    def share(self, name: str, request: Request) -> Costs:
        """What a proposer knows by what it asked for, with a further request that was measured.

        So it decides as if it were alone, and its evaluations are its own. A candidate that is a
        row already, for another one, costs what the row does.
        """
        share = self.shares.setdefault(name, Costs(self.targets_W.tolist(), self._groups))
        if isinstance(request, Scoring):
            share.scores |= {ranking: self.scores[ranking] for ranking in request.names}
        for lacking in share.lacking(request):
            if lacking.windows is None:
                rows = [row for one in lacking.variants for row in self._rows_of(one)]
                share.add_rows(rows, [self._rows[row] for row in rows])
                share.add_absent(lacking.variants)
            else:
                places = places_of(lacking.windows)
                nats_PN = np.stack([self._judged(plan)[places] for plan in lacking.plans])
                share.add_screened(lacking.plans, lacking.windows, nats_PN)
        return share

    def _rows_of(self, asked: Variant) -> list[Variant]:
        """The rows that came of asking for one: a plan as cut is bridged too where that helps."""
        bridged = [Variant(asked.plan, BRIDGED)] * (asked.recovery is None)
        return [variant for variant in (asked, *bridged) if variant in self._rows]

    # --- what is known -------------------------------------------------------------------------

    @property
    def n_windows(self) -> int:
        """Of the text."""
        return len(self.targets_W)

    @property
    def rows(self) -> list[Variant]:
        """The variants that are rows, in the order in which they came to be."""
        return list(self._rows)

    @property
    def plans(self) -> KeysView[Plan]:
        """All that are known on some windows at least, in the order in which they came to be."""
        return self._n_pieces.keys()

    @property
    def evaluations(self) -> float:
        """Plans that were measured, those on a part of the text counted in proportion."""
        return self._windows_read / self.n_windows

    def windows_known(self, plan: Plan) -> int:
        """How many windows a plan is known on."""
        return self._held(self._known(plan))

    def windows_read(self, n_windows: int) -> int:
        """How many a screening of so many reads, since it takes whole pieces."""
        return self._held(self._pieces_for(n_windows))

    def _held(self, n_pieces: int) -> int:
        return int(self._ends[n_pieces])

    def known_windows(self, plans: Sequence[Plan]) -> np.ndarray:
        """The windows that all of these plans are known on, ascending: (N,)."""
        return self._windows[min(map(self._known, plans))]

    def nats(self, plans: Sequence[Plan], windows_N: np.ndarray) -> np.ndarray:
        """Nats of plans over windows, (P, N), by the variants that they are judged by.

        Infinite where a forward failed.
        """
        nats_PN = np.stack([self._judged(plan)[windows_N] for plan in plans])
        return np.where(np.isfinite(nats_PN), nats_PN, np.inf)

    def _judged(self, plan: Plan) -> np.ndarray:
        for variant in (Variant(plan, BRIDGED), Variant(plan)):
            if variant in self._rows:
                return self._rows[variant]
        return self._screened[plan]

    def increase(self, plan: Plan) -> float:
        """Nats per token beside the whole model, over all windows that the plan is known on."""
        if plan not in self._increases:
            windows_N = self.known_windows([plan])
            plan_N, whole_N = self.nats([plan, Plan()], windows_N)
            more = float((plan_N - whole_N).sum() / self.targets_W[windows_N].sum())
            self._increases[plan] = more
        return self._increases[plan]
