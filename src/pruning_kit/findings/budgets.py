"""Decisions: the best plan within limits, where to stop, and what to take without any limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum, auto

from pruning_kit.bounds import BUDGETS
from pruning_kit.errors import RunError
from pruning_kit.findings.sizes import PlanRow, Size
from pruning_kit.plans.plan import Plan

MAX_RECOMMENDED_RATIO = 1.5
CHEAP_RATIO = 1.1
STEEP_STEP = 2.0
FREE_NATS = 0.02


@dataclass(frozen=True)
class Budget:
    """Limits on a choice; None is no limit."""

    max_latency_s: float | None = None
    """Seconds of the end-to-end task."""
    max_params: int | None = None
    """Parameters of the model."""
    max_ppl_increase_pct: float | None = None
    """Relative to the whole model: 10 allows 1.1 times its perplexity."""

    def check(self) -> None:
        """Refuse limits that are none.

        Raises:
            RunError: naming the limit and what it may be.
        """
        latency_ms = None if self.max_latency_s is None else 1e3 * self.max_latency_s
        params_m = None if self.max_params is None else self.max_params / 1e6
        limits = (latency_ms, params_m, self.max_ppl_increase_pct)
        for (name, allowed), value in zip(BUDGETS.items(), limits, strict=True):
            allowed.check(name, value, RunError)

    @property
    def limits(self) -> tuple[Budget, ...]:
        """Each limit that is set, as a budget of its own."""
        return tuple(
            Budget(**{field.name: getattr(self, field.name)})
            for field in fields(self)
            if getattr(self, field.name) is not None
        )


class Caveat(Enum):
    """A limit that a chosen plan keeps by its estimate, on the text chosen on, and not surely."""

    PPL_EXCEEDED = auto()
    """On the reported text the estimate is over the limit."""
    PPL_UNSURE = auto()
    """On the reported text the interval reaches beyond the limit."""
    LATENCY_UNSURE = auto()
    """The interval of the latency reaches beyond the limit."""


@dataclass(frozen=True)
class Choice:
    """The plan chosen within a budget."""

    budget: Budget
    row: PlanRow | None
    """None where no measured plan keeps to the budget."""
    caveats: tuple[Caveat, ...] = ()
    nearest: PlanRow | None = None
    """Where none keeps to a single limit, the one that comes nearest to it."""
    alone: tuple[Choice, ...] = ()
    """Where none keeps to several limits, what each of them allows alone."""


def choose(rows: tuple[PlanRow, ...], budget: Budget) -> Choice:
    """The best plan within a budget, by the text chosen on.

    It is the plan of lowest perplexity within all limits; only with a limit on perplexity alone is
    it the plan of fewest parameters, then of most blocks removed, then of lowest perplexity.

    Raises:
        RunError: if a limit is none, or concerns latency in a run without timings.
    """
    budget.check()
    if budget.max_latency_s is not None and all(row.latency is None for row in rows):
        raise RunError(
            f"cannot choose a model of at most {1e3 * budget.max_latency_s:g} ms: this run holds "
            "no timings that can be used. Measure it again with timing switched on, or give "
            "another limit."
        )
    fitting = [row for row in rows if not row.failed and _fits(row, budget)]
    if not fitting:
        return _unmet(rows, budget)
    if replace(budget, max_ppl_increase_pct=None) == Budget() != budget:
        best = min(fitting, key=lambda row: (row.parameters or 0, -row.plan.size, _cost(row)))
    else:
        best = min(fitting, key=_cost)
    return Choice(budget, best, _caveats(best, budget))


def _cost(row: PlanRow) -> tuple[float, Plan]:
    return row.selection_ratio, row.plan


def _fits(row: PlanRow, budget: Budget) -> bool:
    limit = budget.max_ppl_increase_pct
    return (
        (budget.max_latency_s is None or _seconds(row) <= budget.max_latency_s)
        and (budget.max_params is None or _parameters(row) <= budget.max_params)
        and (limit is None or row.selection_ratio <= 1 + limit / 100)
    )


def _unmet(rows: tuple[PlanRow, ...], budget: Budget) -> Choice:
    """That nothing fits: the plan nearest to the limit, or what each of several allows alone."""
    limits = budget.limits
    if len(limits) > 1:
        return Choice(budget, None, alone=tuple(choose(rows, limit) for limit in limits))
    good = [row for row in rows if not row.failed]
    if budget.max_latency_s is not None:
        timed = [row for row in good if row.latency is not None]
        nearest = min(timed, key=lambda row: (_seconds(row), _cost(row)), default=None)
        return Choice(budget, None, nearest=nearest)
    if budget.max_params is not None:
        counted = [row for row in good if row.parameters is not None]
        nearest = min(counted, key=lambda row: (_parameters(row), _cost(row)), default=None)
        return Choice(budget, None, nearest=nearest)
    return Choice(budget, None, nearest=min(good, key=_cost, default=None))


def _seconds(row: PlanRow) -> float:
    return row.latency.median_s if row.latency is not None else float("inf")


def _parameters(row: PlanRow) -> float:
    return float("inf") if row.parameters is None else row.parameters


def _caveats(row: PlanRow, budget: Budget) -> tuple[Caveat, ...]:
    found = []
    limit = budget.max_ppl_increase_pct
    if limit is not None and row.ppl_ratio.value > 1 + limit / 100:
        found.append(Caveat.PPL_EXCEEDED)
    elif limit is not None and (row.ppl_ratio.high or 0.0) > 1 + limit / 100:
        found.append(Caveat.PPL_UNSURE)
    if budget.max_latency_s is not None and row.latency is not None:
        ratio = row.latency.ratio
        slowest = row.latency.median_s * (ratio.high or ratio.value) / ratio.value
        if slowest > budget.max_latency_s:
            found.append(Caveat.LATENCY_UNSURE)
    return tuple(found)


def useful_sizes(sizes: tuple[Size, ...]) -> tuple[Size, ...]:
    """The sizes whose best plan no larger one matches in perplexity on the text chosen on.

    All of them but in odd cases, such as a few chosen plans. The first one is the cheapest.
    """
    costs = [size.selection_increase for size in sizes]
    return tuple(
        size for at, size in enumerate(sizes) if all(c > costs[at] for c in costs[at + 1 :])
    )


def turning_point(sizes: tuple[Size, ...]) -> int:
    """Blocks to remove before further ones cost over twice the average of those before them.

    Costs are log PPL of the best plan of each useful size on the text chosen on, per block where
    sizes in between were left out. An average below 0.02 nats (2 %) counts as that much, lest the
    second block be called steep because the first was free.
    """
    count, cost = 0, 0.0
    for size in useful_sizes(sizes):
        step = (size.selection_increase - cost) / (size.n_removed - count)
        if count > 0 and step > STEEP_STEP * max(cost / count, FREE_NATS):
            break
        count, cost = size.n_removed, size.selection_increase
    return count


def recommend(sizes: tuple[Size, ...], rows: Mapping[Plan, PlanRow]) -> Plan:
    """The plan to take where no limit is set: the best one of the largest size that is sensible.

    Sensible is a useful size whose best plan has at most 1.1 times the perplexity of the whole
    model on the text chosen on, or lies before the turning point and has at most 1.5 times.
    Where no size is, the whole model is kept.
    """
    last = turning_point(sizes)
    sensible = [
        size.best
        for size in useful_sizes(sizes)
        if rows[size.best].selection_ratio
        <= (MAX_RECOMMENDED_RATIO if size.n_removed <= last else CHEAP_RATIO)
    ]
    return sensible[-1] if sensible else Plan()
