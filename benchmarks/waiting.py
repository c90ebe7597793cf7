"""What a person waits for: a sweep's command from start to table, by one process or several.

    python -m benchmarks.waiting [--blocks 6] [--processes 1 2 4] [--text FILE] [--tokenizer DIR]

Saves a GPT-2 of distilgpt2's width with random weights and a tokenizer, and starts the command
line on it as a person would, every set of blocks measured and nothing timed: alone, and by
torchrun with one process for each GPU. *Before the walk* are imports, loading, tokenising and the
choice of the kernel (until `run.json` is written), *after* are conclusions and table. Sums of
several processes are compared with those of one. The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from pruning_kit.inputs.models import DEMO_FOLDER
from pruning_kit.runs.results import load_run

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Wait:
    """Seconds of one command."""

    processes: int
    before_s: float
    walk_s: float
    after_s: float
    furthest: float
    """Largest relative difference of a window's sum from that of the first command."""

    @property
    def total_s(self) -> float:
        return self.before_s + self.walk_s + self.after_s


def save_model(folder: Path, n_blocks: int, tokenizer: Path) -> Path:
    """A random GPT-2 of width 768 and a vocabulary of 50,257, with somebody's tokenizer."""
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_layer=n_blocks)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def command(model: Path, text: str, run: Path, processes: int, options: list[str]) -> list[str]:
    """What a person types, without timing."""
    script = [str(ROOT / "main.py")]
    start = [*(sys.executable, "-m", "torch.distributed.run", "--standalone")]
    start += ["--nproc-per-node", str(processes)]
    return [
        *(start if processes > 1 else [sys.executable]),
        *(script if processes == 1 else ["-m", "pruning_kit", "sweep"]),
        *("--mode", "combinatorial", "--model", str(model), "--dataset", text),
        *("--no-speed", "--output", str(run), *options),
    ]


def wait(words: list[str], run: Path, processes: int, first: Path | None) -> Wait:
    """Run the command and read from its files' times where the seconds went."""
    start = time.time()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])}
    subprocess.run(words, check=True, env=env, stdout=subprocess.DEVNULL)
    end = time.time()
    opened = (run / "run.json").stat().st_mtime
    walked = max(part.stat().st_mtime for part in run.glob("rounds/*/*.safetensors"))
    sums, expected = load_run(run).nll(), load_run(first or run).nll()
    furthest = float(np.max(np.abs(sums / expected - 1)))
    return Wait(processes, opened - start, walked - opened, end - walked, furthest)


def table(waits: list[Wait]) -> str:
    """One row a command."""
    head = (
        "| processes | before the walk | walk | share of one's walk | after | all | sums off by |"
    )
    one = waits[0].walk_s
    rows = [
        f"| {w.processes} | {w.before_s:.1f} s | {w.walk_s:.1f} s | {100 * w.walk_s / one:.1f} % "
        f"| {w.after_s:.1f} s | {w.total_s:.1f} s | {w.furthest:.1e} |"
        for w in waits
    ]
    return "\n".join([head, "|---" * 7 + "|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--processes", type=int, nargs="+", default=[1])
    parser.add_argument("--text", default="demo")
    parser.add_argument("--tokenizer", type=Path, default=DEMO_FOLDER)
    parser.add_argument("options", nargs="*", help="more options of a sweep, after --")
    given = parser.parse_args()
    waits: list[Wait] = []
    with tempfile.TemporaryDirectory() as temporary:
        model = save_model(Path(temporary) / "model", given.blocks, given.tokenizer)
        first = None
        for number, processes in enumerate(given.processes):
            run = Path(temporary) / f"run-{number}"
            words = command(model, given.text, run, processes, given.options)
            waits.append(wait(words, run, processes, first))
            first = first or run
            print(table(waits[-1:]).splitlines()[-1], flush=True)
    print(table(waits))
    print(json.dumps([asdict(w) | {"total_s": w.total_s} for w in waits]))


if __name__ == "__main__":
    main()
