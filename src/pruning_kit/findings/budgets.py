"""Decisions: the best plan within limits, where to stop, and what to take without any limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pruning_kit.errors import RunError
from pruning_kit.findings.choices import PlanRow, Size
from pruning_kit.plan import Plan

MAX_RECOMMENDED_RATIO = 1.5
CHEAP_RATIO = 1.1
STEEP_STEP = 2.0
FREE_NATS = 0.02


@dataclass(frozen=True)
class Budget:
    """Limits on a choice; None is no limit.

    `max_ppl_increase_pct` is relative to the whole model: 10 allows 1.1 times its perplexity.
    """

    max_latency_s: float | None = None
    max_params: int | None = None
    max_ppl_increase_pct: float | None = None

    def __str__(self) -> str:
        """The limits in words, such as `at most 60,000,000 parameters`."""
        parts = []
        if self.max_latency_s is not None:
            parts.append(f"at most {1e3 * self.max_latency_s:g} ms")
        if self.max_params is not None:
            parts.append(f"at most {self.max_params:,} parameters")
        if self.max_ppl_increase_pct is not None:
            parts.append(f"at most {self.max_ppl_increase_pct:g} % more perplexity")
        return " and ".join(parts) or "no limit"


@dataclass(frozen=True)
class Choice:
    """The plan chosen within a budget; without one (`row` is None), `reason` says why.

    `caveats` name limits that the chosen plan keeps only by its estimate or only on the text
    that it was chosen on.
    """

    budget: Budget
    row: PlanRow | None
    reason: str
    caveats: tuple[str, ...]


def choose(rows: tuple[PlanRow, ...], budget: Budget) -> Choice:
    """The best plan within a budget, by the text chosen on.

    It is the plan of lowest perplexity within all limits; only with a limit on perplexity alone is
    it the plan of fewest parameters, then of most blocks removed, then of lowest perplexity.

    Raises:
        RunError: if a limit is not a positive number (zero will do for perplexity), or concerns
            latency in a run without timings.
    """
    _check(rows, budget)
    fitting = [row for row in rows if not row.failed and _fits(row, budget)]
    if not fitting:
        return Choice(budget, None, _closest(rows, budget), ())
    if replace(budget, max_ppl_increase_pct=None) == Budget() != budget:
        best = min(fitting, key=lambda row: (row.parameters or 0, -row.plan.size, _cost(row)))
    else:
        best = min(fitting, key=_cost)
    return Choice(budget, best, "", _caveats(best, budget))


def _cost(row: PlanRow) -> tuple[float, Plan]:
    return row.selection_ratio, row.plan


def _check(rows: tuple[PlanRow, ...], budget: Budget) -> None:
    latency_ms = None if budget.max_latency_s is None else 1e3 * budget.max_latency_s
    for option, value, unit in (
        ("--max-latency", latency_ms, " ms"),
        ("--max-params", budget.max_params, ""),
    ):
        if value is not None and not value > 0:
            raise RunError(
                f"cannot choose under {option} {value:g}{unit}: give a number above zero."
            )
    limit = budget.max_ppl_increase_pct
    if limit is not None and not limit >= 0:
        raise RunError(
            f"cannot choose under --max-ppl-increase {limit:g}: give a percentage from zero on."
        )
    if latency_ms is not None and all(row.latency is None for row in rows):
        raise RunError(
            f"cannot choose under --max-latency {latency_ms:g} ms: this run holds "
            "no timings. Measure it again with timing switched on, or give another limit."
        )


def _fits(row: PlanRow, budget: Budget) -> bool:
    seconds = row.latency.median_s if row.latency is not None else float("inf")
    parameters = float("inf") if row.parameters is None else row.parameters
    limit = budget.max_ppl_increase_pct
    return (
        (budget.max_latency_s is None or seconds <= budget.max_latency_s)
        and (budget.max_params is None or parameters <= budget.max_params)
        and (limit is None or row.selection_ratio <= 1 + limit / 100)
    )


def _closest(rows: tuple[PlanRow, ...], budget: Budget) -> str:
    """Why nothing fits: the least that the measured plans reach under each limit."""
    good = [row for row in rows if not row.failed]
    without_ppl = replace(budget, max_ppl_increase_pct=None)
    increases = [100 * (row.selection_ratio - 1) for row in good if _fits(row, without_ppl)]
    facts = []
    if increases:
        facts.append(f"the least increase of perplexity is {min(increases):.3g} %")
    else:
        seconds = [row.latency.median_s for row in good if row.latency is not None]
        counts = [row.parameters for row in good if row.parameters is not None]
        if budget.max_latency_s is not None and seconds:
            facts.append(f"the fastest takes {1e3 * min(seconds):.3g} ms")
        if budget.max_params is not None and counts:
            facts.append(f"the smallest has {min(counts):,} parameters")
    return "; ".join([f"none of the {len(good)} measured plans keeps to {budget}", *facts])


def _caveats(row: PlanRow, budget: Budget) -> tuple[str, ...]:
    found = []
    limit = budget.max_ppl_increase_pct
    if limit is not None and row.ppl_ratio.value > 1 + limit / 100:
        found.append("on the reported text it exceeds the limit on perplexity")
    elif limit is not None and (row.ppl_ratio.high or 0.0) > 1 + limit / 100:
        found.append("its 95 % interval reaches beyond the limit on perplexity")
    if budget.max_latency_s is not None and row.latency is not None:
        ratio = row.latency.ratio
        slowest = row.latency.median_s * (ratio.high or ratio.value) / ratio.value
        if slowest > budget.max_latency_s:
            found.append("its 95 % interval reaches beyond the limit on latency")
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
