"""What CONTRIBUTING shows works as shown: a measure, a search and a recovery of one's own."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from examples.peel import Peel
from examples.surprise import SURPRISE
from examples.tempered import TEMPERED
from tiny import TEXT, save_tiny_gpt2

from pruning_kit import analyse, load_run, open_workbench, show, sweep
from pruning_kit.cli.terminal import sweep_table
from pruning_kit.errors import PlanError, PruningKitError
from pruning_kit.findings.comparison import compare_runs
from pruning_kit.plans.paths import as_cut
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.material import Method
from pruning_kit.pruning.recovery import RECOVERIES
from pruning_kit.pruning.surgery import recut
from pruning_kit.reporting.commands import shapley_command
from pruning_kit.reporting.figures.bars import measured
from pruning_kit.runs.results import measured_numbers
from pruning_kit.runs.store import RunFolder
from pruning_kit.search.named import SEARCHES, parse
from pruning_kit.sweeps.samples import sample
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
    for name in ("surprise", "peel", "tempered"):
        assert (ROOT / f"tests/examples/{name}.py").read_text() in shown


def test_a_measure_of_ones_own_is_added_up_beside_nll_and_stored(bench, monkeypatch, tmp_path):
    monkeypatch.setitem(MEASURES, SURPRISE.name, SURPRISE)
    plain = bench.measure(["none", "1"])
    found = bench.measure(["none", "1"], measures=(NLL, SURPRISE))
    np.testing.assert_array_equal(found.sums["nll"], plain.sums["nll"])
    run = sweep("1", bench, tmp_path / "run", measures=(NLL, SURPRISE))
    np.testing.assert_array_equal(run.measured("surprise"), found.sums["surprise"])
    with pytest.raises(PruningKitError, match="round 0 measured other variants, or by other measu"):
        sweep("1", bench, tmp_path / "run", resume=True)
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
    monkeypatch.setitem(RECOVERIES, "tempered", TEMPERED)
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


def test_a_recovery_is_made_once_for_all_windows(bench, monkeypatch):
    made = []

    def make(*asked):
        made.append(asked[0])
        return TEMPERED.make(*asked)

    monkeypatch.setitem(RECOVERIES, "tempered", Method(make, TEMPERED.check))
    assert len(bench.measure(["2~tempered:0.5", "1"], batch_size=1).targets) > 1
    assert list(map(str, made)) == ["2~tempered:0.5"]


class Asked:
    """Asks for what it was given, in one round."""

    mode, seed = None, 0

    def __init__(self, *variants):
        self.variants = [Variant.parse(text) for text in variants]

    def __str__(self):
        return "asked"

    def bound(self, n_blocks):
        return 1 + len(self.variants)

    def check(self, n_blocks):
        pass

    def most_removed(self, n_blocks):
        return max((variant.plan.size for variant in self.variants), default=0)

    def propose(self, n_blocks):
        yield self.variants


def test_recovered_variants_stand_in_the_rows_and_not_among_the_plans_that_are_analysed(
    bench, monkeypatch, tmp_path
):
    monkeypatch.setitem(RECOVERIES, "tempered", TEMPERED)
    plain = sweep("1 2", bench, tmp_path / "plain", measures=(NLL,))
    best = {row["removed"]: row["ppl"] for row in plain.rows()}.__getitem__
    run = sweep(Asked("1~tempered:0.5", "1", "2"), bench, tmp_path / "run", measures=(NLL,))
    assert list(run.frame()["variant"]) == ["none", "1", "1~tempered:0.5", "2"]
    np.testing.assert_array_equal(run.nll_as_cut(), plain.nll())
    assert [row.ppl for row in analyse(run).rows] == [row.ppl for row in analyse(plain).rows]
    assert "1~" not in str(show(run))
    assert len(measured(run)) == 3 and len(run.rows_as_cut()) == 3
    assert len(sweep_table(run, analyse(run), None, False).rows) == 3
    weights = run.facts.model.weights_sha256
    assert measured_numbers(run, Variant.parse("1"), weights)["perplexity"] == best("1")
    sample(RunFolder.open(run.folder), bench)
    assert list(map(str, load_run(run.folder).samples.by_variant)) == ["none", min("12", key=best)]
    assert [row.ratio.value for row in compare_runs(run, plain).rows] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("asked", [Asked(), Asked("1")])
def test_the_whole_model_is_measured_though_a_proposer_forgets_it(bench, tmp_path, asked):
    run = sweep(asked, bench, tmp_path / "run")
    assert run.variants == [Variant(), *asked.variants]


def test_a_variant_that_cannot_be_is_refused_before_a_folder_is_made(bench, tmp_path):
    with pytest.raises(PlanError, match="cannot recover 1~brewed: no recovery is called 'brewed'"):
        sweep(Asked("1~brewed"), bench, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_search_of_ones_own_asks_again_when_it_knows_what_its_plans_cost(
    bench, monkeypatch, tmp_path
):
    monkeypatch.setitem(SEARCHES, "peel", Peel)
    run = sweep("peel:2", bench, tmp_path / "run")
    assert [len(part.variants) for part in run.rounds] == [5, 3]
    singles = bench.measure([Variant(Plan((block,))) for block in range(4)]).means()
    best = min(singles, key=singles.get).plan.removed[0]
    pairs = [plan for plan in run.plans if plan.size == 2]
    assert pairs == sorted(Plan((best, other)) for other in range(4) if other != best)
    assert str(parse("peel:2")) == "peel:2" == run.facts.proposal.text
    again = load_run(run.folder)
    np.testing.assert_array_equal(again.nll(), run.nll())
    assert math.isfinite(again.frame()["ppl"].sum())
    advice = shapley_command(again, analyse(again))
    assert advice.endswith("\npruning-kit sweep … --mode combinatorial")
