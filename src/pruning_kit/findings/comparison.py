"""Comparison of two runs, plan by plan.

Where two runs scored the same windows their sums are compared window by window (paired), which
sees differences far smaller than the interval of either. Otherwise figures stand side by side and
nothing is tested.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np

from pruning_kit.errors import RunError
from pruning_kit.findings.evidence import Interval, Scores, exp
from pruning_kit.findings.importance import p_values
from pruning_kit.intervals import MIN_ROUNDS, windows
from pruning_kit.intervals.memory import Array
from pruning_kit.plans.plan import Plan
from pruning_kit.runs.facts import TextFacts
from pruning_kit.runs.results import Run
from pruning_kit.runs.rows import perplexity
from pruning_kit.speed import timings


class Unpaired(Enum):
    """What keeps two runs from being compared window by window."""

    TEXT = auto()
    TOKENIZER = auto()
    WINDOWS = auto()
    """Context or stride."""
    BOS = auto()
    """The windows of one begin with BOS."""
    PART = auto()
    """Different parts of the text were scored."""


class NoSpeed(Enum):
    """What keeps the speeds of two runs from being compared."""

    UNTIMED = auto()
    FEW_ROUNDS = auto()
    NOTHING_SHARED = auto()
    """No pruned model was timed in both."""


@dataclass(frozen=True)
class Difference:
    """A fact in which two runs differ."""

    name: str
    first: str
    second: str


@dataclass(frozen=True)
class Side:
    """One plan in one of the runs."""

    ppl: float
    change: float
    """Its perplexity relative to the whole model's of the same run."""
    bits_per_byte: float
    kl: float | None
    """From the whole model, nats per token; None where it was not measured."""
    agreement: float | None
    """Share of tokens on which the whole model agrees; None where it was not measured."""


@dataclass(frozen=True)
class PlanComparison:
    """One plan in both runs."""

    plan: Plan
    first: Side
    second: Side
    ratio: Interval
    """The second perplexity relative to the first; an interval only where runs are paired."""
    kl_change: Interval | None
    """KL of the second run less that of the first; None where unpaired or not measured in both."""
    adjusted_p: float | None
    """A test of equality for all plans at once; None where nothing was tested."""

    @property
    def differs(self) -> bool:
        """Whether the runs differ by a test that holds for all plans at once."""
        return self.adjusted_p is not None and self.adjusted_p <= 1 - windows.LEVEL


@dataclass(frozen=True)
class Comparison:
    """Two runs compared on the text they report on."""

    first: Run
    second: Run
    differences: tuple[Difference, ...]
    unpaired: Unpaired | None
    """None where windows were compared one by one."""
    rows: tuple[PlanComparison, ...]
    n_only_first: int
    n_only_second: int
    largest_difference: float
    """Of any two sums, relative; 0 where they agree to the last bit, NaN where unpaired."""
    agreement: float | None
    """Kendall's tau of the order of the plans; None below three plans."""
    speed: timings.Agreement | NoSpeed

    @property
    def only_whole_model(self) -> bool:
        """Whether no pruned model was measured in both runs."""
        return [row.plan for row in self.rows] == [Plan()]


def compare_runs(first: Run, second: Run) -> Comparison:
    """Compare two runs plan by plan.

    Raises:
        RunError: if they have no plan in common that both measured in full.
    """
    in_first, in_second = measured_plans(first), set(measured_plans(second))
    shared = [plan for plan in in_first if plan in in_second]
    if not shared:
        raise RunError(
            f"cannot compare {first.folder} with {second.folder}: they have no measured plan in "
            "common. Sweep the same plans in both."
        )
    unpaired = why_unpaired(first, second)
    first_PN, second_PN = _sums(first, shared), _sums(second, shared)
    sides = zip(_sides(first, shared), _sides(second, shared), strict=True)
    pairs = list(sides)
    changes = [None] * len(shared) if unpaired else _kl_changes(first, shared, second)
    ratios = _unpaired_ratios(pairs) if unpaired else _paired_ratios(first, shared, second)
    return Comparison(
        first,
        second,
        tuple(differences(first, second)),
        unpaired,
        tuple(
            PlanComparison(plan, *pair, ratio, change, p)
            for plan, pair, (ratio, p), change in zip(shared, pairs, ratios, changes, strict=True)
        ),
        len(in_first) - len(shared),
        len(in_second) - len(shared),
        math.nan if unpaired else float(np.abs(second_PN / first_PN - 1).max()),
        order_agreement([a.ppl for a, _ in pairs], [b.ppl for _, b in pairs]),
        _compare_speed(first, second),
    )


def measured_plans(run: Run) -> list[Plan]:
    """Plans measured in full on the reported text, the empty stack left out."""
    finite = np.isfinite(run.nll_as_cut().sum(axis=1)).tolist()
    return [
        plan
        for plan, good in zip(run.plans, finite, strict=True)
        if good and plan.size < run.n_blocks
    ]


def _sums(run: Run, plans: Sequence[Plan]) -> Array:
    return run.nll_as_cut()[_places(run, plans)]


def _places(run: Run, plans: Sequence[Plan]) -> list[int]:
    place = {plan: index for index, plan in enumerate(run.plans)}
    return [place[plan] for plan in plans]


def _means(measure: str, run: Run, plans: Sequence[Plan]) -> list[float | None]:
    """A measure for each token; None where the run did not take it."""
    sums = run.as_cut(measure)
    if sums is None:
        return [None] * len(plans)
    return [*(sums[_places(run, plans)].sum(axis=1) / run.targets().sum()).tolist()]


def _sides(run: Run, plans: Sequence[Plan]) -> list[Side]:
    tokens = int(run.targets().sum())
    n_bytes = run.facts.texts["reported"].n_bytes
    whole_nats = float(_sums(run, [Plan()]).sum())
    return [
        Side(
            perplexity(nats, tokens),
            perplexity(nats - whole_nats, tokens),
            nats / math.log(2) / n_bytes,
            *comparing,
        )
        for nats, *comparing in zip(
            _sums(run, plans).sum(axis=1).tolist(),
            _means("kl", run, plans),
            _means("agreement", run, plans),
            strict=True,
        )
    ]


def _paired_ratios(
    first: Run, plans: Sequence[Plan], second: Run
) -> list[tuple[Interval, float | None]]:
    difference_PN = _sums(second, plans) - _sums(first, plans)
    scores = Scores.of(plans, difference_PN, first.targets())
    estimates = scores.estimate(difference_PN)
    ratios = [interval.map(exp) for interval in scores.intervals(estimates)]
    return list(zip(ratios, p_values(estimates.adjusted_p_C), strict=True))


def _kl_changes(first: Run, plans: Sequence[Plan], second: Run) -> list[Interval | None]:
    one, other = first.as_cut("kl"), second.as_cut("kl")
    if one is None or other is None:
        return [None] * len(plans)
    change_PN = other[_places(second, plans)] - one[_places(first, plans)]
    scores = Scores.of(plans, change_PN, first.targets())
    return [*scores.intervals(scores.estimate(change_PN))]


def _unpaired_ratios(pairs: Sequence[tuple[Side, Side]]) -> list[tuple[Interval, float | None]]:
    return [(Interval(b.ppl / a.ppl), None) for a, b in pairs]


def why_unpaired(first: Run, second: Run) -> Unpaired | None:
    """Why two runs cannot be compared window by window; None if they can."""
    texts = [run.facts.texts["reported"] for run in (first, second)]
    one, other = first.facts.protocol, second.facts.protocol
    if texts[0].sha256 != texts[1].sha256:
        return Unpaired.TEXT
    if len({text.n_tokens for text in texts} - {None}) > 1:
        return Unpaired.TOKENIZER
    if (one.context, one.stride) != (other.context, other.stride):
        return Unpaired.WINDOWS
    if one.bos != other.bos:
        return Unpaired.BOS
    if first.targets().tolist() != second.targets().tolist():
        return Unpaired.PART
    return Unpaired.TOKENIZER if texts[0].n_bytes != texts[1].n_bytes else None


def order_agreement(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau of two orders: 1 the same, 0 unrelated; None where it is not defined."""
    if len(first) < 3:
        return None
    from scipy.stats import kendalltau  # a second, which reports of one text need not wait for

    tau = float(kendalltau(first, second).statistic)
    return None if math.isnan(tau) else tau


def _compare_speed(first: Run, second: Run) -> timings.Agreement | NoSpeed:
    """How far the ratios of latency agree, or why they cannot be compared."""
    one, two = first.timings, second.timings
    if one is None or two is None:
        return NoSpeed.UNTIMED
    if min(len(one.rounds), len(two.rounds)) < MIN_ROUNDS:
        return NoSpeed.FEW_ROUNDS
    if not {pool[0] for pool in one.pools[1:]} & set(two.plans):
        return NoSpeed.NOTHING_SHARED
    return timings.compare(one, two)


def differences(first: Run, second: Run) -> Iterator[Difference]:
    """The facts in which two runs differ, in the order in which they matter."""
    for (name, one), (_, other) in zip(_facts(first), _facts(second), strict=True):
        if one != other:
            yield Difference(name, str(one), str(other))


def _further(run: Run) -> list[TextFacts]:
    return [run.facts.texts[role] for role in run.facts.further_roles]


def _named(text: TextFacts) -> str:
    return f"{text.title} ({text.sha256[:12]})"


def _facts(run: Run) -> list[tuple[str, Any]]:
    facts = run.facts
    model, text, numerics = facts.model, facts.texts["reported"], facts.numerics
    protocol = facts.protocol
    return [
        ("model", model.name),
        ("weights", model.weights_sha256[:12]),
        ("blocks", run.n_blocks),
        ("text", text.title),
        ("text hash", text.sha256[:12]),
        ("tokens scored", f"{int(run.targets().sum()):,}"),
        ("further texts", ", ".join(map(_named, _further(run))) or "none"),
        ("context", protocol.context),
        ("stride", protocol.stride),
        ("BOS", "none" if protocol.bos is None else protocol.bos),
        *((name, getattr(numerics, name)) for name in ("dtype", "device", "device_name", "kernel")),
        *((name, getattr(numerics, name)) for name in ("attention", "batch_size", "threads")),
        *((name, facts.versions.get(name)) for name in ("pruning_kit", "torch", "transformers")),
        ("commit", (facts.git_commit or "unknown")[:12]),
    ]
