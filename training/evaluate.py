"""Perplexity and bits per byte of a folder's model on its texts, in the plainest way.

    python -m training.evaluate src/pruning_kit/demo

This is an independent reference: it shares no code with the package, and it runs each window
through the unchanged Hugging Face model in float32. Protocol: the whole text is tokenised once,
without added tokens; windows of ``context`` tokens start every ``stride`` tokens; the first one
scores all its tokens but the first, each later one only the tokens not yet scored; the last one
may be shorter. So each token but the text's first is scored exactly once, and

    perplexity    = exp(summed NLL / scored tokens)
    bits per byte = summed NLL / ln 2 / UTF-8 bytes of the whole text
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

CONTEXT, STRIDE = 512, 256


@dataclass(frozen=True)
class Score:
    """Summed negative log-likelihood in nats, and the number of tokens that it covers."""

    nll_nats: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """The exponential of the mean NLL per scored token."""
        return math.exp(self.nll_nats / self.tokens)

    def bits_per_byte(self, text_bytes: int) -> float:
        """NLL in bits over ``text_bytes``, the UTF-8 length of the whole text."""
        return self.nll_nats / math.log(2) / text_bytes


def sliding_windows(token_count: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yield ``(start, first_scored, end)`` per window; together they score tokens 1 to N - 1."""
    start, first_scored = 0, 1
    while first_scored < token_count:
        end = min(start + context, token_count)
        yield start, first_scored, end
        start, first_scored = start + stride, end


@torch.inference_mode()
def score(
    model: PreTrainedModel,
    tokens_N: Tensor,
    context: int = CONTEXT,
    stride: int = STRIDE,
    max_windows: int | None = None,
) -> Score:
    """Score ``tokens_N`` (token ids, shape (N,), int64) with ``model``, one window at a time."""
    nll_nats, scored = 0.0, 0
    for index, (start, first, end) in enumerate(sliding_windows(len(tokens_N), context, stride)):
        if index == max_windows:
            break
        window_1T = tokens_N[start:end].unsqueeze(0).to(model.device)
        logits_TV = model(window_1T).logits[0, first - start - 1 : -1].float()
        targets_T = tokens_N[first:end].to(model.device)
        nll_nats += F.cross_entropy(logits_TV, targets_T, reduction="none").double().sum().item()
        scored += end - first
    return Score(nll_nats, scored)


def score_folder(folder: Path, text: str, device: str = "cpu") -> Score:
    """Score ``text`` with the model and the tokenizer of ``folder``, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().to(device)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return score(model, torch.tensor(ids))


def main() -> None:
    """Print one line per text."""
    parser = argparse.ArgumentParser(description="Score a folder's model on its own texts.")
    parser.add_argument("folder", type=Path, help="holds the model and the texts")
    parser.add_argument("--texts", nargs="+", default=["calibration.txt", "heldout.txt"])
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    for name in arguments.texts:
        text = (arguments.folder / name).read_bytes().decode("utf-8")
        result = score_folder(arguments.folder, text, arguments.device)
        text_bytes = len(text.encode("utf-8"))
        print(
            f"{name}: perplexity {result.perplexity:.3f}, "
            f"{result.bits_per_byte(text_bytes):.4f} bits per byte, "
            f"{result.tokens} tokens scored, {text_bytes} bytes"
        )


if __name__ == "__main__":
    main()
