"""A shrunk model in six lines: what is gone, what that costs and wins, and where it is."""

from __future__ import annotations

from pathlib import Path

from pruning_kit.findings.evidence import Interval
from pruning_kit.findings.recovered import change_between
from pruning_kit.plans.distilled import is_trained
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.reporting.words.numbers import (
    count_blocks,
    format_change,
    format_ppl,
    name_blocks,
    percent,
)
from pruning_kit.runs.results import Run


def shrunk_lines(
    searched: Run, run: Run, variant: Variant, folder: Path, report: Path
) -> list[str]:
    """What a shrinking ends with.

    Args:
        searched: the candidates.
        run: the whole model beside the result.
        variant: the result.
        folder: of the model.
        report: the page.
    """
    return [
        f"Removed: {_removed(searched, variant)}.",
        f"Perplexity: {_perplexity(run, variant)}.",
        f"Parameters: {_parameters(run, variant.plan)}.",
        f"Time per token: {_time(run, variant.plan)}.",
        f"Model: {folder}; report: {report}",
        f"Load: transformers.AutoModelForCausalLM.from_pretrained({str(folder)!r})",
    ]


def _removed(searched: Run, variant: Variant) -> str:
    screened = {facts.parsed.plan for one in searched.screenings for facts in one.candidates}
    n_sets = sum(plan.size == variant.plan.size for plan in screened.union(searched.plans))
    title = searched.facts.texts[searched.facts.choosing_role].title
    how = f", {variant.recovery}" if variant.recovery else ", as cut"
    n_tried = sum(is_trained(one) for one in searched.variants)
    tried = f", {n_tried} of them distilled to choose" * bool(n_tried)
    return (
        f"{name_blocks(variant.plan)} of {count_blocks(searched.n_blocks)}{how}; the best of "
        f"{n_sets:,} sets of that size on {title}{tried}"
    )


def _perplexity(run: Run, variant: Variant) -> str:
    rows = {row["variant"]: row for row in run.rows()}
    before, after = (format_ppl(rows[str(one)]["ppl"]) for one in (Variant(), variant))
    ratio = change_between(run, variant, Variant())
    title = run.facts.texts["reported"].title
    return f"{before} before, {after} after, {format_change(ratio)}, on {title}"


def _parameters(run: Run, plan: Plan) -> str:
    before, after = run.parameters[Plan()], run.parameters[plan]
    return f"{before / 1e6:.2f} M before, {after / 1e6:.2f} M after, {percent(after / before)} %"


def _time(run: Run, plan: Plan) -> str:
    """Of a continuation end to end, shared out among its tokens."""
    if run.timings is None or not run.timings.covers(plan):
        return "not timed"
    before, after = run.timings.summary(Plan()), run.timings.summary(plan)
    ms = [f"{1e3 / one.end_to_end_tokens_per_s:.2f} ms" for one in (before, after)]
    ratio = after.end_to_end_s.ratio
    change = format_change(Interval(ratio.value, ratio.low, ratio.high))
    return f"{ms[0]} before, {ms[1]} after, {change}, end to end"
