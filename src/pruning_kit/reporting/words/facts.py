"""What one plan costs and wins, beside the whole model: perplexity, parameters, time."""

from __future__ import annotations

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.sizes import PlanLatency, PlanRow
from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.words.bridging import judged
from pruning_kit.reporting.words.numbers import format_change, format_share, significant


def plan_facts(analysis: Analysis, plan: Plan) -> str:
    """Perplexity, parameters and time of a plan against the whole model."""
    row, base = analysis.row[plan], analysis.row[Plan()]
    facts = [f"perplexity {format_change(row.ppl_ratio)}{judged(analysis, plan)}"]
    if row.agreement is not None:
        facts.append(f"agreement {format_share(row.agreement)}")
    if base.parameters and row.parameters is not None:
        facts.append(f"{100 * (1 - row.parameters / base.parameters):.1f} % fewer parameters")
    if row.latency is not None:
        facts.append(time_saved(row.latency))
    return ", ".join(facts)


def ms_and_speed(row: PlanRow) -> str:
    """Milliseconds of a timed plan and its time beside the whole model's: `307 ms (23 % less…)`."""
    assert row.latency is not None
    ms = f"{significant(1e3 * row.latency.median_s)} ms"
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
