"""What is timed, by which clock, and what is refused before any work because it does not apply."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from pruning_kit.errors import DeviceError, TimingError
from pruning_kit.inputs.models import context_limit
from pruning_kit.speed.protocol import LatencyProtocol

PROMPT = "The future of artificial intelligence is"


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
        DeviceError: if the execution does not apply to the device or the model.
    """
    _check_execution(protocol.execution, model, device)
    context = context_limit(model.config)
    asked = protocol.prompt_tokens + protocol.new_tokens
    if context is not None and asked > context:
        raise TimingError(
            f"cannot time a prompt of {protocol.prompt_tokens} tokens and {protocol.new_tokens} "
            f"new ones: that is {asked}, and the model's context is {context}. Choose fewer."
        )
    if context is not None and protocol.end_to_end_tokens > context:
        raise TimingError(
            f"cannot time {protocol.end_to_end_tokens} tokens end to end: the model's context is "
            f"{context}. Leave timing out."
        )
    if not 0 < n_prompt_tokens < protocol.end_to_end_tokens:
        raise TimingError(
            f"cannot continue a prompt of {n_prompt_tokens} tokens to "
            f"{protocol.end_to_end_tokens} in all: at least one must be read and one made."
        )


def _check_execution(execution: str, model: PreTrainedModel, device: torch.device) -> None:
    if execution == "cuda-graph" and device.type != "cuda":
        raise DeviceError(
            f"cannot time CUDA graphs on {device.type!r}: they need an NVIDIA GPU. Time the model "
            "compiled, or as it is."
        )
    if execution != "eager" and not model._can_compile_fullgraph:
        raise DeviceError(
            f"cannot time {model.config.model_type} compiled: transformers cannot compile this "
            "family with a static cache. Time it as it is."
        )
