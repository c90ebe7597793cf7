"""The command line from outside: what it prints, how it ends, what it leaves behind."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import yaml
from tiny import TEXT, save_tiny_gpt2
from transformers import AutoModelForCausalLM

import pruning_kit
from pruning_kit.cli import app as cli
from pruning_kit.cli.endings import explain
from pruning_kit.cli.invocation import program_of
from pruning_kit.cli.options import execution
from pruning_kit.errors import TimingError
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles
from pruning_kit.reporting.words.numbers import format_ppl
from pruning_kit.runs import ranks
from pruning_kit.runs.results import COLUMNS
from pruning_kit.search.named import parse
from pruning_kit.speed.protocol import LatencyProtocol
from pruning_kit.sweeps import sweep
from pruning_kit.sweeps.settings import SweepSettings
from tests.synthetic_runs import write_run

FEW = [Plan(), *singles(6)]
ROW = r"(none|[\d+-]+)( \*)?  "
FIRST_COLUMNS = (
    "mode,removed,blocks,ppl,ppl_change_pct,speed_ms,speed_change_pct,params_m,nll_nats,tokens,"
    "bits_per_byte,split,status"
)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    return save_tiny_gpt2(tmp_path_factory.mktemp("cli") / "tiny")


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT * 3, encoding="utf-8")
    return path


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Call the command line in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*words, **options):
        code = cli.main([str(word) for word in words], **options)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def asked(model_folder, text_file):
    return ("--model", model_folder, "--dataset", text_file, "--no-speed", "--threads", "1")


def test_sequential_ends_with_a_table_conclusions_and_the_folder(run, asked, model_folder):
    code, out, _ = run("--mode", "sequential", *asked, default_verb="sweep")
    assert code == 0
    lines = [line.rstrip() for line in out.splitlines()]
    assert lines[0].startswith(f"Model: {model_folder}"[:40])
    rows = [line.split()[0] for line in lines if re.match(ROW, line)]
    assert rows == ["none", "0", "1", "2"]
    assert "* lowest perplexity of its size" in " ".join(out.split())
    assert "Removed alone, block" in out
    again = [line for line in lines if line.endswith(" --save_results --resume")]
    assert len(again) == 1
    assert "For CSV and figures, without measuring again: " in again[0]
    assert lines[-1].startswith("Next: pruning-kit report ")
    assert lines[-1].endswith(" --format html")
    assert max(len(line) for line in lines[:-1] if line not in again) <= 80


def test_baseline_shows_the_whole_model_once(run, asked):
    code, out, _ = run("--mode", "baseline", *asked, default_verb="sweep")
    assert code == 0
    assert len([line for line in out.splitlines() if line.startswith("none ")]) == 1
    assert out.splitlines()[-1] == "Next: --mode sequential, which removes each block alone."


def test_further_texts_have_a_table_and_rows_of_their_own(run, asked, tmp_path):
    for name, text in {"other.txt": TEXT[::-1] * 2, "short.txt": TEXT[5:50]}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    also = ("--also-on", "other.txt", "--also-on", "short.txt")
    folder = tmp_path / "run"
    words = ("sweep", "--mode", "sequential", *asked, *also, "--output", folder, "--save_results")
    code, out, _ = run(*words)
    assert code == 0
    lines = [line.rstrip() for line in out.splitlines()]
    also_on = [line.split(";")[0] for line in lines if line.startswith("Also on: ")]
    assert also_on == ["Also on: other.txt", "Also on: short.txt"]
    start = lines.index("Perplexity on other texts")
    heading = next(line for line in lines[start:] if "Removed" in line)
    assert heading.split() == ["Removed", "text.txt", "other.txt", "short.txt"]
    rows = [line.split() for line in lines[start:] if re.match(r"(none|\d)\s", line)]
    assert [row[0] for row in rows[:1]] == ["none"] and {row[0] for row in rows[1:]} == set("012")
    with (folder / "results.csv").open(newline="") as stream:
        stored = list(csv.DictReader(stream))
    assert [row["split"] for row in stored] == [*["test"] * 4, *["also-1"] * 4, *["also-2"] * 4]
    whole = [format_ppl(float(row["ppl"])) for row in stored if row["removed"] == "none"]
    assert rows[0][1:] == whole
    facts = json.loads((folder / "run.json").read_text())
    assert [facts["texts"][role]["title"] for role in ("also-1", "also-2")] == [
        "other.txt",
        "short.txt",
    ]
    code, report, _ = run("report", folder)
    assert code == 0 and "On other texts" in report and "No cost on other.txt was" in report
    again = run(*words, "--resume")
    assert again[0] == 0 and again[1] == out
    code, _, err = run("sweep", "--mode", "sequential", *asked, "--output", folder, "--resume")
    assert code == 2
    assert "measured with --also-on (text 1), this run leaves it out." in " ".join(err.split())


def test_save_results_writes_csv_run_file_sums_and_figures(run, asked, tmp_path):
    code, out, _ = run("--mode", "combinatorial", "--save_results", *asked, default_verb="sweep")
    assert code == 0
    (folder,) = (tmp_path / "results").iterdir()
    assert folder.name.startswith("tiny-combinatorial-")
    assert {path.name for path in folder.iterdir()} == {
        "results.csv",
        "run.json",
        "rounds",
        "finished.json",
        "perplexity.png",
        "perplexity.svg",
        "speed.png",
        "speed.svg",
    }
    with (folder / "results.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert ",".join(rows[0]).startswith(FIRST_COLUMNS)
    assert rows[0] == COLUMNS
    assert [row[1] for row in rows[1:]] == ["none", "0", "1", "2", "0+1", "0+2", "1+2", "0+1+2"]
    assert [row[0] for row in rows[1:]] == [
        "baseline",
        *["sequential"] * 3,
        *["combinatorial"] * 3,
        "empty",
    ]
    assert json.loads((folder / "run.json").read_text())["command"].startswith(
        "pruning-kit --mode combinatorial --save_results --model"
    )
    assert folder.name in "".join(out.split())


def test_two_runs_write_two_folders(run, asked, tmp_path):
    for _ in range(2):
        assert run("--mode", "baseline", "--save_results", *asked, default_verb="sweep")[0] == 0
    assert len(list((tmp_path / "results").iterdir())) == 2


def test_timing_that_does_not_fit_the_model_is_refused_and_leaves_nothing(
    run, model_folder, text_file, tmp_path
):
    words = ("--mode", "baseline", "--model", model_folder, "--dataset", text_file)
    quick = ("--latency-budget", "0.5", "--prompt-tokens", "8", "--new-tokens", "2")
    code, _, err = run("sweep", *words, *quick, "--output", tmp_path / "timed")
    assert code == 2
    assert "context" in err  # 75 tokens do not fit into a context of 32
    assert not (tmp_path / "timed").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("2,x", "cannot read --batch-sweep '2,x': write whole numbers, such as 2,4,8."),
        ("2,,4", "cannot read --batch-sweep '2,,4': write whole numbers, such as 2,4,8."),
        ("4,1", "cannot time batches of 1 and also of 4, 1: a size is repeated. Give each once."),
    ],
)
def test_batch_sizes_reach_the_timing(run, asked, words, message):
    code, _, err = run("sweep", "--mode", "baseline", *asked, "--speed", "--batch-sweep", words)
    assert code == 2
    assert message in " ".join(err.split())


@pytest.mark.parametrize(
    "option",
    [("--batch-sweep", "2,4"), ("--per-plan",), ("--compile",), ("--latency-budget", "9")],
)
def test_timings_are_not_asked_for_and_left_out_at_once(run, option):
    code, out, err = run("sweep", "--mode", "baseline", "--no-speed", *option)
    assert (code, out) == (2, "")
    assert " ".join(err.split()) == (
        f"Error: cannot use {option[0]} together with --no-speed: one asks for timings, the other "
        "for none. Leave one out."
    )


def test_chosen_plans_are_measured_and_shown_besides_those_of_the_mode(run, asked):
    code, out, _ = run("sweep", "--mode", "baseline", "--try", "0+2", *asked)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if re.match(ROW, line)] == ["none", "0+2"]


def test_ctrl_c_says_in_one_line_how_to_go_on(run, asked, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "measure", interrupt)
    code, _, err = run("--mode", "baseline", *asked, default_verb="sweep", program="python main.py")
    assert code == 130
    (line,) = [line for line in err.splitlines() if line]
    assert line.startswith("Stopped. What was measured is in ")
    assert line.endswith(" --threads 1 --resume")
    assert "go on with: python main.py --mode baseline" in line


def test_failed_plans_are_named_and_the_exit_code_is_3(run, asked, model_folder, tmp_path):
    from test_sweep import poisoned

    bad = poisoned(model_folder, tmp_path / "bad")
    code, out, err = run("sweep", "--mode", "sequential", *asked, "--model", bad)
    assert code == 3
    assert "3 rows failed" in err
    assert "failed" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sweep",), "cannot start a sweep: nothing says what to measure."),
        (("sweep", "--try", "1+x"), "cannot read 'x' in a plan '1+x'"),
        (("sweep", "--try", "9"), "cannot remove block 9: the model has 3 blocks"),
        (("sweep", "--try", "0-2"), "cannot remove all 3 blocks"),
        (("sweep", "--try", "shapley:few"), "cannot read 'shapley:few' as a way to choose plans:"),
        (("sweep", "--try", "shapley:-4"), "'shapley:-4' as a way to choose plans: write shapley:"),
        (("sweep", "--try", "1", "--max-removed", "2"), "cannot use --max-removed 2 here"),
        (("sweep", "--try", ""), "cannot use an empty value for --try: it names nothing."),
        (("sweep", "--try", " "), "cannot start a sweep: nothing says what to measure."),
        (("sweep", "--sizes", "2"), "no such option: --sizes"),
        (("sweep", "--mode", "baseline", "--batch-size", "0"), "cannot use --batch-size 0"),
        (("sweep", "--try", "combinatorial:2,"), "cannot read 'combinatorial:2,' as a way to"),
        (("sweep", "--try", "middle"), "cannot read 'middle' as a way to choose plans: write"),
        (("sweep", "--try", "last:1.5"), "cannot remove a share of 1.5 of the blocks: give a"),
        (("sweep", "--mode", "baseline", "--context", "64"), "reads at most 32 tokens"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(run, asked, words, message):
    code, out, err = run(*words, *(asked if len(words) > 1 else ()))
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert out == ""


def test_an_option_that_does_not_exist_is_explained(run):
    code, _, err = run("sweep", "--mo\x1b[31mod", "baseline")
    assert code == 2
    assert " ".join(err.split()).startswith(r"Error: no such option: --mo\x1b[31mod")
    assert err.endswith("See pruning-kit sweep --help.\n")


ABSURD = [
    (("--threads", "10000000000"), "from 1 to 2,048"),
    (("--batch-size", "-1"), "from 1 to 1,000,000"),
    (("--context", "99999999999"), "from 1 to 16,777,216"),
    (("--stride", "0"), "from 1 to 16,777,216"),
    (("--max-windows", "0"), "from 1 to 1,000,000,000"),
    (("--max-plans", "-3"), "from 1 to 1,048,576"),
    (("--max-plans", "99999999999"), "from 1 to 1,048,576"),
    (("--prompt-tokens", "0"), "from 1 to 16,777,216"),
    (("--new-tokens", "99999999999"), "from 1 to 16,777,216"),
    (("--batch", "100000"), "from 1 to 65,536"),
    (("--batch-sweep", "100000"), "from 1 to 65,536"),
    (("--latency-budget", "inf"), "above 0 and below 1,000,000,000,000"),
    (("--latency-budget", "nan"), "above 0 and below 1,000,000,000,000"),
    (("--latency-target", "nan"), "above 0 and below 1,000,000,000,000"),
    (("--max-removed", "0"), "from 1 to 10,000"),
]


def refuse_to_load(monkeypatch):
    """Make loading anything heavy a failure."""
    for name in (
        "pruning_kit.speed.workload",
        "pruning_kit.sweeps.workbench",
        "pruning_kit.sweeps.sweep",
    ):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(("words", "allowed"), ABSURD)
def test_numbers_that_nobody_can_mean_are_refused_before_anything_is_loaded(
    run, monkeypatch, words, allowed
):
    refuse_to_load(monkeypatch)
    code, out, err = run("sweep", "--mode", "baseline", *words)
    assert (code, out) == (2, "")
    assert " ".join(err.split()) == (
        f"Error: cannot use {words[0]} {words[1]}: it needs to be {allowed}."
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--try", "1" * 5000), "cannot read '11111"),
        (("--try", "0-" + "9" * 4000), "no model has that many blocks."),
        (("--try", "shapley:100000000"), "cannot sample 100000000 orders of the blocks: give a"),
        (("--try", "shapley:" + "9" * 5000), "way to choose plans: write shapley:160."),
        (("--try", "random:seed=" + "9" * 5000), "way to choose plans: write first, first,last"),
        (("--try", "first:nan"), "cannot read 'first:nan' as a way to choose plans"),
        (("--try", "first:0.5,inf"), "cannot read 'first:0.5,inf' as a way to choose plans"),
        (("--try", "first:1,,2"), "cannot read 'first:1,,2' as a way to choose plans"),
        (("--output", ""), "cannot use an empty value for --output: it names nothing. Write a"),
        (("--output=",), "cannot use an empty value for --output: it names nothing."),
        (("--model", ""), "cannot use an empty value for --model: it names nothing."),
        (("--device", ""), "cannot use an empty value for --device: it names nothing."),
        (("--output", "a\0b"), r"cannot use 'a\x00b': no name can have a null character in it."),
        (("--output", "caf\udce9"), r"cannot use 'caf\xe9': its bytes are no UTF-8, so no result"),
        (("--output", "n" * 300), "File name too long. Choose another place with --output."),
        (("--output", "new/" + "n" * 300), "File name too long. Choose another place with"),
    ],
)
def test_words_that_nobody_can_mean_are_refused_before_anything_is_loaded(
    run, monkeypatch, words, message
):
    refuse_to_load(monkeypatch)
    code, out, err = run("sweep", "--mode", "baseline", *words)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())
    assert "Traceback" not in err and len(err) < 1500


def test_what_a_person_could_mean_is_allowed():
    SweepSettings(threads=768, context=2**20, batch_size=4096).check()
    LatencyProtocol(batch_size=4096, budget_s=86400.0)
    assert parse("random:2,seed=-1").seed == -1


@pytest.mark.parametrize("option", ["--max-latency", "--max-ppl-increase"])
@pytest.mark.parametrize("value", ["nan", "inf", "-5"])
def test_a_budget_that_is_no_number_is_refused_before_the_run_is_read(run, option, value):
    code, _, err = run("report", "nowhere", option, value)
    assert code == 2
    assert f"cannot use {option} {value}: it needs to be" in " ".join(err.split())


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(13, "Permission denied", "a\x1bb"), r"Permission denied: 'a\x1bb'."),
        (OSError("the disk is gone"), "the disk is gone."),
        (MemoryError(), "the memory is full, even if only for what was asked for at once."),
        (RecursionError(), "an input is nested too deeply."),
        (
            ModuleNotFoundError("No module named 'x'", name="x"),
            f"the package 'x' is not installed for {sys.executable}. Install what the kit needs: "
            "pip install -r requirements.txt.",
        ),
        (OverflowError("too large"), "a number is too large (too large)."),
        (UnicodeEncodeError("ascii", "−", 0, 1, "no"), "a text cannot be read or written ("),
        (torch.OutOfMemoryError("CUDA out of memory"), "the memory is full, even if only for"),
        (RuntimeError("[enforce] DefaultCPUAllocator: can't allocate"), "the memory is full,"),
    ],
)
def test_what_any_machine_may_run_into_is_a_sentence_and_a_traceback_with_debug(
    run, monkeypatch, error, sentence
):
    def fail(folder):
        raise error

    monkeypatch.setattr("pruning_kit.runs.results.load_run", fail)
    code, out, err = run("report", "run")
    assert (code, out) == (2, "")
    assert f"Error: cannot go on: {sentence}" in " ".join(err.split())
    assert "Traceback" not in err and "\x1b" not in err
    for words in (("--debug", "report", "run"), ("report", "run", "--debug")):
        code, _, err = run(*words)
        assert code == 2
        assert err.startswith("Traceback (most recent call last):") and "\x1b" not in err


def test_a_mistake_of_the_kit_stays_a_traceback_and_says_whose_it_is(run, monkeypatch):
    def fail(folder):
        raise AssertionError("\x1b[31mthis cannot be")

    monkeypatch.setattr("pruning_kit.runs.results.load_run", fail)
    code, _, err = run("report", "run")
    assert code == 70
    assert err.startswith("Traceback (most recent call last):")
    assert r"AssertionError: \x1b[31mthis cannot be" in err
    assert "this is a mistake of pruning-kit, not yours. Please report it" in " ".join(err.split())


def test_a_deleted_current_folder_is_one_sentence(run, tmp_path, monkeypatch):
    def deleted():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("pathlib.Path.cwd", deleted)
    code, _, err = run("report", "run")
    assert code == 2
    assert " ".join(err.split()) == (
        "Error: cannot work here: the current folder was deleted. Change to one that exists."
    )
    assert program_of("main.py").endswith("main.py")


def test_a_cache_that_cannot_be_written_names_the_place_and_the_remedy(run, monkeypatch, tmp_path):
    refuse_to_load(monkeypatch)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    code, _, err = run("sweep", "--mode", "baseline")
    assert code == 2
    assert "".join(err.split()) == "".join(
        f"Error: cannot write {tmp_path}/file/pruning-kit/runs: Not a directory. Choose another "
        "place with --output.".split()
    )


def test_a_user_without_a_home_is_told_so(run, monkeypatch):
    refuse_to_load(monkeypatch)

    def nobody(*_, **__):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("platformdirs.user_cache_path", nobody)
    code, _, err = run("sweep", "--mode", "baseline")
    assert code == 2
    assert " ".join(err.split()) == (
        "Error: cannot keep the run in the user's cache: no home is known for this user, HOME is "
        "not set. Choose another place with --output."
    )


def test_a_folder_that_may_not_be_written_is_refused_first(run, monkeypatch, tmp_path):
    refuse_to_load(monkeypatch)
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    code, _, err = run("sweep", "--mode", "baseline", "--output", "locked/run")
    assert code == 2
    assert " ".join(err.split()) == (
        "Error: cannot write locked/run: Permission denied. Choose another place with --output."
    )


HOSTILE = "m[v2] 'q'\x1b]0;x\x07\x9b\u202e\n|`:smile:"
OBEYED = ("\x1b", "\x07", "\x9b", "\u202e", "\r")


def test_no_name_from_outside_is_obeyed_by_terminal_page_figure_or_card(
    run, model_folder, text_file, tmp_path
):
    model, text = tmp_path / HOSTILE, tmp_path / f"{HOSTILE}.txt"
    shutil.copytree(model_folder, model)
    shutil.copy(text_file, text)
    words = ("--mode", "combinatorial", "--model", HOSTILE, "--dataset", text, "--no-speed")
    folder = f"run {HOSTILE}"
    ends = [run("sweep", *words, "--threads", "1", "--save_results", "--output", folder)]
    ends += [run("report", folder), run("report", folder, "--figures", "--format", "md")]
    ends += [run("report", folder, "--format", "html"), run("compare", folder, folder)]
    ends += [run("prune", "--remove", "1", "--run", folder, "--out", f"out {HOSTILE}")]
    ends += [run("verify", f"out {HOSTILE}"), run("report", HOSTILE), run("verify", f"{HOSTILE}x")]
    assert [code for code, *_ in ends] == [0, 0, 0, 0, 0, 0, 0, 2, 2]
    written = [path.read_text() for path in (tmp_path / folder).glob("report.*")]
    card = (tmp_path / f"out {HOSTILE}" / "README.md").read_text()
    figures = sorted((tmp_path / folder).glob("*.svg"))
    for said in (*(out + err for _, out, err in ends), *written, card):
        assert not any(mark in said for mark in OBEYED)
        assert "[v2]" in said and r"\x1b]0;x" in said
    assert len(figures) >= 4
    for figure in figures:
        ElementTree.parse(figure)
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["library_name"] == "transformers"
    (again,) = [line for line in ends[0][1].splitlines() if line.startswith("Next: ")]
    command = again.removeprefix("Next: ").replace("pruning-kit", f'"{sys.executable}" -c ""')
    listed = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True
    )
    assert folder.encode() in listed.stdout.split(b"\0")


def test_prune_writes_a_folder_that_verify_and_plain_transformers_accept(
    run, model_folder, text_file, tmp_path
):
    words = ("--model", model_folder, "--dataset", text_file, "--no-speed", "--threads", "1")
    assert run("sweep", "--try", "1", *words, "--output", tmp_path / "run")[0] == 0
    out_folder = tmp_path / "pruned"
    code, out, _ = run("prune", "--remove", "1", "--run", tmp_path / "run", "--out", out_folder)
    assert code == 0
    assert "FAILED" not in out
    assert AutoModelForCausalLM.from_pretrained(out_folder).config.n_layer == 2
    assert "perplexity of the whole model" in (out_folder / "README.md").read_text()
    halved = ("--run", tmp_path / "run", "--dtype", "bfloat16", "--out", tmp_path / "half")
    code, _, err = run("prune", "--remove", "1", *halved)
    assert code == 0
    assert " ".join(err.split()) == (
        "Note: weights are saved as bfloat16; all is measured with the base model's, in float32."
    )
    code, out, _ = run("verify", out_folder)
    assert code == 0
    assert "passed" in out


def test_verify_says_what_is_wrong_and_ends_with_1(run, model_folder, tmp_path):
    assert run("prune", "--remove", "1", "--model", model_folder, "--out", tmp_path / "p")[0] == 0
    config = json.loads((tmp_path / "p" / "config.json").read_text())
    (tmp_path / "p" / "config.json").write_text(json.dumps({**config, "n_layer": 3}))
    code, out, _ = run("verify", tmp_path / "p")
    assert code == 1
    assert "FAILED  weights" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("prune", "--remove", "none", "--out", "p"), "cannot prune by an empty plan"),
        (("prune", "--remove", "0-2", "--out", "p"), "cannot remove all 3 blocks"),
        (("prune", "--remove", "7", "--out", "p"), "cannot remove block 7"),
        (
            ("prune", "--remove", "1", "--out", "p", "--dtype", "int8"),
            "cannot save weights as 'int8': the kit writes float32, float16, bfloat16, float64. "
            "Name one of these with --save-dtype.",
        ),
    ],
)
def test_a_plan_that_cannot_be_cut_leaves_no_folder(run, model_folder, tmp_path, words, message):
    code, _, err = run(*words, "--model", model_folder)
    assert code == 2
    assert message in " ".join(err.split())
    assert not (tmp_path / "p").exists()


def test_verify_of_nothing_is_one_sentence(run):
    code, _, err = run("verify", "./nowhere")
    assert code == 2
    assert "there is no such folder" in " ".join(err.split())


def test_reports_are_written_from_the_stored_run(run, asked, tmp_path):
    folder = tmp_path / "run"
    assert run("sweep", "--mode", "sequential", *asked, "--output", folder)[0] == 0
    code, out, _ = run("report", folder)
    assert code == 0
    assert "In short" in out
    for form in ("md", "html"):
        assert run("report", folder, "--format", form)[0] == 0
        assert (folder / f"report.{form}").stat().st_size > 1000


@pytest.mark.parametrize("name", ["run.json", "results.csv", "notes.md", "rounds"])
@pytest.mark.parametrize("form", ["md", "html"])
def test_a_report_is_never_written_over_what_is_no_report(run, tmp_path, name, form):
    folder = write_run(tmp_path / "run", plans=FEW)
    for file in ("results.csv", "notes.md"):
        (folder / file).write_text("a user's own")
    place = folder / name
    before = place.read_bytes() if place.is_file() else sorted(place.iterdir())
    code, out, err = run("report", "run", "--format", form, "--output", f"run/{name}")
    found = (
        "a file that is no report of the kit" if place.is_file() else "something that is no file"
    )
    assert (code, out) == (2, "")
    assert " ".join(err.split()) == (
        f"Error: cannot write the report to run/{name}: there is {found} in its place. Choose "
        "another place with --output."
    )
    assert before == (place.read_bytes() if place.is_file() else sorted(place.iterdir()))


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no such device here")
def test_a_report_does_not_take_the_place_of_a_device(run, tmp_path):
    write_run(tmp_path / "run", plans=FEW)
    code, _, err = run("report", "run", "--format", "md", "--output", "/dev/null")
    assert code == 2
    assert "cannot write the report to /dev/null: there is something that is no file" in " ".join(
        err.split()
    )
    assert Path("/dev/null").is_char_device()


def test_a_report_is_written_over_an_earlier_one_or_an_empty_file(run, tmp_path):
    folder = write_run(tmp_path / "run", plans=FEW)
    (tmp_path / "made.html").touch()
    for form in ("md", "html", "md"):
        words = ("report", folder, "--format", form)
        assert run(*words)[0] == run(*words, "--output", "made.html")[0] == 0
        made = (tmp_path / "made.html").read_text(encoding="utf-8")
        assert made == (folder / f"report.{form}").read_text(encoding="utf-8")
        assert made.endswith("\n<!-- written by pruning-kit report -->\n")
    with (folder / "report.md").open("a") as stream:
        stream.write("And what I think of it.\n")
    assert run("report", folder, "--format", "md")[0] == 2


def test_a_place_for_a_report_without_a_format_is_refused(run, tmp_path):
    write_run(tmp_path / "run", plans=FEW)
    code, out, err = run("report", "run", "--output", "mine.html")
    assert (code, out) == (2, "")
    assert " ".join(err.split()) == (
        "Error: cannot write the report to mine.html: --format terminal prints it. Add --format "
        "md or --format html."
    )


def test_a_report_into_a_folder_that_is_not_there_is_one_sentence(run, tmp_path):
    write_run(tmp_path / "run", plans=FEW)
    code, _, err = run("report", "run", "--format", "md", "--output", "nowhere/mine.md")
    assert code == 2
    assert " ".join(err.split()) == (
        "Error: cannot write nowhere/mine.md: No such file or directory. Choose another place with "
        "--output."
    )


def test_figures_of_a_user_are_not_drawn_over(run, asked, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "perplexity.png").write_text("a user's own")
    words = ("--mode", "sequential", *asked, "--save_results", "--output", "mine")
    code, _, err = run("sweep", *words)
    assert code == 2
    assert "cannot write a new run to mine: the folder is not empty" in " ".join(err.split())
    assert (tmp_path / "mine" / "perplexity.png").read_text() == "a user's own"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_results_are_written_although_nothing_can_be_printed(run, asked, tmp_path, monkeypatch):
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        words = ("--mode", "sequential", *asked, "--save_results", "--output", "run")
        code, _, err = run("sweep", *words)
        assert code == 1
        assert err.splitlines()[-1] == (
            "Error: cannot print the result: No space left on device. What was measured and asked "
            "for in files is stored."
        )
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert run("report", "run", "--format", "md", "--figures")[0] == 1
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"results.csv", "perplexity.png", "perplexity.svg", "report.md"} <= names


def test_results_are_written_although_nobody_reads(run, asked, tmp_path, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        monkeypatch.setattr(sys, "stdout", nobody)
        words = ("--mode", "sequential", *asked, "--save_results", "--output", "run")
        code, _, err = run("sweep", *words)
    assert code == 1
    assert "Error" not in err
    assert {"results.csv", "perplexity.png"} <= {p.name for p in (tmp_path / "run").iterdir()}


def test_a_report_of_nothing_is_one_sentence(run, tmp_path):
    code, _, err = run("report", tmp_path)
    assert code == 2
    assert "it holds no run.json" in " ".join(err.split())


@pytest.mark.parametrize(
    ("value", "example"),
    [
        ("7900000", "7.9 for 7,900,000"),
        ("nan", "60 for 60,000,000"),
        ("inf", "60 for 60,000,000"),
    ],
)
def test_a_count_of_parameters_is_not_taken_for_millions(run, tmp_path, value, example):
    code, _, err = run("report", write_run(tmp_path / "run"), "--max-params", value)
    assert code == 2
    assert " ".join(err.split()) == (
        f"Error: cannot choose under --max-params {value}: the unit is millions of parameters. "
        f"Write --max-params {example} of them."
    )


def test_millions_of_parameters_are_a_budget(run, tmp_path):
    code, out, _ = run("report", write_run(tmp_path / "run"), "--max-params", "70")
    assert code == 0
    assert "70,000,000 parameters" in " ".join(out.split())


def test_a_report_judges_sets_bridged_or_as_cut(run, tmp_path):
    costs = {Plan((2,)): 0.2, Plan((5,)): 0.05}
    folder = write_run(tmp_path / "run", plans=[Plan(), *singles(6)], bridged=costs.get)
    bridged, as_cut = (run("report", folder, *words)[1] for words in ([], ["--as-cut"]))
    assert "take block 3: perplexity +" in " ".join(as_cut.split())
    assert "Block 5 can be removed at little cost: perplexity +5." in " ".join(bridged.split())
    assert "--remove 5 --bridge --out" in bridged and "--remove 3 --out" in as_cut
    folder = tmp_path / "run"
    assert run("report", folder, "--format", "md", "--as-cut")[0] == 0
    assert "nothing retrained or bridged" in (folder / "report.md").read_text()


def test_a_comparison_needs_one_thing_to_compare_with(run):
    code, _, err = run("compare", "one")
    assert code == 2
    assert " ".join(err.split()) == (
        "Error: cannot compare one: there is nothing to compare it with. Give a second run, or "
        "--published."
    )
    code, _, err = run("compare", "one", "two", "--published")
    assert code == 2
    assert " ".join(err.split()) == (
        "Error: cannot compare one with two and with the published table at once. Leave out "
        "--published or the second run."
    )


@pytest.mark.parametrize("verb", ["report", "compare"])
def test_a_damaged_run_file_is_one_sentence(run, tmp_path, verb):
    write_run(tmp_path / "run", plans=[Plan(), *singles(6)])
    (tmp_path / "run" / "run.json").write_text("[]")
    code, out, err = run(verb, "run", *["run"] * (verb == "compare"))
    assert (code, out) == (2, "")
    assert " ".join(err.split()) == (
        "Error: cannot read run/run.json: it holds no JSON object. Restore the file from a copy, "
        "or sweep again into another folder."
    )


def test_every_verb_teaches_with_an_example(run):
    for verb in cli.VERBS:
        code, out, _ = run(verb, "--help")
        assert code == 0
        assert f"pruning-kit {verb}" in out


def test_help_and_stored_runs_need_no_torch():
    script = (
        "import sys, pruning_kit.cli, pruning_kit.runs.results, pruning_kit.findings.analysis, "
        "pruning_kit.reporting.formats; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_public_names_exist():
    for name in pruning_kit.__all__:
        assert getattr(pruning_kit, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = pruning_kit.nothing


def test_the_command_shown_is_one_that_starts_this_python(monkeypatch, tmp_path):
    base, inside = tmp_path / "base" / "python", tmp_path / "my venv" / "bin" / "python"
    for folder in (base.parent, inside.parent):
        folder.mkdir(parents=True)
    base.write_text("#!/bin/sh\n")
    base.chmod(0o755)
    inside.symlink_to(base)  # as a virtual environment's is
    monkeypatch.setattr("sys.executable", str(inside))
    monkeypatch.setenv("PATH", f"{base.parent}:/usr/bin:/bin")
    assert program_of("main.py") == f"'{inside}' main.py"
    monkeypatch.chdir(tmp_path)
    assert program_of("main.py") == "'./my venv/bin/python' main.py"
    monkeypatch.chdir(inside.parent)
    assert program_of("main.py") == "./python main.py"
    monkeypatch.setenv("PATH", f"{inside.parent}:/usr/bin:/bin")
    assert program_of("kit/main.py") == "python kit/main.py"
    inside.rename(inside.with_name("python3"))
    monkeypatch.setattr("sys.executable", f"{inside}3")
    assert program_of("main.py") == "python3 main.py"


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("pruning-kit", ["-m", "pruning_kit"]),
        ("./.venv/bin/python main.py", ["main.py"]),
        ("python '/a b/main.py'", ["/a b/main.py"]),
    ],
)
def test_under_torchrun_the_command_shown_is_torchruns(run, asked, monkeypatch, program, words):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    code, out, _ = run("--mode", "baseline", *asked, default_verb="sweep", program=program)
    assert code == 0
    begin = shlex.join(["torchrun", "--nproc-per-node", "2", *words, "--mode", "baseline"])
    assert f"without measuring again: {begin}" in out


def test_no_words_at_all_are_answered_by_the_help(run):
    code, out, err = run()
    assert (code, err) == (0, "")
    assert "Usage: pruning-kit" in out and "sweep" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--dataset", "nowhere.txt"), "cannot find text 'nowhere.txt'"),
        (("--select-on", "nowhere.txt"), "cannot find text 'nowhere.txt'"),
        (("--also-on", "demo", "--also-on", "nowhere.txt"), "cannot find text 'nowhere.txt'"),
        (("--also-on", "demo", "--also-on", "demo"), "cannot measure also on 'demo': 'demo' is"),
        (("--also-on", ""), "cannot use an empty value for --also-on"),
        (("--context", "64"), "cannot use context 64: the model"),
        (("--output", "taken"), "cannot write a new run to taken: a run is already there"),
    ],
)
def test_what_no_weights_are_needed_for_is_refused_before_they_are_read(
    run, asked, monkeypatch, tmp_path, words, message
):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "run.json").write_text("{}")

    def read(*_, **__):
        raise AssertionError("weights were read")

    monkeypatch.setattr("pruning_kit.inputs.models.load_model", read)
    code, _, err = run("sweep", "--mode", "baseline", *asked, *words)
    assert code == 2
    assert message in " ".join(err.split())


def test_a_mistake_in_the_words_is_said_by_the_first_process_which_waits_for_no_other(
    run, monkeypatch
):
    for name, value in zip(ranks.NUMBERS, ("1", "2", "1", "2", "29999"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    ranks.current_ranks.cache_clear()
    assert run("sweep", "--bogus") == (2, "", "")
    monkeypatch.setenv("RANK", "0")
    code, _, err = run("sweep", "--bogus")
    assert code == 2 and "no such option" in " ".join(err.split())


def test_an_end_with_words_is_exit_code_1():
    assert explain(SystemExit("words"), debug=False) == 1
    assert explain(SystemExit(3), debug=False) == 3
    assert explain(SystemExit(), debug=False) == 0


def test_compile_and_cuda_graphs_exclude_each_other():
    flags = ((False, False), (True, False), (False, True))
    assert [execution(*pair) for pair in flags] == ["eager", "compile", "cuda-graph"]
    with pytest.raises(TimingError, match="cannot time with --compile and --cuda-graphs at once"):
        execution(True, True)
