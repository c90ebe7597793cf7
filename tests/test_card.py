"""Card: the figures that `prune --run` puts into a model card are those of the report."""

from __future__ import annotations

import pytest

from pruning_kit.findings.analysis import analyse
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import BRIDGED, Variant
from pruning_kit.reporting.card import card_numbers
from pruning_kit.reporting.words.numbers import format_change, format_nats, format_share


def numbers_of(run, variant):
    return card_numbers(run, variant, run.facts.model.weights_sha256)


def test_figures_have_the_intervals_of_the_analysis(stored_run):
    run = stored_run(bridged=lambda plan: 0.05 * plan.size or None, comparing=True)
    for variant, cost in [
        (Variant(Plan((1,))), "as cut"),
        (Variant(Plan((1,)), BRIDGED), "bridged"),
    ]:
        row, numbers = analyse(run, cost).row[variant.plan], numbers_of(run, variant)
        assert numbers["perplexity"] == pytest.approx(row.ppl.value)
        low, high = numbers["perplexity, 95 % interval"].split(" to ")
        assert float(low) == pytest.approx(row.ppl.low, rel=1e-4)
        assert float(high) == pytest.approx(row.ppl.high, rel=1e-4)
        assert numbers["perplexity beside the whole model's"] == format_change(row.ppl_ratio)
        assert numbers["KL to the whole model, nats per token"] == format_nats(row.kl)
        assert numbers["tokens most likely to both"] == format_share(row.agreement)
        time = numbers["time of a generation beside the whole model's"]
        assert time == format_change(row.latency.ratio)
    assert numbers["perplexity as cut"] > numbers["perplexity"]


def test_what_was_not_measured_or_failed_is_not_told(stored_run):
    failing = Plan((2,))
    run = stored_run(timed=False, n_windows=20, failed=[failing])
    told = set(numbers_of(run, Variant(Plan((1,)))))
    assert "perplexity beside the whole model's" in told
    assert not {name for name in told if "95 %" in name or "time" in name or "KL" in name}
    assert set(numbers_of(run, Variant(failing))) < told
