"""A tiny GPT-2 that knows its texts best, since it wrote them: cuts hurt there, learning helps."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from pruning_kit.pruning.distillation.writing import write

WORDS, CONTEXT = 64, 32
END = "<end>"


class Writer(NamedTuple):
    """What a command is given."""

    model: Path
    reported: Path
    calibration: Path
    other: Path

    @property
    def words(self) -> list[str]:
        """Of the command line: model, texts and arithmetic."""
        return [
            *("--model", str(self.model), "--dataset", str(self.reported)),
            *("--calibrate-on", str(self.calibration), "--device", "cpu", "--threads", "1"),
        ]

    @property
    def settings(self) -> dict[str, object]:
        """The same of a workbench."""
        return {
            "model": str(self.model),
            "dataset": str(self.reported),
            "calibrate_on": str(self.calibration),
            "device": "cpu",
            "threads": 1,
        }


def save_writer(folder: Path, dtype: torch.dtype = torch.float32, n_lines: int = 300) -> Writer:
    """Save the model and three texts of it, so many lines for calibration; the same each time."""
    model = _model().to(dtype)
    model.save_pretrained(folder / "model")
    _tokenizer().save_pretrained(folder / "model")
    paths = {}
    lines = {"reported": 40, "calibration": n_lines, "other": 200}
    for seed, (name, count) in enumerate(lines.items()):
        paths[name] = folder / f"{name}.txt"
        paths[name].write_text(_text(model.float(), count, seed), encoding="utf-8")
    return Writer(folder / "model", **paths)


SCALE = 15.0
"""Of what is drawn for matrices."""


def _model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=4, n_embd=16, n_head=2, n_positions=CONTEXT, vocab_size=WORDS,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            weight.mul_(SCALE if ".h." in name else 3 * SCALE)
    return model


def _tokenizer() -> PreTrainedTokenizerFast:
    """Words that are numbers; a text that is written is read back as the same tokens."""
    backend = Tokenizer(models.WordLevel(_vocabulary(), unk_token="w1"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=END, eos_token=END)


def _vocabulary() -> dict[str, int]:
    return {END: 0} | {f"w{number}": number for number in range(1, WORDS)}


def _text(model: GPT2LMHeadModel, n_lines: int, seed: int) -> str:
    """What a model writes, a line for each sequence."""
    names = list(_vocabulary())
    prompts = torch.randint(1, WORDS, (512,), generator=torch.Generator().manual_seed(seed))
    written = write(model, prompts.numpy().astype("int32"), n_lines, CONTEXT, seed, at_once=n_lines)
    return "\n".join(" ".join(names[token] for token in row) for row in written) + "\n"
