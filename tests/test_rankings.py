"""Blocks ranked by one pass: scores beside plain references, plans, what a run keeps, the table."""

import json
import math
import shutil
import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bridging import reference
from families import N_BLOCKS, random_tokens, tiny_model
from known_costs import known_costs
from tiny import TEXT, tiny_bench
from torch.distributed import TCPStore

from pruning_kit import analyse, load_run, sweep
from pruning_kit.errors import DeviceError, PlanError, RunError
from pruning_kit.findings.rankings import compared
from pruning_kit.findings.searching import SEARCHES, replayed
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plans.costs import Cost
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.scores import _angles, score_gradients, score_states
from pruning_kit.reporting.contents import build_document
from pruning_kit.reporting.rankings import rankings_table
from pruning_kit.runs.ranks import Ranks
from pruning_kit.runs.scores import RankingFacts, ScoresFacts, write_scores
from pruning_kit.search import parse
from pruning_kit.search.proposer import Scoring, next_round
from pruning_kit.search.ranked import RANKINGS, Ranked, least_important
from pruning_kit.search.together import Together
from pruning_kit.sweeps import scoring
from pruning_kit.sweeps.opening import open_run
from pruning_kit.sweeps.settings import SweepSettings
from pruning_kit.sweeps.sweep import measure
from tests.synthetic_runs import write_run

FAMILIES = ["gpt2", "llama", "gpt_neox", "gemma2", "opt", "falcon", "qwen3_moe", "bloom"]
NAMES = ",".join(RANKINGS)


def batches(ids):
    """Windows of tokens two at a time, all but the first token scored."""
    return [(pair, pair[:, 1:], 0) for pair in ids.split(2)]


def states_by_hooks(model, tokens_BT):
    """The stream before each block and after the last, by hooks on the model's own forward."""
    states, stack = [], Decoder(model).stack

    def before(_module, args, kwargs):
        states.append(args[0] if args else kwargs["hidden_states"])

    def after(_module, _args, out):
        states.append(out[0] if isinstance(out, tuple) else out)

    hooks = [block.register_forward_pre_hook(before, with_kwargs=True) for block in stack]
    hooks.append(stack[-1].register_forward_hook(after))
    with torch.no_grad():
        model(tokens_BT, use_cache=False)
    for hook in hooks:
        hook.remove()
    return [state[:, :-1].flatten(0, 1).double() for state in states]  # the last predicts none


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_of_states_are_those_of_hooks_on_the_plain_model(family):
    model, ids = tiny_model(family), random_tokens(4, 12)
    seen = []
    found = score_states(reference(model), batches(ids), N_BLOCKS, seen.append)
    x = states_by_hooks(model, ids)
    cosine = lambda i, j: F.cosine_similarity(x[i], x[j], dim=1)  # noqa: E731
    influence = [1 - float(cosine(i, i + 1).mean()) for i in range(N_BLOCKS)]
    pairs = pairwise(x)
    magnitude = [float(((y - x).norm(dim=1) / y.norm(dim=1)).mean()) for x, y in pairs]
    np.testing.assert_allclose(found["influence"], [influence], rtol=1e-4)
    np.testing.assert_allclose(found["magnitude"], [magnitude], rtol=1e-4)
    assert [len(row) for row in found["angular"]] == [4, 3, 2]
    for n, row in enumerate(found["angular"], start=1):
        angles = [cosine(i, i + n).clamp(-1, 1).arccos().mean() / math.pi for i in range(len(row))]
        np.testing.assert_allclose(row, angles, rtol=1e-4)
    assert seen == [2, 2]


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_of_gradients_are_those_of_a_plain_backward(family):
    model, ids = tiny_model(family), random_tokens(4, 12)
    found = score_gradients(Decoder(model), batches(ids), lambda windows: None)
    loss = F.cross_entropy(
        model(ids, use_cache=False).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
    )
    for row, block in zip(found["taylor"][0], Decoder(model).stack, strict=True):
        weights = list(block.parameters())
        gradients = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        pairs = [(w, g) for w, g in zip(weights, gradients, strict=True) if g is not None]
        assert row == pytest.approx(sum((w * g).abs().sum().item() for w, g in pairs), rel=1e-4)


def test_a_model_is_left_as_it_was_when_its_gradients_were_taken():
    model = tiny_model("gpt2")
    first, *others = model.parameters()
    first.requires_grad_(False)
    score_gradients(Decoder(model), batches(random_tokens(2, 8)), lambda windows: None)
    assert not first.requires_grad and all(weight.requires_grad for weight in others)
    assert all(weight.grad is None for weight in model.parameters())


def test_a_small_angle_is_no_rounding():
    """Of float32: the cosine of 1e-4 is one, to all the digits that it has."""
    x = torch.tensor([[1.0, 0.0]]).double()
    y = torch.tensor([[math.cos(1e-4), math.sin(1e-4)]]).double()
    assert _angles(x.float(), y.float()) == pytest.approx(1e-4 / math.pi, rel=1e-3)


# --- plans -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["influence:6", "influence,taylor:4-10", "angular", f"{NAMES}:2,5"]
)
def test_the_text_form_of_a_ranking_is_short(text):
    assert str(parse(text)) == text and isinstance(parse(text), Ranked)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "influence:0.25",
            "cannot read 'influence:0.25' as a way to choose plans: wri",
        ),
        (
            "influence:6,seed=1",
            "cannot read 'influence:6,seed=1' as a way to choose plans: wri",
        ),
        (
            "influence,first:2",
            "cannot rank blocks by 'first': the rankings are influence,",
        ),
        ("taylor:6", "cannot remove 6 of 6 blocks: choose 1 to 5."),
        ("taylor:0", "cannot remove 0 of 6 blocks: choose 1 to 5."),
    ],
)
def test_a_ranking_that_cannot_be_is_refused_before_anything_is_measured(text, message):
    with pytest.raises(PlanError) as error:
        Together((parse(text),)).check(6)
    assert message in str(error.value)


def test_the_least_important_are_the_lowest_scores_and_of_runs_the_lowest_run():
    assert least_important([[3.0, 1.0, 2.0, 1.0]], 3) == Plan((1, 2, 3))
    assert least_important([[3.0, 1.0, 2.0, 1.0]], 1) == Plan((1,))
    runs = [[1.0, 2.0, 3.0, 4.0], [9.0, 7.0, 8.0], [5.0, 4.0]]
    assert [least_important(runs, size) for size in (1, 2, 3)] == [
        Plan((0,)),
        Plan((1, 2)),
        Plan((1, 2, 3)),
    ]


def test_without_sizes_a_ranking_proposes_each_up_to_half():
    asking = Together((parse("influence"),)).propose(6)
    assert next_round(asking) == [Variant()]
    costs = known_costs({Variant(): 1.0})
    costs.scores["influence"] = [[5.0, 1.0, 2.0, 3.0, 4.0, 6.0]]
    assert next_round(asking, costs) == Scoring(("influence",))
    plans = [variant.plan for variant in next_round(asking, costs)]
    assert plans == [Plan((1,)), Plan((1, 2)), Plan((1, 2, 3))]


# --- a run -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return tiny_bench(tmp_path_factory.mktemp("bench"), 4, TEXT[40:] * 4, bridges=False)


@pytest.fixture(scope="module")
def run(bench, tmp_path_factory):
    return sweep(f"{NAMES}:1-3 combinatorial", bench, tmp_path_factory.mktemp("runs") / "run")


def test_a_sweep_measures_what_its_rankings_propose_and_keeps_their_scores(bench, tmp_path):
    run = sweep("influence,angular:2 angular:3", bench, tmp_path / "run")
    scores = {name: facts.scores for name, facts in run.rankings.items()}
    assert set(scores) == {"influence", "angular", "magnitude"}
    wanted = [
        ("influence:2", "influence", 2),
        ("angular:2", "angular", 2),
        ("angular:3", "angular", 3),
    ]
    asked = {by: (least_important(scores[name], size),) for by, name, size in wanted}
    assert set(run.plans) == {Plan(), *(plan for (plan,) in asked.values())}
    assert {one.proposer: tuple(v.plan for v in one.rows) for one in run.asked} == asked
    text = bench.texts["selection"]
    every = [text.tensors(at, at + 1) for at in range(len(text.windows))]
    assert run.rankings["influence"].tokens == sum(tokens.shape[1] - 1 for tokens, _, _ in every)
    decoder = bench.decoder
    plain = score_states(reference(decoder.model), every, decoder.n_blocks, lambda windows: None)
    np.testing.assert_allclose(scores["influence"], plain["influence"], rtol=1e-3)


def test_scores_are_taken_once_and_from_few_windows_that_are_spread(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "GRADIENT_TOKENS", 40)
    run = sweep("taylor:1", bench, tmp_path / "run")
    assert run.rankings["taylor"].tokens < 40 <= 3 * 16

    def refuse(*_):
        raise AssertionError("they are there")

    monkeypatch.setattr(scoring.scores, "score_gradients", refuse)
    again = sweep("taylor:1", bench, tmp_path / "run", resume=True)
    assert again.rankings == run.rankings and again.plans == run.plans


def test_scores_that_are_no_numbers_are_refused(bench, tmp_path, monkeypatch):
    nothing = {"taylor": [[math.nan] * 4]}
    monkeypatch.setattr(scoring.scores, "score_gradients", lambda *_: nothing)
    with pytest.raises(PlanError) as error:
        sweep("taylor:1", bench, tmp_path / "run")
    assert str(error.value) == (
        "cannot rank blocks by taylor: on other.txt the forward of the whole model overflows. "
        "Leave the ranking out."
    )


def test_a_device_whose_memory_is_full_is_named(bench, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(scoring.scores, "score_states", full)
    with pytest.raises(DeviceError) as error:
        sweep("influence,angular:1", bench, tmp_path / "run")
    assert str(error.value) == (
        "cannot rank blocks by influence on cpu: its memory is full. Choose another `device`, or a "
        "shorter `context`."
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda facts: facts["influence"]["scores"].append([1.0] * 3),
            "are wrong in rankings.infl",
        ),
        (
            lambda facts: facts.update(luck=facts["taylor"]),
            "are wrong in rankings.luck: a model",
        ),
        (lambda facts: facts["taylor"].pop("tokens"), "lack rankings.taylor.tokens, or hold it in"),
    ],
)
def test_damaged_scores_are_named(run, tmp_path, change, said):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    content = json.loads((folder / "scores.json").read_text())
    change(content["rankings"])
    (folder / "scores.json").write_text(json.dumps(content))
    with pytest.raises(RunError) as error:
        load_run(folder)
    assert f"cannot read the scores in {folder / 'scores.json'}: they {said}" in str(error.value)
    assert str(error.value).endswith("Delete the file; `resume` writes it again.")


# --- beside what was measured ------------------------------------------------------------------


def with_scores(folder, **scores):
    write_scores(
        folder,
        ScoresFacts(
            rankings={
                name: RankingFacts(tokens=9, kernel="plain", scores=rows)
                for name, rows in scores.items()
            }
        ),
    )
    return load_run(folder)


SINGLES = [Plan(), *(Plan((block,)) for block in range(5))]


def by_block(*costs):
    return lambda plan: costs[plan.removed[0]] if plan.removed else 0.0


def test_a_ranking_is_compared_with_what_the_blocks_cost_as_cut_and_bridged(tmp_path):
    folder = write_run(
        tmp_path / "run",
        5,
        SINGLES,
        timed=False,
        cost=by_block(0.5, 0.4, 0.3, 0.2, 0.1),
        bridged=by_block(0.05, 0.04, 0.01, 0.02, 0.03),
    )
    run = with_scores(
        folder, influence=((9.0, 8.0, 7.0, 6.0, 5.0),), taylor=((1.0, 2.0, 3.0, 5.0, 4.0),)
    )
    first, second = compared(run)
    assert (first.name, first.order, first.n_blocks) == ("influence", (4, 3, 2, 1, 0), 5)
    assert first.as_cut == pytest.approx(1.0)
    assert second.as_cut == pytest.approx(-0.9)
    assert first.bridged == pytest.approx(0.6)


def test_a_report_has_a_line_for_each_ranking(tmp_path):
    folder = write_run(tmp_path / "run", 5, SINGLES, timed=False, cost=by_block(5, 4, 3, 2, 1))
    run = with_scores(folder, influence=((9.0, 8.0, 7.0, 6.0, 5.0),))
    (section,) = [s for s in build_document(run, analyse(run)).sections if s.name == "rankings"]
    assert section.table == rankings_table(run)
    assert section.table.headings == ("Ranking", "Least important first", "As cut")
    assert section.table.rows == (("influence", "4, 3, 2, 1, 0", "+1.00"),)


def test_without_single_blocks_there_is_nothing_to_compare_with(tmp_path):
    folder = write_run(tmp_path / "run", 5, SINGLES[:3], timed=False)
    run = with_scores(folder, influence=((9.0, 8.0, 7.0, 6.0, 5.0),))
    assert compared(run)[0].as_cut is None
    assert rankings_table(run).headings == ("Ranking", "Least important first")


def test_a_run_without_rankings_has_no_section_of_them(tmp_path):
    run = load_run(write_run(tmp_path / "run", 5, SINGLES, timed=False))
    assert compared(run) == () and rankings_table(run) is None
    assert "rankings" not in {one.name for one in build_document(run, analyse(run)).sections}


def test_each_ranking_gets_its_distance_to_the_best_set_of_each_size(run):
    found = {one.search.partition(":")[0]: one for one in replayed(run, Cost.as_cut)}
    assert set(found) == {*SEARCHES, *RANKINGS}
    for name, facts in run.rankings.items():
        proposed = [least_important(facts.scores, size) for size in (1, 2, 3)]
        assert [gap.found for gap in found[name].gaps] == proposed
        assert found[name].evaluations == len({*proposed}) + 1


def test_processes_that_share_a_run_score_once_and_agree(bench, tmp_path, monkeypatch):
    calls, plainly = [], scoring.scores.score_states

    def score_states(*args):
        calls.append(threading.get_ident())
        return plainly(*args)

    monkeypatch.setattr(scoring.scores, "score_states", score_states)
    hosted = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    joined = TCPStore("127.0.0.1", hosted.port, is_master=False, wait_for_workers=False)
    settings, proposer = SweepSettings(output=tmp_path / "run"), parse("influence:1 influence:2")

    def take_part(rank, store):
        ranks = Ranks(rank, 2, store=store)
        run, own = open_run(settings, bench, proposer, ranks)
        measure(run, proposer, own, ranks, goes_on=False)

    follower = threading.Thread(target=take_part, args=(1, joined))
    follower.start()
    take_part(0, hosted)
    follower.join()
    run = load_run(tmp_path / "run")
    assert calls == [threading.get_ident()]
    proposed = {least_important(run.rankings["influence"].scores, size) for size in (1, 2)}
    assert set(run.plans) == {Plan(), *proposed}
