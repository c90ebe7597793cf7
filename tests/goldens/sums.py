"""The sums of a complete sweep of the demo model, and of three tiny families.

`python -m tests.goldens.sums` measures them again and says how far they are from those stored:
0 on the machine that stored them, about 1e-6 of a sum on another. `--write` stores what it found,
which a change of arithmetic has to give a reason for.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from pruning_kit import open_workbench, sweep
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.kernels import choose_kernel
from pruning_kit.plans.sets import subsets
from pruning_kit.walk.sums import nll_sums
from tests.families import N_BLOCKS, random_tokens, tiny_model

FILE = Path(__file__).with_name("sums.safetensors")
FAMILIES = ("gpt2", "llama", "gemma2")
EVERYWHERE = {"device": "cpu", "dtype": "float32", "threads": 1, "batch_size": 2}


def demo_sums(folder: Path, n_windows: int | None = None) -> np.ndarray:
    """Nats of the demo model's held-out novel, all 64 plans by the windows, (64, windows)."""
    bench = open_workbench("demo", bridges=False, max_windows=n_windows, **EVERYWHERE)
    return sweep("combinatorial", bench, folder).nll()


def family_sums(name: str) -> np.ndarray:
    """Nats of a tiny random model, all plans by two windows, (16, 2)."""
    decoder, tokens_BT = Decoder(tiny_model(name)), random_tokens()
    kernel = choose_kernel(decoder, tokens_BT, torch.float32, torch.device("cpu"))
    plans = list(subsets(N_BLOCKS, range(N_BLOCKS + 1)))
    return nll_sums(kernel, plans, N_BLOCKS, tokens_BT[:, :-1], tokens_BT[:, 9:], 8).numpy()


def measured() -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as scratch:
        demo = demo_sums(Path(scratch) / "run")
    return {"demo": demo, **{name: family_sums(name) for name in FAMILIES}}


if __name__ == "__main__":
    found = measured()
    if "--write" in sys.argv[1:]:
        save_file(found, FILE)
    for name, stored in load_file(FILE).items():
        print(f"{name}: {np.abs(found[name] / stored - 1).max():.1e}")
