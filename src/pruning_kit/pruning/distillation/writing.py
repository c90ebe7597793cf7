"""Writing: text that a model writes itself, sampled at temperature 1 with a key-value cache.

Such text needs no data set, and a model's own text is where its predictions are meant to hold.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, StaticCache

from pruning_kit.machine.memory import free_bytes

PROMPT_TOKENS = 8
"""Of a text, that each sequence goes on from, so that what is written is of its kind."""
MOST_AT_ONCE = {"cuda": 4096, "cpu": 64}


def write(
    model: PreTrainedModel,
    text_N: np.ndarray,
    n_sequences: int,
    length: int,
    seed: int,
    advance: Callable[[float], object] = lambda tokens: None,
    at_once: int | None = None,
) -> np.ndarray:
    """Let a model go on from places of a text that are drawn at random.

    Args:
        model: writes, on its device and in its format.
        text_N: token ids that prompts are taken from, (N,).
        n_sequences: to be written.
        length: of each, in tokens, the prompt included.
        seed: of places and tokens; the same sequences come of it on one machine, `at_once` alike.
        advance: is told of each step how many tokens it wrote.
        at_once: sequences written together; by default as many as memory allows.

    Returns:
        Token ids, (sequences, length), int32.
    """
    at_once = min(n_sequences, at_once or choose_at_once(model, length))
    prompts_BT = prompts(text_N, n_sequences, length, seed)
    writer = Writer(model, at_once, length, seed)
    written = [
        writer.go_on(prompts_BT[first : first + at_once], advance)
        for first in range(0, n_sequences, at_once)
    ]
    return np.concatenate(written)


def prompts(text_N: np.ndarray, n_sequences: int, length: int, seed: int) -> Tensor:
    """Beginnings of sequences of a length, from places of a text that are drawn, (B, T)."""
    prompt = min(PROMPT_TOKENS, len(text_N), length - 1)
    places = np.random.default_rng(seed).integers(0, len(text_N) - prompt + 1, n_sequences)
    return torch.from_numpy(np.stack([text_N[at : at + prompt] for at in places])).long()


class Writer:
    """Writes so many sequences at a time; on a GPU a step is one launch of a captured graph."""

    def __init__(self, model: PreTrainedModel, at_once: int, length: int, seed: int) -> None:
        options = inspect.signature(model.forward).parameters
        self._keep = {"logits_to_keep": 1} if "logits_to_keep" in options else {}
        self._model, self.at_once, self._length = model, at_once, length
        self._cache = StaticCache(config=model.config, max_cache_len=length)
        self._generator = torch.Generator(model.device).manual_seed(seed)
        self._token_B1 = torch.zeros(at_once, 1, dtype=torch.long, device=model.device)
        self._graph: torch.cuda.CUDAGraph | None = None

    @torch.no_grad()
    def go_on(
        self,
        prompts_BT: Tensor,
        advance: Callable[[float], object] = lambda tokens: None,
        n_steps: int | None = None,
    ) -> np.ndarray:
        """Sequences that begin with the prompts; where these are fewer, the last one fills up.

        Args:
            prompts_BT: token ids.
            advance: is told of each step how many tokens it wrote.
            n_steps: to be made; by default all.
        """
        n_prompts, prompt = prompts_BT.shape
        filled = prompts_BT[-1:].expand(self.at_once - n_prompts, -1)
        made_BT = torch.cat([prompts_BT, filled]).to(self._model.device)
        made_BT = F.pad(made_BT, (0, self._length - prompt))
        step = self._captured(made_BT[:, :prompt])
        self._begin(made_BT[:, :prompt])
        end = self._length if n_steps is None else min(self._length, prompt + n_steps)
        for place in range(prompt, end):
            if place > prompt:
                step()
            made_BT[:, place] = self._token_B1[:, 0]
            advance(n_prompts)
        return made_BT[:n_prompts].to("cpu", torch.int32).numpy()

    def _begin(self, prompts_BT: Tensor) -> None:
        self._cache.reset()
        self._read(prompts_BT)

    def _read(self, tokens_BT: Tensor) -> None:
        """Read tokens and draw the next one of each sequence."""
        out = self._model(tokens_BT, past_key_values=self._cache, use_cache=True, **self._keep)
        self._token_B1.copy_(_drawn(out.logits[:, -1], self._generator))

    def _captured(self, prompts_BT: Tensor) -> Callable[[], object]:
        """What makes a step."""
        if self._model.device.type != "cuda":
            return lambda: self._read(self._token_B1)
        if self._graph is None:
            self._begin(prompts_BT)
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):  # what is chosen or made once must be before a capture
                for _ in range(3):
                    self._read(self._token_B1)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            self._graph.register_generator_state(self._generator)
            with torch.cuda.graph(self._graph):
                self._read(self._token_B1)
        return self._graph.replay


def _drawn(logits_BV: Tensor, generator: torch.Generator) -> Tensor:
    """A token for each sequence by its probability, (B, 1): the first of exponential races."""
    likely_BV = logits_BV.float().softmax(dim=-1)
    waits_BV = torch.empty_like(likely_BV).exponential_(generator=generator)
    return (likely_BV / waits_BV).argmax(dim=-1, keepdim=True)


def choose_at_once(model: PreTrainedModel, length: int) -> int:
    """Sequences that are written together: at most half of the free memory holds their cache."""
    config = model.config
    bytes_each = 2 * config.num_hidden_layers * config.hidden_size * length
    bytes_each *= torch.finfo(model.dtype).bits // 8
    bytes_each += 16 * config.vocab_size
    room = free_bytes(model.device) // 2 // bytes_each
    most = MOST_AT_ONCE.get(model.device.type, MOST_AT_ONCE["cpu"])
    return max(1, min(most, room))
