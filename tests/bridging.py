"""Bridges for tests: of tiny models, on texts of tokens alone, and what folds them by hand."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from operator import attrgetter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from families import random_tokens
from transformers import PreTrainedModel

from pruning_kit.inputs import calibration as calibration_module
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.calibration import Calibration
from pruning_kit.inputs.corpora import Corpus
from pruning_kit.inputs.texts import PreparedText
from pruning_kit.inputs.windows import sliding_windows
from pruning_kit.plans.plan import Plan
from pruning_kit.pruning.bridges.bridging import Bridging, bridging_of
from pruning_kit.pruning.bridges.fitting import inputs_of
from pruning_kit.pruning.bridges.folding import Socket, find_sockets
from pruning_kit.pruning.bridges.gaps import Gap, gaps_of
from pruning_kit.pruning.bridges.moments import add_up
from pruning_kit.pruning.bridges.ridge import solve
from pruning_kit.pruning.surgery import cut
from pruning_kit.sweeps import courses as courses_module
from pruning_kit.walk.kernel import Form, Kernel
from pruning_kit.walk.reference import ReferenceKernel

CONTEXT = 32


@contextmanager
def little_text() -> Iterator[None]:
    """Of a text only as much is used as makes the demo model's last gaps better."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (calibration_module, courses_module):
            patch.setattr(module, "FITTING_TOKENS", 2048)
        patch.setattr(calibration_module, "TUNING_TOKENS", 768)
        patch.setattr(calibration_module, "JUDGING_TOKENS", 1024)
        yield


def text_of(ids: torch.Tensor, context: int = CONTEXT) -> PreparedText:
    """A text of these tokens, in windows that do not overlap."""
    corpus = Corpus("tokens", "tokens", lambda: ["tokens"])
    windows = sliding_windows(ids.numel(), context, context)
    numbers = ids.flatten().numpy().astype(np.int32)
    return PreparedText(corpus, numbers, None, windows, ids.numel(), len(windows), 0, False)


@torch.no_grad()
def written_by(model: PreTrainedModel, n_windows: int, seed: int) -> torch.Tensor:
    """Tokens that a model draws itself: the whole model knows them best, so every cut hurts."""
    generator = torch.Generator().manual_seed(seed)
    tokens = random_tokens(n_windows, 1, seed)
    while tokens.shape[1] < CONTEXT:
        odds = model(tokens, use_cache=False).logits[:, -1].softmax(dim=-1)
        tokens = torch.cat([tokens, torch.multinomial(odds, 1, generator=generator)], dim=1)
    return tokens


def reference(model: PreTrainedModel) -> ReferenceKernel:
    """The plainest kernel of a model."""
    decoder = Decoder(model)
    return ReferenceKernel(decoder, decoder.head_is_exact(random_tokens(), slice(None)))


def calibration_of(model: PreTrainedModel) -> Calibration:
    """Texts that a model wrote itself, so that the whole model knows them best."""
    fitting, tuning = (text_of(written_by(model, n, seed)) for n, seed in ((48, 2), (16, 3)))
    return Calibration(fitting, tuning, CONTEXT)


def bridging_over(
    model: PreTrainedModel,
    dtype: torch.dtype = torch.float32,
    calibration: Calibration | None = None,
    kernel: Kernel | None = None,
) -> Bridging:
    """The bridges of a model that can have some, on text that it wrote itself."""
    found = kernel or reference(model)
    texts = calibration or calibration_of(model)
    made = bridging_of(Decoder(model), texts, found, lambda: found, dtype, batch_size=8)
    assert isinstance(made, Bridging), made
    return made


def every_form(
    decoder: Decoder,
    ids: torch.Tensor,
    dtype: torch.dtype = torch.float32,
    strength: float = 1e-3,
) -> dict[Gap, Form]:
    """A form for each gap that can be bridged, whether it helps or not."""
    found = find_sockets(decoder, ids[:, :16])
    sockets = {block: one for block, one in found.items() if isinstance(one, Socket)}
    n_blocks = decoder.n_blocks
    gaps = [Gap(b, to) for b in sockets for to in range(b + 2, n_blocks + 1)]
    by_block = {b: list(some) for b, some in groupby(gaps, key=attrgetter("block"))}
    if not by_block:
        return {}
    text = text_of(ids, ids.shape[1])
    forms = {}
    sums = add_up(reference(decoder.model), inputs_of(text, 8), by_block, sockets)
    for block, moments in sums.items():
        maps_GHD = solve(moments, strength, sockets[block].has_bias)
        assert maps_GHD is not None
        for gap, map_HD in zip(moments.gaps, maps_GHD, strict=True):
            forms[gap] = sockets[block].fold(map_HD, dtype)
    return forms


def folded_by_hand(
    model: PreTrainedModel, projection: str, plan: Plan, forms: Mapping[Gap, Form]
) -> PreTrainedModel:
    """A copy of a model, its weights changed by the plainest assignment, and really cut."""
    changed = copy.deepcopy(model)
    stack = Decoder(changed).stack
    for gap in gaps_of(plan, len(stack)):
        if gap in forms:
            layer = stack[gap.block].get_submodule(projection)
            weight_OI, bias_O = forms[gap]
            transposed = type(layer).__name__ == "Conv1D"
            layer.weight.data = (weight_OI.t() if transposed else weight_OI).clone()
            if bias_O is not None:
                layer.bias.data = bias_O.clone()
    return cut(changed, plan) if plan.removed else changed


@torch.no_grad()
def plain_nll(model: PreTrainedModel, tokens_BT: torch.Tensor, first_output: int) -> torch.Tensor:
    """NLL of each window by the model's own forward: (B,) float64."""
    logits = model(tokens_BT[:, :-1], use_cache=False).logits[:, first_output:]
    targets_BS = tokens_BT[:, first_output + 1 :]
    nll = F.cross_entropy(logits.transpose(1, 2).float(), targets_BS, reduction="none")
    return nll.double().sum(dim=1)
