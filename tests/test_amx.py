"""The AMX kernels against PyTorch in float64, and every reason for which they are not used."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from families import N_BLOCKS, NAMES, random_tokens, tiny_model, widened
from torch import nn

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.kernels import amx, choose_kernel
from pruning_kit.kernels.amx import layers, library, proof
from pruning_kit.kernels.head import CentredEmbedding, PiecewiseHead
from pruning_kit.kernels.linear import (
    PackedLinear,
    packing_is_possible,
    places_of_mean,
    relative_error,
    round_off,
)
from pruning_kit.machine.devices import dtype_name
from pruning_kit.plans.plan import Plan
from pruning_kit.walk.reference import ReferenceKernel
from pruning_kit.walk.sums import nll_sums

CPU, BFLOAT16, FLOAT32 = torch.device("cpu"), torch.bfloat16, torch.float32
ROUNDED_ONCE = {BFLOAT16: 2e-3, FLOAT32: 2e-7}
"""Error (of norms) of results: in bfloat16 of rounding, evenly spread 2^-9 / sqrt(3) and some; in
float32 somewhat less than that of PyTorch's own products."""

formats = pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT32], ids=["bfloat16", "float32"])

needs_amx = pytest.mark.skipif(
    not amx.is_offered() or not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="no AMX, or no C++ compiler",
)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = BFLOAT16) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize(
    ("allowed", "offered"),
    [(None, True), ("ALL", True), ("AVX512_CORE_AMX", True), ("avx2", False)],
)
def test_the_units_are_left_alone_where_onednn_is_told_to(monkeypatch, allowed, offered):
    monkeypatch.setattr(library.processor, "flags", lambda: library.FLAGS)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if allowed is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", allowed)
    assert amx.is_offered() == offered


@needs_amx
@formats
def test_nothing_speaks_against_the_units_where_there_are_some(dtype):
    assert amx.refusal(dtype) is None


@needs_amx
@formats
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [
        (1, 32, 40),
        (31, 64, 50),
        (33, 96, 64),
        (700, 768, 800),  # several groups of panels, chunks of inputs and pieces of rows
        (300, 3072, 96),
        (50, 1056, 40),  # chunks of unlike sizes
        (40, 16_384, 40),  # one panel is more than the cache is meant to hold
    ],
)
def test_a_product_and_its_last_steps_are_rounded_once(
    rows, inputs, outputs, threads, dtype, use_threads
):
    use_threads(threads)
    limit = ROUNDED_ONCE[dtype]
    states = random(rows, inputs, dtype=dtype)
    weight = random(outputs, inputs, seed=1, dtype=dtype) / inputs**0.5
    bias, residual = random(outputs, seed=2).float(), random(rows, outputs, seed=3, dtype=dtype)
    layer, kept = amx.AmxLinear(weight, bias, dtype), residual.clone()
    exact = F.linear(states.double(), weight.double(), bias.double())
    assert relative_error(layer(states), exact) < limit
    assert relative_error(layer.gelu(states), F.gelu(exact, approximate="tanh")) < limit
    assert relative_error(layer.add_to(residual, states), exact + residual) < limit
    assert torch.equal(residual, kept)
    sums = layer.sum_exp(states)
    torch.testing.assert_close(sums.double(), exact.exp().sum(1), rtol=2e-6, atol=0)
    other = random(outputs, seed=4).float()
    moved = exact - bias.double() + other.double()
    assert relative_error(layer(states, other), moved) < limit
    sums = layer.sum_exp(states, other)
    torch.testing.assert_close(sums.double(), moved.exp().sum(1), rtol=2e-6, atol=0)


@needs_amx
def test_a_float32_product_is_as_exact_as_pytorchs_also_where_numbers_differ_widely():
    scale = torch.logspace(-6, 4, 768)[torch.randperm(768, generator=torch.manual_seed(0))]
    states = random(200, 768, dtype=FLOAT32) * scale
    weight = random(300, 768, seed=1, dtype=FLOAT32) / scale.flip(0)
    exact = states.double() @ weight.double().t()
    most = states.double().abs() @ weight.double().abs().t()  # what there is to be rounded

    def worst(found):
        return float(((found - exact).abs() / most).max())

    assert worst(amx.AmxLinear(weight, None, FLOAT32)(states)) < worst(states @ weight.t())


def test_three_terms_add_up_to_the_number():
    numbers = random(1020, dtype=FLOAT32) * 10.0 ** torch.arange(-30, 30).repeat(17)
    assert torch.equal(sum(term.double() for term in layers.terms(numbers)), numbers.double())


@needs_amx
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_nothing_is_read_past_its_end(dtype):
    script = Path(__file__).with_name("amx_at_the_edge.py")
    done = subprocess.run([sys.executable, script, dtype], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def use_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@needs_amx
@formats
def test_results_do_not_depend_on_the_number_of_threads(dtype, use_threads):
    layer = amx.AmxLinear(random(2000, 768, dtype=dtype), None, dtype)
    states = random(600, 768, seed=1, dtype=dtype) / 16
    query, key_value = random(3, 100, 128, dtype=dtype), random(3, 130, 256, seed=1, dtype=dtype)
    torch.manual_seed(0)
    embedding, targets = amx.AmxEmbedding(nn.Linear(768, 600), dtype, CPU), torch.arange(600)
    results = []
    for threads in (1, 2, 5):
        use_threads(threads)
        bias = embedding.bias(states)
        logits = embedding.target_logits(states, targets, bias)
        mixed = layers.mix(query, key_value, 2)
        results.append((layer(states), layer.sum_exp(states), mixed, bias, logits))
    for found in zip(*results, strict=True):
        assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@needs_amx
@formats
def test_no_rows_give_no_rows(dtype):
    layer = amx.AmxLinear(random(40, 64), None, dtype)
    assert layer(random(2, 0, 64, dtype=dtype)).shape == (2, 0, 40)
    assert layer.sum_exp(random(0, 64, dtype=dtype)).shape == (0,)


@needs_amx
@formats
def test_inputs_may_have_any_shape_and_order_in_memory(dtype):
    layer = amx.AmxLinear(random(40, 64), None, dtype)
    states, residual = random(2, 9, 64, seed=1, dtype=dtype), random(2, 9, 40, seed=2, dtype=dtype)
    some, residual = states[:, 4:], residual[:, 4:]
    assert torch.equal(layer(some), layer(some.contiguous()))
    assert torch.equal(layer.add_to(residual, some), layer.add_to(residual.contiguous(), some))
    assert layer(some).shape == (2, 5, 40)


@needs_amx
@formats
@pytest.mark.parametrize("largest", [0.0, 60.0, 88.0, 89.0])
def test_sums_of_exponentials_are_right_or_infinite(largest, dtype):
    logits = torch.linspace(-120, largest, 400).to(dtype)
    layer = amx.AmxLinear(F.pad(logits[:, None], (0, 31)), None, dtype)
    found = layer.sum_exp(torch.ones(2, 32, dtype=dtype))
    exact = logits.double().exp().sum().expand(2)
    exact = exact.where(exact < torch.finfo(torch.float32).max, torch.inf)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=0)


@needs_amx
@formats
@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_the_head_equals_cross_entropy_also_where_exponentials_overflow(scale, dtype):
    torch.manual_seed(0)
    layer = nn.Linear(64, 500, bias=False)
    with torch.no_grad():
        layer.weight.mul_(scale).copy_(layer.weight.to(dtype))
    embedding = amx.AmxEmbedding(layer, dtype, CPU)
    states, targets = random(50, 64, dtype=dtype), torch.arange(50) * 7
    make_linear = partial(amx.AmxLinear, dtype=dtype)
    found = PiecewiseHead(embedding, make_linear, (32, 128)).nll(states, targets)
    logits = F.linear(states.double(), layer.weight.detach().double())
    exact = F.cross_entropy(logits, targets, reduction="none")
    limit = 1e-6 if dtype == FLOAT32 else 2e-4 if scale == 1 else 2e-3
    assert relative_error(found, exact) < limit


@needs_amx
@formats
def test_target_logits_are_those_of_the_centred_embedding(dtype):
    layer, states = nn.Linear(96, 500), random(50, 96, dtype=dtype)
    targets, bias = torch.arange(100)[::2] * 5, random(500, seed=2).float()
    plain = CentredEmbedding(layer, dtype, CPU)
    found = amx.AmxEmbedding(layer, dtype, CPU).target_logits(states, targets, bias)
    exact = (states.double() * plain.weight_VD[targets].double()).sum(1) + bias[targets]
    assert relative_error(found, exact) < 1e-6
    with pytest.raises(AssertionError):
        amx.AmxEmbedding(layer, dtype, CPU).target_logits(states, targets + 10, bias)


@needs_amx
@pytest.mark.parametrize("rows", [1, 100, 512, 3000])
@pytest.mark.parametrize("biased", [True, False])
def test_what_rounding_takes_off_is_put_back_for_the_mean_input(rows, biased):
    torch.manual_seed(0)
    weight, bias = torch.randn(40, 64), torch.randn(40) if biased else None
    states = (torch.randn(64) + 0.1 * torch.randn(rows, 64)).to(BFLOAT16)
    off = weight.double() - weight.to(BFLOAT16).double()
    places = places_of_mean(rows, CPU)
    exact = off @ states[places].double().mean(0)
    _, ours = round_off(weight, bias, BFLOAT16, CPU, True, layers.AmxBias)
    put_back = ours(states).double() - (bias if biased else 0)
    assert relative_error(put_back, exact) < 0.015
    assert torch.equal(ours(states.view(1, rows, 64)), ours(states))


@needs_amx
@formats
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_broken_states_are_not_finite_rather_than_wrong(broken, dtype):
    layer = amx.AmxLinear(random(40, 64), None, dtype)
    states = torch.full((3, 64), broken, dtype=dtype)
    assert not layer(states).isfinite().any() and not layer.sum_exp(states).isfinite().any()


@needs_amx
@formats
@pytest.mark.parametrize(
    ("n_queries", "n_keys"), [(1, 1), (1, 40), (33, 33), (70, 200), (257, 257)]
)
@pytest.mark.parametrize("width", [16, 32, 48, 64, 80])
def test_attention_equals_pytorchs(n_queries, n_keys, width, dtype):
    heads = 3
    query = random(2, n_queries, heads * width, dtype=dtype)
    key_value = 2 * random(2, n_keys, 2 * heads * width, seed=1, dtype=dtype)
    found = layers.mix(query, key_value, heads)

    def by_heads(states):
        return states.double().view(2, -1, heads, width).transpose(1, 2)

    mask = torch.ones(n_queries, n_keys, dtype=torch.bool).tril(n_keys - n_queries)
    key, value = key_value.chunk(2, dim=-1)
    exact = F.scaled_dot_product_attention(*map(by_heads, (query, key, value)), attn_mask=mask)
    # shares of the values are rounded, and so is their sum
    limit = 1.5 * ROUNDED_ONCE[dtype]
    assert relative_error(found, exact.transpose(1, 2).flatten(2)) < limit


@needs_amx
@formats
def test_what_a_query_may_not_see_does_not_reach_it(dtype):
    query, key_value = random(1, 50, 64, dtype=dtype), random(1, 50, 128, seed=1, dtype=dtype)
    before = layers.mix(query, key_value, 1)
    key_value[:, 20, :64] *= 1000
    key_value[:, 20, 64:] = -7
    after = layers.mix(query, key_value, 1)
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.equal(before[:, 20:], after[:, 20:])


@needs_amx
@formats
def test_onednn_finds_its_tiles_as_it_left_them(dtype, use_threads):
    use_threads(2)
    weight, states = random(300, 96), random(70, 96, seed=1)
    ours, onednn = amx.AmxLinear(weight, None, dtype), PackedLinear(weight, None, dtype=BFLOAT16)
    first = onednn(states)
    for _ in range(3):
        ours(states.to(dtype))
        assert torch.equal(onednn(states), first)
        small = states[:5, :32] @ weight[:7, :32].t()  # tiles of another shape
        assert relative_error(small, states[:5, :32].double() @ weight[:7, :32].double().t()) < 5e-3


def chosen(states, targets, width=64):
    embedding = amx.AmxEmbedding(nn.Linear(width, 40), BFLOAT16, CPU)
    return embedding.target_logits(states, targets, None)


@needs_amx
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda layer: layer(random(3, 96)), "inputs of another width"),
        (lambda layer: layer(random(3, 64).float()), "another format"),
        (lambda _: amx.AmxLinear(random(40, 64), None, torch.float16), "a format of no terms"),
        (lambda layer: layer(random(3, 64), torch.zeros(3)), "a bias of another length"),
        (lambda layer: layer.add_to(random(2, 40), random(3, 64)), "a residual of other rows"),
        (lambda layer: layer.add_to(random(3, 40).float(), random(3, 64)), "its format"),
        (lambda _: layers.mix(random(1, 9, 64), random(1, 5, 128), 1), "more queries than keys"),
        (lambda _: layers.mix(random(1, 5, 64), random(1, 5, 64), 1), "keys without values"),
        (lambda _: layers.mix(random(1, 5, 64), random(1, 5, 128).float(), 1), "of unlike formats"),
        (lambda _: layers.mix(random(1, 5, 24), random(1, 5, 48), 1), "heads of half steps"),
        (lambda _: amx.AmxLinear(random(40, 48), None, BFLOAT16), "inputs of half tiles"),
        (lambda _: amx.AmxLinear(random(0, 64), None, BFLOAT16), "no outputs"),
        (lambda layer: layer(random(3, 64), torch.zeros(40, device="meta")), "another device"),
        (lambda _: layers.AmxBias(None, random(40, 48)), "what was rounded off of half tiles"),
        (lambda _: layers.AmxBias(None, random(40, 64))(random(3, 96)), "its inputs' width"),
        (lambda _: chosen(random(3, 64), torch.arange(3).int()), "targets of 32 bits"),
        (lambda _: chosen(random(3, 64), torch.arange(4)), "more targets than rows"),
        (lambda _: chosen(random(3, 64), torch.arange(3) + 38), "targets past the last"),
        (lambda _: chosen(random(3, 64), torch.arange(3) - 1), "targets before the first"),
        (lambda _: chosen(random(3, 64).float(), torch.arange(3)), "states of another format"),
        (lambda _: chosen(random(3, 48), torch.arange(3), 48), "states of half tiles"),
    ],
)
def test_what_would_be_read_past_its_end_is_refused(wrong, message):
    layer = amx.AmxLinear(random(40, 64), random(40).float(), BFLOAT16)
    with pytest.raises(AssertionError):
        wrong(layer)


@needs_amx
@formats
@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_walked_by_amx(name, dtype, monkeypatch):
    decoder, tokens = Decoder(tiny_model(name, **widened(name))), random_tokens(3, 41)
    kernel = choose_kernel(decoder, tokens, dtype, CPU)
    expected_name = "generic, {}, AMX, "
    if name in ("gpt2", "gpt2-untied"):
        expected_name = "gpt2, {}, AMX, AMX attention, head by pieces"
    assert kernel.name.startswith(expected_name.format(dtype_name(dtype))) and kernel.note == ""
    called, call = set(), library.call
    monkeypatch.setattr(library, "call", lambda name, *rest: called.add(name) or call(name, *rest))
    windows = (tokens[:, :40], tokens[:, 21:], 20)
    plans = [Plan(), Plan((0,)), Plan((N_BLOCKS - 1,)), Plan((0, N_BLOCKS - 1))]
    found = nll_sums(kernel, plans, N_BLOCKS, *windows)
    reference = ReferenceKernel(decoder, decoder.head_is_exact(tokens, slice(None)))
    expected = nll_sums(reference, plans, N_BLOCKS, *windows)
    limit = 2e-6 if dtype == FLOAT32 else 2e-2
    torch.testing.assert_close(found, expected, rtol=limit, atol=0)
    calls = set() if "head by forward" in kernel.name else {"amx_sum_exp", "amx_dots"}
    if not name.startswith("falcon"):  # whose blocks have linear layers of their own making
        calls.add("amx_product")
    if kernel.name.startswith("gpt2"):
        calls |= {"amx_gelu", "amx_add", "amx_attention"}
    if dtype == BFLOAT16 and calls:
        calls.add("amx_put_back")
    assert called == calls


@formats
def test_a_model_that_does_not_fill_tiles_goes_to_onednn(dtype, monkeypatch):
    if not packing_is_possible(dtype):
        pytest.skip("this CPU or PyTorch has no packed products in the format")
    monkeypatch.setattr(amx, "is_offered", lambda: True)
    decoder = Decoder(tiny_model("gpt2", n_embd=48, n_head=2))
    kernel = choose_kernel(decoder, random_tokens(1, 41), dtype, CPU)
    assert kernel.name.startswith(f"gpt2, {dtype_name(dtype)}, oneDNN packed, ")
    assert kernel.note == ""


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A processor said to have the units, nothing compiled yet, and a cache of its own."""
    cached = library.load, proof._errors
    for function in cached:
        function.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(amx, "is_offered", lambda: True)
    yield tmp_path
    for function in cached:
        function.cache_clear()


def compiler(folder: Path, script: str) -> str:
    program = folder / "compiler"
    program.write_text(f"#!{sys.executable}\nimport sys\n{script}\n")
    program.chmod(0o755)
    return str(program)


@formats
def test_without_a_compiler_onednn_computes_and_the_note_says_so(fresh, monkeypatch, dtype):
    if not packing_is_possible(dtype):
        pytest.skip("this CPU or PyTorch has no packed products in the format")
    monkeypatch.setenv("PATH", str(fresh))
    decoder = Decoder(tiny_model("gpt2", n_embd=64, n_head=2))
    kernel = choose_kernel(decoder, random_tokens(1, 41), dtype, CPU)
    assert kernel.name.startswith(f"gpt2, {dtype_name(dtype)}, oneDNN packed, ")
    assert kernel.note == ("AMX refused: it is compiled on first use, and there is no C++ compiler")


def test_a_compiler_that_fails_is_named_with_its_first_error(fresh, monkeypatch):
    failing = compiler(fresh, "sys.exit('tiles.cpp:3:1: error: what is a tile?\\nand more')")
    monkeypatch.setenv("CXX", failing)
    reason = f"{failing} could not compile it (tiles.cpp:3:1: error: what is a tile?)"
    assert amx.refusal(BFLOAT16) == reason
    assert list((fresh / "cache/pruning-kit/kernels").iterdir()) == []


def test_what_cannot_be_loaded_is_refused(fresh, monkeypatch):
    script = "open(sys.argv[-1], 'w').write('no library')"
    monkeypatch.setenv("CXX", compiler(fresh, script))
    reason = amx.refusal(BFLOAT16)
    assert reason is not None and reason.startswith("it could not be kept or loaded (")


def test_a_cache_that_cannot_be_written_is_named(fresh, monkeypatch):
    (fresh / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv("CXX", compiler(fresh, ""))
    reason = amx.refusal(BFLOAT16)
    assert reason is not None and "cache" in reason


def test_a_compiler_that_is_asked_for_and_not_there_is_named(fresh, monkeypatch):
    monkeypatch.setenv("CXX", "nosuchcompiler -g")
    reason = "it is compiled on first use, and CXX=nosuchcompiler is not there"
    assert amx.refusal(BFLOAT16) == reason


def test_a_compiler_that_hangs_is_left(fresh, monkeypatch):
    monkeypatch.setattr(library, "COMPILER_SECONDS", 0.2)
    hanging = compiler(fresh, "import time; time.sleep(60)")
    monkeypatch.setenv("CXX", hanging)
    assert amx.refusal(BFLOAT16) == f"{hanging} had not compiled it after 0.2 s"


def test_a_program_that_is_none_is_named(fresh, monkeypatch):
    program = fresh / "compiler"
    program.write_text("no program")
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    reason = amx.refusal(BFLOAT16)
    assert reason is not None and "Exec format error" in reason


@pytest.mark.parametrize("others", [0o770, 0o707])
def test_a_cache_that_others_may_write_to_is_not_used(fresh, others):
    folder = fresh / "cache/pruning-kit/kernels"
    folder.mkdir(parents=True)
    folder.chmod(others)
    reason = amx.refusal(BFLOAT16)
    assert reason == f"it could not be kept or loaded (others may write to {folder})"


def test_without_a_home_there_is_a_reason_too(fresh, monkeypatch):
    def no_home(*_, **__):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("platformdirs.user_cache_path", no_home)
    reason = amx.refusal(BFLOAT16)
    assert reason is not None and "no home" in reason


@pytest.mark.parametrize(
    ("dtype", "errors", "reason"),
    [
        (BFLOAT16, (0.25, 0.0, 0.0), "error 2.5e-01 of results over 4e-03"),
        (BFLOAT16, (0.0, 1e-3, 0.0), "error 1.0e-03 of sums over 1e-05"),
        (BFLOAT16, (0.0, 0.0, 0.5), "error 5.0e-01 of corrections over 2e-02"),
        (BFLOAT16, (1e-3, 1e-6, 0.01), None),
        (FLOAT32, (2e-6, 0.0, 0.0), "error 2.0e-06 of results over 1e-06"),
        (FLOAT32, (0.0, 2e-6, 0.0), "error 2.0e-06 of sums over 1e-06"),
        (FLOAT32, (1e-7, 1e-7, 0.0), None),
    ],
)
def test_inexact_results_are_refused(fresh, monkeypatch, dtype, errors, reason):
    monkeypatch.setattr(proof, "_errors", lambda _dtype: proof.Errors(*errors))
    assert amx.refusal(dtype) == reason


@needs_amx
@pytest.mark.parametrize(
    ("dtype", "right", "wrong", "reason"),
    [
        (BFLOAT16, "0.693151295f", "0.690f", "of sums over"),
        (BFLOAT16, "_mm512_load_ps(products + 16)", "_mm512_load_ps(products)", "error"),
        (BFLOAT16, "XFEATURE_XTILEDATA = 18", "XFEATURE_XTILEDATA = 1800", "the system denies"),
        (BFLOAT16, "added_O[row] + scale_O[row] * sum", "added_O[row]", "of corrections"),
        (FLOAT32, "load(other + from), sums", "load(other), sums", "of sums over"),
        (FLOAT32, "multiply_new_rows(large + 2 * rows.apart, bytes);", "", "error"),
        (FLOAT32, "if (!is_first) {", "if (false) {", "error"),
    ],
)
def test_a_wrong_kernel_is_found_out(fresh, monkeypatch, dtype, right, wrong, reason):
    source = library.SOURCE.read_text()
    assert right in source
    copy = fresh / "tiles.cpp"
    copy.write_text(source.replace(right, wrong))
    monkeypatch.setattr(library, "SOURCE", copy)
    found = amx.refusal(dtype)
    assert found is not None and reason in found


def test_the_compiled_file_is_named_by_all_it_depends_on(monkeypatch, tmp_path):
    names = {library._identity()}
    monkeypatch.setattr(library.processor, "flags", lambda: frozenset({"another"}))
    names.add(library._identity())
    monkeypatch.setattr(library, "OPTIONS", (*library.OPTIONS, "-g"))
    names.add(library._identity())
    monkeypatch.setattr(library, "SOURCE", tmp_path / "tiles.cpp")
    library.SOURCE.write_text("// another")
    names.add(library._identity())
    assert len(names) == 4


@needs_amx
def test_it_is_compiled_once_and_by_many_at_a_time(fresh, monkeypatch):
    script = "import torch; from pruning_kit.kernels import amx; print(amx.refusal(torch.float32))"
    command = [sys.executable, "-c", script]
    many = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0] for process in many] == ["None\n"] * 3
    (compiled,) = (fresh / "cache/pruning-kit/kernels").iterdir()
    before = compiled.stat().st_mtime_ns
    assert amx.refusal(BFLOAT16) is None
    assert compiled.stat().st_mtime_ns == before
    assert compiled.parent.stat().st_mode & 0o777 == 0o700
    library.load.cache_clear()
    proof._errors.cache_clear()
    monkeypatch.setenv("PATH", "")
    assert amx.refusal(BFLOAT16) is None  # what is compiled needs no compiler
