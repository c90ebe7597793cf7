"""Timing of really cut models: turns, equal work, pools, modes, further batch sizes."""

import gc
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from pruning_kit.errors import PlanError, TimingError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.machine import memory
from pruning_kit.machine.devices import Stopwatch
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import subsets
from pruning_kit.pruning.surgery import cut
from pruning_kit.reporting.words import speed
from pruning_kit.speed import generation, latency, rounds, throughput
from pruning_kit.speed.pools import pool_plans
from pruning_kit.speed.protocol import LatencyProtocol
from pruning_kit.speed.samples import at_one_level, undisturbed
from pruning_kit.speed.stored_timings import from_json, to_json
from pruning_kit.speed.timings import DECODE, END_TO_END, END_TO_END_PLAIN, PREFILL, Timings
from pruning_kit.speed.turns import (
    SHORT,
    STRETCHES,
    WARM,
    Repeats,
    Turns,
    choose_repeats,
    choose_turns,
    groups,
    stretches,
    turn_lengths,
)

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


def workload_of(
    decoder: Decoder,
    plans: Sequence[Plan],
    protocol: LatencyProtocol = QUICK,
    turns: Turns | None = None,
) -> generation.Workload:
    stopwatch = Stopwatch(Ticker(), lambda: None)
    return generation.Workload(decoder, plans, PROMPT_IDS, protocol, stopwatch, turns)


class Ticker:
    """A clock that moves on by one second, or by a `step`, at each look."""

    def __init__(self, step: float = 1.0) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_every_call_is_synchronised_and_taken_by_the_given_clock(decoder):
    events: list[str] = []
    ticker = Ticker()

    def clock() -> float:
        events.append("clock")
        return ticker()

    timings = latency.measure(
        decoder, [Plan((1,))], PROMPT_IDS, QUICK, clock=clock, sync=lambda: events.append("sync")
    )
    prefills = 2 + 8 * 8  # of the warm-up and of the rounds
    others = 9 * (3 + 1)  # decode steps; a prefill end to end
    stretches = 9 * 2  # of the four steps end to end, in turn
    timed = 3 * (prefills + others + stretches)  # entries
    assert events.count("sync") == 2 * timed
    pairs = "".join(event[0] for event in events)
    assert pairs.count("scsc") == timed
    assert (timings.seconds(PREFILL) == 1.0).all()
    assert (timings.seconds(DECODE) == 1.0).all()
    assert (timings.seconds(END_TO_END) == 5.0).all()
    assert (timings.seconds(END_TO_END_PLAIN) == 5.0).all()


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
    work = workload_of(decoder, [plan])
    reference = cut(tiny_gpt2(), plan)
    prompt = torch.tensor([PROMPT_IDS])
    for _ in range(9 - len(PROMPT_IDS)):
        chosen = reference(prompt, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
        prompt = torch.cat([prompt, chosen], dim=1)
    assert torch.equal(work.end_to_end_tokens(0), prompt)


def widths_seen(decoder: Decoder, call: Callable[[], object]) -> list[int]:
    """Tokens in each call that the first block got meanwhile."""
    widths: list[int] = []
    hook = decoder.stack[0].register_forward_hook(
        lambda _m, args, _out: widths.append(args[0].shape[1])
    )
    call()
    hook.remove()
    return widths


def test_decode_makes_the_fixed_number_of_tokens_though_the_model_ends_its_text(decoder):
    """Token 0 ends a text; a head that always prefers it must not shorten the work."""
    with torch.no_grad():
        decoder.model.transformer.wte.weight[:] *= 0.0
    work = workload_of(decoder, [Plan()], turns=Turns(1, 4, 0.0))
    widths = widths_seen(decoder, lambda: work.sample_round([0]))
    assert widths == [6, 6, 1, 1, 1, 4, 1, 1]
    assert work.end_to_end_tokens(0).shape == (1, 9)


def test_a_turn_on_the_cpu_begins_with_an_untimed_lead_in(decoder):
    """With a millisecond between looks, 2 ms are over after one call of one token."""
    stopwatch = Stopwatch(Ticker(0.001), lambda: None)
    work = generation.Workload(decoder, [Plan()], PROMPT_IDS, QUICK, stopwatch, WARM)
    widths = widths_seen(decoder, lambda: work.sample_round([0]))
    lead_in = [1]
    assert widths == [*lead_in, 6, 6, *lead_in, 1, 1, 1, *lead_in, 4, *lead_in, 1, 1]


def test_turns_are_longer_where_a_model_fits_the_processors_cache():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_turns(cpu, step_s=0.005) == WARM
    assert choose_turns(cpu, step_s=0.05) == SHORT
    assert choose_turns(cuda, step_s=0.004) == SHORT


def test_the_warm_up_decides_on_turns_and_repeats_unless_turns_are_given(decoder):
    slow = workload_of(decoder, [Plan(), Plan()])  # each call takes a second
    slow.warm_up(1, left_s=1e9)
    assert (slow.turns, slow.repeats) == (SHORT, Repeats(8, 1, 1))
    stopwatch = Stopwatch(Ticker(0.001), lambda: None)
    quick = generation.Workload(decoder, [Plan(), Plan()], PROMPT_IDS, QUICK, stopwatch)
    quick.warm_up(1, left_s=1e9)
    assert (quick.turns, quick.repeats) == (WARM, Repeats(32, 16, 16))
    given = workload_of(decoder, [Plan(), Plan()], turns=Turns(3, 3, 0.0))
    given.warm_up(1, left_s=1e9)
    assert given.turns == Turns(3, 3, 0.0)


def test_entries_take_turns_in_mirrored_order_until_all_are_done(decoder, monkeypatch):
    turns: list[str] = []
    recut = generation.recut

    def recording(decoder: Decoder, plan: Plan):
        turns.append(str(plan))
        return recut(decoder, plan)

    monkeypatch.setattr(generation, "recut", recording)
    protocol = replace(QUICK, new_tokens=5, end_to_end_tokens=7)
    plans = [Plan((0,)), Plan((1,)), Plan((2,))]
    work = workload_of(decoder, plans, protocol, Turns(1, 2, 0.0))
    work.repeats = Repeats(prefill_calls=1)
    work.sample_round([2, 0, 1])
    # A prefill and steps of 2, 2 and 1; then a prefill and 2 steps end to end.
    assert "".join(turns) == "201102201102" + "201102"


def test_many_entries_are_timed_in_groups_of_at_most_eight():
    assert [len(group) for group in groups(range(14))] == [7, 7]
    assert [len(group) for group in groups(range(8))] == [8]
    assert [list(group) for group in groups([3, 1, 2])] == [[3, 1, 2]]
    thousands = groups(range(4095))
    assert max(map(len, thousands)) == 8
    assert [entry for group in thousands for entry in group] == list(range(4095))


def test_what_is_over_soon_is_repeated_within_a_round_in_bounds():
    def choose(prefill_s: float, step_s: float, run_s: float, **wanted: float) -> Repeats:
        sample = {PREFILL: prefill_s, DECODE: step_s, END_TO_END: run_s, END_TO_END_PLAIN: run_s}
        wanted = {"new_tokens": 16, "round_s": 100.0, **wanted}
        return choose_repeats({0: sample, 1: sample}, **wanted)

    assert choose(0.2, 0.02, 1.4) == Repeats(8, 1, 1)
    assert choose(0.2, 0.02, 1.4, round_s=5.2) == Repeats(4, 1, 1)
    assert choose(0.2, 0.02, 1.4, round_s=3.6) == Repeats(2, 1, 1)
    assert choose(0.006, 0.006, 0.4) == Repeats(25, 2, 1)
    assert choose(0.001, 0.0005, 0.03, new_tokens=1) == Repeats(32, 16, 10)
    # Two entries at 25 × 6 + 32 × 6 ms and one of the two stretches of 400 ms are 1.08 s.
    assert choose(0.006, 0.006, 0.4, round_s=1.09) == Repeats(25, 2, 1)
    assert choose(0.006, 0.006, 0.4, round_s=1.08) == Repeats(9, 1, 1)
    assert choose(0.006, 0.006, 0.4, round_s=0.6) == Repeats(4, 1, 1)


def test_repeats_share_the_prefills_among_the_decode_runs(decoder):
    work = workload_of(decoder, [Plan()], turns=Turns(1, 4, 0.0))
    work.repeats = Repeats(prefill_calls=5, decode_runs=2, end_to_end_runs=2)
    widths = widths_seen(decoder, lambda: work.sample_round([0]))
    assert widths == [6, 6, 1, 1, 1, 6, 6, 6, 1, 1, 1, 4, 1, 1, 4, 2, 1, 1]
    work.repeats = Repeats(prefill_calls=1, decode_runs=2)
    widths = widths_seen(decoder, lambda: work.sample_round([0]))
    assert widths == 2 * [6, 1, 1, 1] + [4, 1, 1]


def test_rounds_make_one_stretch_of_the_end_to_end_steps_after_the_other(decoder):
    """Of four steps the first two, then the others; what is before them is read at once."""
    work = workload_of(decoder, [Plan(), Plan()], turns=Turns(1, 4, 0.0))
    made = [widths_seen(decoder, lambda: work.sample_round([0, 1], [END_TO_END])) for _ in range(4)]
    assert made == 2 * [[4, 4, 1, 1, 1, 1], [4, 2, 4, 2, 1, 1, 1, 1]]


@given(st.integers(0, 300))
def test_stretches_follow_each_other_and_hold_every_step(n_steps):
    parts = stretches(n_steps)
    steps = [step for part in parts for step in range(part.ahead, part.ahead + part.steps)]
    assert steps == list(range(n_steps))
    assert len(parts) == min(STRETCHES, max(n_steps, 1))


@given(st.integers(0, 300), st.integers(1, 40))
def test_turns_make_the_steps_asked_for(n_steps, turn_steps):
    lengths = turn_lengths(n_steps, turn_steps)
    assert sum(lengths) == n_steps
    assert all(0 < length <= turn_steps for length in lengths)
    assert set(lengths[:-1]) <= {turn_steps}


def test_the_plain_sum_keeps_every_interruption():
    made = generation.Generation(prefills_s=[[2.0]], steps_s=[[1.0, 9.0], [1.0, 5.0]])
    assert made.plain_s(4) == 2.0 + 16.0
    twice = generation.Generation(prefills_s=[[2.0], [4.0]], steps_s=[[1.0, 9.0], [1.0, 5.0]])
    assert twice.plain_s(4) == 3.0 + 16.0
    assert generation.Generation(prefills_s=[[2.0]]).plain_s(0) == 2.0


def test_a_spike_of_one_entry_stays_out_of_its_sample():
    calm = [[2.0, 2.0, 2.0, 2.0]] * 5
    spiked = [[3.0, 90.0, 3.0, 3.0], [80.0] * 4, *[[3.0] * 4] * 3]
    found = undisturbed({0: calm, 1: spiked})
    assert found[1] / found[0] == pytest.approx(1.5)


@given(
    st.lists(st.floats(0.01, 100.0), min_size=3, max_size=9),
    st.lists(st.floats(0.1, 10.0), min_size=2, max_size=5),
)
def test_what_slows_whole_turns_of_all_entries_cancels(slowness, seconds):
    """Ratios are exact however the machine's speed changes from turn to turn."""
    turns = {e: [[own * slow] * 2 for slow in slowness] for e, own in enumerate(seconds)}
    found = undisturbed(turns)
    for entry, own in enumerate(seconds):
        assert found[entry] / found[0] == pytest.approx(own / seconds[0])


def test_spikes_that_hit_entries_one_by_one_leave_level_and_ratios_alone():
    """A tenth of all calls take three times as long, in turns of eight."""
    random = np.random.default_rng(3)

    def turns(seconds: float) -> list[list[float]]:
        noise = random.normal(1, 0.01, (40, 8)) * (1 + 2 * (random.random((40, 8)) < 0.1))
        return (seconds * noise).tolist()

    found = undisturbed({entry: turns(1.0 + entry) for entry in range(6)})
    assert found == pytest.approx({entry: 1.0 + entry for entry in range(6)}, rel=0.02)


def test_on_a_quiet_machine_samples_are_what_the_calls_take():
    turns = {0: [[2.0] * 4] * 3, 1: [[3.0] * 4] * 3}
    assert undisturbed(turns) == pytest.approx({0: 2.0, 1: 3.0})
    assert undisturbed({0: [], 1: []}) == {0: 0.0, 1: 0.0}


def test_groups_timed_at_different_speeds_are_brought_to_one_level():
    first = {0: {PREFILL: 2.0}, 1: {PREFILL: 4.0}}
    second = {2: {PREFILL: 3.0}, 0: {PREFILL: 8.0}}
    merged = at_one_level([first, second], anchor=0)
    assert {entry: sample[PREFILL] for entry, sample in merged.items()} == pytest.approx(
        {0: 4.0, 1: 8.0, 2: 1.5}
    )
    assert at_one_level([first], anchor=0) == first


def test_the_whole_model_rides_in_every_group(decoder, monkeypatch):
    groups: list[list[int]] = []
    work = workload_of(decoder, [Plan((n % 3,)) for n in range(12)], turns=Turns(1, 4, 0.0))
    sample_group = work._sample_group
    monkeypatch.setattr(
        work,
        "_sample_group",
        lambda group, wanted: groups.append(group) or sample_group(group, wanted),
    )
    order = [5, 3, 11, 9, 0, 1, 2, 4, 6, 7, 8, 10]
    samples = work.sample_round(order)
    assert groups == [[5, 3, 0, 11, 9, 1], [2, 4, 0, 6, 7, 8, 10]]
    assert sorted(samples) == list(range(12))


def test_the_batch_size_holds_for_every_call(decoder):
    batches = set()
    hook = decoder.stack[0].register_forward_hook(
        lambda _m, args, _out: batches.add(args[0].shape[0])
    )
    workload_of(decoder, [Plan()], replace(QUICK, batch_size=4)).sample_round([0])
    hook.remove()
    assert batches == {4}


def test_further_batch_sizes_time_the_whole_model_and_the_plan_in_the_middle(decoder):
    protocol = replace(QUICK, batches=(2, 4))
    seen: list[float] = []
    plans = [Plan((0,)), Plan((0, 1)), Plan((0, 2))]
    timings = latency.measure(
        decoder,
        plans,
        PROMPT_IDS,
        protocol,
        clock=Ticker(),
        progress=seen.append,
    )
    assert [run.protocol["batch_size"] for run in timings.batches] == [2, 4]
    assert [run.protocol["budget_s"] for run in timings.batches] == [5e8, 5e8]
    assert all(run.plans == [Plan(), Plan((0, 1))] for run in timings.batches)
    assert seen == sorted(seen)
    assert len(seen) == 3 * 8
    assert 1 / 3 <= seen[8] <= 2 / 3 <= seen[16] <= 1
    turns = {(run.protocol["turn_prefills"], run.protocol["turn_steps"]) for run in timings.batches}
    assert turns == {(timings.protocol["turn_prefills"], timings.protocol["turn_steps"])}
    points = throughput.batch_points(timings)
    assert [(str(p.plan), p.batch_size) for p in points] == [
        ("none", 1),
        ("none", 2),
        ("none", 4),
        ("0+1", 1),
        ("0+1", 2),
        ("0+1", 4),
    ]
    assert [p.decode_tokens_per_s for p in points] == [1.0, 2.0, 4.0] * 2
    assert list(speed.throughput(timings)) == [
        f"Decode of {name} by batch size: 1: 1 tokens/s, 1,000 ms a step; "
        "2: 2 tokens/s, 1,000 ms a step; 4: 4 tokens/s, 1,000 ms a step."
        for name in ("the whole model", "plan 0+1")
    ]
    assert from_json(json.loads(json.dumps(to_json(timings)))) == timings
    alone = latency.measure(decoder, [], PROMPT_IDS, replace(QUICK, batches=(2,)), clock=Ticker())
    assert alone.batches[0].plans == [Plan()]


def test_a_run_at_one_batch_size_has_no_curve(decoder):
    timings = latency.measure(decoder, [], PROMPT_IDS, QUICK, clock=Ticker())
    assert throughput.batch_points(timings) == []
    assert list(speed.throughput(timings)) == []


def test_stored_timings_of_another_protocol_or_machine_are_told_apart(decoder):
    def difference(protocol: LatencyProtocol = QUICK, dtype: torch.dtype = torch.float32):
        wanted = latency.binding_facts(
            protocol, len(PROMPT_IDS), decoder.model.config, decoder.device, dtype
        )
        return latency.first_difference(stored, wanted)

    fresh = latency.measure(decoder, [Plan((1,))], PROMPT_IDS, QUICK, clock=Ticker())
    stored = from_json(json.loads(json.dumps(to_json(fresh))))
    assert difference() is None
    assert difference(replace(QUICK, seed=5)) is None
    for change, expected in (
        ({"batch_size": 4}, ("batch_size", 1, 4)),
        ({"budget_s": 5.0}, ("budget_s", 1e9, 5.0)),
        ({"batches": (2, 4)}, ("batches", [], [2, 4])),
        ({"execution": "compile"}, ("execution", "eager", "compile")),
    ):
        assert difference(replace(QUICK, **change)) == expected
    assert difference(dtype=torch.float16) == ("dtype", "float32", "float16")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def threads_seen(decoder: Decoder, protocol: LatencyProtocol) -> tuple[Timings, int]:
    """Timings of the whole model, and the threads in its last call."""
    seen: list[int] = []
    hook = decoder.stack[0].register_forward_hook(
        lambda *_words: seen.append(torch.get_num_threads())
    )
    timings = latency.measure(decoder, [Plan((1,))], PROMPT_IDS, protocol, clock=Ticker())
    hook.remove()
    return timings, seen[-1]


def noise_of_threads(monkeypatch, noise: dict[int, float]) -> None:
    """Let short rounds differ by the number of threads that PyTorch is set to."""
    random = np.random.default_rng(0)

    def trial_round(_work: generation.Workload) -> tuple[float, ...]:
        return tuple(np.exp(random.normal(0, noise[torch.get_num_threads()], 3)).tolist())

    monkeypatch.setattr(generation.Workload, "trial_round", trial_round)


def test_trials_choose_the_threads_which_are_used_recorded_and_put_back(
    decoder, two_threads, monkeypatch
):
    noise_of_threads(monkeypatch, {2: 0.5, 1: 1e-4})
    timings, seen = threads_seen(decoder, replace(QUICK, target=0.02, budget_s=1e3))
    assert seen == timings.machine["threads"] == 1
    assert torch.get_num_threads() == timings.machine["threads_offered"] == 2
    assert [trial.threads for trial in timings.trials] == [2, 1]
    assert timings.protocol["threads_asked"] is None
    noise_of_threads(monkeypatch, {2: 1e-4})
    timings, seen = threads_seen(decoder, replace(QUICK, target=0.02, budget_s=1e3))
    assert seen == timings.machine["threads"] == 2
    assert len(timings.trials) == 1


def test_threads_that_were_asked_for_are_used_without_a_trial(decoder, two_threads):
    timings, seen = threads_seen(decoder, replace(QUICK, threads=1, batches=(2,)))
    assert seen == timings.machine["threads"] == 1
    assert timings.protocol["threads_asked"] == 1
    assert timings.trials == () == timings.batches[0].trials
    assert torch.get_num_threads() == 2


def test_further_batch_sizes_are_timed_with_the_threads_chosen(decoder, two_threads, monkeypatch):
    noise_of_threads(monkeypatch, {2: 0.5, 1: 1e-4})
    timings, _ = threads_seen(decoder, replace(QUICK, target=0.02, budget_s=1e3, batches=(2,)))
    assert [run.machine["threads"] for run in (timings, *timings.batches)] == [1, 1]


def test_threads_chosen_by_trials_do_not_make_a_resumed_run_refuse_its_timings(
    decoder, two_threads, monkeypatch
):
    noise_of_threads(monkeypatch, {2: 0.5, 1: 1e-4})
    protocol = replace(QUICK, target=0.02, budget_s=1e3)
    timings, _ = threads_seen(decoder, protocol)

    def difference(threads: int | None = None):
        wanted = latency.binding_facts(
            replace(protocol, threads=threads),
            len(PROMPT_IDS),
            decoder.model.config,
            decoder.device,
            torch.float32,
        )
        return latency.first_difference(timings, wanted)

    assert difference() is None
    assert difference(threads=1) is None
    assert difference(threads=2) == ("threads", 1, 2)
    torch.set_num_threads(1)
    assert difference() == ("threads_offered", 2, 1)


def test_a_short_round_of_a_trial_is_the_pair_and_the_smallest_model(decoder):
    work = workload_of(decoder, [Plan(), Plan(), Plan((0,)), Plan((0, 1)), Plan((1,))])
    assert work.trial_round() == (1.0, 1.0, 1.0)
    calls = widths_seen(decoder, work.trial_round)  # of the first block, which the smallest lacks
    assert calls == 2 * [6] + 6 * [1]
    assert len(workload_of(decoder, [Plan(), Plan()]).trial_round()) == 2


def test_quantities_that_rest_are_not_sampled(decoder):
    work = workload_of(decoder, [Plan(), Plan()], turns=Turns(1, 4, 0.0))
    work.repeats = Repeats(prefill_calls=3, decode_runs=2)
    assert set(work.sample_round([0, 1], [DECODE])[0]) == {DECODE}
    assert widths_seen(decoder, lambda: work.sample_round([0], [DECODE])) == 2 * [6, 1, 1, 1]
    assert widths_seen(decoder, lambda: work.sample_round([0], [PREFILL])) == [6, 6, 6]
    assert widths_seen(decoder, lambda: work.sample_round([0], [END_TO_END])) == [4, 2, 1, 1]
    assert set(work.sample_round([0, 1], [END_TO_END])[1]) == {END_TO_END, END_TO_END_PLAIN}


def test_the_share_that_is_done_grows_to_one_whatever_the_first_rounds_need():
    def share(elapsed_s: float, n_rounds: int, **changes: object) -> float:
        protocol = {"budget_s": 30.0, "min_rounds": 8, **changes}
        so_far = SimpleNamespace(protocol=protocol, elapsed_s=elapsed_s, rounds=[None] * n_rounds)
        return rounds.share_done(so_far)

    assert share(3.0, 1) == pytest.approx(3 / 30)
    assert share(10.0, 1) == pytest.approx(1 / 8)
    assert share(70.0, 7) == pytest.approx(7 / 8)
    assert share(80.0, 8) == 1.0
    assert share(15.0, 12) == 0.5


def test_progress_tells_the_share_that_is_over_after_each_round(decoder):
    seen: list[float] = []
    protocol = replace(QUICK, budget_s=1e4)
    latency.measure(
        decoder, [Plan((1,))], PROMPT_IDS, protocol, clock=Ticker(), progress=seen.append
    )
    assert len(seen) == 8
    assert seen == sorted(set(seen))
    assert 0 < seen[0] < seen[-1] < 1


def test_a_batch_that_does_not_fit_the_memory_is_named(decoder, monkeypatch):
    def full(*_words: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(generation.Workload, "sample_round", full)
    with pytest.raises(TimingError, match="cannot time batches of 64: the device ran out of mem"):
        latency.measure(decoder, [], PROMPT_IDS, replace(QUICK, batch_size=64), clock=Ticker())


@pytest.mark.parametrize("batches", [(1, 2), (2, 2)])
def test_a_batch_size_given_twice_is_refused(batches):
    with pytest.raises(TimingError, match="a size is repeated"):
        replace(QUICK, batches=batches)


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
    pools = pool_plans(neo, list(subsets(4, [1, 2])))
    assert [" ".join(map(str, pool)) for pool in pools] == [
        "none",
        "0 2",
        "1 3",
        "0+1 0+3 1+2 2+3",
        "0+2",
        "1+3",
    ]


def test_plans_of_one_depth_of_gpt2_are_one_pool(decoder):
    pools = pool_plans(decoder, list(subsets(3, [0, 1, 2])))
    assert [len(pool) for pool in pools] == [1, 3, 3]


def test_peak_bytes_are_the_weights_and_what_the_calls_add(decoder):
    work = workload_of(decoder, [Plan(), Plan((1, 2))])
    whole, one = work.peak_bytes(0), work.peak_bytes(1)
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


def test_a_plan_that_does_not_fit_is_refused(decoder):
    with pytest.raises(PlanError, match="cannot remove block 7: the model has 3 blocks"):
        latency.measure(decoder, [Plan((7,))], PROMPT_IDS, QUICK)


COMPILED = replace(QUICK, execution="compile")


def test_the_static_cache_gives_the_same_tokens(decoder, monkeypatch):
    """The compiled mode's own path, with the compiler left out; twins keep caches of their own."""
    monkeypatch.setattr(torch, "compile", lambda call, **_options: call)
    plans = [Plan(), *subsets(3, [0, 1, 2])]
    static, eager = workload_of(decoder, plans, COMPILED), workload_of(decoder, plans)
    for _ in range(2):  # the caches are used again
        static.sample_round(range(len(plans)))
        for entry in range(len(plans)):
            assert torch.equal(static.end_to_end_tokens(entry), eager.end_to_end_tokens(entry))
    assert static.peak_bytes(0) is None


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_compiled_step_gives_the_same_tokens(decoder):
    plans = [Plan(), Plan((0,)), Plan((2,)), Plan((0, 1))]
    compiled, eager = workload_of(decoder, plans, COMPILED), workload_of(decoder, plans)
    for entry in range(len(plans)):
        assert torch.equal(compiled.end_to_end_tokens(entry), eager.end_to_end_tokens(entry))
    assert len(latency.measure(decoder, [Plan((1,))], PROMPT_IDS, COMPILED, clock=Ticker()).rounds)
