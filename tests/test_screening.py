"""Screenings: candidates on some windows of one text, stored, gone on with, and never rows."""

import io
import json
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
from bridging import little_text
from msgspec import structs
from tiny import tiny_bench
from torch.distributed import TCPStore

import benchmarks.searches
from benchmarks.searches import show_against
from pruning_kit import analyse, load_run, open_workbench, sweep
from pruning_kit.cli.console import Console
from pruning_kit.cli.terminal import TerminalObserver, sweep_table
from pruning_kit.errors import RunError
from pruning_kit.findings.searching import search_path
from pruning_kit.machine.typed import MisfitError
from pruning_kit.plans.costs import Cost
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import BRIDGED, Variant
from pruning_kit.reporting.contents import build_document
from pruning_kit.reporting.figures import path_of_search
from pruning_kit.runs.facts import RoundFacts, VariantFacts
from pruning_kit.runs.ranks import Ranks
from pruning_kit.runs.store import RunFolder
from pruning_kit.search.named import parse
from pruning_kit.search.proposer import Screening
from pruning_kit.search.together import Together
from pruning_kit.sweeps import rounds
from pruning_kit.sweeps.observer import SilentObserver
from pruning_kit.sweeps.opening import open_run
from pruning_kit.sweeps.settings import SweepSettings
from pruning_kit.walk.estimates import WindowCost
from tests.synthetic_runs import facts_of

SEARCH = "search:1,2,evaluations=12"
OTHER_TEXT = "She was sure that he would come, and he came. "


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return tiny_bench(tmp_path_factory.mktemp("bench"), 5, OTHER_TEXT * 16)


@pytest.fixture(scope="module")
def run(bench, tmp_path_factory):
    return sweep(SEARCH, bench, tmp_path_factory.mktemp("runs") / "run")


class Asks:
    """Asks for what it was given, one request after the other."""

    mode, seed = None, 0

    def __init__(self, *requests):
        self.requests = requests

    def __str__(self):
        return "asks"

    def bound(self, n_blocks):
        return 100

    def check(self, n_blocks):
        pass

    def most_removed(self, n_blocks):
        return 2

    def propose(self, n_blocks):
        for request in self.requests:
            self.costs = yield request


def test_candidates_are_screened_on_some_windows_of_the_text_chosen_on_alone(bench, tmp_path):
    plans = [Plan((1,)), Plan((2, 3))]
    run = sweep(Asks(Screening(dict.fromkeys(plans, "swaps"), 6)), bench, tmp_path / "run")
    whole, screened = run.rounds
    assert [facts.variant for facts in whole.variants] == ["none"] and not whole.is_screening
    assert (screened.names, screened.texts, screened.measures) == (
        ("1", "2+3"),
        ("selection",),
        ("nll",),
    )
    assert {facts.proposed_by for facts in screened.variants} == {"swaps"}
    n_windows = len(bench.texts["selection"].windows)
    assert 6 <= len(screened.places) < n_windows // 2
    every = bench.measure(plans_as_cut(plans), "selection").sums["nll"]
    (found,) = run.screenings
    np.testing.assert_allclose(found.nats_VN, every[:, screened.places], rtol=1e-6)


def plans_as_cut(plans):
    return [Variant(plan) for plan in plans]


def test_more_windows_of_a_candidate_are_those_that_it_was_not_measured_on(bench, tmp_path):
    few, all_of_them = Screening({Plan((1,)): "swaps"}, 6), Screening({Plan((1,)): "swaps"})
    run = sweep(Asks(few, few, all_of_them, all_of_them), bench, tmp_path / "run")
    _, first, rest = run.rounds
    n_windows = len(bench.texts["selection"].windows)
    assert sorted((*first.places, *rest.places)) == list(range(n_windows))


def test_candidates_are_no_rows_and_finalists_are(run):
    screened = {plan for one in run.screenings for plan in (f.parsed.plan for f in one.candidates)}
    rows = {Plan.parse(row["removed"]) for row in run.rows()} - {Plan()}
    assert rows < screened and {plan.size for plan in rows} == {1, 2}
    assert run.plans == sorted([Plan(), *rows])
    assert {row.plan for row in analyse(run).rows} == {Plan(), *rows}
    for role in ("reported", "selection"):
        assert np.isfinite(run.nll(role)).all()
    assert build_document(run, analyse(run)).sections


def test_a_row_says_who_proposed_it(run):
    by = {row["variant"]: row["proposed_by"] for row in run.rows()}
    assert by.pop("none") is None
    assert set(by.values()) == {SEARCH}
    assert list(run.frame().columns)[-1] == "proposed_by"


def test_what_several_ask_for_names_them_all_and_what_was_named_by_hand_nobody(bench, tmp_path):
    run = sweep("sequential spans:1,2,evaluations=30 contiguous,last:2 1+4", bench, tmp_path / "r")
    by = {row["variant"]: row["proposed_by"] for row in run.rows()}
    singles = {by[name] for name in "01234"}
    assert singles == {"sequential", "sequential spans:1,2,evaluations=30"}
    assert by["1+4"] is None and by["2+3"].split()[0] == "contiguous:2"
    assert by["3+4"].split()[0] == "last:2"


def test_a_run_from_before_rows_were_asked_for_is_read_and_one_that_names_others_is_not(
    run, tmp_path
):
    shutil.copytree(run.folder, tmp_path / "run")
    mark = tmp_path / "run" / "finished.json"
    stored = json.loads(mark.read_text())
    asked = stored.pop("asked")
    mark.write_text(json.dumps(stored))
    assert load_run(tmp_path / "run").proposed_by == {}
    asked[0]["variants"].append("0+1+2+3")
    mark.write_text(json.dumps(stored | {"asked": asked}))
    with pytest.raises(RunError) as error:
        load_run(tmp_path / "run")
    assert str(error.value) == (
        f"cannot read run {tmp_path / 'run'}: its finished.json names a row '0+1+2+3', which was "
        "not measured. Restore the file from a copy, or sweep again into another folder."
    )


def test_a_table_sets_the_best_of_every_proposer_beside_a_named_set(bench, tmp_path, capsys):
    run = sweep("spans:2,evaluations=30 influence:1,2 pairs", bench, tmp_path / "run")
    show_against(run, Plan((1, 3)), Cost.as_cut)
    head, _, whole, named, *found = capsys.readouterr().out.splitlines()[3:]
    assert head == (
        "| removed | proposed by | evaluations | other.txt (chosen on) | ratio | text.txt | ratio |"
    )
    assert whole.startswith("| none |  |  |") and named.startswith("| 1+3 | named by hand |  |")
    means = {role: bench.measure(plans_as_cut(run.plans), role).means() for role in run.roles}
    best = min((Plan((i, i + 1)) for i in range(4)), key=lambda plan: cost(means, plan))
    (line,) = [line for line in found if "| spans:2,evaluations=30 |" in line]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[0] == best.short and float(cells[2]) <= 30
    for role, place in (("selection", 3), ("reported", 5)):
        ppl, ratio = np.exp(cost(means, best, role)), cells[place + 1]
        assert float(cells[place]) == pytest.approx(ppl, abs=0.01)
        assert float(ratio.split()[0]) == pytest.approx(
            ppl / np.exp(cost(means, Plan((1, 3)), role)), abs=1e-3
        )
    assert [line.split("|")[1].count("+") for line in found] == [0, 0, 1, 1, 1]
    assert sum("| influence:1,2 |" in line for line in found) == 2


def cost(means, plan, role="selection"):
    return means[role][Variant(plan)]


def test_a_set_that_a_run_lacks_is_not_compared_with(run, monkeypatch, capsys):
    def told(*words):
        monkeypatch.setattr("sys.argv", ["searches", str(run.folder), *words])
        with pytest.raises(SystemExit, match="2"):
            benchmarks.searches.main()
        return capsys.readouterr().err.splitlines()[-1].partition("error: ")[2]

    assert told("--against", "0-3") == (
        f"cannot compare with 0-3: {run.folder} did not measure it. Sweep with --try 0-3 too."
    )
    assert told() == (
        f"cannot tell what is missed in {run.folder}: it does not hold every set of its 5 blocks. "
        "Measure --mode combinatorial, or give --against."
    )


def test_finalists_are_the_best_of_each_size_by_the_text_chosen_on(run, bench):
    found = bench.measure(plans_as_cut(run.plans), "selection").means()
    known = {
        facts.parsed: nats.sum() / bench_targets(bench, one.windows)
        for one in run.screenings
        for facts, nats in zip(one.candidates, one.nats_VN, strict=True)
        if facts.parsed.plan.size == 1 and len(one.windows) == len(run.screenings[0].windows)
    }
    best = min(known, key=known.get)
    assert best in found


def test_a_report_shows_what_was_looked_at_and_who_proposed_the_best(run, bench):
    analysis = analyse(run)
    (section,) = [one for one in build_document(run, analysis).sections if one.name == "search"]
    path = search_path(run)
    screened = {facts.parsed.plan for one in run.screenings for facts in one.candidates}
    assert {step.plan for step in path} == screened and len(path) == len(screened)
    assert section.sentences[0].startswith(
        f"A search looked at {len(path)} sets on {analysis.selection.title}: "
    )
    assert f"as much work as {path[-1].evaluations:,.0f} sets on all of the text" in str(section)
    assert path[-1].evaluations < 12
    assert section.table is not None and [row[:3] for row in section.table.rows] == [
        (str(size.n_removed), size.best.short, SEARCH) for size in analysis.sizes
    ]
    assert section.figures == ("search",)


def test_the_path_of_a_search_is_drawn_to_the_best_that_it_found(run):
    figure = path_of_search(run, analyse(run))
    assert figure is not None
    (axes,) = figure.axes
    ends = [line.get_ydata()[-1] for line in axes.lines]
    path = search_path(run)
    assert ends == [min(s.ratio for s in path if s.plan.size == size) for size in (1, 2)]
    assert [text.get_text() for text in axes.texts] == ["1", "2"]


def test_a_ratio_of_a_step_is_that_of_all_windows_that_it_was_read_on(bench, tmp_path):
    plan = Plan((1,))
    requests = [Screening({plan: "swaps"}, 6), Screening({plan: "swaps"})]
    run = sweep(Asks(*requests), bench, tmp_path / "run")
    (step,) = search_path(run)
    means = bench.measure(["none", "1"], "selection").means()
    expected = np.exp(means[Variant(plan)] - means[Variant()])
    assert step.ratio == pytest.approx(expected, rel=1e-6)
    assert step.proposed_by == "swaps" and 0 < step.evaluations < 0.5


def bench_targets(bench, windows):
    every = bench.texts["selection"].windows
    return sum(every[place].n_targets for group in windows for place in range(*group))


@pytest.mark.parametrize("n_left", [1, pytest.param(4, marks=pytest.mark.slow), 9])
def test_a_search_that_was_stopped_goes_on_to_the_same_bits(run, bench, tmp_path, n_left):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    (folder / "finished.json").unlink()
    rounds = sorted((folder / "rounds").iterdir())
    for later in rounds[n_left + 1 :]:
        shutil.rmtree(later)
    next(rounds[n_left].glob("*.safetensors")).unlink()
    with pytest.raises(RunError, match="it is not finished"):
        load_run(folder)
    again = sweep(SEARCH, bench, folder, resume=True)
    assert [path.name for path in rounds] == [p.name for p in sorted((folder / "rounds").iterdir())]
    for one, other in zip(run.screenings, again.screenings, strict=True):
        assert one.candidates == other.candidates and one.windows == other.windows
        np.testing.assert_array_equal(one.nats_VN, other.nats_VN)
    assert again.frame().equals(run.frame())


def test_processes_that_share_a_search_find_the_same(run, bench, tmp_path):
    hosted = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    joined = TCPStore("127.0.0.1", hosted.port, is_master=False, wait_for_workers=False)
    settings, proposer = SweepSettings(output=tmp_path / "run"), Together((parse(SEARCH),))

    def take_part(rank, store):
        ranks = Ranks(rank, 2, store=store)
        shared, own = open_run(settings, bench, proposer, ranks)
        rounds.measure(shared, proposer, own, ranks, goes_on=False)

    follower = threading.Thread(target=take_part, args=(1, joined))
    follower.start()
    take_part(0, hosted)
    follower.join()
    assert load_run(tmp_path / "run").frame().equals(run.frame())


def test_a_finished_search_measures_nothing_again(run, bench, monkeypatch):
    monkeypatch.setattr(type(bench), "measure", None)
    assert sweep(SEARCH, bench, run.folder, resume=True).frame().equals(run.frame())


def test_candidates_are_screened_bridged_and_finalists_judged(writer, tmp_path):
    with little_text():
        bench = open_workbench(**writer.settings, max_windows=6)
        run = sweep("spans:2,evaluations=9", bench, tmp_path / "run")
        forms = {f.parsed.plan: f.parsed.recovery for one in run.screenings for f in one.candidates}
        assert forms[Plan((0, 1))] is None and forms[Plan((2, 3))] == BRIDGED
        assert run.bridges is not None
        finalists = {variant.plan for variant in run.variants} - {Plan()}
        assert set(run.bridges.plans) <= set(map(str, finalists))
        assert Variant(Plan((2, 3)), BRIDGED) in run.variants
        frame = sweep("spans:2,evaluations=9", bench, run.folder, resume=True).frame()
        assert frame.equals(run.frame())


def test_minutes_become_a_number_of_evaluations_once(bench, monkeypatch, tmp_path):
    timed = []

    def cost(_bench, role, windows):
        timed.append((role, windows))
        return WindowCost(block_s=0.2, head_s=0.5)

    monkeypatch.setattr(type(bench), "cost_per_window", cost)
    monkeypatch.setattr(rounds, "_expect", lambda *_: None)
    run = sweep("spans:3,minutes=1", bench, tmp_path / "run")
    n_windows = len(bench.texts["selection"].windows)
    assert run.facts.proposal.evaluations == int(60 / (n_windows * (5 * 0.2 + 0.5)))
    assert run.facts.proposal.text == "spans:3,minutes=1" and timed[0][0] == "selection"
    n_timed = len(timed)
    (run.folder / "finished.json").unlink()
    again = sweep("spans:3,minutes=1", bench, run.folder, resume=True)
    assert len(timed) == n_timed and again.frame().equals(run.frame())


def test_the_time_of_a_search_is_told_before_it_starts_and_not_again(bench, monkeypatch, tmp_path):
    told = []

    class Expecting(SilentObserver):
        def expect_searches(self, evaluations, seconds):
            told.append((evaluations, seconds))

    cost = WindowCost(block_s=0.2, head_s=0.5)
    monkeypatch.setattr(type(bench), "cost_per_window", lambda *_: cost)
    watched = replace(bench, observer=Expecting())
    sweep("spans:3,evaluations=9 swaps:2,evaluations=5 1+3", watched, tmp_path / "run")
    sweep("pairs", watched, tmp_path / "no-search")
    n_windows = len(bench.texts["selection"].windows)
    assert told == [(14, pytest.approx(14 * n_windows * (5 * 0.2 + 0.5)))]
    folder = tmp_path / "run"
    sweep("spans:3,evaluations=9 swaps:2,evaluations=5 1+3", watched, folder, resume=True)
    assert len(told) == 1


def test_a_terminal_tells_of_a_long_search_and_who_found_the_best(run):
    console = Console(file=io.StringIO(), width=200)
    observer = TerminalObserver(console)
    observer.expect_searches(24, 59.0)
    observer.expect_searches(1600, 7200.0)
    assert console.file.getvalue() == (
        "The search makes at most 1,600 evaluations, which take about 2 h, bridges apart; "
        "--search-minutes bounds it.\n"
    )
    analysis = analyse(run)
    best = [size.best for size in analysis.sizes]
    named = ", ".join(f"{plan.short} by {SEARCH}" for plan in best)
    assert f"; proposed: {named}" in sweep_table(run, analysis, None, saved=True).caption


# --- the store ---------------------------------------------------------------------------------


def screening(*windows, variants=("1",), texts=("reported",)):
    named = tuple(VariantFacts(variant=v, parameters=5, proposed_by="swaps") for v in variants)
    return RoundFacts(variants=named, measures=("nll",), texts=texts, windows=windows)


WHOLE = RoundFacts(
    variants=(VariantFacts(variant="none", parameters=9),), measures=("nll",), texts=("reported",)
)


@pytest.fixture
def folder(tmp_path):
    run = RunFolder.create(tmp_path / "run", facts_of(3, {"reported": [10] * 8}, group=4))
    run.add_round(0, WHOLE)
    return run


def test_a_row_may_have_been_a_candidate_and_windows_are_added(folder):
    folder.add_round(1, screening((0, 2)))
    folder.add_round(2, screening((4, 6), (2, 3)))
    row = RoundFacts(
        variants=(VariantFacts(variant="1", parameters=5),), measures=("nll",), texts=("reported",)
    )
    folder.add_round(3, row)
    assert RunFolder.open(folder.folder).rounds() == [
        WHOLE,
        screening((0, 2)),
        screening((4, 6), (2, 3)),
        row,
    ]
    assert folder.groups(2, "reported") == ((4, 6), (2, 3))
    assert folder.groups(3, "reported") == ((0, 4), (4, 8))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("windows", [[7, 9]], "is wrong in windows: the text has 8"),
        ("windows", [[0, 2], [1, 3]], "is wrong in windows: it is empty, or holds something twice"),
        ("windows", [], "is wrong in windows: it is empty, or holds something twice"),
        ("texts", ["reported", "reported"], "is wrong in texts: it is empty, or holds something"),
        ("variants", [{"variant": "7", "parameters": 5}], "3 blocks has no variant '7'"),
    ],
)
def test_a_screening_that_cannot_be_is_named_on_reading(folder, path, value, message):
    folder.add_round(1, screening((6, 8)))
    file = folder.folder / "rounds/001/variants.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {path: value}))
    with pytest.raises(RunError) as error:
        RunFolder.open(folder.folder).rounds()
    assert message in str(error.value)


def test_candidates_are_screened_on_the_text_that_plans_are_chosen_on(tmp_path):
    facts = facts_of(3, {"reported": [10] * 8, "selection": [10] * 8}, group=4)
    run = RunFolder.create(tmp_path / "two", facts)
    run.add_round(0, structs.replace(WHOLE, texts=("reported", "selection")))
    with pytest.raises(MisfitError, match="candidates are screened on 'selection' alone"):
        run.add_round(1, screening((0, 2)))


def test_a_window_is_screened_once(folder):
    folder.add_round(1, screening((0, 4)))
    path = folder.folder / "rounds/002"
    path.mkdir()
    content = json.loads((folder.folder / "rounds/001/variants.json").read_text())
    (path / "variants.json").write_text(json.dumps(content | {"windows": [[3, 5]]}))
    with pytest.raises(RunError, match="an earlier round has measured '1'"):
        RunFolder.open(folder.folder).rounds()


def test_what_all_runs_had_is_stored_as_before(folder):
    content = json.loads((folder.folder / "rounds/000/variants.json").read_text())
    assert content == {
        "variants": [{"variant": "none", "parameters": 9}],
        "measures": ["nll"],
        "texts": ["reported"],
    }


def test_a_thousandth_round_follows_the_one_before(folder, monkeypatch):
    names = [folder.part_path(number, "reported", 0).parent.name for number in (7, 999, 1000)]
    assert names == ["007", "999", "1000"]
    for name in names[1:]:
        (folder.folder / "rounds" / name).mkdir()
        (folder.folder / "rounds" / name / "variants.json").write_text("{}")
    assert list(folder._numbers()) == [0, 999, 1000]
