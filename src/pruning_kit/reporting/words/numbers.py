"""Numbers and lists as people write them, for sentences and tables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

from pruning_kit.findings.evidence import Interval
from pruning_kit.plans.plan import Plan
from pruning_kit.runs.facts import ProtocolFacts

MAX_NAMED = 6
MAX_SERIES = 12


def format_ppl(ppl: float) -> str:
    """A perplexity as people write it: 39.29, 764, 12,096, 1.95e+07."""
    if math.isnan(ppl):
        return "failed"
    if ppl < 100:
        return f"{ppl:.2f}"
    return f"{ppl:,.0f}" if ppl < 1e6 else f"{ppl:.2e}"


def format_bos(protocol: ProtocolFacts) -> str:
    """That windows begin with BOS, to be added to a list; empty where they do not."""
    return "" if protocol.bos is None else ", BOS first in each window"


def format_windows(protocol: ProtocolFacts) -> str:
    """What the windows of a run are: `context 1024, stride 512`."""
    return f"context {protocol.context}, stride {protocol.stride}{format_bos(protocol)}"


def format_change(ratio: Interval) -> str:
    """A perplexity ratio: `+7.1 % [+6.0 to +8.2 %]` or `3.98× [3.80 to 4.17]`."""
    if math.isnan(ratio.value):
        return "unknown"
    write, unit = (percent, " %") if ratio.value < 2 else (factor, "")
    text = f"{percent(ratio.value)} %" if unit else times(ratio.value)
    if ratio.low is None or ratio.high is None or ratio.low == ratio.high:
        return text
    return f"{text} [{write(ratio.low)} to {write(ratio.high)}{unit}]"


def format_ratio(ratio: float) -> str:
    """A ratio in a table, all on one scale: 1.071, 3.98, 308, 4,971."""
    if math.isnan(ratio):
        return "unknown"
    return f"{ratio:.3f}" if ratio < 2 else factor(ratio)


def format_nats(interval: Interval) -> str:
    """Nats per token with bounds: `0.851 [0.840 to 0.862]`."""
    text = _signed(interval.value)
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{_signed(interval.low)} to {_signed(interval.high)}]"


def significant(value: float, digits: int = 3) -> str:
    """A number by its first digits, written out: 0.733, 39.9, 1,410."""
    return f"{float(f'{value:.{digits}g}'):,.{digits + 9}g}"


def format_share(interval: Interval) -> str:
    """A share with bounds: `72.4 % [71.0 to 73.8 %]`."""
    text = f"{100 * interval.value:.1f} %"
    if interval.low is None or interval.high is None:
        return text
    return f"{text} [{100 * interval.low:.1f} to {100 * interval.high:.1f} %]"


def _signed(value: float) -> str:
    return f"{value:.3f}".replace("-", "−") if abs(value) >= 0.0005 else "0.000"


def percent(ratio: float, digits: int = 1) -> str:
    """A ratio as a signed change in per cent, without the sign for it: `+7.1`."""
    pct = round(100 * (ratio - 1), digits)
    return f"{pct:+.{digits}f}".replace("-", "−") if pct else f"{0:.{digits}f}"


def times(ratio: float) -> str:
    """What something is multiplied by: `3.98×`."""
    return f"{factor(ratio)}×"


def factor(ratio: float) -> str:
    """A ratio as a number: 3.98, 308, 4,971."""
    return f"{ratio:.2f}" if ratio < 100 else format_ppl(ratio)


def listed(words: Iterable[object], last: str = "and") -> str:
    """`1, 4 and 2`."""
    names = [str(word) for word in words]
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def name_blocks(plan: Plan) -> str:
    """A plan in a sentence: `block 4`, `blocks 1+3`, `blocks 2-5`."""
    return f"block{'s' * (plan.size != 1)} {plan.short}"


def in_lines(name: str, width: int) -> str:
    """A variant's name in lines of at most `width` letters, broken behind plus signs and spaces."""
    lines = [""]
    for part in re.findall(r"[^+ ]+[+ ]?", name):
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def some_plans(plans: Sequence[Plan]) -> str:
    """At most six plans by name, and how many more there are."""
    return listed(
        first_few(["the whole model" if plan == Plan() else plan.short for plan in plans])
    )


def first_few(words: Sequence[object]) -> list[str]:
    """At most six words, and how many more there are."""
    named = [str(word) for word in words[:MAX_NAMED]]
    rest = len(words) - len(named)
    return [*named, f"{rest:,} more"] if rest else named


def series(values: Sequence[tuple[int, str]]) -> str:
    """Values by number of blocks, `1: +5 %, 2: +7 %`; of many the first ones and the last."""
    named = [f"{number}: {value}" for number, value in values]
    if len(named) > MAX_SERIES:
        named = [*named[: MAX_SERIES - 2], "…", named[-1]]
    return ", ".join(named)


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers, `1 to 6` where none is missing, otherwise `1, 2 or 5`."""
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return listed(numbers, "or")


def count_blocks(count: int) -> str:
    """`1 block`, `2 blocks`."""
    return f"{count} block{'s' * (count != 1)}"


def change(ratio: float) -> str:
    """A perplexity ratio without bounds: `+7.1 %` or `3.98×`."""
    return format_change(Interval(ratio))


def at_least(ratio: float) -> str:
    """A factor rounded down, so that "at least" stays true."""
    step = 0.01 if ratio < 100 else 1.0
    return factor(float(np.floor(ratio / step)) * step)


YEAR_S = 365.25 * 86_400


def duration(seconds: float) -> str:
    """A duration as a person says it: `40 s`, `6 min`, `3 h 20 min`, `12 days`, `4 years`."""
    if math.isnan(seconds):
        return "an unknown time"
    if seconds > 1000 * YEAR_S:
        return "more than a thousand years"
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    if seconds < 2 * YEAR_S:
        return f"{round(hours / 24)} days"
    return f"{round(seconds / YEAR_S):,} years"
