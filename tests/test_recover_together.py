"""Processes that torchrun starts train one model: they end as one process does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from writers import save_writer

import pruning_kit
from pruning_kit.runs.results import load_run

SOURCE = Path(pruning_kit.__file__).parents[1]
# three sequences in a step: one process reads two of them, the other one
WORDS = ("--remove", "1+2", "--tokens", "2k", "--sequences", "3", "--rate", "0.01")


def recover(words: list[str], out: Path, *launcher: str) -> None:
    python = [sys.executable, *launcher, "-m", "pruning_kit"]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "RANK"},
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(SOURCE), os.environ.get("PYTHONPATH")))),
    }
    done = subprocess.run(
        [*python, "recover", *words, *WORDS, "--out", str(out)],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"is saved in {out}" in " ".join(done.stdout.split())


@pytest.mark.slow
@pytest.mark.skipif(
    not torch.distributed.is_gloo_available(), reason="PyTorch was built without gloo"
)
def test_two_processes_end_with_one_folder_as_one_does_but_for_rounding(tmp_path):
    words = save_writer(tmp_path / "writer", n_lines=900).words  # nothing is made smaller there
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    recover(words, tmp_path / "two", *launcher)
    recover(words, tmp_path / "one")
    two, one = (load_run(f"{tmp_path / name}-run") for name in ("two", "one"))
    assert two.variants == one.variants
    for variant, facts in two.recovered.items():
        assert facts.details["processes"] == 2
        nats = [[point.nats for point in run.recovered[variant].curve] for run in (two, one)]
        assert nats[0] == pytest.approx(nats[1], rel=1e-3)
    assert two.nll().sum(axis=1) == pytest.approx(one.nll().sum(axis=1), rel=1e-3)
