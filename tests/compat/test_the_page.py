"""docs/deploy.md, run as printed: transformers, llama.cpp, onnxruntime, lm-evaluation-harness."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from pruning_kit.cli import app as cli
from pruning_kit.runs.results import load_run

pytestmark = pytest.mark.compat

PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(encoding="utf-8")


def block(heading: str, language: str = "python", number: int = 0) -> str:
    """A block of code under a heading of the page."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)[number]


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "deploy.md", "exec"), names)
    return names


def kit(command: str) -> None:
    assert cli.main(command.removeprefix("pruning-kit ").split()) == 0


def test_it_names_the_versions_that_are_run():
    pinned = (Path(__file__).parents[2] / "requirements-compat.txt").read_text(encoding="utf-8")
    for name, version in re.findall(
        r"^(xllamacpp|onnx|onnxruntime|lm_eval)(?:\[\w+\])?==(\S+)$", pinned, re.M
    ):
        assert version in PAGE, name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's first command was run."""
    where = tmp_path_factory.mktemp("page")
    (command,) = re.findall(r"^(pruning-kit prune .*)$", PAGE, re.MULTILINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        kit(command)
    return where


@pytest.fixture(autouse=True)
def within(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_transformers_and_llama_cpp_write_the_same_text(capsys):
    run(block("transformers"))
    plain = capsys.readouterr().out.splitlines()[-1]
    run(block("llama.cpp"))
    said = capsys.readouterr().out.splitlines()[-1]
    prompt = "It was a fine morning, and"
    assert plain == prompt + said


@pytest.mark.filterwarnings("ignore")
def test_onnxruntime_gives_the_logits_of_transformers():
    session = run(block("ONNX"))["session"]
    model = AutoModelForCausalLM.from_pretrained("pruned", dtype=torch.float32)
    for shape in [(1, 1), (3, 5), (1, 512)]:
        tokens = torch.randint(6000, shape, generator=torch.Generator().manual_seed(0))
        (logits,) = session.run(None, {"input_ids": tokens.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(logits, model(tokens).logits, rtol=0, atol=1e-4)


def harness_bits_per_byte(text: str) -> float:
    Path("text.txt").write_text(text, encoding="utf-8")
    Path("local_text.yaml").write_text(block("lm-evaluation-harness", "yaml"), encoding="utf-8")
    command = block("lm-evaluation-harness", "bash").strip().replace("\\\n", " ")
    words = [*command.split(), "--output_path", "harness"]
    words[0] = str(Path(sys.executable).with_name(words[0]))
    subprocess.run(words, check=True, env=os.environ | {"TQDM_DISABLE": "1"})
    newest = max(Path("harness").rglob("results_*.json"), key=lambda file: file.stat().st_mtime)
    return json.loads(newest.read_text())["results"]["local_text"]["bits_per_byte,none"]


def our_bits_per_byte(name: str, *options: str) -> float:
    command = block("lm-evaluation-harness", "bash", 1).strip()
    kit(" ".join([command, *options, "--no-speed --output", name]))
    (row,) = load_run(name).frame().itertuples()
    return row.bits_per_byte


def test_the_harness_has_our_bits_per_byte_of_one_window():
    harness = harness_bits_per_byte(PAGE[:1000])
    assert harness == pytest.approx(our_bits_per_byte("one"), abs=1e-6)
    assert load_run("one").nll().shape[-1] == 1


def test_on_longer_texts_it_is_near():
    harness = harness_bits_per_byte(PAGE)
    ours = our_bits_per_byte("many", "--stride 512")
    assert load_run("many").nll().shape[-1] > 3
    assert harness == pytest.approx(ours, rel=1e-2)
