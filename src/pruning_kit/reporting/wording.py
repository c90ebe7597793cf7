"""Numbers and lists as people write them, for sentences and tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from pruning_kit.findings.scores import Interval
from pruning_kit.plan import Plan

MAX_NAMED = 6


def format_ppl(ppl: float) -> str:
    """A perplexity as people write it: 39.29, 764, 12,096, 1.95e+07."""
    if math.isnan(ppl):
        return "failed"
    if ppl < 100:
        return f"{ppl:.2f}"
    return f"{ppl:,.0f}" if ppl < 1e6 else f"{ppl:.2e}"


def format_change(ratio: Interval) -> str:
    """A perplexity ratio: `+7.1 % [+6.0 to +8.2 %]` or `3.98 times [3.80 to 4.17]`."""
    if math.isnan(ratio.value):
        return "unknown"
    write, unit = (percent, " %") if ratio.value < 2 else (factor, "")
    text = write(ratio.value) + (unit or " times")
    if ratio.low is None or ratio.high is None or ratio.low == ratio.high:
        return text
    return f"{text} [{write(ratio.low)} to {write(ratio.high)}{unit}]"


def format_nats(interval: Interval) -> str:
    """Nats per token with bounds: `0.851 [0.840 to 0.862]`."""
    text = _signed(interval.value)
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{_signed(interval.low)} to {_signed(interval.high)}]"


def _signed(value: float) -> str:
    return f"{value:.3f}".replace("-", "−") if abs(value) >= 0.0005 else "0.000"


def percent(ratio: float) -> str:
    """A ratio as a signed change in per cent, without the sign for it: `+7.1`."""
    pct = 100 * (ratio - 1)
    return "0.0" if abs(pct) < 0.05 else f"{pct:+.1f}".replace("-", "−")


def factor(ratio: float) -> str:
    """A ratio as a number: 3.98, 308, 4,971."""
    return f"{ratio:.2f}" if ratio < 100 else format_ppl(ratio)


def listed(words: Iterable[object], last: str = "and") -> str:
    """`1, 4 and 2`."""
    names = [str(word) for word in words]
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def some_plans(plans: Sequence[Plan]) -> str:
    """At most six plans by name, and how many more there are."""
    named = [str(plan) for plan in plans[:MAX_NAMED]]
    rest = len(plans) - len(named)
    return listed([*named, f"{rest:,} more"] if rest else named)


def count_blocks(count: int) -> str:
    """`1 block`, `2 blocks`."""
    return f"{count} block{'s' * (count != 1)}"


def change(ratio: float) -> str:
    """A perplexity ratio without bounds: `+7.1 %` or `3.98 times`."""
    return format_change(Interval(ratio))


def at_least(ratio: float) -> str:
    """A factor rounded down, so that "at least" stays true."""
    step = 0.01 if ratio < 100 else 1.0
    return factor(float(np.floor(ratio / step)) * step)
