"""Folding: into which blocks a bridge can be put, and the weights with it.

Nothing is assumed of a family: the output of the projection is moved by a known amount, and the
block's result has to move by a multiple of it. So a norm behind the MLP or behind the sum shows,
and so does a factor on what is added (granite's residual_multiplier).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruning_kit.inputs.architectures import Decoder, Recording
from pruning_kit.inputs.layers import (
    close,
    is_linear_kind,
    layer_like,
    submodule,
    weight_and_bias,
)
from pruning_kit.plans.unit import ATTENTION, MLP
from pruning_kit.pruning.bridges.gaps import Gap
from pruning_kit.walk.kernel import Form

NAMES: Mapping[str, str] = {MLP: "MLP", ATTENTION: "attention"}
TOLERANCE = 1e-3
"""Of the known amount: how far a block that adds it may be from adding a multiple of it."""


@dataclass(frozen=True, slots=True)
class Socket:
    """The output projection of a block's MLP or attention, into which a map can be folded."""

    layer: nn.Module
    factor: float
    """What the block multiplies the projection's output by before it adds it to the stream."""

    @property
    def has_bias(self) -> bool:
        """Whether the layer has a bias; none is added."""
        return weight_and_bias(self.layer)[1] is not None

    @property
    def n_inputs(self) -> int:
        """The activations that enter it."""
        return weight_and_bias(self.layer)[0].shape[1]

    @property
    def n_outputs(self) -> int:
        """The hidden width."""
        return weight_and_bias(self.layer)[0].shape[0]

    def fold(self, map_HD: Tensor, dtype: torch.dtype) -> Form:
        """The weights with a map on what enters, rounded to the format they are saved in.

        Args:
            map_HD: to be added to the stream; its last row is the bias where there is one.
            dtype: of the checkpoint.
        """
        weight_OI, bias_O = weight_and_bias(self.layer)
        n_inputs = weight_OI.shape[1]
        map_HD = map_HD.to("cpu", torch.float64) / self.factor
        folded_OI = weight_OI.cpu().double() + map_HD[:n_inputs].t()
        folded_O = None if bias_O is None else bias_O.cpu().double() + map_HD[n_inputs]
        return rounded(Form(folded_OI, folded_O), dtype)


def rounded(form: Form, dtype: torch.dtype) -> Form:
    """A form's numbers as they are once saved in a format."""
    weight_OI, bias_O = form
    return Form(weight_OI.to(dtype).float(), None if bias_O is None else bias_O.to(dtype).float())


@torch.no_grad()
def find_sockets(decoder: Decoder, tokens_BT: Tensor, part: str = MLP) -> dict[int, Socket | str]:
    """For each block the socket of its MLP or of its attention, or why it has none.

    Args:
        decoder: the model in float32.
        tokens_BT: some real token ids, (B, T); a few are enough.
        part: whose output projection.
    """
    tokens_BT = tokens_BT.to(decoder.device)
    recording = decoder.record(tokens_BT)
    found, hidden_BTD = {}, recording.hidden_BTD
    for block in range(decoder.n_blocks):
        after_BTD = decoder.run_block(block, hidden_BTD, recording)
        found[block] = _look(decoder, block, part, hidden_BTD, after_BTD, recording)
        hidden_BTD = after_BTD
    return found


def _look(
    decoder: Decoder,
    block: int,
    part: str,
    hidden_BTD: Tensor,
    after_BTD: Tensor,
    recording: Recording,
) -> Socket | str:
    module, family = decoder.stack[block], decoder.family
    layer = _linear_at(module, family.projection if part == MLP else family.attention)
    if layer is None:
        return f"its {NAMES[part]} has no single output projection"
    pinned = None if part == MLP else _linear_at(module, family.projection)
    if part != MLP and pinned is None:
        return "its MLP has no single output projection"
    moved_BTD = _known_amount(after_BTD)
    plainly: list[bool] = []

    def move(_layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        plainly.append(close(out, F.linear(args[0], *weight_and_bias(layer))))
        return out + moved_BTD.view(out.shape)

    with _pinned(decoder, block, pinned, hidden_BTD, recording):
        hook = layer.register_forward_hook(move)
        try:
            changed_BTD = decoder.run_block(block, hidden_BTD, recording)
        finally:
            hook.remove()
    if plainly != [True]:
        return (
            f"the output projection of its {NAMES[part]} is no plain linear layer, or is not "
            "called once"
        )
    difference_BTD = changed_BTD - after_BTD
    factor = float((difference_BTD * moved_BTD).sum() / moved_BTD.square().sum())
    off = float((difference_BTD - factor * moved_BTD).abs().max() / moved_BTD.abs().max())
    if not (abs(factor) > TOLERANCE and off <= TOLERANCE * max(1.0, abs(factor))):
        return f"what its {NAMES[part]} gives is changed before or after it is added to the stream"
    return Socket(layer, factor)


def _linear_at(block: nn.Module, path: str | None) -> nn.Module | None:
    layer = None if path is None else submodule(block, path)
    return layer if layer is not None and is_linear_kind(layer) else None


@contextmanager
def _pinned(
    decoder: Decoder,
    block: int,
    layer: nn.Module | None,
    hidden_BTD: Tensor,
    recording: Recording,
) -> Iterator[None]:
    """Let a layer give what it gives now, whatever it is given: it reads what is moved.

    Copies, since a block may add to them in place (falcon).
    """
    if layer is None:
        yield
        return
    given: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _layer, _args, out: given.append(out.clone()))
    try:
        decoder.run_block(block, hidden_BTD, recording)
    finally:
        hook.remove()
    hook = layer.register_forward_hook(lambda _layer, _args, _out: given[0].clone())
    try:
        yield
    finally:
        hook.remove()


def _known_amount(like_BTD: Tensor) -> Tensor:
    """A random amount as large as the stream at each token, the same for each call."""
    drawn = torch.randn(like_BTD.shape, generator=torch.Generator().manual_seed(0))
    return drawn.to(like_BTD) * like_BTD.square().mean(dim=-1, keepdim=True).sqrt()


@contextmanager
def folded(decoder: Decoder, forms: Mapping[Gap, Form]) -> Iterator[None]:
    """Lend the decoder's model with forms in place of its own projections, one for each block.

    Afterwards, also after an exception, it has its own again. A form is rounded to the format that
    the model computes in.
    """
    path = decoder.family.projection
    assert path is not None or not forms, "families without it have no bridges"
    assert len({gap.block for gap in forms}) == len(forms), "a block has one form at a time"
    own = {gap: decoder.stack[gap.block].get_submodule(path or "") for gap in forms}
    try:
        for gap, form in forms.items():
            decoder.stack[gap.block].set_submodule(path or "", layer_like(own[gap], *form))
        yield
    finally:
        for gap, layer in own.items():
            decoder.stack[gap.block].set_submodule(path or "", layer)


def form_of(layer: nn.Module) -> Form:
    """The form that a layer holds: a copy, float32 on the host."""
    weight_OI, bias_O = weight_and_bias(layer)
    if bias_O is not None:
        bias_O = bias_O.to("cpu", torch.float32, copy=True)
    return Form(weight_OI.to("cpu", torch.float32, copy=True), bias_O)


def form_sha256(form: Form) -> str:
    """Hash of a form's numbers as float32, with names and shapes."""
    digest = hashlib.sha256()
    for name, tensor in zip(("weight", "bias"), form, strict=True):
        if tensor is not None:
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
