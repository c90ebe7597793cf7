"""Linear layers, output embedding and attention that compute on the units.

Shapes: N rows, I inputs, O outputs, C terms; B windows, T tokens read, S of them scored, D hidden
width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruning_kit.kernels.amx import library
from pruning_kit.kernels.amx.library import N_TERMS
from pruning_kit.kernels.attention import SdpaAttention
from pruning_kit.kernels.head import CentredEmbedding
from pruning_kit.kernels.linear import ROUNDED_OFF_SCALE, Bias, places_of_mean, round_layer

SIDE = 32
"""Rows, columns and inputs of a block of tiles."""
HEAD_STEP = 16
"""What the width of a head is a multiple of."""
PIECE = (2048, 25_600)
"""Rows and columns of the head at a time; the kernel itself sees to the caches. Larger ones than
8,192 columns spare waiting at the end of each call (3 %)."""
PADDING_LOGIT = -1e4
"""Of outputs that only fill the last panel: its exponential is zero."""
CPU = torch.device("cpu")


def fits(weight_OI: Tensor) -> bool:
    """Whether the inputs of a weight come in whole tiles."""
    return weight_OI.shape[1] % SIDE == 0


class AmxBias(Bias):
    """`linear.Bias` that reads the chosen inputs once and what was rounded off in 8 bits.

    What limits it is how fast memory is read; 8 bits with a scale for each output are half of 16
    and as exact as they need be.
    """

    def __init__(self, bias_O: Tensor | None, rounded_off_OI: Tensor | None) -> None:
        super().__init__(bias_O, None)
        self._small_OI: Tensor | None = None
        if rounded_off_OI is None:
            return
        assert fits(rounded_off_OI)
        off_OI = rounded_off_OI.float() / ROUNDED_OFF_SCALE
        self._scale_O = (off_OI.abs().amax(dim=1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        self._small_OI = (off_OI / self._scale_O[:, None]).round().to(torch.int8).contiguous()
        self._added_O = torch.zeros(len(off_OI)) if bias_O is None else bias_O

    def __call__(self, inputs: Tensor) -> Tensor | None:
        if self._small_OI is None:
            return self._bias_O
        rows = _rows(inputs, torch.bfloat16)
        n_outputs, n_inputs = self._small_OI.shape
        assert rows.shape[1] == n_inputs
        places = places_of_mean(len(rows), CPU)
        mean_I, out_O = torch.empty(n_inputs), torch.empty(n_outputs)
        tensors = rows, places, self._small_OI, self._scale_O, self._added_O, mean_I, out_O
        library.call("amx_put_back", torch.bfloat16, *tensors, len(places), n_outputs, n_inputs)
        return out_O


class AmxEmbedding(CentredEmbedding):
    """`head.CentredEmbedding` whose target logits are read once, without float32 copies."""

    bias_class = AmxBias

    def _dots(self, normed_ND: Tensor, targets_N: Tensor) -> Tensor:
        return dots(normed_ND, self.weight_VD, targets_N)


class AmxLinear(nn.Module):
    """`linear.Linear` over a weight laid out as tiles are read; inputs a multiple of 32."""

    error = 1e-4
    """Exponentials are of products that were never rounded to 16 bits."""

    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        assert len(weight_OI) and fits(weight_OI) and dtype in N_TERMS
        rounded_OI, self._bias = round_layer(weight_OI, bias_O, dtype, CPU, AmxBias)
        self._dtype = dtype
        self._n_outputs = len(rounded_OI)
        self._n_padding = -self._n_outputs % SIDE
        self._panels = by_panels(rounded_OI)

    def forward(self, inputs: Tensor, bias_O: Tensor | None = None) -> Tensor:
        return self._product("amx_product", inputs, bias_O)

    def gelu(self, inputs: Tensor) -> Tensor:
        return self._product("amx_gelu", inputs)

    def add_to(self, residual: Tensor, inputs: Tensor) -> Tensor:
        assert residual.shape == (*inputs.shape[:-1], self._n_outputs)
        return self._product("amx_add", inputs, None, self._padded(_rows(residual, self._dtype)))

    def sum_exp(self, inputs: Tensor, bias_O: Tensor | None = None) -> Tensor:
        (sums_GN,) = self._exp("amx_sum_exp", inputs, bias_O, 1)
        return sums_GN.sum(dim=0)

    def sum_and_max(self, inputs: Tensor, bias_O: Tensor | None = None) -> tuple[Tensor, Tensor]:
        sums_GN, largest_GN = self._exp("amx_sum_max_exp", inputs, bias_O, 2)
        return sums_GN.sum(dim=0), largest_GN.amax(dim=0).log()

    def _exp(
        self, name: str, inputs: Tensor, bias_O: Tensor | None, n_results: int
    ) -> list[Tensor]:
        """What is made of the exponentials, for each group of panels: (G, N) float32."""
        rows = self._inputs(inputs)
        bias = self._added(rows, bias_O, PADDING_LOGIT)
        n_groups = library.function("amx_groups", self._dtype)(rows.shape[1], len(self._panels))
        results = [torch.empty(n_groups, len(rows)) for _ in range(n_results)]
        self._multiply(name, rows, bias, *results)
        return results

    def _product(
        self, name: str, inputs: Tensor, bias_O: Tensor | None = None, *added: Tensor
    ) -> Tensor:
        rows = self._inputs(inputs)
        out = rows.new_empty(len(rows), len(self._panels) * SIDE)
        bias = self._added(rows, bias_O)
        self._multiply(name, rows, bias, *added, out)
        return out[:, : self._n_outputs].view(*inputs.shape[:-1], self._n_outputs)

    def _multiply(self, name: str, rows: Tensor, *tensors: Tensor) -> None:
        library.call(
            name, self._dtype, rows, self._panels, *tensors, *rows.shape, len(self._panels)
        )

    def _inputs(self, inputs: Tensor) -> Tensor:
        rows = _rows(inputs, self._dtype)
        assert rows.shape[1] == self._panels.shape[1] * SIDE
        return rows

    def _added(self, inputs: Tensor, bias_O: Tensor | None, padding: float = 0.0) -> Tensor:
        bias_O = self._bias(inputs) if bias_O is None else bias_O
        bias_O = torch.zeros(self._n_outputs) if bias_O is None else bias_O.float()
        assert bias_O.shape == (self._n_outputs,)
        return self._padded(bias_O, padding)

    def _padded(self, outputs: Tensor, value: float = 0.0) -> Tensor:
        return F.pad(outputs, (0, self._n_padding), value=value) if self._n_padding else outputs


class AmxAttention(SdpaAttention):
    """Its products, shares and mix by tiles; width of a head a multiple of `HEAD_STEP`."""

    name = "AMX attention"

    def __call__(self, normed_BTD: Tensor, outputs: slice) -> Tensor:
        return mix(self._query(normed_BTD[:, outputs]), self._key_value(normed_BTD), self._n_heads)


def _rows(states: Tensor, dtype: torch.dtype) -> Tensor:
    """States (…, I) of a format as (N, I), each row after the other in memory."""
    assert states.dtype == dtype and states.is_cpu
    return states.reshape(-1, states.shape[-1]).contiguous()


def dots(inputs_NI: Tensor, weight_OI: Tensor, chosen_N: Tensor) -> Tensor:
    """The product of each input with the row of a weight that is chosen for it: (N,) float32."""
    rows = _rows(inputs_NI, weight_OI.dtype)
    assert chosen_N.dtype == torch.int64 and chosen_N.shape == rows.shape[:1]
    assert fits(weight_OI) and rows.shape[1] == weight_OI.shape[1]
    assert len(chosen_N) == 0 or 0 <= chosen_N.min() <= chosen_N.max() < len(weight_OI)
    out_N = torch.empty(len(rows))
    library.call("amx_dots", rows.dtype, rows, weight_OI, chosen_N.contiguous(), out_N, *rows.shape)
    return out_N


def mix(query_BSD: Tensor, key_value_BTE: Tensor, n_heads: int) -> Tensor:
    """Causal attention (B, S, D); keys and values lie side by side, E = 2 D."""
    n_windows, n_queries, width = query_BSD.shape
    assert query_BSD.dtype == key_value_BTE.dtype in N_TERMS
    assert len(key_value_BTE) == n_windows and key_value_BTE.shape[2] == 2 * width
    assert 0 < n_queries <= key_value_BTE.shape[1] and width % (n_heads * HEAD_STEP) == 0
    mixed_BSD = torch.empty_like(query_BSD, memory_format=torch.contiguous_format)
    sizes = n_windows, n_queries, key_value_BTE.shape[1], n_heads, width // n_heads
    tensors = query_BSD.contiguous(), key_value_BTE.contiguous(), mixed_BSD
    library.call("amx_attention", query_BSD.dtype, *tensors, *sizes)
    return mixed_BSD


def by_panels(weight_OI: Tensor) -> Tensor:
    """The weight's terms as tiles are read: (O / 32, I / 32, C, 2, 16, 16, 2).

    Zeros are added to the outputs.
    """
    n_outputs, n_inputs = weight_OI.shape
    padded_OI = F.pad(weight_OI, (0, 0, 0, -n_outputs % SIDE))
    tiles = padded_OI.view(-1, 2, 16, n_inputs // SIDE, 16, 2).permute(0, 3, 1, 4, 2, 5)
    return torch.stack(terms(tiles), dim=2)


def terms(numbers: Tensor) -> list[Tensor]:
    """Numbers in bfloat16 that add up to these, each rounded from what those before it leave."""
    found = []
    for _ in range(N_TERMS[numbers.dtype]):
        found.append(numbers.to(torch.bfloat16))
        numbers = numbers - found[-1]
    return found
