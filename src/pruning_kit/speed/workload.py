"""The calls that are timed: prefill, decode and end to end, on a model cut for a moment.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, PreTrainedModel, StaticCache

from pruning_kit.cutting.surgery import recut
from pruning_kit.errors import DeviceError, TimingError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plan import Plan
from pruning_kit.speed.bootstrap import MIN_ROUNDS
from pruning_kit.speed.timings import DECODE, END_TO_END, PREFILL
from pruning_kit.walk.memory import peak_added_bytes, weight_bytes

PROMPT = "The future of artificial intelligence is"
MODES = ("eager", "compile", "cuda-graph")

Clock = Callable[[], float]
Sync = Callable[[], None]
Sample = dict[str, float]


@dataclass(frozen=True, slots=True)
class LatencyProtocol:
    """What is timed and how long.

    Attributes:
        prompt_tokens: length of the random prompt of the prefill.
        batch_size: sequences in every call.
        new_tokens: tokens of the decode after the prefill.
        end_to_end_tokens: length, prompt included, to which `PROMPT` is continued.
        target: half-width wanted for each ratio, as a share of it.
        budget_s: time for all, warm-up included; twice that where `min_rounds` needs it.
        min_rounds: rounds made before the intervals are looked at; fewer give none.
        warmup_rounds: rounds over all entries that are not kept.
        mode: `eager`, `compile` (static cache, decode step compiled) or `cuda-graph` (the same,
            replayed as CUDA graphs).
        per_plan: time every plan instead of one of each pool.
        seed: of the random prompt and the orders.
    """

    prompt_tokens: int = 128
    batch_size: int = 1
    new_tokens: int = 16
    end_to_end_tokens: int = 75
    target: float = 0.02
    budget_s: float = 15.0
    min_rounds: int = MIN_ROUNDS
    warmup_rounds: int = 1
    mode: str = "eager"
    per_plan: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        least = {
            "prompt_tokens": 1,
            "batch_size": 1,
            "new_tokens": 1,
            "end_to_end_tokens": 2,
            "min_rounds": MIN_ROUNDS,
            "warmup_rounds": 1,
        }
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise TimingError(
                    f"cannot time with {name} = {getattr(self, name)}: it needs at least {bound}."
                )
        for name in ("target", "budget_s"):
            if not getattr(self, name) > 0:
                raise TimingError(
                    f"cannot time with {name} = {getattr(self, name):g}: it needs to be above 0."
                )
        if self.mode not in MODES:
            raise TimingError(
                f"cannot time in mode {self.mode!r}: the modes are {', '.join(MODES)}."
            )


DEFAULT_PROTOCOL = LatencyProtocol()


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """Times a call on a device that works asynchronously."""

    clock: Clock
    sync: Sync

    def seconds(self, call: Callable[[], object]) -> float:
        """Seconds from idle device to idle device."""
        self.sync()
        start = self.clock()
        call()
        self.sync()
        return self.clock() - start


class Workload:
    """The calls that are timed, on the one model, cut for a moment.

    Eager: the key-value cache that grows, and `generate` end to end, as the usual script does.
    Otherwise: a static cache for each plan, the decode step compiled, the prefill not (as
    `generate` has it), and end to end the same prefill and steps.

    Raises:
        TimingError: if the prompts do not fit the model's context.
    """

    def __init__(
        self,
        decoder: Decoder,
        prompt_ids: Sequence[int],
        protocol: LatencyProtocol,
        stopwatch: Stopwatch,
    ) -> None:
        check_lengths(decoder.model, prompt_ids, protocol)
        self.decoder, self.protocol, self.stopwatch = decoder, protocol, stopwatch
        self.prompt_BT = _random_prompt(decoder.model, protocol)
        self.end_to_end_BT = torch.tensor([list(prompt_ids)] * protocol.batch_size).to(
            decoder.device
        )
        self.step = _step(protocol.mode)
        self._static_caches: dict[tuple[Plan, int], StaticCache] = {}

    @torch.no_grad()
    def sample(self, plan: Plan) -> Sample:
        """One sample of each quantity on the model cut by `plan`."""
        new_tokens = self.protocol.new_tokens
        with recut(self.decoder, plan) as model:
            cache = self._cache(model, plan, self.prompt_BT.shape[1] + new_tokens)
            tokens: list[Tensor] = []
            prefill_s = self.stopwatch.seconds(
                lambda: tokens.append(next_token(model, self.prompt_BT, cache))
            )
            decode_s = self.stopwatch.seconds(
                lambda: self._decode(model, tokens[0], cache, new_tokens)
            )
            end_to_end_s = self.stopwatch.seconds(self._end_to_end_call(model, plan))
        return {PREFILL: prefill_s, DECODE: decode_s / new_tokens, END_TO_END: end_to_end_s}

    @torch.no_grad()
    def peak_bytes(self, plan: Plan) -> int | None:
        """Weights of the cut model and the most that prefill and decode add to them.

        Compiled code keeps buffers of its own, so only the eager mode is answered for.
        """
        if self.protocol.mode != "eager":
            return None
        with recut(self.decoder, plan) as model:

            def prefill_and_decode() -> None:
                cache = DynamicCache(config=model.config)
                token = next_token(model, self.prompt_BT, cache)
                self._decode(model, token, cache, self.protocol.new_tokens)

            return weight_bytes(model) + peak_added_bytes(prefill_and_decode, self.decoder.device)

    @torch.no_grad()
    def end_to_end_tokens(self, plan: Plan) -> Tensor:
        """What the end-to-end call produces: tokens of prompt and continuation, (B, T)."""
        with recut(self.decoder, plan) as model:
            return self._end_to_end_call(model, plan)()

    def _end_to_end_call(self, model: PreTrainedModel, plan: Plan) -> Callable[[], Tensor]:
        total = self.protocol.end_to_end_tokens
        n_new = total - self.end_to_end_BT.shape[1]
        if self.protocol.mode == "eager":
            mask = torch.ones_like(self.end_to_end_BT)
            config = _greedy_config(n_new)
            return lambda: model.generate(
                self.end_to_end_BT, attention_mask=mask, generation_config=config
            )
        cache = self._cache(model, plan, total)

        def prefill_and_decode() -> Tensor:
            token = next_token(model, self.end_to_end_BT, cache)
            more = self._decode(model, token, cache, n_new - 1)
            return torch.cat([self.end_to_end_BT, token, *more], dim=1)

        return prefill_and_decode

    def _decode(
        self, model: PreTrainedModel, token: Tensor, cache: Any, n_tokens: int
    ) -> list[Tensor]:
        """Greedy continuation, always `n_tokens` long."""
        tokens = []
        for _ in range(n_tokens):
            token = self.step(model, token, cache)
            tokens.append(token)
        return tokens

    def _cache(self, model: PreTrainedModel, plan: Plan, length: int) -> Any:
        if self.protocol.mode == "eager":
            return DynamicCache(config=model.config)
        key = plan, length
        if key not in self._static_caches:
            self._static_caches[key] = StaticCache(config=model.config, max_cache_len=length)
        cache = self._static_caches[key]
        cache.reset()
        return cache


def next_token(model: PreTrainedModel, tokens_BT: Tensor, cache: Any) -> Tensor:
    """Read tokens, extend the cache, and choose the most probable next token: shape (B, 1)."""
    logits = model(tokens_BT, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    return logits[:, -1].argmax(-1, keepdim=True)


Step = Callable[[PreTrainedModel, Tensor, Any], Tensor]


def _step(mode: str) -> Step:
    """The decode step of a mode. A CUDA graph's output is overwritten by its next replay."""
    if mode == "eager":
        return next_token
    how = "reduce-overhead" if mode == "cuda-graph" else "default"
    compiled = torch.compile(next_token, mode=how, fullgraph=True, dynamic=False)

    def step(model: PreTrainedModel, tokens_BT: Tensor, cache: Any) -> Tensor:
        if mode == "cuda-graph":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return compiled(model, tokens_BT, cache).clone()

    return step


def _greedy_config(n_new: int) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=n_new, min_new_tokens=n_new, do_sample=False, num_beams=1, pad_token_id=0
    )


def _random_prompt(model: PreTrainedModel, protocol: LatencyProtocol) -> Tensor:
    generator = torch.Generator().manual_seed(protocol.seed)
    shape = protocol.batch_size, protocol.prompt_tokens
    return torch.randint(model.config.vocab_size, shape, generator=generator).to(model.device)


def check_lengths(
    model: PreTrainedModel, prompt_ids: Sequence[int], protocol: LatencyProtocol
) -> None:
    """Refuse prompts and continuations that the model's context cannot hold.

    Raises:
        TimingError: naming the numbers that collide.
    """
    context = getattr(model.config, "max_position_embeddings", None)
    asked = protocol.prompt_tokens + protocol.new_tokens
    if context is not None and asked > context:
        raise TimingError(
            f"cannot time a prompt of {protocol.prompt_tokens} and {protocol.new_tokens} new "
            f"tokens: the model's context is {context}. Choose fewer."
        )
    if context is not None and protocol.end_to_end_tokens > context:
        raise TimingError(
            f"cannot time {protocol.end_to_end_tokens} tokens end to end: the model's context is "
            f"{context}. Choose fewer."
        )
    if not 0 < len(prompt_ids) < protocol.end_to_end_tokens:
        raise TimingError(
            f"cannot continue a prompt of {len(prompt_ids)} tokens to "
            f"{protocol.end_to_end_tokens} in all: at least one must be read and one made."
        )


def check_mode(model: PreTrainedModel, mode: str) -> None:
    """Refuse modes that do not apply to the device or the model.

    Raises:
        DeviceError: naming both.
    """
    if mode == "eager":
        return
    if mode == "cuda-graph" and model.device.type != "cuda":
        raise DeviceError(
            f"cannot time with CUDA graphs on {model.device.type!r}: they need an NVIDIA GPU. "
            "Use the eager mode or --compile."
        )
    if not model._can_compile_fullgraph:
        raise DeviceError(
            f"cannot time {model.config.model_type} compiled: transformers cannot compile this "
            "family with a static cache. Use the eager mode."
        )


def device_sync(device: torch.device) -> Sync:
    """Waits until the device is idle; the CPU always is."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if device.type == "mps":
        return torch.mps.synchronize
    return lambda: None
