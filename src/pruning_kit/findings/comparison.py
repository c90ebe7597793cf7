"""Comparison of two runs, plan by plan.

Where two runs scored the same windows their sums are compared window by window (paired), which
sees differences far smaller than the interval of either. Otherwise figures stand side by side and
nothing is tested.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from pruning_kit.errors import RunError
from pruning_kit.findings.evidence import Interval, Scores, exp
from pruning_kit.findings.importance import p_values
from pruning_kit.intervals import MIN_ROUNDS, windows
from pruning_kit.plans.plan import Plan
from pruning_kit.runs.results import Run
from pruning_kit.runs.rows import perplexity
from pruning_kit.speed import timings


@dataclass(frozen=True)
class Difference:
    """A fact in which two runs differ."""

    name: str
    first: str
    second: str


@dataclass(frozen=True)
class Side:
    """One plan in one of the runs; `change` is its perplexity relative to the whole model's."""

    ppl: float
    change: float
    bits_per_byte: float


@dataclass(frozen=True)
class PlanComparison:
    """One plan in both runs. `ratio` is the second perplexity relative to the first.

    Of paired runs the ratio has an interval, and `adjusted_p` tests equality for all plans at
    once; otherwise `ratio.reason` says why there is none.
    """

    plan: Plan
    first: Side
    second: Side
    ratio: Interval
    adjusted_p: float | None

    @property
    def differs(self) -> bool:
        """Whether the runs differ by a test that holds for all plans at once."""
        return self.adjusted_p is not None and self.adjusted_p <= 1 - windows.LEVEL


@dataclass(frozen=True)
class Comparison:
    """Two runs compared on the text they report on.

    `unpaired_because` is empty where windows were compared one by one; then `largest_difference`
    is the largest relative difference of any two sums, 0 where they agree to the last bit.
    `agreement` is Kendall's tau of the order of the plans; None below three plans. `speed` is
    None where speeds cannot be compared, and `no_speed_because` says why.
    """

    first: Run
    second: Run
    differences: tuple[Difference, ...]
    unpaired_because: str
    rows: tuple[PlanComparison, ...]
    n_only_first: int
    n_only_second: int
    largest_difference: float
    agreement: float | None
    speed: timings.Agreement | None
    no_speed_because: str

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
    because = why_unpaired(first, second)
    first_PN, second_PN = _sums(first, shared), _sums(second, shared)
    sides = zip(_sides(first, shared), _sides(second, shared), strict=True)
    pairs = list(sides)
    ratios = _unpaired_ratios(pairs, because) if because else _paired_ratios(first, shared, second)
    speed, no_speed_because = _compare_speed(first, second)
    return Comparison(
        first,
        second,
        tuple(differences(first, second)),
        because,
        tuple(
            PlanComparison(plan, *pair, ratio, p)
            for plan, pair, (ratio, p) in zip(shared, pairs, ratios, strict=True)
        ),
        len(in_first) - len(shared),
        len(in_second) - len(shared),
        math.nan if because else float(np.abs(second_PN / first_PN - 1).max()),
        order_agreement([a.ppl for a, _ in pairs], [b.ppl for _, b in pairs]),
        speed,
        no_speed_because,
    )


def measured_plans(run: Run) -> list[Plan]:
    """Plans measured in full on the reported text, the empty stack left out."""
    finite = np.isfinite(run.nll_as_cut().sum(axis=1)).tolist()
    return [
        plan
        for plan, good in zip(run.plans, finite, strict=True)
        if good and plan.size < run.n_blocks
    ]


def _sums(run: Run, plans: Sequence[Plan]) -> windows.Array:
    row = {plan: index for index, plan in enumerate(run.plans)}
    return run.nll_as_cut()[[row[plan] for plan in plans]]


def _sides(run: Run, plans: Sequence[Plan]) -> list[Side]:
    tokens = int(run.targets().sum())
    n_bytes = run.facts.texts["reported"].n_bytes
    whole_nats = float(_sums(run, [Plan()]).sum())
    return [
        Side(
            perplexity(nats, tokens),
            perplexity(nats - whole_nats, tokens),
            nats / math.log(2) / n_bytes,
        )
        for nats in _sums(run, plans).sum(axis=1).tolist()
    ]


def _paired_ratios(
    first: Run, plans: Sequence[Plan], second: Run
) -> list[tuple[Interval, float | None]]:
    difference_PN = _sums(second, plans) - _sums(first, plans)
    scores = Scores.of(plans, difference_PN, first.targets())
    estimates = scores.estimate(difference_PN)
    ratios = [interval.map(exp) for interval in scores.intervals(estimates)]
    return list(zip(ratios, p_values(estimates.adjusted_p_C), strict=True))


def _unpaired_ratios(
    pairs: Sequence[tuple[Side, Side]], because: str
) -> list[tuple[Interval, float | None]]:
    return [(Interval(b.ppl / a.ppl, reason=because), None) for a, b in pairs]


def why_unpaired(first: Run, second: Run) -> str:
    """Why two runs cannot be compared window by window; empty if they can."""
    texts = [run.facts.texts["reported"] for run in (first, second)]
    one, other = first.facts.protocol, second.facts.protocol
    if texts[0].sha256 != texts[1].sha256:
        return "the texts differ"
    if len({text.n_tokens for text in texts} - {None}) > 1:
        return "the tokenizers differ"
    if (one.context, one.stride) != (other.context, other.stride):
        return "context or stride differ"
    if one.bos != other.bos:
        return "the windows of one begin with BOS"
    if first.targets().tolist() != second.targets().tolist():
        return "different parts of the text were scored"
    if texts[0].n_bytes != texts[1].n_bytes:
        return "the tokenizers differ"
    return ""


def order_agreement(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau of two orders: 1 the same, 0 unrelated; None where it is not defined."""
    if len(first) < 3:
        return None
    tau = float(kendalltau(first, second).statistic)
    return None if math.isnan(tau) else tau


def _compare_speed(first: Run, second: Run) -> tuple[timings.Agreement | None, str]:
    """How far the ratios of latency agree, or why they cannot be compared."""
    one, two = first.timings, second.timings
    if one is None or two is None:
        if one is two:
            return None, "neither run has timings to compare"
        return None, f"the {'first' if one is None else 'second'} run has no timings to compare"
    for name, timed in (("first", one), ("second", two)):
        if len(timed.rounds) < MIN_ROUNDS:
            return None, (
                f"the {name} run was timed for {len(timed.rounds)} rounds only, and at least "
                f"{MIN_ROUNDS} are needed"
            )
    if not {pool[0] for pool in one.pools[1:]} & set(two.plans):
        return None, "no pruned model was timed in both runs"
    return timings.compare(one, two), ""


def differences(first: Run, second: Run) -> Iterator[Difference]:
    """The facts in which two runs differ, in the order in which they matter."""
    for (name, one), (_, other) in zip(_facts(first), _facts(second), strict=True):
        if one != other:
            yield Difference(name, str(one), str(other))


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
        ("context", protocol.context),
        ("stride", protocol.stride),
        ("BOS", "none" if protocol.bos is None else protocol.bos),
        *((name, getattr(numerics, name)) for name in ("dtype", "device", "device_name", "kernel")),
        *((name, getattr(numerics, name)) for name in ("attention", "batch_size", "threads")),
        *((name, facts.versions.get(name)) for name in ("pruning_kit", "torch", "transformers")),
        ("commit", (facts.git_commit or "unknown")[:12]),
    ]
