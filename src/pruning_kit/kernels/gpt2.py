"""GPT-2 written out as functions: the model's arithmetic without the modules around it.

Only what GPT-2's blocks are made of; used after a probe has found it equal to the model's forward.

Shapes: B windows, T tokens read, S of them scored, D hidden width, V vocabulary, N = B * S.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.layers import weight_and_bias
from pruning_kit.kernels.attention import MakeAttention
from pruning_kit.kernels.head import Head, WholeHead
from pruning_kit.kernels.linear import Linear, MakeLinear
from pruning_kit.plans.paths import Call
from pruning_kit.walk.kernel import Comparison, Form


def is_plain_gpt2(config: PretrainedConfig) -> bool:
    """Whether the config asks for nothing but the original GPT-2's arithmetic."""
    return (
        config.model_type == "gpt2"
        and config.activation_function in ("gelu_new", "gelu_pytorch_tanh")
        and config.scale_attn_weights
        and not config.scale_attn_by_inverse_layer_idx
        and not config.add_cross_attention
    )


class LayerNorm:
    """A layer norm's own copy of weight and bias: float32 where the library takes both formats.

    On the trained demo model rounding them to bfloat16 costs 2e-3 nats, most of what rounding does.
    """

    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype, device: torch.device) -> None:
        if device.type == "cpu":
            dtype = torch.float32
        self._shape, self._epsilon = norm.normalized_shape, norm.eps
        self._weight = norm.weight.detach().to(device, dtype)
        self._bias = norm.bias.detach().to(device, dtype)

    def __call__(self, hidden: Tensor) -> Tensor:
        return F.layer_norm(hidden, self._shape, self._weight, self._bias, self._epsilon)


class Gpt2Block:
    """One block of GPT-2. Where only scored positions are wanted, only they leave the keys."""

    def __init__(
        self,
        block: GPT2Block,
        make_linear: MakeLinear,
        make_attention: MakeAttention,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        def linear(layer: nn.Module) -> Linear:
            return make_linear(*weight_and_bias(layer))

        weight_OI, bias_O = weight_and_bias(block.attn.c_attn)
        assert bias_O is not None
        self._norm_1 = LayerNorm(block.ln_1, dtype, device)
        self._attention = make_attention(weight_OI, bias_O, block.attn.num_heads, make_linear)
        self._attention_out = linear(block.attn.c_proj)
        self._norm_2 = LayerNorm(block.ln_2, dtype, device)
        self._mlp_in = linear(block.mlp.c_fc)
        self._mlp_out = linear(block.mlp.c_proj)

    def __call__(
        self, hidden_BTD: Tensor, outputs: slice, projection: Linear | None = None
    ) -> Tensor:
        """The block's result at the positions `outputs`, whose end may not leave out a key.

        Args:
            hidden_BTD: the state.
            outputs: the positions.
            projection: ends the MLP in place of the block's own.
        """
        hidden_BSD, activations_BSF = self._within(hidden_BTD, outputs)
        return (projection or self._mlp_out).add_to(hidden_BSD, activations_BSF)

    def activations(self, hidden_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """What enters the MLP's output projection (B, T, F), and the block's result."""
        mixed_BTD, activations_BTF = self._within(hidden_BTD, slice(None))
        return activations_BTF, self._mlp_out.add_to(mixed_BTD, activations_BTF)

    def _within(self, hidden_BTD: Tensor, outputs: slice) -> tuple[Tensor, Tensor]:
        """The state after the attention, and what enters the MLP's output projection."""
        mixed_BSD = self._attention(self._norm_1(hidden_BTD), outputs)
        hidden_BSD = self._attention_out.add_to(hidden_BTD[:, outputs], mixed_BSD)
        return hidden_BSD, self._mlp_in.gelu(self._norm_2(hidden_BSD))


class Gpt2Kernel:
    """GPT-2 on one device in one number format, with its own copy of the weights."""

    def __init__(
        self,
        decoder: Decoder,
        make_linear: MakeLinear,
        make_attention: MakeAttention,
        head: Head,
        dtype: torch.dtype,
        device: torch.device,
        name: str,
    ) -> None:
        assert isinstance(decoder.norm, nn.LayerNorm)
        body = decoder.model.transformer
        self.name, self.note = name, ""
        self.dtype, self.device, self.head = dtype, device, head
        self.tokens_VD = body.wte.weight.detach().to(device)
        self.positions_TD = body.wpe.weight.detach().to(device)
        self.blocks = [
            Gpt2Block(block, make_linear, make_attention, dtype, device) for block in decoder.stack
        ]
        self.norm = LayerNorm(decoder.norm, dtype, device)
        self._make_linear = make_linear
        self.projections: dict[Call, Linear] = {}

    def learn(self, call: Call, form: Form) -> None:
        self.projections[call] = self._make_linear(*form)

    def open(self, tokens_BT: Tensor, targets_BS: Tensor, first_output: int) -> Gpt2Batch:
        return Gpt2Batch(self, tokens_BT, targets_BS, first_output)


class Gpt2Batch:
    """One batch of windows; what comes after the last scored position is never computed."""

    def __init__(
        self, kernel: Gpt2Kernel, tokens_BT: Tensor, targets_BS: Tensor, first_output: int
    ) -> None:
        self._kernel = kernel
        self._targets_BS = targets_BS
        self._outputs = slice(first_output, None)
        tokens_BT = tokens_BT[:, : first_output + targets_BS.shape[1]]
        embedded = F.embedding(tokens_BT, kernel.tokens_VD)
        self.hidden_BTD = (embedded + kernel.positions_TD[: tokens_BT.shape[1]]).to(kernel.dtype)

    def apply(self, call: Call, hidden_BTD: Tensor, last: bool) -> Tensor:
        outputs = self._outputs if last else slice(None)
        projection = None if call.is_plain_block else self._kernel.projections[call]
        return self._kernel.blocks[call.block](hidden_BTD, outputs, projection)

    def activations(self, block: int, hidden_BTD: Tensor) -> tuple[Tensor, Tensor]:
        return self._kernel.blocks[block].activations(hidden_BTD)

    def nll(self, hidden: Tensor) -> Tensor:
        nll_N = self._kernel.head.nll(self._normed(hidden), self._targets_BS.flatten())
        return nll_N.view_as(self._targets_BS)

    def whole(self, hidden: Tensor) -> WholeHead:
        return self._kernel.head.whole(self._normed(hidden))

    def compare(self, hidden: Tensor, whole: WholeHead) -> Comparison:
        normed_ND, targets_N = self._normed(hidden), self._targets_BS.flatten()
        found = self._kernel.head.compare(normed_ND, targets_N, whole)
        return Comparison(*(values_N.view_as(self._targets_BS) for values_N in found))

    def logits(self, hidden: Tensor, scored: slice) -> Tensor:
        logits_NV = self._kernel.head.logits(self._normed(hidden, scored))
        return logits_NV.view(len(hidden), -1, logits_NV.shape[1])

    def _normed(self, hidden: Tensor, scored: slice = slice(None)) -> Tensor:
        """The final norm of the scored positions or some of them, (N, D)."""
        if hidden.shape[1] != self._targets_BS.shape[1]:
            hidden = hidden[:, self._outputs]
        return self._kernel.norm(hidden[:, scored]).flatten(0, 1)
