"""Distillation: the loss and its gradients, the optimiser, the text, and trainings that go on."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from pruning_kit.errors import ArchitectureError, PlanError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.corpora import Corpus
from pruning_kit.inputs.texts import PreparedText
from pruning_kit.inputs.windows import sliding_windows
from pruning_kit.plans.plan import Plan
from pruning_kit.pruning.distillation import loss as losses
from pruning_kit.pruning.distillation.adapters import adapted
from pruning_kit.pruning.distillation.ends import ends_of
from pruning_kit.pruning.distillation.loss import divergence, head_of
from pruning_kit.pruning.distillation.mixture import Mixture
from pruning_kit.pruning.distillation.muon import Muon, orthogonal
from pruning_kit.pruning.distillation.schedule import LENGTH, Schedule, Shape, schedule_of
from pruning_kit.pruning.distillation.training import State, Training, looks_of
from pruning_kit.pruning.distillation.writing import PROMPT_TOKENS, write
from pruning_kit.pruning.surgery import cut

VOCABULARY, CONTEXT = 97, 32


def tiny_gpt2(seed: int = 0) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=16, n_layer=3, n_head=2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(6)
    return model.requires_grad_(False)


def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=3,
        num_attention_heads=2, max_position_embeddings=CONTEXT, tie_word_embeddings=False,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def some_text(n_tokens: int = 300) -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCABULARY, n_tokens).astype(np.int32)


def watched() -> PreparedText:
    ids = some_text(3 * CONTEXT)
    corpus = Corpus("random", "random", lambda: [""])
    return PreparedText(
        corpus, ids, None, sliding_windows(len(ids), CONTEXT, 16), None, None, 0, False
    )


def training(whole: GPT2LMHeadModel, steps: int = 24, **settings: object) -> Training:
    student = Decoder(cut(copy.deepcopy(whole), Plan((1,))))
    written = write(whole, some_text(), 5, CONTEXT, seed=1)
    mixture = Mixture(some_text(), written, share=0.5, seed=2)
    schedule = Schedule(CONTEXT, 3, steps, 1e-3, 1e-3)
    return Training(student, Decoder(whole), schedule, mixture, watched(), **settings)  # type: ignore[arg-type]


def plain_divergence(own: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    return F.kl_div(own.log_softmax(-1), whole.log_softmax(-1), reduction="sum", log_target=True)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("piece_logits", [1, 2**23])
def test_loss_and_gradients_are_those_of_all_logits_at_once(
    has_bias: bool, piece_logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(losses.PIECE_LOGITS, "cpu", piece_logits)
    torch.manual_seed(0)
    own_ND, whole_ND = torch.randn(2, 41, 8)
    weight_VD, whole_VD = torch.randn(2, 33, 8)
    bias_V = torch.randn(33) if has_bias else None
    inputs = [t.clone().requires_grad_() for t in (own_ND, weight_VD)]
    if bias_V is not None:
        inputs.append(bias_V.clone().requires_grad_())
    plain = [t.detach().double().requires_grad_() for t in inputs]
    found = divergence(
        inputs[0], inputs[1], inputs[2] if has_bias else None, whole_ND,
        head_of(whole_VD, None, torch.float32),
    )  # fmt: skip
    logits = F.linear(plain[0], plain[1], plain[2] if has_bias else None)
    expected = plain_divergence(logits, F.linear(whole_ND, whole_VD).double())
    (found / 7).backward()
    (expected / 7).backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for one, other in zip(inputs, plain, strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-6)


def test_a_padded_head_has_the_divergence_of_its_vocabulary() -> None:
    own_ND, whole_ND = torch.randn(2, 5, 8)
    weight_VD = torch.randn(13, 8)
    padded = losses.Head(F.pad(weight_VD, (0, 0, 0, 3)), None, 13)
    kl_P, gradient_PV = losses._difference(padded.logits(own_ND), padded.logits(whole_ND), 13)
    plain_PV = F.linear(own_ND, weight_VD).requires_grad_()
    expected = plain_divergence(plain_PV, F.linear(whole_ND, weight_VD))
    expected.backward()
    assert kl_P.sum().item() == pytest.approx(expected.item(), rel=1e-5)
    assert plain_PV.grad is not None
    torch.testing.assert_close(gradient_PV[:, :13], plain_PV.grad, rtol=1e-4, atol=1e-6)
    assert not gradient_PV[:, 13:].any()


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_every_weight_of_the_pruned_model_has_a_gradient(make: object) -> None:
    whole = make()  # type: ignore[operator]
    made = training(whole)
    made._gradients(torch.from_numpy(some_text(2 * CONTEXT).reshape(2, -1)).long(), 1)
    for name, weight in made.student.model.named_parameters():
        assert weight.grad is not None and weight.grad.abs().max() > 0, name
    assert all(weight.grad is None for weight in whole.parameters())


def test_gradients_do_not_hang_on_how_many_sequences_are_in_memory() -> None:
    tokens_BT = torch.from_numpy(some_text(4 * CONTEXT).reshape(4, -1)).long()
    found = []
    for micro in (4, 1):
        made = training(tiny_gpt2())
        made._micro = micro
        made._gradients(tokens_BT, tokens_BT.numel())
        found.append({n: w.grad for n, w in made.weights.items()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=1e-7)


def test_training_takes_the_divergence_down_and_yields_looks_in_order() -> None:
    made = training(tiny_gpt2(), steps=64)
    *_, end = made.go_on(made.begin())
    assert [p.step for p in end.curve] == [0, *sorted(made._looks)]
    assert end.curve[-1].step == 64
    assert end.curve[-1].tokens == made.schedule.tokens
    first, last = end.curve[1].divergence, end.curve[-1].divergence
    assert first is not None and last is not None and last < 0.8 * first
    assert all(p.nats >= end.curve[end.best].nats for p in end.curve)


def states_of(made: Training) -> list[State]:
    start = made.begin()
    return [start, *made.go_on(start)]


@pytest.mark.parametrize("stopped_at", [0, 1, 4])
def test_a_stopped_training_ends_with_the_same_bits(stopped_at: int) -> None:
    whole = tiny_gpt2()
    undisturbed = states_of(training(whole))
    resumed = training(whole)
    *_, end = resumed.go_on(undisturbed[stopped_at])
    assert [replace(p, seconds=0) for p in end.curve] == [
        replace(p, seconds=0) for p in undisturbed[-1].curve
    ]
    for name, weight in end.weights.items():
        assert torch.equal(weight, undisturbed[-1].weights[name]), name
    assert end.optimising.keys() == undisturbed[-1].optimising.keys()


class Half:
    """One of two processes, given the gradients of the other by hand."""

    size = 2

    def __init__(self, rank: int, others: list[list[torch.Tensor]]) -> None:
        self.rank, self._others = rank, others
        self.seen: list[list[torch.Tensor]] = []

    def sum_of(self, value: float) -> float:
        return value

    def wait(self) -> None:
        pass

    def add_up(self, tensors: list[torch.Tensor]) -> None:
        self.seen.append([tensor.clone() for tensor in tensors])
        if self._others:
            for tensor, other in zip(tensors, self._others.pop(0), strict=True):
                tensor += other


def test_two_processes_step_as_one_does() -> None:
    whole = tiny_gpt2()
    alone = training(whole, steps=1)
    alone._step(0)
    second, first = training(whole, steps=1), training(whole, steps=1)
    second.together = half = Half(1, [])
    second._step(0)
    first.together = Half(0, half.seen)
    first._step(0)
    for name, weight in alone.weights.items():
        torch.testing.assert_close(weight, first.weights[name], rtol=1e-3, atol=1e-5)


def test_a_training_that_diverges_says_so_and_keeps_the_start() -> None:
    made = training(tiny_gpt2())
    made.optimising._schedule = replace(made.schedule, matrix_rate=math.inf)
    for number, (optimiser, _) in enumerate(made.optimising._optimisers):
        made.optimising._optimisers[number] = optimiser, math.inf
    *_, end = made.go_on(made.begin())
    assert end.diverged and end.best == 0
    made.put(end.best_weights)
    assert made.nats() == end.curve[0].nats


def test_what_is_kept_is_never_worse_than_the_start_on_the_watched_text() -> None:
    made = training(tiny_gpt2(), steps=8)
    *_, end = made.go_on(made.begin())
    made.put(end.best_weights)
    assert made.nats() == end.curve[end.best].nats <= end.curve[0].nats


def test_the_whole_models_level_on_the_watched_text_is_told_too() -> None:
    whole = tiny_gpt2()
    made = training(whole)
    uncut = replace(made, student=Decoder(copy.deepcopy(whole)))
    assert made.nats_of_whole() == uncut.nats() != made.nats()


def test_adapters_train_alone_and_are_merged() -> None:
    pytest.importorskip("peft")
    whole = tiny_gpt2()
    student = Decoder(cut(copy.deepcopy(whole), Plan((1,))))
    names = set(student.model.state_dict())
    before = copy.deepcopy(student.model.state_dict())
    schedule = Schedule(CONTEXT, 3, 24, 1e-2, 1e-3)
    mixture = Mixture(some_text(), np.zeros((0, CONTEXT), np.int32), 0.0, 2)
    with adapted(student) as model:
        trained = {n for n, w in model.named_parameters() if w.requires_grad}
        assert trained and all("lora" in name for name in trained)
        made = Training(student, Decoder(whole), schedule, mixture, watched(), adapters=True)
        *_, end = made.go_on(made.begin())
        made.put(end.weights)
        nats = made.nats()
    assert set(student.model.state_dict()) == names
    changed = {n for n, w in student.model.state_dict().items() if not torch.equal(w, before[n])}
    assert changed and all(".h." in name and name.endswith("weight") for name in changed)
    merged = Training(student, Decoder(whole), schedule, mixture, watched())
    assert merged.nats() == pytest.approx(nats, rel=1e-5)


def test_a_model_that_caps_its_logits_is_refused() -> None:
    whole = tiny_gpt2()
    inner = whole.forward
    whole.forward = lambda *a, **k: _capped(inner(*a, **k))  # type: ignore[method-assign]
    with pytest.raises(ArchitectureError, match="cannot distil a gpt2 model: its logits are not"):
        ends_of(whole)


def _capped(out: object) -> object:
    out.logits = torch.tanh(out.logits)  # type: ignore[attr-defined]
    return out


def test_muon_steps_as_pytorchs_does() -> None:
    torch.manual_seed(0)
    shapes = [(8, 24), (24, 8), (8, 24), (8, 8)]
    own = [torch.randn(shape).requires_grad_() for shape in shapes]
    plain = [p.detach().clone().requires_grad_() for p in own]
    ours = Muon(own, lr=0.02)
    theirs = torch.optim.Muon(plain, lr=0.02, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for one, other in zip(own, plain, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        ours.step()
        theirs.step()
    for one, other in zip(own, plain, strict=True):  # theirs computes in bfloat16
        torch.testing.assert_close(one, other, rtol=0, atol=3e-3)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_orthogonal_matrices_have_singular_values_near_one(
    rows: int, columns: int, seed: int
) -> None:
    matrix = torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(seed))
    values = torch.linalg.svdvals(orthogonal(matrix))
    given_values = torch.linalg.svdvals(matrix / matrix.norm(dim=(1, 2), keepdim=True))
    assert float(values.max()) < 1.3
    assert bool((values[given_values > 0.05] > 0.3).all())


@given(st.integers(1024, 10**9), st.integers(16, 4096))
def test_a_schedule_reads_what_was_asked_for_and_a_step_more_at_most(
    tokens: int, context: int
) -> None:
    made = schedule_of(tokens, Shape(6, 288, context))
    assert tokens <= made.tokens < tokens + made.tokens_per_step
    assert made.length == min(LENGTH, context)
    assert made.sequences.bit_count() == 1
    assert 0 < made.matrix_rate <= 5e-3


def test_deep_and_wide_models_learn_slower_and_a_given_rate_takes_the_other_with_it() -> None:
    small, large = (schedule_of(10**6, Shape(n, d, 512)) for n, d in ((6, 288), (24, 1152)))
    assert (small.matrix_rate, small.other_rate) == (3e-3, 1e-3)
    assert large.matrix_rate == pytest.approx(3e-3 / 8)
    assert large.other_rate == pytest.approx(1e-3 / 8)
    given_rate = schedule_of(10**6, Shape(6, 288, 512), rate=6e-3)
    assert given_rate.other_rate == pytest.approx(2e-3)


@given(st.integers(1024, 10**9))
def test_looks_take_a_tenth_of_the_time_where_there_are_more_than_the_least(tokens: int) -> None:
    n_looks, read = looks_of(tokens, watched()), sum(w.n_inputs for w in watched().windows)
    assert 2 <= n_looks <= 16
    assert n_looks == 2 or n_looks * read / 4 <= tokens / 10


@given(st.integers(1, 500))
def test_rates_rise_and_fall_and_are_never_more_than_the_highest(steps: int) -> None:
    made = Schedule(8, 1, steps, 1.0, 1.0)
    factors = [made.factor(step) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)


def test_too_few_tokens_are_refused() -> None:
    with pytest.raises(PlanError, match="cannot distil on 1,000 tokens: at least 1,024"):
        schedule_of(1000, Shape(6, 288, 512))


def test_a_step_reads_the_same_whenever_it_is_asked() -> None:
    made = Mixture(some_text(), np.arange(5 * 8, dtype=np.int32).reshape(5, 8), 0.5, seed=3)
    assert torch.equal(made.batch(7, 4, 8), made.batch(7, 4, 8))
    assert not torch.equal(made.batch(7, 4, 8), made.batch(8, 4, 8))


@given(st.integers(1, 9), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_written_sequences_are_read_in_order_and_in_their_share(
    sequences: int, share: float
) -> None:
    written = 1000 + np.arange(6, dtype=np.int32)[:, None].repeat(8, axis=1)
    made = Mixture(some_text(), written, share, seed=3)
    read = torch.cat([made.batch(step, sequences, 8) for step in range(40)])
    numbers = [int(row[0]) - 1000 for row in read if row[0] >= 1000]
    assert len(numbers) == int(40 * sequences * share + 1e-9)
    assert numbers == [n % 6 for n in range(len(numbers))]


def test_sequences_begin_with_bos_where_windows_do() -> None:
    made = Mixture(some_text(), np.zeros((0, 8), np.int32), 0.0, seed=3, bos=5)
    assert made.batch(0, 4, 8)[:, 0].tolist() == [5] * 4


def test_what_is_written_goes_on_from_the_text_and_hangs_on_the_seed() -> None:
    model, text = tiny_gpt2(), some_text()
    told: list[float] = []
    made = write(model, text, 6, 20, seed=4, advance=told.append, at_once=4)
    assert made.shape == (6, 20) and made.dtype == np.int32
    assert sum(told) == 6 * (20 - PROMPT_TOKENS)
    stretches = {tuple(text[at : at + PROMPT_TOKENS]) for at in range(len(text))}
    assert all(tuple(row[:PROMPT_TOKENS]) in stretches for row in made)
    assert np.array_equal(made, write(model, text, 6, 20, seed=4, at_once=4))
    assert not np.array_equal(made, write(model, text, 6, 20, seed=5, at_once=4))


def test_tokens_are_written_with_the_models_own_probabilities() -> None:
    model = tiny_gpt2()
    prompt = some_text(PROMPT_TOKENS + 1)[:PROMPT_TOKENS]
    made = write(model, prompt, 4000, PROMPT_TOKENS + 2, seed=0, at_once=1000)
    logits = model(torch.from_numpy(prompt[None]).long()).logits[0, -1]
    expected = logits.softmax(-1).numpy()
    counts = np.bincount(made[:, PROMPT_TOKENS], minlength=VOCABULARY) / len(made)
    assert np.abs(counts - expected).sum() < 3 * math.sqrt(VOCABULARY / len(made))
    likely = int(expected.argmax())
    rows = made[made[:, PROMPT_TOKENS] == likely]
    then = np.append(prompt, likely)[None]
    expected = model(torch.from_numpy(then).long()).logits[0, -1].softmax(-1).numpy()
    counts = np.bincount(rows[:, -1], minlength=VOCABULARY) / len(rows)
    assert np.abs(counts - expected).sum() < 3 * math.sqrt(VOCABULARY / len(rows))


def test_a_process_without_a_sequence_of_a_step_takes_part_with_zeros() -> None:
    made = training(tiny_gpt2(), steps=1)
    made.schedule = replace(made.schedule, sequences=1)
    made.together = half = Half(1, [])
    made._step(0)
    (seen,) = half.seen
    assert len(seen) == len(made.weights) + 1
    assert all(not tensor.any() for tensor in seen)


@pytest.mark.parametrize("rank", [0, 1])
def test_all_processes_begin_with_the_weights_of_the_first(rank: int) -> None:
    half = Half(rank, [])
    made = training(tiny_gpt2(), together=half)
    (seen,) = half.seen
    assert len(seen) == len(list(made.student.model.parameters()))
    assert all(bool(tensor.any()) == (rank == 0) for tensor in seen if tensor.ndim > 1)


def test_looks_judge_what_a_checkpoint_would_hold_and_leave_the_weights_as_they_are() -> None:
    made = training(tiny_gpt2())
    exact = made.nats()
    before = {name: weight.clone() for name, weight in made.weights.items()}
    made.saved_as = torch.bfloat16
    rounded = made.nats()
    assert rounded != exact
    assert all(torch.equal(weight, before[name]) for name, weight in made.weights.items())
    made.saved_as = torch.float32
    made.put({name: weight.bfloat16().float() for name, weight in before.items()})
    assert made.nats() == rounded


def test_looks_judge_adapters_as_they_are_merged() -> None:
    pytest.importorskip("peft")
    student = Decoder(cut(copy.deepcopy(tiny_gpt2()), Plan((1,))))
    mixture = Mixture(some_text(), np.zeros((0, CONTEXT), np.int32), 0.0, 2)
    schedule = Schedule(CONTEXT, 3, 8, 1e-2, 1e-3)
    with adapted(student) as model:
        made = Training(
            student, Decoder(tiny_gpt2()), schedule, mixture, watched(), torch.bfloat16,
            adapters=True,
        )  # fmt: skip
        *_, _end = made.go_on(made.begin())
        before = {name: weight.clone() for name, weight in model.named_parameters()}
        nats = made.nats()
        for name, weight in model.named_parameters():
            assert torch.equal(weight, before[name]), name
    with torch.no_grad():
        for weight in student.model.parameters():
            weight.copy_(weight.bfloat16().float())
    assert Training(student, Decoder(tiny_gpt2()), schedule, mixture, watched()).nats() == nats


def test_a_training_that_diverged_is_not_gone_on_with() -> None:
    made = training(tiny_gpt2())
    assert list(made.go_on(replace(made.begin(), diverged=True))) == []
