"""Advice: whatever the kit tells a person to type, it takes.

Commands are run on a model folder without weights: what is accepted gets as far as these.
"""

import re
import shlex
import shutil

import pytest
from tiny import TEXT, save_tiny_gpt2
from transformers import AutoTokenizer, GPT2Config

from pruning_kit.cli import app as cli
from pruning_kit.cli.console import notes
from pruning_kit.cli.request import Mode, Request
from pruning_kit.cli.terminal import TerminalObserver
from pruning_kit.findings.analysis import analyse
from pruning_kit.inputs.models import DEMO_FOLDER
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles
from pruning_kit.reporting.commands import same_sweep, shapley_command, shapley_options
from pruning_kit.reporting.words.sections import section_sentences
from pruning_kit.runs.results import load_run
from pruning_kit.search.shapley import permutations_to_sample
from pruning_kit.sweeps import rounds
from tests.sweeping import asked, begin
from tests.synthetic_runs import write_run

WAYS = re.compile(r"((?:--try \S+ )+)\(")
MORE = re.compile(r"--max-plans \d+")


@pytest.fixture
def without_weights(tmp_path):
    """A model folder that holds config and tokenizer, and no weights."""

    def make(n_blocks):
        folder = tmp_path / f"bare-{n_blocks}"
        GPT2Config(n_layer=n_blocks, n_embd=16, n_head=2, vocab_size=6144).save_pretrained(folder)
        AutoTokenizer.from_pretrained(DEMO_FOLDER).save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def sweep(capsys, monkeypatch, tmp_path):
    """What `sweep` says on stderr, on one line; it must end with exit code 2."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(folder, *words):
        code = cli.main(["sweep", "--model", str(folder), "--no-speed", *words])
        assert code == 2
        return " ".join(capsys.readouterr().err.split())

    return call


def accepted(said):
    """Whether a sweep was refused for nothing but its missing weights."""
    return "cannot load model" in said and "it has no weights" in said


def following(words, refusal):
    """The words that were typed, each time with an advised request in place of their own."""
    advice = refusal.split("Choose fewer")[1]
    pairs = [words[i : i + 2] for i in range(0, len(words), 2)]
    limits = [word for pair in pairs if pair[0] == "--max-plans" for word in pair]
    ways = [[*way.split(), *limits] for way in WAYS.findall(advice)]
    return ways + [[*words, *more.split()] for more in MORE.findall(advice)]


@pytest.mark.parametrize(
    ("n_blocks", "words", "said", "n_options"),
    [
        (
            16,
            "--mode combinatorial",
            "cannot measure 65,536 plans of 16 blocks without your word: that is more than 5,000. "
            "Choose fewer, such as with --try pairs (137 plans) or --try combinatorial:max=4 "
            "(2,517 plans) or --try sequential (17 plans) in place of --mode combinatorial, or ask "
            "for all with --max-plans 65536.",
            4,
        ),
        (
            48,
            "--mode combinatorial",
            "cannot measure all that was asked for of 48 blocks: that is more than 1,048,576 "
            "plans, and a sweep holds no more. Choose fewer, such as with --try pairs (1,177 "
            "plans) or --try sequential (49 plans) in place of --mode combinatorial.",
            2,
        ),
        (
            48,
            "--try shapley:120",
            "cannot measure 5,480 plans of 48 blocks without your word: that is more than 5,000, "
            "in 61,016 block calls for each window. Choose fewer, such as with --try shapley:106 "
            "(4,848 plans) in place of --try shapley:120, or ask for all with --max-plans 5480.",
            2,
        ),
        (
            120,
            "--try pairs",
            "cannot measure 7,261 plans of 120 blocks without your word: that is more than 5,000, "
            "in 288,100 block calls for each window. Choose fewer, such as with --try sequential "
            "(121 plans) in place of --try pairs, or ask for all with --max-plans 7261.",
            2,
        ),
        (48, "--try combinatorial:8", "blocks: that is more than 1,048,576 plans", 2),
        (48, "--mode combinatorial --max-removed 9", "that is more than 1,048,576 plans", 2),
        (12, "--mode combinatorial --max-plans 100", "cannot measure 4,096 plans of 12", 3),
        (12, "--try first,last --max-plans 9", "cannot measure 23 plans of 12 blocks", 3),
        (12, "--try first:0.2,0.9 --max-plans 2", "cannot measure 3 plans", 3),
        (12, "--mode sequential --try 1+2 --max-plans 5", "cannot measure 14 plans of 12", 1),
        (12, "--mode combinatorial --try 1-5 --max-plans 100", "cannot measure 4,096 plans", 3),
        (3, "--mode combinatorial --max-plans 4", "cannot measure 8 plans of 3 blocks", 2),
    ],
)
def test_too_many_plans_are_refused_without_weights_and_each_option_advised_is_taken(
    sweep, without_weights, n_blocks, words, said, n_options
):
    folder, words = without_weights(n_blocks), words.split()
    refusal = sweep(folder, *words)
    assert said in refusal and " day" not in refusal
    advised = following(words, refusal)
    assert len(advised) == n_options
    for way in advised:
        assert accepted(sweep(folder, *way)), way


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--try combinatorial:6", "cannot remove 6 of 6 blocks: choose 1 to 5."),
        (
            "--mode combinatorial --max-removed 6",
            "cannot remove 6 of 6 blocks: choose 1 to 5.",
        ),
        (
            "--try 7",
            "cannot remove block 7: the model has 6 blocks, numbered 0 to 5.",
        ),
        (
            "--try middle",
            "cannot read 'middle' as a way to choose plans: write blocks, such as 1+3, or one of "
            "baseline, sequential, combinatorial, pairs, first, last, alternate, contiguous, "
            "random, shapley, search, spans, greedy, beam, evolution, quadratic, swaps, "
            "influence, angular, magnitude, taylor, distilled, none.",
        ),
        (
            "--try first:0.9,max=2",
            "cannot remove 5 blocks or more: 2 are allowed at most. Raise max or choose smaller "
            "ratios.",
        ),
        ("--mode baseline --max-plans 0", "cannot use --max-plans 0: it needs to be from 1 to"),
        (
            "--try shapley:10001",
            "cannot sample 10001 orders of the blocks: give a number from 1 to 10,000.",
        ),
    ],
)
def test_plans_that_cannot_be_are_refused_without_weights(sweep, without_weights, words, said):
    refusal = sweep(without_weights(6), *words.split())
    assert said in refusal and not accepted(refusal)


def test_a_bound_that_nothing_uses_is_refused_with_what_would_use_it(sweep, without_weights):
    folder = without_weights(6)
    said = sweep(folder, "--try", "1", "--max-removed", "2")
    assert "Give that, or write --try combinatorial:max=2." in said
    for words in ("--mode combinatorial --max-removed 2", "--try combinatorial:max=2"):
        assert accepted(sweep(folder, *words.split()))


@pytest.mark.parametrize("n_blocks", [0, -1])
def test_a_config_without_blocks_is_refused_without_weights(sweep, without_weights, n_blocks):
    folder = without_weights(2)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"n_layer": 2', f'"n_layer": {n_blocks}'))
    said = sweep(folder, "--mode", "baseline")
    assert f"its config.json asks for {n_blocks} blocks. Give a model that has blocks" in said


def test_a_refusal_of_plans_reads_no_text_either(sweep, without_weights, tmp_path):
    said = sweep(without_weights(6), "--try", "7", "--dataset", str(tmp_path / "nowhere.txt"))
    assert "cannot remove block 7" in said


DEEPEST = [pytest.param(n_blocks, marks=pytest.mark.slow) for n_blocks in (1000, 2000)]


@pytest.mark.parametrize("n_blocks", [4, 9, 18, 19, 30, 48, 80, *DEEPEST])
def test_the_sweep_that_shapley_values_ask_for_is_taken(n_blocks, sweep, without_weights):
    options = shapley_options(n_blocks, permutations_to_sample(n_blocks))
    assert accepted(sweep(without_weights(n_blocks), *options.split()))


def test_a_report_of_a_deep_model_advises_a_sweep_that_is_taken(tmp_path, sweep, without_weights):
    run = load_run(write_run(tmp_path / "run", 48, [Plan(), *singles(48)], timed=False))
    analysis = analyse(run)
    said = section_sentences(analysis)["importance"][-1]
    assert "49 of 2^48 sets of blocks were measured in full" in said
    command = shlex.split(shapley_command(run, analysis), comments=True)
    options = command[command.index("distilgpt2") + 1 :]
    assert options == ["--try", "shapley:106"]
    assert accepted(sweep(without_weights(48), *options))


def test_the_same_sweep_is_the_command_less_what_says_which_plans_and_where():
    command = (
        "pruning-kit sweep --mode baseline --max-params 6 --model demo --resume --output=a "
        "--max-windows 8"
    )
    assert same_sweep(command) == "pruning-kit sweep --model demo --max-windows 8"
    for program in ("pruning-kit", "python main.py", "torchrun --nproc-per-node 2 -m pruning_kit"):
        assert same_sweep(f"{program} recover --remove 1 --out a") == "pruning-kit sweep …"
    assert same_sweep("pruning-kit sweep --model recover") == "pruning-kit sweep --model recover"


class Listener(TerminalObserver):
    def __init__(self, request):
        super().__init__(notes, request.narrower)
        self.said = []

    def say(self, text):
        self.said.append(text)


@pytest.fixture
def announced(tmp_path, monkeypatch):
    """What a sweep of three blocks announces if a window takes so many seconds."""
    model = save_tiny_gpt2(tmp_path / "model")
    text = tmp_path / "text.txt"
    text.write_text(TEXT * 6, encoding="utf-8")
    given = {"model": str(model), "dataset": str(text), "threads": 1}

    def announce(request, window_s, **options):
        monkeypatch.setattr(rounds, "_seconds_per_window", lambda *_: window_s)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        observer = Listener(request)
        settings = {**given, "output": tmp_path / "run", **options}
        begin(asked(request.proposer, **settings), observer).measure()
        return observer.said

    return announce


ALL = Request(Mode.COMBINATORIAL)


def test_a_long_sweep_says_what_fewer_windows_would_really_take(announced):
    (said,) = announced(ALL, 20.0)
    assert re.fullmatch(
        r"8 plans on \d+ windows will take about \d+ min\. Shorter: --max-windows 3 \(about "
        r"60 s\), or --try sequential \(4 plans\) in place of --mode combinatorial\.",
        said,
    )
    (said,) = announced(ALL, 180.0)
    assert "--max-windows 1 (about 3 min)" in said
    assert announced(ALL, 0.001) == []


def test_fewer_windows_are_not_advised_where_there_is_but_one(announced):
    (said,) = announced(ALL, 180.0, max_windows=1)
    assert said == (
        "8 plans on 1 window will take about 3 min. Shorter: --try sequential (4 plans) in place "
        "of --mode combinatorial."
    )


def test_the_time_of_all_texts_is_said_at_once(announced, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(TEXT[::-1] * 6, encoding="utf-8")
    (first,) = announced(ALL, 20.0)
    (second,) = announced(ALL, 20.0, dataset=str(other))
    (both,) = announced(ALL, 20.0, also_on=(str(other),))
    counts = [int(re.search(r"on (\d+) windows", said)[1]) for said in (first, second)]
    assert f"8 plans on {sum(counts)} windows of 2 texts will take about" in both
    assert "--max-windows 1 (about 40 s)" in both  # of each text


def test_a_mode_is_not_advised_what_it_refuses(announced):
    for request in (Request(Mode.SEQUENTIAL), Request(tries=("0", "1", "2"))):
        (said,) = announced(request, 180.0)
        assert re.findall("--[a-z-]+", said) == ["--max-windows"]


def test_a_run_that_goes_on_is_not_advised_what_would_start_another(announced):
    (said,) = announced(ALL, 180.0, resume=True)
    assert "Shorter" not in said
