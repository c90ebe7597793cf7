"""Searches within a limit on the model: how many blocks go is found out before they start."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout

import pytest
from synthetic_runs import synthetic_timings
from tiny import tiny_bench

from pruning_kit import sweep
from pruning_kit.cli import app as cli
from pruning_kit.errors import PlanError
from pruning_kit.plans.plan import Plan
from pruning_kit.pruning.surgery import parameters_of
from pruning_kit.search import parse
from pruning_kit.search.limits import granted, searches_of, with_budget
from pruning_kit.search.together import Together
from pruning_kit.sweeps import budgets
from pruning_kit.sweeps import sweep as sweep_module
from pruning_kit.sweeps.targets import sizes_within_parameters, sizes_within_seconds

N_BLOCKS = 5
FOUR = [100, 100, 100, 100]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return tiny_bench(tmp_path_factory.mktemp("bench"), N_BLOCKS, bridges=False)


@pytest.fixture
def timings(monkeypatch):
    """0.4 s for the whole model of 5 blocks, 0.056 of them for each; and what was timed."""
    plans = []

    def timed(asked, workbench, *_):
        plans.extend(asked)
        return synthetic_timings(asked, workbench.n_blocks)

    monkeypatch.setattr(budgets, "timed", timed)
    return plans


# --- which sizes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_params", "of_blocks", "sizes"),
    [
        (900, FOUR, [1]),
        (899, FOUR, [2]),
        (700, FOUR, [3]),
        (600, [400, 100, 100, 100], [1, 2, 3]),
        (850, [400, 100, 100, 100], [1, 2]),
        (900, [400, 100, 100, 100], [1]),
    ],
)
def test_a_limit_on_parameters_asks_for_the_fewest_blocks_and_more_where_only_some_sets_keep_to_it(
    max_params, of_blocks, sizes
):
    assert sizes_within_parameters(max_params, 1000, of_blocks) == sizes


def test_a_limit_on_time_asks_for_the_fewest_blocks_by_the_line_and_one_more():
    of_ten_blocks = {"fixed_s": 0.1, "per_block_s": 0.03, "n_blocks": 10}
    assert sizes_within_seconds(0.39, **of_ten_blocks) == [1, 2]
    assert sizes_within_seconds(0.32, **of_ten_blocks) == [3, 4]
    assert sizes_within_seconds(0.131, **of_ten_blocks) == [9]


@pytest.mark.parametrize(
    ("max_s", "n_blocks", "message"),
    [
        (
            0.4,
            10,
            "cannot shrink to 400 ms: the model takes about 400, which is no more. Give "
            "`max_latency` a smaller number.",
        ),
        (
            0.12,
            10,
            "cannot shrink to 120 ms: with a single block the model still takes about 130. Give "
            "`max_latency` more than that.",
        ),
        (
            1.5,
            40,
            "cannot shrink to 1500 ms: the model takes about 1,300, which is no more. Give "
            "`max_latency` a smaller number.",
        ),
        (
            0.11,
            1,
            "cannot shrink to 110 ms: with a single block the model still takes about 130. Give "
            "`max_latency` more than that.",
        ),
    ],
)
def test_a_limit_on_time_that_asks_for_nothing_or_too_much_is_refused(max_s, n_blocks, message):
    with pytest.raises(PlanError) as error:
        sizes_within_seconds(max_s, 0.1, 0.03, n_blocks)
    assert str(error.value) == message


# --- text forms --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["search:params=60000000", "beam:minutes=3,microseconds=300000"])
def test_a_limit_stands_in_the_text_form(text):
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "search:6,params=5000",
            "cannot search for 6 blocks within 5,000 parameters: both say how many blocks go. "
            "Leave one out.",
        ),
        (
            "search:4-6,microseconds=300",
            "cannot search for 4-6 blocks within 300 microseconds: both say how many blocks go. "
            "Leave one out.",
        ),
        (
            "search:params=5000,microseconds=300",
            "cannot search within 5,000 parameters and within 300 microseconds: both say how many "
            "blocks go. Leave one out.",
        ),
        (
            "search:params=0",
            "cannot search within 0 parameters: give a number from 1 to 1,000,000,000,000.",
        ),
    ],
)
def test_a_limit_that_cannot_be_is_refused_when_it_is_read(text, message):
    with pytest.raises(PlanError) as error:
        parse(text)
    assert str(error.value) == message


def test_a_limit_is_that_of_the_searches_that_name_no_number():
    asked = with_budget(Together((parse("search beam:3 pairs"),)), None, 300)
    assert str(asked) == "beam:3 pairs search:microseconds=300"
    for limits, name in (((70, None), "max_params"), ((None, 9), "max_latency")):
        with pytest.raises(PlanError) as error:
            with_budget(Together((parse("beam:3 pairs"),)), *limits)
        assert str(error.value) == (
            f"cannot use `{name}` for beam:3 pairs: no search is left to find how many blocks go. "
            "Ask for one without a number, such as search."
        )


def test_a_search_whose_sizes_are_found_out_later_is_not_refused_as_one_of_all_sizes():
    with pytest.raises(PlanError, match="more than 5,000"):
        Together((parse("search"),)).check(48)
    asked = parse("search:params=100")
    Together((asked,)).check(48)
    told = granted(asked, None, {"search:params=100": [30, 31]})
    assert told == asked and told.most_removed(48) == 31
    assert [one.allowed(48) for one in searches_of(told)] == [20 * 48 + 5 * 48]


# --- a run -------------------------------------------------------------------------------------


def test_a_search_within_parameters_measures_sets_that_keep_to_them(bench, tmp_path):
    whole, (of_a_block, *_) = parameters_of(bench.decoder)
    text = f"greedy:params={whole - 2 * of_a_block}"
    run = sweep(text, bench, tmp_path / "run")
    assert {plan.size for plan in run.plans} == {0, 2}
    assert run.facts.proposal.sizes == {text: (2,)}
    assert [one.proposer for one in run.asked] == [text]
    again = sweep(text, bench, tmp_path / "run", resume=True)
    assert again.frame().equals(run.frame())


def test_a_search_within_a_time_times_the_whole_model_and_half_of_it_once(bench, tmp_path, timings):
    run = sweep("greedy:microseconds=290000", bench, tmp_path / "run")
    assert timings == [Plan((2, 3))]
    assert {plan.size for plan in run.plans} == {0, 2, 3}
    (tmp_path / "run/finished.json").unlink()
    again = sweep("greedy:microseconds=290000", bench, tmp_path / "run", resume=True)
    assert len(timings) == 1 and again.frame().equals(run.frame())


def test_what_cannot_be_met_is_refused_before_a_folder_is_made(bench, tmp_path, timings):
    whole, (of_a_block, *_) = parameters_of(bench.decoder)
    least = whole - (N_BLOCKS - 1) * of_a_block
    for text, message in (
        (
            f"search:params={least - 1}",
            f"cannot shrink to {least - 1:,} parameters: with a single block the model still has "
            f"{least:,}. Give `max_params` at least",
        ),
        (
            f"search:params={whole}",
            f"cannot shrink to {whole:,} parameters: the model has {whole:,}, which is no more. "
            "Give `max_params` a smaller number.",
        ),
        ("search:microseconds=1000", "cannot shrink to 1 ms: with a single block the model still "),
    ):
        with pytest.raises(PlanError) as error:
            sweep(text, bench, tmp_path / "run")
        assert str(error.value).startswith(message)
    assert not (tmp_path / "run").exists()


# --- the command line --------------------------------------------------------------------------


def called(bench, tmp_path, *words):
    """Exit code, and all that was said."""
    told = io.StringIO()
    source = bench.loaded.source.name
    given = ("--model", source, "--dataset", bench.texts["reported"].corpus.name, "--device", "cpu")
    more = ("--threads", "1", "--context", "16", "--no-bridges", "--output", tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(told), redirect_stderr(told):
        patch.setenv("COLUMNS", "200")
        code = cli.main([str(word) for word in ("sweep", *given, *more, *words)])
    return code, " ".join(told.getvalue().split())


def test_the_command_line_ends_with_the_best_set_within_the_limit(bench, tmp_path):
    whole, (of_a_block, *_) = parameters_of(bench.decoder)
    limit = whole - 2 * of_a_block
    code, said = called(
        bench, tmp_path, "--no-speed", "--try", "greedy", "--max-params", limit / 1e6
    )
    assert code == 0, said
    assert f"With at most {limit:,} parameters: remove blocks " in said


def test_a_sweep_whose_timings_are_too_few_still_shows_what_it_measured(
    bench, tmp_path, timings, monkeypatch
):
    for step in ("check_timing", "time_plans"):
        monkeypatch.setattr(sweep_module, step, lambda *_: None)
    code, said = called(bench, tmp_path, "--try", "spans", "--max-latency", "350")
    assert code == 0, said
    assert timings == [Plan((2, 3))]
    assert "Best measured set of each size" in said and " Next: pruning-kit report " in said
    assert (
        "Nothing is chosen within the limit: the kit cannot choose a model of at most 350 ms: this "
        "run holds no timings that can be used." in said
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--try", "search", "--max-latency", "300", "--no-speed"),
            "cannot use --max-latency 300 with --no-speed: nothing is timed then. Leave one out.",
        ),
        (
            ("--try", "search", "--max-params", "60000000"),
            "cannot choose under --max-params 60000000: the unit is millions of parameters. Write "
            "--max-params 60 for 60,000,000 of them.",
        ),
        (
            ("--try", "search", "--max-params", "-6"),
            "cannot use --max-params -6: it needs to be above 0 and below 1,000,000.",
        ),
        (
            ("--try", "search:2", "--max-params", "6"),
            "cannot use --max-params for search:2: no search is left to find how many blocks go. "
            "Ask for one without a number, such as search.",
        ),
    ],
)
def test_a_limit_that_says_nothing_is_refused_before_a_model_is_loaded(
    bench, tmp_path, monkeypatch, words, message
):
    monkeypatch.setattr("pruning_kit.inputs.models.load_model", None)
    code, said = called(bench, tmp_path, *words)
    assert code == 2 and message in said
    assert not (tmp_path / "run").exists()
