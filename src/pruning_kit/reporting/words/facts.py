"""What one plan costs and wins, beside the whole model: perplexity, parameters, time."""

from __future__ import annotations

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.sizes import PlanLatency, PlanRow
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.words.numbers import format_change, format_ppl
from pruning_kit.reporting.words.speed import conditions


def plan_facts(analysis: Analysis, row: PlanRow, on_what: bool = False) -> str:
    """Perplexity, parameters and time of a plan beside those of the whole model.

    `on_what` adds what the time is of, and on which machine.
    """
    base = analysis.row[Plan()]
    facts = [
        f"perplexity {format_ppl(row.ppl.value)} instead of {format_ppl(base.ppl.value)}, "
        f"{format_change(row.ppl_ratio)}"
    ]
    if base.parameters and row.parameters is not None:
        saved = 100 * (1 - row.parameters / base.parameters)
        facts.append(
            f"{saved:.1f} % fewer parameters ({row.parameters / 1e6:.2f} instead of "
            f"{base.parameters / 1e6:.2f} M)"
        )
    if row.latency is not None:
        ms = [f"{1e3 * latency.median_s:.3g}" for latency in (row.latency, base.latency) if latency]
        timings = analysis.timings if on_what else None
        of = "" if timings is None else f" for {conditions(timings)}"
        on = ", timed on another model that does the same work" if row.latency.timed else ""
        facts.append(f"{time_saved(row.latency)} ({' instead of '.join(ms)} ms{of}{on})")
    return "; ".join(facts)


def ms_and_speed(row: PlanRow) -> str:
    """Milliseconds of a timed plan and its time beside the whole model's: `307 ms (23 % less…)`."""
    assert row.latency is not None
    ms = f"{1e3 * row.latency.median_s:.3g} ms"
    return ms if row.plan == Plan() else f"{ms} ({time_saved(row.latency)})"


def time_saved(latency: PlanLatency) -> str:
    """Time saved against the whole model, where the machine's noise allows to say it."""
    if not latency.claimed:
        return "not clearly faster"
    ratio = latency.ratio
    less = ratio.value < 1
    ends = [
        ratio.value,
        *([] if ratio.low is None or ratio.high is None else [ratio.low, ratio.high]),
    ]
    shares = sorted(100 * (1 - end if less else end - 1) for end in ends)
    bounds = f" [{shares[0]:.1f} to {shares[-1]:.1f} %]" if len(shares) > 1 else ""
    value = 100 * abs(1 - ratio.value)
    return f"{value:.1f} % {'less' if less else 'more'} time{bounds}"
