"""From the words typed to what is measured, refusals and advice in the names of options."""

import json
import re

import pytest

from pruning_kit.cli.request import Mode, Request
from pruning_kit.errors import PlanError, TooManyPlansError
from pruning_kit.search.together import MAX_PLANS
from tests.goldens import plans as goldens

STORED = json.loads(goldens.FILE.read_text())


@pytest.mark.parametrize("words", goldens.SETTINGS)
def test_command_lines_measure_the_plans_that_they_always_measured(words):
    for n_blocks, stored in STORED[words].items():
        assert goldens.digest(goldens.plans_of(words, int(n_blocks))) == stored


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--mode baseline", "baseline"),
        ("--try combinatorial:2", "pairs"),
        ("--mode sequential --try 1+3 --try 0 --try shapley:4", "sequential shapley:4 0 1+3"),
        ("--try random,first:0.25,seed=3", "first,random:0.25,seed=3"),
        ("--mode combinatorial --max-removed 3", "combinatorial:max=3"),
        ("--search-minutes 20 --try search:6", "search:6,minutes=20"),
        ("--max-params 60.5 --try search", "search:params=60500000"),
    ],
)
def test_words_become_one_proposer(words, text):
    request = goldens.request_of(words)
    assert (str(request.proposer), str(request)) == (text, words)


def test_facts_that_reports_use_are_those_of_the_words():
    proposer = goldens.request_of("--mode combinatorial --try random:2,seed=3").proposer
    assert (proposer.mode, proposer.seed) == ("combinatorial", 3)
    assert goldens.request_of("--try first").proposer.mode is None
    assert goldens.request_of("--try sequential").proposer.mode == "sequential"


def test_one_plan_given_many_times_is_one_plan():
    proposer = Request(tries=("1",) * 6000).proposer
    asked = next(proposer.propose(48))
    assert proposer.bound(48) == len(asked) == 2


def test_a_command_line_that_names_nothing_is_refused():
    with pytest.raises(PlanError) as error:
        Request()
    assert str(error.value) == (
        "cannot start a sweep: nothing says what to measure. Give --mode baseline, sequential or "
        "combinatorial, or --try pairs or 1+3, or more of --help."
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--try 1+x", "cannot read 'x' in a plan '1+x': write block numbers and ranges, such"),
        (
            "--try shapley:10001",
            "cannot sample 10001 orders of the blocks: give a number from 1 to 10,000.",
        ),
        (
            "--try first:0.5,2",
            "cannot remove 2 blocks and a share of 0.5 by one strategy: both say how many. Leave "
            "one out.",
        ),
        (
            "--mode sequential --max-removed 2",
            "cannot use --max-removed 2 here: it bounds --mode combinatorial alone. Give that, or "
            "write --try combinatorial:max=2.",
        ),
        ("--try pairs --max-removed 2", "cannot use --max-removed 2 here: it bounds --mode"),
        (
            "--try pairs --search-minutes 20",
            "cannot search for 20 minutes: pairs is no search. Ask for one, such as search:6.",
        ),
    ],
)
def test_words_that_say_nothing_to_measure_are_refused_at_once(words, message):
    with pytest.raises(PlanError) as error:
        _ = goldens.request_of(words).proposer
    assert message in str(error.value)


def refusal(request: Request, n_blocks: int) -> str:
    """What a command line answers to more plans than it allows."""
    with pytest.raises(TooManyPlansError) as error:
        request.proposer.check(n_blocks)
    return str(request.too_many(error.value))


@pytest.mark.parametrize(
    ("n_blocks", "words", "message"),
    [
        (
            16,
            "--mode combinatorial",
            "cannot measure 65,536 plans of 16 blocks without your word: that is more than 5,000. "
            "Choose fewer, such as with --try pairs (137 plans) or --try combinatorial:max=4 "
            "(2,517 plans) or --try sequential (17 plans) in place of --mode combinatorial, or ask "
            "for all with --max-plans 65536.",
        ),
        (
            48,
            "--mode combinatorial",
            "cannot measure all that was asked for of 48 blocks: that is more than 1,048,576 "
            "plans, and a sweep holds no more. Choose fewer, such as with --try pairs (1,177 "
            "plans) or --try sequential (49 plans) in place of --mode combinatorial.",
        ),
        (
            120,
            "--try pairs",
            "cannot measure 7,261 plans of 120 blocks without your word: that is more than 5,000, "
            "in 288,100 block calls for each window. Choose fewer, such as with --try sequential "
            "(121 plans) in place of --try pairs, or ask for all with --max-plans 7261.",
        ),
        (
            48,
            "--try shapley:120",
            "cannot measure 5,480 plans of 48 blocks without your word: that is more than 5,000, "
            "in 61,016 block calls for each window. Choose fewer, such as with --try shapley:106 "
            "(4,848 plans) in place of --try shapley:120, or ask for all with --max-plans 5480.",
        ),
    ],
)
def test_too_many_plans_are_refused_with_options_that_narrow_them(n_blocks, words, message):
    request = goldens.request_of(words)
    assert refusal(request, n_blocks) == message


def test_what_else_was_asked_for_stays_in_the_advice():
    request = goldens.request_of(
        "--mode combinatorial --max-removed 4 --try 1-5 --try random:5,seed=2"
    )
    assert request.narrower(9, 100) == (
        "--try pairs --try random:5,seed=2 --try 1+2+3+4+5 (48 plans) or --try random:5,seed=2 "
        "--try sequential --try 1+2+3+4+5 (12 plans) in place of --mode combinatorial "
        "--max-removed 4 --try 1-5 --try random:5,seed=2"
    )


def test_where_nothing_narrows_no_option_is_advised():
    assert refusal(Request(Mode.SEQUENTIAL, max_plans=4), 6) == (
        "cannot measure 7 plans of 6 blocks without your word: that is more than 4, in 21 block "
        "calls for each window. Choose fewer, or ask for all with --max-plans 7."
    )


def test_a_request_that_fits_is_not_refused():
    goldens.request_of("--mode combinatorial").proposer.check(12)


def test_advice_stays_within_the_limit_for_any_depth():
    for n_blocks in (*range(2, 20), *range(20, 200, 9)):
        advice = Request(Mode.COMBINATORIAL).narrower(n_blocks, MAX_PLANS)
        counts = [int(n.replace(",", "")) for n in re.findall(r"\(([\d,]+) plan", advice)]
        assert counts and 0 < max(counts) <= MAX_PLANS


@pytest.mark.parametrize("asked", [Request(Mode.SEQUENTIAL), Request(tries=("0", "1", "2"))])
def test_what_cannot_be_narrowed_is_not(asked):
    assert asked.narrower(3, 2) == ""
