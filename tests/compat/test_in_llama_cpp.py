"""A GGUF that the kit wrote, run by llama.cpp itself (xllamacpp), beside plain transformers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_like import KINDS, save_small
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from pruning_kit.export.huggingface import export
from pruning_kit.export.llama_cpp.writing import write_gguf
from pruning_kit.inputs.corpora import demo_corpus
from pruning_kit.inputs.models import find_model, load_model
from pruning_kit.plans.plan import Plan

pytestmark = pytest.mark.compat

PROMPTS = (
    "It was a fine morning, and the young lady walked",
    '"I\'ll give 1234 pounds for it," said the old man,',
    "The house stood  alone;\n\nnobody had lived in it — not for years — and",
)
NEW_TOKENS = 24


class LlamaCpp:
    """A GGUF that is open in llama.cpp, on one thread, with a cache in float32."""

    def __init__(self, file: Path, context: int) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx, params.n_parallel, params.n_gpu_layers = context, 1, 0
        params.warmup, params.verbosity = False, -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server = xllamacpp.Server(params)

    def go_on(self, prompt: str | list[int], n_new: int, n_words: int) -> tuple[str, list[Any]]:
        """The greedy text, and each new token with the log-probabilities of all words, by id."""
        answer = self._server.handle_completions(
            {
                "prompt": prompt,
                "n_predict": n_new,
                "temperature": 0,
                "n_probs": n_words,
                "cache_prompt": True,
            }
        )
        (choice,) = answer["choices"]
        steps = [
            (step["id"], {one["id"]: one["logprob"] for one in step["top_logprobs"]})
            for step in choice["logprobs"]["content"]
        ]
        return choice["text"], steps


@dataclass
class Reference:
    """The same folder in plain transformers, float32."""

    folder: Path

    def __post_init__(self) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder)
        self.n_words: int = self.model.config.vocab_size

    @torch.no_grad()
    def go_on(self, prompt: str, n_new: int) -> tuple[str, Tensor, Tensor]:
        """The greedy text, its tokens, and their log-probabilities of all words."""
        ids = self.tokenizer(prompt, return_tensors="pt")
        out = self.model.generate(
            **ids, max_new_tokens=n_new, min_new_tokens=n_new, do_sample=False, pad_token_id=0
        )
        start = ids["input_ids"].shape[1]
        log_probabilities = self.model(out).logits[0, start - 1 : -1].log_softmax(-1)
        return self.tokenizer.decode(out[0, start:]), out[0, start:], log_probabilities


def largest_difference(reference: Reference, run: LlamaCpp, prompt: str) -> float:
    """Of a log-probability of any word, over a greedy continuation that must be the same."""
    text, tokens, expected = reference.go_on(prompt, NEW_TOKENS)
    said, steps = run.go_on(prompt, NEW_TOKENS, reference.n_words)
    assert said == text
    assert [token for token, _ in steps] == tokens.tolist()
    return max(
        (torch.tensor([found[word] for word in range(reference.n_words)]) - row).abs().max().item()
        for (_, found), row in zip(steps, expected, strict=True)
    )


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pruned") / "pruned"
    export(load_model(find_model("demo")), Plan((4,)), folder)
    return folder


def opened(folder: Path, format: str, context: int) -> LlamaCpp:
    target = folder.with_name(f"{folder.name}-{format}.gguf")
    if not target.exists():
        write_gguf(folder, target, format, "pruned")
    return LlamaCpp(target, context)


class GeluOfATable(torch.nn.Module):
    """GELU as ggml has it on CPUs: looked up for each number of 16 bits."""

    def forward(self, x: Tensor) -> Tensor:
        found = F.gelu(x.half().float(), approximate="tanh").half().float()
        return torch.where(x <= -10, 0.0, torch.where(x >= 10, x, found))


@pytest.mark.parametrize(("format", "tolerance"), [("f32", 5e-3), ("f16", 2e-2)])
def test_the_demo_model_writes_the_same_text(pruned, format, tolerance, capsys):
    reference, run = Reference(pruned), opened(pruned, format, 512)
    worst = max(largest_difference(reference, run, prompt) for prompt in PROMPTS)
    with capsys.disabled():
        print(f"\n{format}: log-probabilities differ by {worst:.2g} at most")
    assert worst < tolerance


def test_most_of_the_difference_is_ggmls_gelu(pruned):
    reference, run = Reference(pruned), opened(pruned, "f32", 512)
    before = max(largest_difference(reference, run, prompt) for prompt in PROMPTS)
    for block in reference.model.transformer.h:
        block.mlp.act = GeluOfATable()
    after = max(largest_difference(reference, run, prompt) for prompt in PROMPTS)
    assert after < 0.7 * before


def test_q8_0_has_nearly_the_same_perplexity(pruned, capsys):
    reference = Reference(pruned)
    text = "".join(demo_corpus("demo").read())[20_000:21_000]
    ids = reference.tokenizer(text)["input_ids"][:200]
    nats = {format: teacher_forced(opened(pruned, format, 512), ids) for format in ("f32", "q8_0")}
    with torch.no_grad():
        exact = reference.model(torch.tensor([ids]), labels=torch.tensor([ids])).loss.item()
    with capsys.disabled():
        shown = {name: f"{math.exp(value):.3f}" for name, value in nats.items()}
        print(f"\nperplexity of {len(ids)} tokens: transformers {math.exp(exact):.3f}, {shown}")
    assert nats["f32"] == pytest.approx(exact, abs=1e-4)
    assert nats["q8_0"] == pytest.approx(exact, abs=2e-2)


def teacher_forced(run: LlamaCpp, ids: list[int]) -> float:
    """Nats per token after the first one."""
    total = 0.0
    for position in range(1, len(ids)):
        _, [(_, found)] = run.go_on(ids[:position], 1, 6144)
        total -= found[ids[position]]
    return total / (len(ids) - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_each_architecture_is_computed_as_transformers_compute_it(kind, tmp_path):
    folder = save_small(tmp_path / "small", kind)
    reference, run = Reference(folder), opened(folder, "f32", 64)
    for prompt in PROMPTS[:2]:
        _, _, expected = reference.go_on(prompt, 1)
        _, [(_, found)] = run.go_on(prompt, 1, reference.n_words)
        worst = max(abs(found[word] - value) for word, value in enumerate(expected[0].tolist()))
        assert worst < (5e-3 if kind.startswith("gpt2") else 1e-4)
