"""From the words typed to what is measured, refusals and advice in the names of options."""

import json
import re

import pytest

from pruning_kit.cli.choice import Choice, Mode
from pruning_kit.errors import PlanError
from pruning_kit.plans.sets import singles
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
        ("--mode combinatorial --sizes 2", "pairs"),
        ("--mode sequential --plans 1+3 --plans 0 --plans shapley:4", "sequential shapley:4 0 1+3"),
        ("--strategies random,first --ratios 0.25 --seed 3", "first,random:0.25,seed=3"),
        ("--mode combinatorial --max-removed 3", "combinatorial:max=3"),
    ],
)
def test_words_become_one_proposer(words, text):
    assert str(goldens.choice_of(words).proposer) == text


def test_facts_that_reports_use_are_kept_as_typed():
    proposer = goldens.choice_of("--mode combinatorial --seed 3").proposer
    assert (proposer.mode, proposer.seed, str(proposer)) == ("combinatorial", 3, "combinatorial")
    assert goldens.choice_of("--strategies first").proposer.mode is None


def test_one_plan_given_many_times_is_one_plan():
    proposer = Choice.typed(None, ["1"] * 6000, None, None, None, None, 5000, 0).proposer
    (asked,) = proposer.propose(48)
    assert proposer.bound(48) == len(asked) == 2


def test_a_command_line_that_names_nothing_is_refused():
    with pytest.raises(PlanError) as error:
        Choice.typed(None, None, None, None, None, None, 5000, 0)
    assert str(error.value) == (
        "cannot start a sweep: nothing says what to measure. Give --mode baseline, sequential or "
        "combinatorial, or --plans, or --strategies."
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--mode baseline --sizes 2,x",
            "cannot read 'x' in '--sizes 2,x': write a whole number, such as 2.",
        ),
        (
            "--strategies first --ratios half",
            "cannot read 'half' in '--ratios half': write a number, such as 0.25.",
        ),
        (
            "--plans shapley:x",
            "cannot read 'x' in '--plans shapley:x': write a whole number, such as 2.",
        ),
        ("--plans 1+x", "cannot read 'x' in --plans '1+x': write block numbers and ranges, such"),
        (
            "--plans shapley:10001",
            "cannot use --plans shapley:N with N = 10001: it needs to be from 1 to 10,000.",
        ),
        ("--strategies first --ratios 1.5", "cannot use --ratios 1.5: it needs to be above 0 and"),
        (
            "--plans 1 --sizes 2",
            "cannot use --sizes here: only --mode combinatorial and --strategies choose by size. "
            "Give --mode combinatorial, or add --strategies first,last.",
        ),
        (
            "--mode sequential --max-removed 2",
            "cannot use --max-removed here: only --mode combinatorial and --strategies choose by "
            "size. Give --mode combinatorial in place of --mode sequential, or add --strategies "
            "first,last.",
        ),
        (
            "--mode combinatorial --ratios 0.5",
            "cannot use --ratios here: only --strategies choose by ratio. Add for example "
            "--strategies first,last, or choose by --sizes.",
        ),
        (
            "--strategies last --ratios 0.5 --sizes 2",
            "cannot use --ratios together with --sizes: both say how many blocks the strategies "
            "remove. Leave one out.",
        ),
    ],
)
def test_words_that_say_nothing_to_measure_are_refused_at_once(words, message):
    with pytest.raises(PlanError) as error:
        goldens.choice_of(words)
    assert message in str(error.value)


def test_a_bound_below_every_size_is_refused_by_its_option():
    with pytest.raises(PlanError) as error:
        goldens.choice_of("--strategies first --sizes 3,4 --max-removed 2").check(6)
    assert str(error.value) == (
        "cannot remove 3 blocks or more: --max-removed allows 2. Raise it or choose smaller sizes."
    )


@pytest.mark.parametrize(
    ("n_blocks", "words", "message"),
    [
        (
            16,
            "--mode combinatorial",
            "cannot measure 65,536 plans of 16 blocks without your word: that is more than 5,000. "
            "Choose fewer, such as with --sizes 2 (137 plans) or --max-removed 4 (2,517 plans) or "
            "--mode sequential (17 plans), or ask for all with --max-plans 65536.",
        ),
        (
            48,
            "--mode combinatorial",
            "cannot measure all that was asked for of 48 blocks: that is more than 1,048,576 "
            "plans, and a sweep holds no more. Choose fewer, such as with --sizes 2 (1,177 plans) "
            "or --mode sequential (49 plans).",
        ),
        (
            120,
            "--mode combinatorial --sizes 2",
            "cannot measure 7,261 plans of 120 blocks without your word: that is more than 5,000, "
            "in 288,100 block calls for each window. Choose fewer, such as with --mode sequential "
            "without --sizes (121 plans), or ask for all with --max-plans 7261.",
        ),
        (
            48,
            "--plans shapley:120",
            "cannot measure 5,480 plans of 48 blocks without your word: that is more than 5,000, "
            "in 61,016 block calls for each window. Choose fewer, such as with --plans shapley:106 "
            "(4,848 plans), or ask for all with --max-plans 5480.",
        ),
    ],
)
def test_too_many_plans_are_refused_with_options_that_narrow_them(n_blocks, words, message):
    choice = goldens.choice_of(words)
    with pytest.raises(PlanError) as error:
        choice.check(n_blocks)
    assert str(error.value) == message


def test_where_nothing_narrows_no_option_is_advised():
    with pytest.raises(PlanError) as error:
        Choice(Mode.SEQUENTIAL, max_plans=4).check(6)
    assert str(error.value) == (
        "cannot measure 7 plans of 6 blocks without your word: that is more than 4, in 21 block "
        "calls for each window. Choose fewer, or ask for all with --max-plans 7."
    )


def test_a_choice_that_fits_is_not_refused():
    goldens.choice_of("--mode combinatorial").check(12)


def test_advice_stays_within_the_limit_for_any_depth():
    for n_blocks in (*range(2, 20), *range(20, 200, 9)):
        for advice in Choice(Mode.COMBINATORIAL).narrower(n_blocks, MAX_PLANS):
            count = int(re.search(r"\(([\d,]+) plan", advice)[1].replace(",", ""))
            assert 0 < count <= MAX_PLANS


@pytest.mark.parametrize("choice", [Choice(Mode.SEQUENTIAL), Choice(plans=tuple(singles(3)))])
def test_what_cannot_be_narrowed_is_not(choice):
    assert choice.narrower(3, 2) == []
