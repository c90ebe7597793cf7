"""Timing of really cut models: order of calls, equal work, pools, modes and refusals."""

import gc
import math

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from pruning_kit.cutting.surgery import cut
from pruning_kit.errors import DeviceError, PlanError, TimingError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.plan import Plan, subsets
from pruning_kit.speed import latency, workload
from pruning_kit.speed.latency import LatencyProtocol
from pruning_kit.speed.timings import DECODE, END_TO_END, PREFILL, Timings
from pruning_kit.walk import memory

PROMPT_IDS = [5, 3, 8, 1]
QUICK = LatencyProtocol(
    prompt_tokens=6, new_tokens=3, end_to_end_tokens=9, budget_s=1e9, target=1e9
)


@pytest.fixture
def decoder() -> Decoder:
    return Decoder(tiny_gpt2())


def tiny_gpt2(n_blocks: int = 3) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=n_blocks,
        n_embd=16,
        n_head=2,
        vocab_size=40,
        n_positions=32,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.4,
    )
    return GPT2LMHeadModel(config).eval()


class Ticker:
    """A clock that moves on by one second at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_stopwatch_synchronises_before_each_look_at_the_clock():
    events: list[str] = []
    times = iter([10.0, 12.5])

    def clock() -> float:
        events.append("clock")
        return next(times)

    stopwatch = workload.Stopwatch(clock, lambda: events.append("sync"))
    assert stopwatch.seconds(lambda: events.append("call")) == 2.5
    assert events == ["sync", "clock", "call", "sync", "clock"]


def test_every_sample_is_synchronised_and_taken_by_the_given_clock(decoder):
    events: list[str] = []
    ticker = Ticker()

    def clock() -> float:
        events.append("clock")
        return ticker()

    timings = latency.measure(
        decoder, [Plan((1,))], PROMPT_IDS, QUICK, clock=clock, sync=lambda: events.append("sync")
    )
    quantity_calls = 3 * 3 * (1 + 8)  # quantities, entries, rounds with the warm-up
    assert events.count("sync") == 2 * quantity_calls
    pairs = "".join(event[0] for event in events)
    assert pairs.count("scsc") == quantity_calls
    assert (timings.seconds(PREFILL) == 1.0).all()
    assert (timings.seconds(END_TO_END) == 1.0).all()
    assert timings.seconds(DECODE) == pytest.approx(1.0 / 3)


def test_the_model_and_the_collector_are_as_before(decoder):
    tokens = torch.randint(40, (1, 7), generator=torch.Generator().manual_seed(1))
    config, logits = decoder.model.config.to_dict(), decoder.model(tokens).logits
    latency.measure(decoder, list(subsets(3, [1, 2])), PROMPT_IDS, QUICK, clock=Ticker())
    assert decoder.model.config.to_dict() == config
    assert torch.equal(decoder.model(tokens).logits, logits)
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("plan", list(subsets(3, [0, 1, 2])), ids=str)
def test_the_timed_calls_give_the_tokens_of_a_really_cut_model(decoder, plan):
    work = workload.Workload(decoder, PROMPT_IDS, QUICK, workload.Stopwatch(Ticker(), lambda: None))
    reference = cut(tiny_gpt2(), plan)
    prompt = torch.tensor([PROMPT_IDS])
    for _ in range(9 - len(PROMPT_IDS)):
        chosen = reference(prompt, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
        prompt = torch.cat([prompt, chosen], dim=1)
    assert torch.equal(work.end_to_end_tokens(plan), prompt)


def test_decode_makes_the_fixed_number_of_tokens_though_the_model_ends_its_text(decoder):
    """Token 0 ends a text; a head that always prefers it must not shorten the work."""
    with torch.no_grad():
        decoder.model.transformer.wte.weight[:] *= 0.0
    widths = []
    hook = decoder.stack[0].register_forward_hook(
        lambda _m, args, _out: widths.append(args[0].shape[1])
    )
    work = workload.Workload(decoder, PROMPT_IDS, QUICK, workload.Stopwatch(Ticker(), lambda: None))
    work.sample(Plan())
    hook.remove()
    assert widths == [6, 1, 1, 1, 4, 1, 1, 1, 1]
    assert work.end_to_end_tokens(Plan()).shape == (1, 9)


def test_batch_size_holds_for_every_quantity(decoder):
    batches = set()
    hook = decoder.stack[0].register_forward_hook(
        lambda _m, args, _out: batches.add(args[0].shape[0])
    )
    runs = latency.batch_sweep(decoder, [], PROMPT_IDS, [1, 4], QUICK, clock=Ticker())
    hook.remove()
    assert batches == {1, 4}
    speeds = [runs[size].summary(Plan()).decode_tokens_per_s for size in (1, 4)]
    assert speeds == pytest.approx([3.0, 12.0])
    assert [runs[size].protocol["budget_s"] for size in (1, 4)] == [5e8, 5e8]


def test_progress_hands_out_all_rounds_so_far(decoder):
    seen: list[Timings] = []
    timings = latency.measure(
        decoder, [Plan((1,))], PROMPT_IDS, QUICK, clock=Ticker(), progress=seen.append
    )
    assert [len(partial.rounds) for partial in seen] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert seen[-1].rounds == timings.rounds


def test_per_plan_times_each_plan(decoder):
    plans = list(subsets(3, [1, 2]))
    timings = latency.measure(
        decoder,
        plans,
        PROMPT_IDS,
        LatencyProtocol(
            prompt_tokens=2, new_tokens=1, end_to_end_tokens=5, target=1e9, per_plan=True
        ),
        clock=Ticker(),
    )
    assert [entry.plan for entry in timings.entries] == [Plan(), Plan(), *plans]


def test_blocks_of_different_kinds_are_pooled_by_kind():
    config = transformers.AutoConfig.for_model(
        "gpt_neo",
        num_layers=4,
        attention_types=[[["global", "local"], 2]],
        hidden_size=16,
        num_heads=2,
        vocab_size=40,
        max_position_embeddings=32,
        window_size=8,
    )
    neo = Decoder(AutoModelForCausalLM.from_config(config))
    pools = latency.pool_plans(neo, list(subsets(4, [1, 2])))
    assert [" ".join(map(str, pool)) for pool in pools] == [
        "none",
        "0 2",
        "1 3",
        "0+1 0+3 1+2 2+3",
        "0+2",
        "1+3",
    ]
    with pytest.raises(DeviceError, match="cannot time gpt_neo compiled"):
        latency.measure(neo, [], PROMPT_IDS, LatencyProtocol(mode="compile"))


def test_plans_of_one_depth_of_gpt2_are_one_pool(decoder):
    pools = latency.pool_plans(decoder, list(subsets(3, [0, 1, 2])))
    assert [len(pool) for pool in pools] == [1, 3, 3]


def test_peak_bytes_are_the_weights_and_what_the_calls_add(decoder):
    work = workload.Workload(decoder, PROMPT_IDS, QUICK, workload.Stopwatch(Ticker(), lambda: None))
    whole, one = work.peak_bytes(Plan()), work.peak_bytes(Plan((1, 2)))
    assert whole > memory.weight_bytes(decoder.model)
    block = sum(weight.nbytes for weight in decoder.stack[0].parameters())
    cache = 2 * 16 * 6 * 4  # keys and values, width, tokens of the prompt, bytes
    assert whole - one == 2 * (block + cache)


def test_peak_of_a_call_is_that_of_tensors_alive_at_once():
    def call():
        first = torch.zeros(1000)
        second = first + 1
        del first
        return second.view(10, 100) @ torch.zeros(100, 5)

    assert memory.peak_added_bytes(call, torch.device("cpu")) == 8000
    assert (
        memory.peak_added_bytes(lambda: [torch.zeros(1000) for _ in range(5)], torch.device("cpu"))
        == 20000
    )


def test_tied_weights_are_counted_once(decoder):
    parameters = sum(weight.numel() for weight in decoder.model.parameters())
    assert memory.weight_bytes(decoder.model) == 4 * parameters


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "cannot time with batch_size = 0: it needs at least 1"),
        ({"min_rounds": 3}, "cannot time with min_rounds = 3: it needs at least 8"),
        ({"budget_s": 0.0}, "cannot time with budget_s = 0: it needs to be above 0"),
        ({"target": math.nan}, "cannot time with target = nan: it needs to be above 0"),
        ({"mode": "fast"}, "cannot time in mode 'fast': the modes are eager, compile, cuda-graph"),
    ],
)
def test_an_impossible_protocol_is_refused(change, message):
    with pytest.raises(TimingError, match=message):
        LatencyProtocol(**change)


@pytest.mark.parametrize(
    ("protocol", "prompt", "message"),
    [
        (
            LatencyProtocol(prompt_tokens=30, new_tokens=3),
            PROMPT_IDS,
            "cannot time a prompt of 30 and 3 new tokens: the model's context is 32",
        ),
        (
            LatencyProtocol(prompt_tokens=4, end_to_end_tokens=75),
            PROMPT_IDS,
            "cannot time 75 tokens end to end: the model's context is 32",
        ),
        (QUICK, [1] * 9, "cannot continue a prompt of 9 tokens to 9 in all"),
        (QUICK, [], "cannot continue a prompt of 0 tokens to 9 in all"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(decoder, protocol, prompt, message):
    with pytest.raises(TimingError, match=message):
        latency.measure(decoder, [], prompt, protocol)


def test_cuda_graphs_need_a_gpu(decoder):
    with pytest.raises(DeviceError, match="cannot time with CUDA graphs on 'cpu'"):
        latency.measure(decoder, [], PROMPT_IDS, LatencyProtocol(mode="cuda-graph"))


def test_a_plan_that_does_not_fit_is_refused(decoder):
    with pytest.raises(PlanError, match="cannot remove block 7: the model has 3 blocks"):
        latency.measure(decoder, [Plan((7,))], PROMPT_IDS, QUICK)


def test_the_static_cache_gives_the_same_tokens(decoder, monkeypatch):
    """The compiled mode's own path, with the compiler left out."""
    monkeypatch.setattr(torch, "compile", lambda call, **_options: call)
    protocol = LatencyProtocol(
        prompt_tokens=6, new_tokens=3, end_to_end_tokens=9, mode="compile", target=1e9
    )
    stopwatch = workload.Stopwatch(Ticker(), lambda: None)
    static = workload.Workload(decoder, PROMPT_IDS, protocol, stopwatch)
    eager = workload.Workload(decoder, PROMPT_IDS, QUICK, stopwatch)
    for plan in subsets(3, [0, 1, 2]):
        for _ in range(2):  # the cache is used again
            assert torch.equal(static.end_to_end_tokens(plan), eager.end_to_end_tokens(plan))
    assert static.peak_bytes(Plan()) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_compiled_step_gives_the_same_tokens(decoder):
    protocol = LatencyProtocol(
        prompt_tokens=6, new_tokens=3, end_to_end_tokens=9, mode="compile", target=1e9
    )
    stopwatch = workload.Stopwatch(Ticker(), lambda: None)
    compiled = workload.Workload(decoder, PROMPT_IDS, protocol, stopwatch)
    eager = workload.Workload(decoder, PROMPT_IDS, QUICK, stopwatch)
    for plan in (Plan(), Plan((0,)), Plan((2,)), Plan((0, 1))):
        assert torch.equal(compiled.end_to_end_tokens(plan), eager.end_to_end_tokens(plan))
    assert len(latency.measure(decoder, [Plan((1,))], PROMPT_IDS, protocol, clock=Ticker()).rounds)
