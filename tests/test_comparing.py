"""KL and agreement: what comes of one product of rows is what both models' logits give."""

import pytest
import torch
from families import N_BLOCKS, NAMES, random_tokens, tiny_model

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.corpora import find_corpus
from pruning_kit.inputs.models import find_model, load_model
from pruning_kit.inputs.texts import prepare_text
from pruning_kit.kernels import choose_kernel
from pruning_kit.plans.paths import as_cut
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import subsets
from pruning_kit.pruning.surgery import recut
from pruning_kit.walk.measures import AGREEMENT, KL, NLL
from pruning_kit.walk.reference import ReferenceKernel
from pruning_kit.walk.sums import window_sums

DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]
TOKENS = random_tokens(2, 33)
WINDOWS = (TOKENS[:, :32], TOKENS[:, 13:], 12)
PLANS = list(subsets(N_BLOCKS, range(N_BLOCKS)))
FEW = [Plan(), Plan((0,)), Plan((1, 2)), Plan((0, 1, 3))]
ALL = (NLL, KL, AGREEMENT)


@torch.no_grad()
def direct(decoder, plans, tokens_BT, targets_BS, first_output):
    """KL and agreement of really cut models, from all logits in float64."""
    outputs = slice(first_output, first_output + targets_BS.shape[1])

    def log_shares(plan):
        with recut(decoder, plan) as model:
            return model(tokens_BT, use_cache=False).logits[:, outputs].double().log_softmax(-1)

    whole = log_shares(Plan())
    found = [log_shares(plan) for plan in plans]
    kl = [(whole.exp() * (whole - log_q)).sum(dim=(1, 2)) for log_q in found]
    same = [(whole.argmax(-1) == log_q.argmax(-1)).sum(dim=1).double() for log_q in found]
    return torch.stack(kl), torch.stack(same)


def measured(kernel, plans, n_blocks, windows):
    paths = [as_cut(plan, n_blocks) for plan in plans]
    return window_sums(kernel, paths, *windows, ALL, as_cut(Plan(), n_blocks))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_every_family_in_float32(name, device):
    plans = PLANS if name in ("gpt2", "llama", "gemma2") else FEW
    decoder = Decoder(tiny_model(name))
    kl, same = direct(decoder, plans, *WINDOWS)
    kernel = choose_kernel(decoder, TOKENS, torch.float32, torch.device(device))
    found = measured(kernel, plans, N_BLOCKS, WINDOWS)
    torch.testing.assert_close(found["kl"], kl, rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(found["agreement"], same, rtol=0, atol=0)
    paths = [as_cut(plan, N_BLOCKS) for plan in plans]
    assert torch.equal(found["nll"], window_sums(kernel, paths, *WINDOWS)["nll"])


def test_the_reference_computes_them_from_the_logits():
    decoder = Decoder(tiny_model("gpt2"))
    kl, same = direct(decoder, PLANS, *WINDOWS)
    for exact_head in (True, False):
        kernel = ReferenceKernel(decoder, exact_head)
        found = measured(kernel, PLANS, N_BLOCKS, WINDOWS)
        torch.testing.assert_close(found["kl"], kl, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found["agreement"], same, rtol=0, atol=0)


@pytest.fixture(scope="module")
def demo():
    loaded = load_model(find_model("demo"))
    text = prepare_text(find_corpus("demo", "demo"), loaded, stride=512)
    return Decoder(loaded.model), text.tensors(1, 2)


FORMATS = [
    ("cpu", torch.float32, 1e-4, 1e-3),
    ("cpu", torch.bfloat16, 2e-2, 3e-2),
    *[("cuda", torch.float32, 1e-4, 1e-3)] * torch.cuda.is_available(),
    *[("cuda", torch.float16, 2e-3, 4e-3)] * torch.cuda.is_available(),
]


@pytest.mark.parametrize(("device", "dtype", "nats", "share"), FORMATS)
def test_the_demo_model_in_every_format(demo, device, dtype, nats, share):
    """Nats per token, and share of 512 tokens; in 16 bits near ties fall either way."""
    decoder, windows = demo
    plans = [Plan(), Plan((4,)), Plan((1, 4)), Plan((0,)), Plan((1, 2, 3, 4))]
    kl, same = direct(decoder, plans, *windows)
    kernel = choose_kernel(decoder, windows[0], dtype, torch.device(device))
    found = measured(kernel, plans, 6, windows)
    n_tokens = windows[1].numel()
    off = (found["kl"] - kl).sum(dim=1).abs() / n_tokens
    assert off.max() < nats
    assert off[0] < 1e-5  # the whole model is as it is
    apart = (found["agreement"] - same).sum(dim=1).abs() / n_tokens
    assert apart.max() < share
