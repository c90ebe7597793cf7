"""Sweeps end to end on a tiny model: right numbers, nothing lost, nothing mixed."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TEXT, save_tiny_gpt2
from torch.distributed import HashStore
from transformers import AutoModelForCausalLM, AutoTokenizer

from pruning_kit.errors import (
    CorpusError,
    DeviceError,
    ModelError,
    PlanError,
    RunError,
    TimingError,
    WindowError,
)
from pruning_kit.plans.variant import Variant
from pruning_kit.pruning.surgery import cut
from pruning_kit.runs.ranks import Ranks
from pruning_kit.runs.results import load_run
from pruning_kit.runs.store import RunFolder
from pruning_kit.search.combinatorial import Combinatorial
from pruning_kit.search.together import Together
from pruning_kit.speed.protocol import LatencyProtocol
from pruning_kit.speed.workload import PROMPT
from pruning_kit.sweeps import samples
from pruning_kit.sweeps import workbench as workbench_module
from pruning_kit.sweeps.observer import SilentObserver
from pruning_kit.sweeps.workbench import Workbench
from pruning_kit.walk.estimates import WindowCost
from tests.sweeping import asked as asked_for
from tests.sweeping import begin, measured

MAIN = Path(__file__).parents[1] / "main.py"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    return save_tiny_gpt2(tmp_path_factory.mktemp("model"))


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT * 3, encoding="utf-8")
    return path


@pytest.fixture
def settings(model_folder, text_file, tmp_path):
    def make(**changes):
        defaults = {
            "model": str(model_folder),
            "dataset": str(text_file),
            "batch_size": 3,
            "device": "cpu",  # whose sums are exact; a GPU would be taken in float16
            "threads": 1,
            "output": tmp_path / "run",
        }
        return asked_for(**{**defaults, **changes})

    return make


def naive_nll(model_folder, plan, ids, context, stride):
    """Window by window with the Hugging Face loss of a really cut model."""
    model = cut(AutoModelForCausalLM.from_pretrained(model_folder), plan).eval()
    total, tokens, previous = 0.0, 0, 0
    for start in range(0, len(ids), stride):
        end = min(start + context, len(ids))
        window = torch.tensor([ids[start:end]])
        labels = window.clone()
        labels[:, : -(end - previous)] = -100
        with torch.no_grad():
            loss = model(window, labels=labels, use_cache=False).loss
        scored = int((labels[:, 1:] != -100).sum())
        total, tokens, previous = total + loss.double().item() * scored, tokens + scored, end
        if end == len(ids):
            return total, tokens
    raise AssertionError


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_row_equals_the_usual_loop_over_cut_models(settings, model_folder, attention):
    run = measured(settings(attention=attention))
    ids = AutoTokenizer.from_pretrained(model_folder)(TEXT * 3)["input_ids"]
    frame = run.frame().set_index("removed")
    assert len(frame) == 2**3
    for plan in run.plans[:-1]:
        nll, tokens = naive_nll(model_folder, plan, ids, 32, 16)
        row = frame.loc[str(plan)]
        assert row["tokens"] == tokens == len(ids) - 1
        assert row["nll_nats"] == pytest.approx(nll, rel=1e-6)
        assert row["ppl"] == pytest.approx(math.exp(nll / tokens), rel=1e-5)
        assert row["bits_per_byte"] == pytest.approx(nll / math.log(2) / len((TEXT * 3).encode()))


def test_the_rows_carry_mode_and_parameters(settings):
    frame = measured(settings()).frame()
    assert list(frame["mode"]) == ["baseline", *["sequential"] * 3, *["combinatorial"] * 3, "empty"]
    assert list(frame["blocks"]) == [3, 2, 2, 2, 1, 1, 1, 0]
    assert frame["params_m"].is_monotonic_decreasing
    assert set(frame["status"]) == {"ok"}


def parts_of(folder):
    return sorted((folder / "rounds").glob("*/*.safetensors"))


def test_a_run_that_lost_groups_resumes_bit_for_bit(settings):
    first = measured(settings())
    whole = first.nll().copy()
    for part in parts_of(first.folder)[1::2]:
        part.unlink()
    resumed = measured(settings(resume=True))
    np.testing.assert_array_equal(resumed.nll(), whole)


def test_resuming_computes_only_what_is_missing(settings, monkeypatch):
    first = measured(settings())
    parts_of(first.folder)[0].unlink()
    calls = []
    original = Workbench.measure

    def count(self, *args, **options):
        calls.append(args)
        return original(self, *args, **options)

    monkeypatch.setattr(Workbench, "measure", count)
    measured(settings(resume=True))
    assert len(calls) == 1


def test_any_number_of_ranks_gives_the_same_bits(settings, tmp_path):
    alone = measured(settings()).nll()
    together, store = settings(output=tmp_path / "ranks", resume=True), HashStore()
    begun = [begin(together, ranks=Ranks(rank=rank, size=3, store=store)) for rank in range(3)]
    with ThreadPoolExecutor(3) as processes:
        for done in [processes.submit(sweep.measure) for sweep in reversed(begun)]:
            done.result()
    np.testing.assert_array_equal(load_run(tmp_path / "ranks").nll(), alone)


def test_the_expected_time_is_that_of_whole_batches(settings, monkeypatch):
    timed = []

    def cost(_kernel, tokens_BT, *_):
        timed.append(len(tokens_BT))
        return WindowCost(1.0, 10.0)

    class Expecting(SilentObserver):
        def expect(self, work):
            self.work = work

    monkeypatch.setattr(workbench_module, "measure_cost", cost)
    observer = Expecting()
    begin(settings(), observer).measure()
    assert timed == [3]  # windows of a batch; one alone would keep a GPU idle
    assert observer.work.seconds_per_window == 7 * 1.0 + 8 * 10.0  # block calls and plans


def test_a_second_run_never_overwrites_a_first(settings):
    measured(settings())
    with pytest.raises(RunError, match="a run is already there"):
        begin(settings())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": 16}, "it was measured with context=32, this run uses 16"),
        ({"stride": 8}, "stride=16, this run uses 8"),
        (
            {"max_windows": 2},
            "windows of the text of `dataset`, this run asks for 2 (`max_windows`). Ask for",
        ),
        ({"batch_size": 2}, "batch_size=3, this run uses 2"),
        ({"attention": "eager"}, "attention=sdpa, this run uses eager"),
        ({"dtype": "bfloat16"}, "dtype=float32, this run uses bfloat16"),
        (
            {"choice": "sequential"},
            "it was measured with plans=combinatorial, this run uses sequential. Ask for",
        ),
    ],
)
def test_a_run_of_another_protocol_is_refused(settings, changes, message):
    measured(settings())
    with pytest.raises(RunError) as error:
        begin(settings(resume=True, **changes))
    assert "cannot resume" in str(error.value)
    assert message in str(error.value)


def test_resume_finds_its_folder_by_what_was_measured(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = measured(settings(output=None))
    assert first.folder.is_relative_to(tmp_path / "cache")
    again = measured(settings(output=None, resume=True))
    assert again.folder == first.folder
    other = measured(settings(output=None, resume=True, context=16))
    assert other.folder != first.folder


def test_a_selection_text_is_a_second_split(settings, text_file):
    other = text_file.with_name("other.txt")
    other.write_text(TEXT[::-1] * 2, encoding="utf-8")
    frame = measured(settings(select_on=str(other))).frame()
    assert list(frame["split"].unique()) == ["test", "calibration"]
    assert len(frame) == 16
    assert frame.groupby("split")["ppl"].first().nunique() == 2
    with pytest.raises(RunError, match="measured with `select_on`, this run leaves it out"):
        begin(settings(resume=True))


def test_the_text_of_the_figures_is_refused_to_choose_plans_on(settings, text_file):
    same = text_file.with_name("same.txt")
    same.write_text(text_file.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(CorpusError, match="it is the text that figures are reported on"):
        begin(settings(select_on=str(same)))


@pytest.fixture
def further(text_file):
    """Two texts beside the one that figures are reported on: longer, and shorter than a window."""
    contents = {"longer.txt": TEXT[::-1] * 5, "short.txt": "a short text"}
    for name, content in contents.items():
        text_file.with_name(name).write_text(content, encoding="utf-8")
    return tuple(str(text_file.with_name(name)) for name in contents)


def test_every_row_is_measured_on_each_further_text_as_it_is_alone(settings, further, tmp_path):
    run = measured(settings(also_on=further))
    assert run.roles == ("reported", "also-1", "also-2") and run.facts.choosing_role == "reported"
    assert run.facts.further_roles == ("also-1", "also-2")
    assert run.facts.texts["also-1"].title == "longer.txt"
    assert [round_.texts for round_ in run.rounds] == [run.roles]
    splits = run.frame()["split"]
    assert list(splits.unique()) == ["test", "also-1", "also-2"]
    assert list(splits.value_counts()) == [8, 8, 8]
    for number, text in enumerate(further, 1):
        alone = measured(settings(dataset=text, output=tmp_path / f"alone-{number}"))
        for name in ("nll", "kl", "agreement"):
            np.testing.assert_array_equal(
                run.measured(name, f"also-{number}"), alone.measured(name)
            )


def test_a_run_on_further_texts_goes_on_with_the_same_ones_only(settings, further):
    whole = measured(settings(also_on=further))
    lost = [part for part in parts_of(whole.folder) if part.name.startswith("also-")]
    for part in lost:
        part.unlink()
    with pytest.raises(RunError, match="it is not finished, "):
        load_run(whole.folder)
    resumed = measured(settings(also_on=further, resume=True))
    for role in whole.roles:
        np.testing.assert_array_equal(resumed.nll(role), whole.nll(role))
    for texts, said in (
        ((), r"with `also_on` \(text 1\), this run leaves it out"),
        (further[:1], r"with `also_on` \(text 2\), this run leaves it out"),
        (further[::-1], r"with other texts of `also_on` \(text 1\)"),
    ):
        with pytest.raises(RunError, match=said):
            begin(settings(also_on=texts, resume=True))


def test_several_ranks_share_the_further_texts_too(settings, further, tmp_path):
    alone = measured(settings(also_on=further))
    together, store = settings(also_on=further, output=tmp_path / "r", resume=True), HashStore()
    begun = [begin(together, ranks=Ranks(rank=rank, size=2, store=store)) for rank in range(2)]
    with ThreadPoolExecutor(2) as processes:
        for done in [processes.submit(sweep.measure) for sweep in reversed(begun)]:
            done.result()
    for role in alone.roles:
        np.testing.assert_array_equal(load_run(tmp_path / "r").nll(role), alone.nll(role))


@pytest.mark.parametrize(
    ("also_on", "said"),
    [
        (("text.txt",), "'text.txt': 'text.txt' is the same text, and is the text that figures"),
        (("copy.txt",), "'copy.txt': 'text.txt' is the same text, and is the text that figures"),
        (("other.txt",), "'other.txt': 'other.txt' is the same text, and is the text that plans"),
        (
            ("short.txt", "longer.txt", "short.txt"),
            "'short.txt': 'short.txt' is the same text, and is an earlier one of these texts. "
            "Name another text, or leave it out.",
        ),
    ],
)
def test_a_text_that_is_measured_already_is_refused(
    settings, further, text_file, monkeypatch, also_on, said
):
    monkeypatch.chdir(text_file.parent)
    for name, content in {"copy.txt": TEXT * 3, "other.txt": TEXT[::-1]}.items():
        text_file.with_name(name).write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError, match=re.escape(f"cannot measure also on {said}")):
        begin(settings(dataset="text.txt", select_on="other.txt", also_on=also_on))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot find text 'odd.txt': there is no such file"),
        ("", "cannot score text 'odd.txt': it is empty"),
        (" \n", "cannot score text 'odd.txt': it is empty"),
        ("a", "cannot score text 'odd.txt': it has 1 token, and at least 2 are needed"),
    ],
)
def test_a_further_text_that_cannot_be_scored_is_named_and_nothing_is_left_behind(
    settings, text_file, monkeypatch, content, said
):
    monkeypatch.chdir(text_file.parent)
    if content is not None:
        text_file.with_name("odd.txt").write_text(content, encoding="utf-8")
    asked_for = settings(also_on=("odd.txt",))
    with pytest.raises(CorpusError, match=re.escape(said)):
        begin(asked_for)
    assert not asked_for.output.exists()


def test_further_texts_are_several(settings):
    message = "cannot read the texts also_on 'b.txt': it is one, and several are asked for. Write"
    with pytest.raises(CorpusError, match=message):
        begin(settings(also_on="b.txt"))


def test_saving_a_cached_run_moves_it_where_results_go(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    first = measured(settings(output=None))
    saved = measured(settings(output=None, resume=True, save_results=True))
    assert saved.folder == Path("results") / first.folder.name
    assert not first.folder.exists()
    assert measured(settings(output=None, resume=True)).folder == saved.folder


def test_max_windows_is_recorded(settings):
    run = measured(settings(max_windows=2))
    assert run.nll().shape[1] == 2
    assert run.facts.texts["reported"].part.startswith("first 2 of ")


def poisoned(folder: Path, target: Path) -> Path:
    """A model whose block 1 overflows: its plans are not finite unless block 1 is removed."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.transformer.h[1].mlp.c_proj.bias.fill_(float("inf"))
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder).save_pretrained(target)
    return target


def test_plans_that_are_not_finite_fail_and_the_others_are_kept(settings, model_folder, tmp_path):
    run = measured(settings(model=str(poisoned(model_folder, tmp_path / "poisoned"))))
    frame = run.frame().set_index("removed")
    assert frame.loc["1", "status"] == "ok"
    assert np.isfinite(frame.loc["1", "ppl"])
    assert frame.loc["none", "status"] == "failed"
    assert np.isnan(frame.loc["none", "ppl"])
    n_windows = run.nll().shape[1]
    assert frame.loc["0", "note"] == f"not finite in {n_windows} of {n_windows} windows"


def test_an_overflow_in_a_short_format_is_computed_again_in_float32(
    settings, model_folder, monkeypatch
):
    exact = measured(settings()).nll()
    original, calls = workbench_module.sums_within_memory, []

    def overflowing(kernel, *args, **options):
        sums, micro_batch = original(kernel, *args, **options)
        calls.append(kernel.dtype)
        if kernel.dtype != torch.float32:
            sums = {name: torch.full_like(found, float("inf")) for name, found in sums.items()}
        return sums, micro_batch

    monkeypatch.setattr(workbench_module, "sums_within_memory", overflowing)
    again = settings(dtype="bfloat16", output=settings().output.with_name("again"))
    run = measured(again)
    np.testing.assert_allclose(run.nll(), exact, rtol=1e-6)
    assert set(calls) == {torch.bfloat16, torch.float32}
    assert RunFolder.open(run.folder).read_part(0, "reported", 0)[1]["recomputed"] == "float32"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "./nowhere"}, ModelError, "cannot load model './nowhere': there is no such"),
        ({"dataset": "./nowhere.txt"}, CorpusError, "cannot find text './nowhere.txt'"),
        ({"context": 64}, WindowError, "reads at most 32 tokens. Choose `context` 32"),
        ({"stride": 33}, WindowError, "cannot use stride 33 with context 32"),
        ({"max_windows": 0}, WindowError, "cannot use max_windows 0: it needs to be from 1 to"),
        ({"device": "quantum"}, DeviceError, "cannot use device 'quantum'"),
        ({"dtype": "float8"}, DeviceError, "cannot compute in 'float8'"),
        ({"dtype": "float16", "device": "cpu"}, DeviceError, "cannot compute in float16 on the"),
        (
            {"choice": "3"},
            PlanError,
            "cannot remove block 3: the model has 3 blocks, numbered 0 to 2.",
        ),
        (
            {"choice": Together((Combinatorial(),), max_plans=4)},
            PlanError,
            "cannot measure 8 plans of 3 blocks: that is more than 4",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing_behind(settings, changes, error, message):
    asked = settings(**changes)
    with pytest.raises(error) as caught:
        begin(asked)
    assert message in str(caught.value)
    assert not asked.output.exists()


@pytest.mark.parametrize(("content", "message"), [("", "it is empty"), ("a", "at least 2 are")])
def test_a_text_without_words_is_refused(settings, text_file, content, message):
    text_file.write_text(content)
    with pytest.raises(CorpusError, match=message):
        begin(settings())


def command(settings):
    return [
        *(sys.executable, str(MAIN), "--mode", "combinatorial"),
        *("--device", "cpu"),  # where a resumed run ends with the same bits
        *("--model", settings.settings.model, "--dataset", settings.settings.dataset, "--no-speed"),
        *("--no-bridges", "--batch-size", "1", "--threads", "1", "--output", str(settings.output)),
    ]


def test_a_run_killed_without_warning_resumes_bit_for_bit(settings, text_file, tmp_path):
    text_file.write_text(TEXT * 20, encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    asked = settings()
    process = subprocess.Popen(command(asked), env=env, stderr=subprocess.PIPE)
    parts = asked.output / "rounds" / "000"
    deadline = time.monotonic() + 120
    while not (parts.is_dir() and len(list(parts.glob("*.safetensors"))) > 3):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    groups = json.loads((asked.output / "run.json").read_text())["windows"]["reported"]["groups"]
    assert len(list(parts.glob("*.safetensors"))) < len(groups)
    resumed = measured(settings(batch_size=1, resume=True))
    whole = measured(settings(output=tmp_path / "whole", batch_size=1))
    np.testing.assert_array_equal(resumed.nll(), whole.nll())


class Listener(SilentObserver):
    """Keeps what it is warned of."""

    def __init__(self):
        self.heard = []

    def warn(self, text):
        self.heard.append(text)


def sampled(settings, observer=None, **changes):
    """A sweep's folder after samples were kept."""
    sweep = begin(settings(samples=True, **changes), observer)
    sweep.measure()
    sweep.sample()
    return sweep.run.folder


def test_samples_fit_the_context_and_leave_the_run_file_alone(settings):
    before = measured(settings()).folder.joinpath("run.json").read_bytes()
    listener = Listener()
    folder = sampled(settings, listener, resume=True)
    assert (folder / "run.json").read_bytes() == before
    run = load_run(folder)
    written = run.samples.by_variant  # nothing is written by no block at all
    assert Variant() in written and len(written) == 3
    assert all(text.startswith(PROMPT) for text in written.values())
    stored = json.loads((folder / "samples.json").read_text())
    n_prompt = len(AutoTokenizer.from_pretrained(settings().settings.model)(PROMPT)["input_ids"])
    assert (stored["prompt"], stored["new_tokens"]) == (PROMPT, 32 - n_prompt)
    assert listener.heard == [
        f"Samples have {32 - n_prompt} new tokens instead of 60: the model's context is 32."
    ]


@pytest.mark.parametrize(("limit", "tokens"), [(None, 60), (67, 60), (66, 59), (8, 1)])
def test_samples_are_as_long_as_the_context_lets_them(limit, tokens):
    assert samples.count_new_tokens(7, limit) == tokens


def test_a_prompt_that_fills_the_context_is_refused():
    with pytest.raises(WindowError) as error:
        samples.count_new_tokens(8, 8)
    assert str(error.value) == (
        "cannot keep samples: their prompt has 8 tokens, and the model's context is 8. Leave out "
        "`samples`."
    )


def test_samples_are_refused_before_any_work_where_no_token_fits(settings, monkeypatch):
    monkeypatch.setattr(samples, "PROMPT", TEXT)
    asked = settings(samples=True)
    with pytest.raises(WindowError, match="cannot keep samples: their prompt has"):
        begin(asked)
    assert not asked.output.exists()


def test_token_types_are_not_read_as_words(settings, model_folder, tmp_path):
    typed = tmp_path / "typed"
    shutil.copytree(model_folder, typed)
    config = json.loads((typed / "tokenizer_config.json").read_text())
    config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    (typed / "tokenizer_config.json").write_text(json.dumps(config))
    assert "token_type_ids" in AutoTokenizer.from_pretrained(typed)(PROMPT)
    plain = load_run(sampled(settings)).samples
    again = load_run(sampled(settings, model=str(typed), output=tmp_path / "again")).samples
    assert again == plain


def test_a_sample_that_cannot_be_drawn_is_said_and_the_others_are_kept(settings, monkeypatch):
    original = samples.write_on

    def refuse(decoder, plan, *rest):
        if plan.size == 1:
            raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
        return original(decoder, plan, *rest)

    monkeypatch.setattr(samples, "write_on", refuse)
    listener = Listener()
    run = load_run(sampled(settings, listener))
    assert sorted(variant.plan.size for variant in run.samples.by_variant) == [0, 2]
    assert re.fullmatch(
        r"No sample of plan \d: probability tensor contains either `inf`, `nan` or element < 0\.",
        listener.heard[-1],
    )


QUICK = LatencyProtocol(prompt_tokens=4, new_tokens=2, end_to_end_tokens=31, budget_s=1e-9)
"""One round."""


def timed(settings, **changes):
    """A sweep's folder after its models were timed."""
    sweep = begin(settings(**{"timing": QUICK, **changes}))
    sweep.measure()
    sweep.time()
    return sweep.run.folder


def test_timings_are_stored_with_the_run_and_kept_when_it_is_resumed(settings):
    folder = timed(settings)
    timings = load_run(folder).timings
    assert timings is not None
    assert len(timings.plans) == 7  # all subsets of 3 blocks but the one that leaves none
    stored = (folder / "latency.json").read_bytes()
    assert timed(settings, resume=True) == folder
    assert (folder / "latency.json").read_bytes() == stored


def test_further_batch_sizes_are_timed_and_stored(settings):
    timings = load_run(timed(settings, timing=replace(QUICK, batches=(2,)))).timings
    assert [run.protocol["batch_size"] for run in timings.batches] == [2]


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"batch_size": 2}, "with batch 1, this run asks for 2"),
        ({"new_tokens": 3}, "with new tokens 2"),
    ],
)
def test_timings_of_another_protocol_are_refused_before_any_work(settings, changes, difference):
    timed(settings)
    with pytest.raises(RunError, match="cannot keep the timings") as error:
        begin(settings(timing=replace(QUICK, **changes), resume=True))
    assert difference in str(error.value)
    begin(settings(timing=None, resume=True))


def test_damaged_timings_are_refused_by_a_sweep_that_would_keep_them(settings):
    folder = timed(settings)
    (folder / "latency.json").write_text("{")
    with pytest.raises(RunError) as error:
        begin(settings(timing=QUICK, resume=True))
    assert str(error.value) == (
        f"cannot read {folder / 'latency.json'}: it is no valid JSON (Input data was truncated). "
        "Delete the file and resume the sweep to time again."
    )
    begin(settings(timing=None, resume=True))


def test_timing_that_does_not_fit_the_model_is_refused_before_any_work(settings):
    asked = settings(timing=replace(QUICK, prompt_tokens=32))
    with pytest.raises(TimingError, match="the model's context is 32"):
        begin(asked)
    assert not asked.output.exists()


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
needs_two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs")


@needs_gpu
def test_what_a_gpu_measures_by_default_is_what_a_cpu_does_but_for_its_format(settings, tmp_path):
    exact = measured(settings(output=tmp_path / "cpu"))
    found = measured(settings(device="auto", output=tmp_path / "gpu"))
    assert (found.facts.numerics.device, found.facts.numerics.dtype) == ("cuda", "float16")
    np.testing.assert_allclose(found.nll(), exact.nll(), rtol=1e-3)


@needs_two_gpus
@pytest.mark.parametrize("execution", ["eager", "compile", "cuda-graph"])
def test_the_second_gpu_measures_and_times_as_the_first_does(settings, tmp_path, execution):
    protocol = LatencyProtocol(
        prompt_tokens=4, new_tokens=2, end_to_end_tokens=31, execution=execution, budget_s=5
    )
    runs = []
    for device in ("cuda:0", "cuda:1"):
        folder = tmp_path / device.replace(":", "-")
        sweep = begin(settings(device=device, timing=protocol, output=folder))
        sweep.measure()
        sweep.time()
        runs.append(load_run(folder))
    np.testing.assert_array_equal(runs[0].nll(), runs[1].nll())
    assert all(run.timings is not None for run in runs)
