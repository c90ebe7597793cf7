"""What is timed, by which clock, and what is refused before any work because it does not apply."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from transformers import PreTrainedModel

from pruning_kit import bounds
from pruning_kit.bounds import Range
from pruning_kit.errors import DeviceError, TimingError
from pruning_kit.inputs.models import context_limit
from pruning_kit.intervals.repeats import MIN_ROUNDS

PROMPT = "The future of artificial intelligence is"
MODES = ("eager", "compile", "cuda-graph")

# Fields as people know them: by the option of the command line, where there is one.
OPTIONS = {
    "prompt_tokens": "--prompt-tokens",
    "batch_size": "--batch",
    "new_tokens": "--new-tokens",
    "target": "--latency-target",
    "budget_s": "--latency-budget",
    "batches": "--batch-sweep",
    "per_plan": "--per-plan",
    "threads": "--threads",
    "threads_offered": "--threads",
}
RANGES = {
    **bounds.RANGES,
    "end_to_end_tokens": Range(2, bounds.TOKENS),
    "min_rounds": Range(MIN_ROUNDS, 10**6),
    "warmup_rounds": Range(1, 10**6),
}


@dataclass(frozen=True, slots=True)
class LatencyProtocol:
    """What is timed and how long.

    Attributes:
        prompt_tokens: length of the random prompt of the prefill.
        batch_size: sequences in every call.
        new_tokens: tokens of the decode after the prefill.
        end_to_end_tokens: length, prompt included, to which `PROMPT` is continued.
        target: half-width wanted for each ratio, as a share of it.
        budget_s: time for all, warm-up included; up to `timings.MOST_BUDGETS` times that where
            `min_rounds` need it.
        min_rounds: rounds made before the intervals are looked at; fewer give none.
        warmup_rounds: rounds over all entries that are not kept.
        threads: of the CPU; by default short trials choose how many of those that are set.
        mode: `eager`, `compile` (static cache, decode step compiled) or `cuda-graph` (the same,
            replayed as CUDA graphs).
        per_plan: time every plan instead of one of each pool.
        batches: further batch sizes, at which the whole model and one plan are timed afterwards;
            together they have the budget once more, with the same allowance.
        seed: of the random prompt and the orders.
    """

    prompt_tokens: int = 128
    batch_size: int = 1
    new_tokens: int = 16
    end_to_end_tokens: int = 75
    target: float = 0.02
    budget_s: float = 25.0
    min_rounds: int = MIN_ROUNDS
    warmup_rounds: int = 1
    threads: int | None = None
    mode: str = "eager"
    per_plan: bool = False
    batches: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            for number in value if isinstance(value, tuple) else (value,):
                bounds.check(option(field.name), number, TimingError, RANGES)
        if len({self.batch_size, *self.batches}) <= len(self.batches):
            raise TimingError(
                f"cannot time --batch-sweep {','.join(map(str, self.batches))} with --batch "
                f"{self.batch_size}: a size is repeated. Give each once, without that of --batch."
            )
        if self.mode not in MODES:
            raise TimingError(
                f"cannot time in mode {self.mode!r}: the modes are {', '.join(MODES)}."
            )


def option(field: str) -> str:
    """A field's option on the command line, or the field itself."""
    return OPTIONS.get(field, field)


def choose_mode(compiled: bool, cuda_graphs: bool) -> str:
    """The mode that --compile and --cuda-graphs ask for.

    Raises:
        TimingError: if they are given together.
    """
    if compiled and cuda_graphs:
        raise TimingError(
            "cannot time with --compile and --cuda-graphs at once: CUDA graphs replay the compiled "
            "step already. Give one of them."
        )
    return "cuda-graph" if cuda_graphs else "compile" if compiled else "eager"


def check_protocol(
    protocol: LatencyProtocol, model: PreTrainedModel, device: torch.device, n_prompt_tokens: int
) -> None:
    """Refuse what this model or device cannot do, before any work.

    Args:
        protocol: what is to be timed.
        model: the whole model, on any device.
        device: where it will be timed.
        n_prompt_tokens: length of the prompt of the end-to-end quantity.

    Raises:
        TimingError: if prompts and continuations do not fit the model's context.
        DeviceError: if the mode does not apply to the device or the model.
    """
    _check_mode(protocol.mode, model, device)
    context = context_limit(model.config)
    asked = protocol.prompt_tokens + protocol.new_tokens
    if context is not None and asked > context:
        raise TimingError(
            f"cannot time --prompt-tokens {protocol.prompt_tokens} with --new-tokens "
            f"{protocol.new_tokens}: that is {asked} tokens, and the model's context is {context}. "
            "Choose fewer."
        )
    if context is not None and protocol.end_to_end_tokens > context:
        raise TimingError(
            f"cannot time {protocol.end_to_end_tokens} tokens end to end: the model's context is "
            f"{context}. Leave timing out with --no-speed."
        )
    if not 0 < n_prompt_tokens < protocol.end_to_end_tokens:
        raise TimingError(
            f"cannot continue a prompt of {n_prompt_tokens} tokens to "
            f"{protocol.end_to_end_tokens} in all: at least one must be read and one made."
        )


def _check_mode(mode: str, model: PreTrainedModel, device: torch.device) -> None:
    if mode == "cuda-graph" and device.type != "cuda":
        raise DeviceError(
            f"cannot time with --cuda-graphs on {device.type!r}: they need an NVIDIA GPU. Leave "
            "them out, or use --compile."
        )
    if mode != "eager" and not model._can_compile_fullgraph:
        raise DeviceError(
            f"cannot time {model.config.model_type} compiled: transformers cannot compile this "
            "family with a static cache. Leave out --compile and --cuda-graphs."
        )
