"""A tiny GPT-2 on the disk with the demo tokenizer, for tests of what reads model folders."""

from pathlib import Path

import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from pruning_kit.inputs.models import DEMO_FOLDER
from pruning_kit.sweeps.building import open_workbench
from pruning_kit.sweeps.workbench import Workbench

TEXT = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, "
    "must be in want of a wife. However little known the feelings or views of such a man may be "
    "on his first entering a neighbourhood, this truth is so well fixed in the minds of the "
    "surrounding families, that he is considered the rightful property of some one or other of "
    "their daughters. "
)


def save_tiny_gpt2(folder: Path, n_blocks: int = 3, dtype: torch.dtype = torch.float32) -> Path:
    """Save a random GPT-2 of width 16 and context 32; the same weights every time."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_FOLDER)
    config = GPT2Config(
        n_layer=n_blocks,
        n_embd=16,
        n_head=2,
        n_positions=32,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2,
    )
    GPT2LMHeadModel(config).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_bench(folder: Path, n_blocks: int, other: str | None = None, **settings) -> Workbench:
    """A workbench on such a GPT-2, in small windows; plans are chosen on another text, if given."""
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    if other is not None:
        (folder / "other.txt").write_text(other, encoding="utf-8")
        settings["select_on"] = str(folder / "other.txt")
    return open_workbench(
        str(save_tiny_gpt2(folder / "model", n_blocks=n_blocks)),
        str(folder / "text.txt"),
        device="cpu",
        threads=1,
        context=16,
        stride=8,
        batch_size=4,
        **settings,
    )
