"""What is timed and by which clock: order of looks, and every refusal with its values."""

import math

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pruning_kit.errors import DeviceError, TimingError
from pruning_kit.machine import devices
from pruning_kit.speed.protocol import LatencyProtocol
from pruning_kit.speed.workload import check_protocol

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


def tiny(family: str, **sizes) -> torch.nn.Module:
    config = AutoConfig.for_model(family, vocab_size=40, **sizes)
    return AutoModelForCausalLM.from_config(config)


@pytest.fixture(scope="module")
def gpt2():
    return tiny("gpt2", n_layer=2, n_embd=16, n_head=2, n_positions=80)


def test_stopwatch_synchronises_before_each_look_at_the_clock():
    events: list[str] = []
    times = iter([10.0, 12.5])

    def clock() -> float:
        events.append("clock")
        return next(times)

    stopwatch = devices.Stopwatch(clock, lambda: events.append("sync"))
    assert stopwatch.seconds(lambda: events.append("call")) == 2.5
    assert events == ["sync", "clock", "call", "sync", "clock"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "cannot use batch_size 0: it needs to be from 1 to 65,536."),
        ({"prompt_tokens": -3}, "cannot use prompt_tokens -3: it needs to be from 1 to"),
        ({"new_tokens": 0}, "cannot use new_tokens 0: it needs to be from 1 to"),
        ({"batches": (2, 0)}, "cannot use batches 0: it needs to be from 1 to"),
        ({"min_rounds": 3}, "cannot use min_rounds 3: it needs to be from 8 to 1,000,000."),
        ({"budget_s": 0.0}, "cannot use budget_s 0: it needs to be above 0 and"),
        ({"target": math.nan}, "cannot use target nan: it needs to be above 0"),
        (
            {"batches": (4, 1)},
            "cannot time batches of 1 and also of 4, 1: a size is repeated. Give each once.",
        ),
        (
            {"execution": "fast"},
            "cannot time with execution 'fast': they are eager, compile, cuda-graph",
        ),
    ],
)
def test_an_impossible_protocol_is_refused_by_the_names_of_its_fields(change, message):
    with pytest.raises(TimingError, match=message):
        LatencyProtocol(**change)


def test_threads_that_no_machine_has_are_an_error_of_the_device():
    with pytest.raises(DeviceError, match="cannot use threads 0: it needs to be from 1 to 2,048"):
        LatencyProtocol(threads=0)


@pytest.mark.parametrize(
    ("change", "n_prompt", "message"),
    [
        (
            {"prompt_tokens": 70, "new_tokens": 11},
            6,
            "cannot time a prompt of 70 tokens and 11 new ones: that is 81, and the model's "
            "context is 80. Choose fewer.",
        ),
        (
            {"prompt_tokens": 4, "end_to_end_tokens": 81},
            6,
            "cannot time 81 tokens end to end: the model's context is 80. Leave timing out.",
        ),
        ({"prompt_tokens": 4}, 75, "cannot continue a prompt of 75 tokens to 75 in all"),
        ({"prompt_tokens": 4}, 0, "cannot continue a prompt of 0 tokens to 75 in all"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(gpt2, change, n_prompt, message):
    with pytest.raises(TimingError, match=message):
        check_protocol(LatencyProtocol(**change), gpt2, CPU, n_prompt)


def test_lengths_up_to_the_context_are_accepted(gpt2):
    check_protocol(LatencyProtocol(prompt_tokens=70, new_tokens=10), gpt2, CPU, 6)


def test_cuda_graphs_need_a_gpu(gpt2):
    protocol = LatencyProtocol(prompt_tokens=4, execution="cuda-graph")
    check_protocol(protocol, gpt2, CUDA, 6)
    with pytest.raises(DeviceError, match="cannot time CUDA graphs on 'cpu': they need an"):
        check_protocol(protocol, gpt2, CPU, 6)


@pytest.mark.parametrize("execution", ["compile", "cuda-graph"])
def test_a_family_without_a_static_cache_cannot_be_compiled(execution):
    neo = tiny(
        "gpt_neo",
        num_layers=2,
        attention_types=[[["global", "local"], 1]],
        hidden_size=16,
        num_heads=2,
        max_position_embeddings=200,
    )
    with pytest.raises(DeviceError, match="cannot time gpt_neo compiled: transformers cannot"):
        check_protocol(LatencyProtocol(execution=execution), neo, CUDA, 6)
