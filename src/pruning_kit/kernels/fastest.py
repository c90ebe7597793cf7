"""The one place where a kernel is chosen: the fastest of several that proves itself.

A candidate is used only if it agrees with the reference on two probes cut from real text; what was
refused, and why, stands in the chosen kernel's `note`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.layers import is_linear, weight_and_bias
from pruning_kit.kernels import amx
from pruning_kit.kernels.attention import (
    MakeAttention,
    PiecewiseAttention,
    SdpaAttention,
    batched_product_error,
)
from pruning_kit.kernels.generic import GenericKernel, in_format
from pruning_kit.kernels.gpt2 import Gpt2Kernel, is_plain_gpt2
from pruning_kit.kernels.head import CentredEmbedding, Head, PiecewiseHead
from pruning_kit.kernels.linear import (
    MAX_FLOAT32_ERROR,
    DenseLinear,
    MakeLinear,
    PackedLinear,
    packed_error,
    packing_is_possible,
    twin,
)
from pruning_kit.machine.devices import dtype_name
from pruning_kit.plans.plan import Plan
from pruning_kit.walk.kernel import Kernel
from pruning_kit.walk.reference import ReferenceKernel
from pruning_kit.walk.sums import nll_sums

TOLERANCE_NATS = {torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 2e-2}
"""Largest difference of the mean NLL on a probe of some hundred tokens, by number format."""
PROBE_TOKENS = (48, 160)
"""Enough for two pieces of attention; what a probe costs is waited for at each start."""

PACKED, TILED = "oneDNN packed", "AMX"

Candidate = Callable[[], Kernel]


def choose_kernel(
    decoder: Decoder, tokens_BT: Tensor, dtype: torch.dtype, device: torch.device
) -> Kernel:
    """The fastest kernel for this model that agrees with the reference.

    The model is neither changed nor moved; the kernel holds its own copy of the weights in its own
    layout (and shares what it can). A 16-bit format that overflows or strays on the probe is
    refused, and the kernel is then one in float32: `kernel.dtype` and `kernel.note` tell.

    Args:
        decoder: the model, best in float32, on any device.
        tokens_BT: some real token ids for the probe, (B, T); 256 of one window are enough.
        dtype: the number format wanted.
        device: where to compute.
    """
    reference = ReferenceKernel(decoder, _has_plain_head(decoder, tokens_BT))
    notes: list[str] = []
    for build in _candidates(reference, dtype, device, notes):
        kernel = build()
        doubt = _doubt(kernel, reference, tokens_BT[:1])
        if doubt is None:
            kernel.note = "; ".join(notes)
            return kernel
        notes.append(f"{kernel.name} refused: {doubt}")
    if dtype != torch.float32:
        kernel = choose_kernel(decoder, tokens_BT, torch.float32, device)
        kernel.note = "; ".join([*notes, *filter(None, [kernel.note])])
        return kernel
    reference = ReferenceKernel(in_format(decoder, dtype, device), reference.exact_head)
    reference.note = "; ".join(notes)
    return reference


def _candidates(
    reference: ReferenceKernel, dtype: torch.dtype, device: torch.device, notes: list[str]
) -> Iterator[Candidate]:
    """Ways to build a kernel, the fastest first."""
    decoder = reference.decoder
    make_linear, layout = _choose_linear(decoder, dtype, device, notes)

    def head() -> tuple[Head | None, str]:
        if not reference.exact_head:
            return _NO_HEAD
        return _make_head(decoder, make_linear, layout, dtype, device, notes)

    def gpt2() -> Kernel:
        made, how = head()
        assert made is not None
        make_attention, mixed = _choose_attention(decoder, dtype, device, layout)
        name = f"gpt2, {dtype_name(dtype)}, {layout}, {mixed}, {how}"
        return Gpt2Kernel(decoder, make_linear, make_attention, made, dtype, device, name)

    def generic() -> Kernel:
        made, how = head()
        own = in_format(decoder, dtype, device)
        blocks: Sequence[nn.Module] = own.blocks
        made_anew = layout in (PACKED, TILED)
        if made_anew:
            pairs = zip(own.stack, decoder.stack, strict=True)
            blocks = [twin(block, exact, make_linear) for block, exact in pairs]
        name = f"generic, {dtype_name(dtype)}, {layout}, {how}"
        return GenericKernel(own, blocks, made, name, make_linear if made_anew else None)

    if is_plain_gpt2(decoder.model.config) and reference.exact_head:
        yield gpt2
    yield generic


_NO_HEAD = (None, "head by forward")


def _has_plain_head(decoder: Decoder, tokens_BT: Tensor) -> bool:
    """Whether logits are final norm and a linear output embedding, and nothing else."""
    if type(decoder.model.get_output_embeddings()) is not nn.Linear:
        return False
    return decoder.head_is_exact(tokens_BT[:1, : PROBE_TOKENS[0]].to(decoder.device), slice(None))


def _choose_linear(
    decoder: Decoder, dtype: torch.dtype, device: torch.device, notes: list[str]
) -> tuple[MakeLinear, str]:
    """The kit's AMX layers, or oneDNN's on a CPU that computes them as exactly as it should."""
    dense = partial(DenseLinear, dtype=dtype, device=device)
    if device.type != "cpu":
        return dense, "cuBLAS" if device.type == "cuda" else device.type
    if dtype in amx.N_TERMS and amx.is_offered() and _fills_tiles(decoder):
        reason = amx.refusal(dtype)
        if reason is None:
            return partial(amx.AmxLinear, dtype=dtype), TILED
        notes.append(f"AMX refused: {reason}")
    if not packing_is_possible(dtype):
        notes.append(
            f"oneDNN packed refused: no {dtype_name(dtype)} products in this PyTorch or CPU, "
            "where float32 is faster"
        )
        return dense, "unpacked"
    if dtype == torch.float32:
        error = packed_error(_one_weight_of_each_shape(decoder))
        if error > MAX_FLOAT32_ERROR:
            notes.append(f"oneDNN packed refused: error {error:.1e} over {MAX_FLOAT32_ERROR:.0e}")
            return dense, "unpacked"
    return partial(PackedLinear, dtype=dtype, device=device), PACKED


def _fills_tiles(decoder: Decoder) -> bool:
    """Whether the inputs of all layers come in whole tiles of the AMX units."""
    layers = [layer for block in decoder.stack for layer in block.modules()]
    layers.append(decoder.model.get_output_embeddings())
    return all(amx.fits(weight_and_bias(layer)[0]) for layer in layers if is_linear(layer))


def _choose_attention(
    decoder: Decoder, dtype: torch.dtype, device: torch.device, layout: str
) -> tuple[MakeAttention, str]:
    """AMX beside AMX layers; by pieces beside packed ones, where oneDNN's products are exact.

    Its batched float32 products are not on processors with AMX: in float32 they cannot be used
    there, and in bfloat16 PyTorch's own attention is the faster one of these two.
    """
    n_heads, width = decoder.model.config.n_head, decoder.model.config.n_embd
    if layout == TILED and width // n_heads % amx.HEAD_STEP == 0:
        return amx.AmxAttention, amx.AmxAttention.name
    if layout == PACKED and batched_product_error(n_heads, width // n_heads) <= MAX_FLOAT32_ERROR:
        return partial(PiecewiseAttention, dtype=dtype, device=device), PiecewiseAttention.name
    return SdpaAttention, SdpaAttention.name


def _one_weight_of_each_shape(decoder: Decoder) -> list[Tensor]:
    weights = [
        weight_and_bias(layer)[0].float().cpu()
        for layer in decoder.stack[0].modules()
        if is_linear(layer)
    ]
    return list({weight.shape: weight for weight in weights}.values())


def _make_head(
    decoder: Decoder,
    make_linear: MakeLinear,
    layout: str,
    dtype: torch.dtype,
    device: torch.device,
    notes: list[str],
) -> tuple[Head, str]:
    layer = decoder.model.get_output_embeddings()
    if layout == TILED:
        own = amx.AmxEmbedding(layer, dtype, device)
        return PiecewiseHead(own, make_linear, amx.PIECE), "head by pieces"
    embedding = CentredEmbedding(layer, dtype, device)
    if device.type == "cuda" and dtype != torch.float32:
        reason = fusing_is_refused(embedding.weight_VD)
        if reason is None:
            from pruning_kit.kernels.fused import FusedHead  # needs Triton

            return FusedHead(embedding), "fused head"
        notes.append(f"fused head refused: {reason}")
    return PiecewiseHead(embedding, make_linear), "head by pieces"


def fusing_is_refused(weight_VD: Tensor) -> str | None:
    """Why the fused head, written in Triton for 16 bits on NVIDIA's Hopper GPUs, is not used."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    if not any(map(shutil.which, (os.environ.get("CC", ""), "gcc", "clang"))):
        return "Triton needs a C compiler"
    if torch.cuda.get_device_capability(weight_VD.device)[0] != 9:
        name = torch.cuda.get_device_name(weight_VD.device)
        return f"it is written for NVIDIA's Hopper GPUs, this is {name}"
    if weight_VD.shape[1] % 8:
        return f"a width of {weight_VD.shape[1]} is no multiple of 8"
    return None


def _doubt(kernel: Kernel, reference: ReferenceKernel, tokens_BT: Tensor) -> str | None:
    """What speaks against a kernel: how far it is from the reference on two probes, if too far."""
    n_blocks = reference.n_blocks
    plans = [Plan(), Plan((n_blocks - 1,))] if n_blocks > 1 else [Plan()]
    for length, first_output in _probes(tokens_BT.shape[1]):
        targets_BS = tokens_BT[:, first_output + 1 : length + 1]
        probe = (plans, n_blocks, tokens_BT[:, :length], targets_BS, first_output)
        found, expected = nll_sums(kernel, *probe), nll_sums(reference, *probe)
        if not found.isfinite().all() and expected.isfinite().all():
            return "it overflowed"
        off = float((found - expected).abs().max()) / targets_BS.numel()
        scale = max(1.0, float(expected.abs().max()) / targets_BS.numel())
        if off > TOLERANCE_NATS[kernel.dtype] * scale:
            return f"{off:.1e} nats from the reference"
    return None


def _probes(n_tokens: int) -> list[tuple[int, int]]:
    """Tokens read and first scored output: one probe scored whole, one in its second half."""
    lengths = [min(length, n_tokens - 1) for length in PROBE_TOKENS]
    return [(lengths[0], 0), (lengths[1], lengths[1] // 2)]
