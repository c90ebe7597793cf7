"""What CONTRIBUTING shows works as shown: a measure, a search and a recovery of one's own."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from examples.greedy import Greedy
from examples.surprise import SURPRISE
from examples.tempered import tempered
from tiny import TEXT, save_tiny_gpt2

from pruning_kit import load_run, open_workbench, sweep
from pruning_kit.errors import PlanError
from pruning_kit.plans.paths import as_cut
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.recovery import RECOVERIES
from pruning_kit.pruning.surgery import recut
from pruning_kit.search.named import SEARCHES, parse
from pruning_kit.walk.measures import MEASURES, NLL

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    (folder / "text.txt").write_text(TEXT * 2, encoding="utf-8")
    model = save_tiny_gpt2(folder / "model", n_blocks=4)
    return open_workbench(str(model), str(folder / "text.txt"), device="cpu", threads=1)


def test_contributing_shows_the_examples_as_they_are():
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    for name in ("surprise", "greedy", "tempered"):
        assert (ROOT / f"tests/examples/{name}.py").read_text() in shown


def test_a_measure_of_ones_own_is_added_up_beside_nll(bench, monkeypatch):
    monkeypatch.setitem(MEASURES, SURPRISE.name, SURPRISE)
    plain = bench.measure(["none", "1"])
    found = bench.measure(["none", "1"], measures=(NLL, SURPRISE))
    np.testing.assert_array_equal(found.sums["nll"], plain.sums["nll"])
    tokens, targets, first = bench.texts["reported"].tensors(1, 2)
    batch = bench.kernel.open(tokens, targets, first)
    state = batch.hidden_BTD
    with torch.no_grad():
        for call in as_cut(Plan((1,)), 4):
            state = batch.apply(call, state, False)
        assert (batch.nll(state) > 5).sum() == found.sums["surprise"][1, 1]
    assert found.means("surprise")[Variant()] <= 1


def test_a_recovery_of_ones_own_is_a_variant_like_others(bench, monkeypatch):
    with pytest.raises(PlanError, match="no recovery is called 'tempered'"):
        bench.measure(["1~tempered:0.5"])
    monkeypatch.setitem(RECOVERIES, "tempered", tempered)
    names = ["1~tempered:0.5", "none", "1~tempered:1.0", "1"]
    found = bench.measure(names)
    assert [str(variant) for variant in found.variants] == names
    sums = dict(zip(names, found.sums["nll"], strict=True))
    np.testing.assert_allclose(sums["1~tempered:1.0"], sums["1"], rtol=1e-6)
    tokens, targets, first = bench.texts["reported"].tensors(0, 1)
    with recut(bench.decoder, Plan((1,))) as model, torch.no_grad():
        logits = 0.5 * model(tokens).logits[:, first : first + targets.shape[1]]
    expected = torch.nn.functional.cross_entropy(logits[0], targets[0], reduction="sum")
    assert sums["1~tempered:0.5"][0] == pytest.approx(float(expected), rel=1e-5)


def test_a_search_of_ones_own_asks_again_when_it_knows_what_its_plans_cost(
    bench, monkeypatch, tmp_path
):
    monkeypatch.setitem(SEARCHES, "greedy", Greedy.parse)
    run = sweep("greedy:2", bench, tmp_path / "run")
    assert [len(part.variants) for part in run.rounds] == [5, 3]
    singles = bench.measure([Variant(Plan((block,))) for block in range(4)]).means()
    best = min(singles, key=singles.get).plan.removed[0]
    pairs = [plan for plan in run.plans if plan.size == 2]
    assert pairs == sorted(Plan((best, other)) for other in range(4) if other != best)
    assert str(parse("greedy:2")) == "greedy:2" == run.facts.proposal.text
    again = load_run(run.folder)
    np.testing.assert_array_equal(again.nll(), run.nll())
    assert math.isfinite(again.frame()["ppl"].sum())
