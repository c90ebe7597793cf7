"""The command line from outside: what it prints, how it ends, what it leaves behind."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from tiny import TEXT, save_tiny_gpt2
from transformers import AutoModelForCausalLM

import pruning_kit
from pruning_kit import cli, sweep
from pruning_kit.plan import Plan, singles
from pruning_kit.runs.results import COLUMNS
from tests.synthetic_runs import write_run

FEW = [Plan(), *singles(6)]
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
    rows = [line.split()[0] for line in lines if re.match(r" (none|\d)", line)]
    assert rows == ["none", "0", "1", "2"]
    assert "* lowest perplexity of its size" in out
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
    assert len([line for line in out.splitlines() if line.startswith(" none")]) == 1
    assert out.splitlines()[-1] == "Next: --mode sequential, which removes each block alone."


def test_save_results_writes_csv_run_file_sums_and_figures(run, asked, tmp_path):
    code, out, _ = run("--mode", "combinatorial", "--save_results", *asked, default_verb="sweep")
    assert code == 0
    (folder,) = (tmp_path / "results").iterdir()
    assert folder.name.startswith("tiny-combinatorial-")
    assert {path.name for path in folder.iterdir()} == {
        "results.csv",
        "run.json",
        "parts",
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
    [("2,x", "cannot read 'x' in '--batch-sweep 2,x'"), ("4,1", "cannot time --batch-sweep 4,1")],
)
def test_batch_sizes_reach_the_timing(run, asked, words, message):
    code, _, err = run("sweep", "--mode", "baseline", *asked, "--speed", "--batch-sweep", words)
    assert code == 2
    assert message in " ".join(err.split())


@pytest.mark.parametrize(
    "option", [("--batch-sweep", "2,4"), ("--per-plan",), ("--compile",), ("--cuda-graphs",)]
)
def test_timings_are_not_asked_for_and_left_out_at_once(run, option):
    code, out, err = run("sweep", "--mode", "baseline", "--no-speed", *option)
    assert (code, out) == (2, "")
    assert " ".join(err.split()) == (
        f"Error: cannot use {option[0]} together with --no-speed: one asks for timings, the other "
        "for none. Leave one out."
    )


def test_chosen_plans_are_measured_and_shown_besides_those_of_the_mode(run, asked):
    code, out, _ = run("sweep", "--mode", "baseline", "--plans", "0+2", *asked)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if re.match(r" (none|\d)", line)] == [
        "none",
        "0+2",
    ]


def test_ctrl_c_says_in_one_line_how_to_go_on(run, asked, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep.Sweep, "measure", interrupt)
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
        (("sweep", "--plans", "1+x"), "cannot read 'x' in --plans '1+x'"),
        (("sweep", "--plans", "9"), "cannot remove block 9: the model has 3 blocks"),
        (("sweep", "--plans", "0-2"), "cannot remove all 3 blocks"),
        (("sweep", "--plans", "shapley:few"), "cannot read 'few' in '--plans shapley:few'"),
        (("sweep", "--plans", "shapley:-4"), "cannot sample -4 orders of the blocks"),
        (("sweep", "--mode", "baseline", "--sizes", "2"), "cannot use --sizes here: only --mode"),
        (("sweep", "--plans", "1", "--max-removed", "2"), "cannot use --max-removed here"),
        (("sweep", "--mode", "sequential", "--ratios", "0.5"), "cannot use --ratios here: only"),
        (("sweep", "--ratios", "0.5"), "cannot use --ratios here: only --strategies choose by"),
        (("sweep", "--sizes", "2"), "cannot use --sizes here: only --mode combinatorial and"),
        (("sweep", "--mode", "combinatorial", "--sizes", ""), "cannot read '' in '--sizes '"),
        (("sweep", "--plans", ""), "cannot start a sweep: nothing says what to measure."),
        (("sweep", "--mode", "baseline", "--batch-size", "0"), "cannot use --batch-size 0"),
        (("sweep", "--mode", "baseline", "--sizes", "2,b"), "cannot read 'b' in '--sizes 2,b'"),
        (("sweep", "--strategies", "middle"), "cannot use strategy 'middle'"),
        (("sweep", "--strategies", "last", "--ratios", "1.5"), "a share of 1.5 of the blocks"),
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
    code, _, err = run("sweep", "--mood", "baseline")
    assert code == 2
    assert "--mood" in err


def test_prune_writes_a_folder_that_verify_and_plain_transformers_accept(
    run, model_folder, text_file, tmp_path
):
    words = ("--model", model_folder, "--dataset", text_file, "--no-speed", "--threads", "1")
    assert run("sweep", "--plans", "1", *words, "--output", tmp_path / "run")[0] == 0
    out_folder = tmp_path / "pruned"
    code, out, _ = run("prune", "--remove", "1", "--run", tmp_path / "run", "--out", out_folder)
    assert code == 0
    assert "FAILED" not in out
    assert AutoModelForCausalLM.from_pretrained(out_folder).config.n_layer == 2
    assert "perplexity of the whole model" in (out_folder / "README.md").read_text()
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


@pytest.mark.parametrize("name", ["run.json", "results.csv", "notes.md", "parts"])
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
        assert code == 2
        assert err.splitlines()[-1] == (
            "Error: cannot print the result: No space left on device. What was measured and asked "
            "for in files is stored."
        )
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert run("report", "run", "--format", "md", "--figures")[0] == 2
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"results.csv", "perplexity.png", "perplexity.svg", "report.md"} <= names


def test_results_are_written_although_nobody_reads(run, asked, tmp_path, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(cli, "out", Console())  # it is quiet from then on
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
        "pruning_kit.reporting.report; assert 'torch' not in sys.modules"
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
    assert cli.program_of("main.py") == f"'{inside}' main.py"
    monkeypatch.chdir(tmp_path)
    assert cli.program_of("main.py") == "'./my venv/bin/python' main.py"
    monkeypatch.chdir(inside.parent)
    assert cli.program_of("main.py") == "./python main.py"
    monkeypatch.setenv("PATH", f"{inside.parent}:/usr/bin:/bin")
    assert cli.program_of("kit/main.py") == "python kit/main.py"
    inside.rename(inside.with_name("python3"))
    monkeypatch.setattr("sys.executable", f"{inside}3")
    assert cli.program_of("main.py") == "python3 main.py"


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
