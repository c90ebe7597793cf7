"""Linear layers and attention on Intel's AMX units: `amx.cpp`, compiled where it runs.

In bfloat16 oneDNN's products reach about 40 % of what these units can do, and its last steps come
after them. Here the rows of one block of 32 by 32 have their last step (bias, GELU, residual sum,
or the sum of exponentials) while the tiles multiply the next, from products that were never
rounded to 16 bits.

In float32 the units compute too: each number is the sum of three in bfloat16, a product that of six
(Henry, Tang, Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype For
Higher-Precision Computations", 2019). That is as exact as products in float32 are, and faster than
those of the vector units. Not so below 1e-30, where the units take the smallest terms for zero, and
infinite inputs give no number where float32 may give an infinite one.

Shapes: N rows, I inputs, O outputs, C terms; B windows, T tokens read, S of them scored, D hidden
width.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function

from pruning_kit.kernels.attention import SdpaAttention
from pruning_kit.kernels.head import CentredEmbedding
from pruning_kit.kernels.linear import (
    MAX_FLOAT32_ERROR,
    ROUNDED_OFF_SCALE,
    Bias,
    places_of_mean,
    relative_error,
    round_layer,
)
from pruning_kit.machine import processor, user_cache
from pruning_kit.machine.devices import dtype_name

SOURCE = Path(__file__).with_name("amx.cpp")
OPTIONS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
FLAGS = frozenset({"amx_tile", "amx_bf16", "avx512f", "avx512bw", "avx512dq", "avx512_bf16"})
"""What the processor must offer, by the names of /proc/cpuinfo."""
SIDE = 32
"""Rows, columns and inputs of a block of tiles."""
HEAD_STEP = 16
"""What the width of a head is a multiple of."""
PIECE = (2048, 25_600)
"""Rows and columns of the head at a time; the kernel itself sees to the caches. Larger ones than
8,192 columns spare waiting at the end of each call (3 %)."""
PADDING_LOGIT = -1e4
"""Of outputs that only fill the last panel: its exponential is zero."""
N_TERMS = {torch.bfloat16: 1, torch.float32: 3}
"""Numbers in bfloat16 that one is the sum of, for each format that can be computed."""


class Errors(NamedTuple):
    """Relative errors (of norms) against float64, or the largest allowed."""

    results: float
    """Of products, their last steps and mixes, in the format."""
    sums: float
    """Of sums of exponentials and target logits, in float32."""
    corrections: float
    """Of what rounding takes off, in 8 bits."""


LIMITS = {
    torch.bfloat16: Errors(4e-3, 1e-5, 0.02),  # twice what rounding does
    torch.float32: Errors(MAX_FLOAT32_ERROR, MAX_FLOAT32_ERROR, 0.0),
}
COMPILER_SECONDS = 120
CPU = torch.device("cpu")


class UnavailableError(Exception):
    """Why the units cannot be used here, in words for a kernel's note."""


def is_offered() -> bool:
    """Whether the processor has the units, the system names them and the user leaves them on.

    oneDNN's own setting is heeded, so that a lesser processor can be imitated.
    """
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    return processor.flags() >= FLAGS and ("AMX" in allowed or allowed in ("ALL", "DEFAULT"))


def refusal(dtype: torch.dtype) -> str | None:
    """Why the kit's AMX kernels cannot be used on a processor that has the units; None if they can.

    Compiles them first if nobody has on this machine, which takes some seconds.
    """
    try:
        errors = _errors(dtype)
    except UnavailableError as reason:
        return str(reason)
    for what, error, limit in zip(Errors._fields, errors, LIMITS[dtype], strict=True):
        if error > limit:
            return f"error {error:.1e} of {what} over {limit:.0e}"
    return None


def fits(weight_OI: Tensor) -> bool:
    """Whether the inputs of a weight come in whole tiles."""
    return weight_OI.shape[1] % SIDE == 0


def is_usable(dtype: torch.dtype) -> bool:
    """Whether there are units that compute this format, and nothing speaks against their use."""
    return dtype in N_TERMS and is_offered() and refusal(dtype) is None


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
        _call("amx_put_back", torch.bfloat16, *tensors, len(places), n_outputs, n_inputs)
        return out_O


class AmxEmbedding(CentredEmbedding):
    """`head.CentredEmbedding` whose target logits are read once, without float32 copies."""

    bias_class = AmxBias

    def _dots(self, normed_ND: Tensor, targets_N: Tensor) -> Tensor:
        return _dots(normed_ND, self.weight_VD, targets_N)


class AmxLinear(nn.Module):
    """`linear.Linear` over a weight laid out as tiles are read; inputs a multiple of 32."""

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
        rows = self._inputs(inputs)
        bias = self._added(rows, bias_O, PADDING_LOGIT)
        n_groups = _function("amx_groups", self._dtype)(rows.shape[1], len(self._panels))
        sums_GN = torch.empty(n_groups, len(rows))
        self._multiply("amx_sum_exp", rows, bias, sums_GN)
        return sums_GN.sum(dim=0)

    def _product(
        self, name: str, inputs: Tensor, bias_O: Tensor | None = None, *added: Tensor
    ) -> Tensor:
        rows = self._inputs(inputs)
        out = rows.new_empty(len(rows), len(self._panels) * SIDE)
        bias = self._added(rows, bias_O)
        self._multiply(name, rows, bias, *added, out)
        return out[:, : self._n_outputs].view(*inputs.shape[:-1], self._n_outputs)

    def _multiply(self, name: str, rows: Tensor, *tensors: Tensor) -> None:
        _call(name, self._dtype, rows, self._panels, *tensors, *rows.shape, len(self._panels))

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


def _dots(inputs_NI: Tensor, weight_OI: Tensor, chosen_N: Tensor) -> Tensor:
    """The product of each input with the row of a weight that is chosen for it: (N,) float32."""
    rows = _rows(inputs_NI, weight_OI.dtype)
    assert chosen_N.dtype == torch.int64 and chosen_N.shape == rows.shape[:1]
    assert fits(weight_OI) and rows.shape[1] == weight_OI.shape[1]
    assert len(chosen_N) == 0 or 0 <= chosen_N.min() <= chosen_N.max() < len(weight_OI)
    out_N = torch.empty(len(rows))
    _call("amx_dots", rows.dtype, rows, weight_OI, chosen_N.contiguous(), out_N, *rows.shape)
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
    _call("amx_attention", query_BSD.dtype, *tensors, *sizes)
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


def _call(name: str, dtype: torch.dtype, *arguments: Tensor | int) -> None:
    """Call a function of `amx.cpp` on all of PyTorch's threads."""
    with record_function(name):
        _function(name, dtype)(*map(_for_c, arguments), _for_c(torch.get_num_threads()))


def _function(name: str, dtype: torch.dtype) -> Any:
    """A function of `amx.cpp` for numbers of this format."""
    return getattr(_library(), f"{name}_{dtype_name(dtype)}")


def _for_c(argument: Tensor | int) -> ctypes.c_void_p | ctypes.c_long:
    if isinstance(argument, Tensor):
        assert argument.is_cpu and argument.is_contiguous()
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_long(argument)


@cache
def _library() -> ctypes.CDLL:
    """The functions of `amx.cpp`, with leave from the system to use the tiles.

    Raises:
        UnavailableError: if they cannot be compiled or loaded, or the system denies the tiles.
    """
    try:
        file = user_cache.folder("kernels") / f"amx-{_identity()}.so"
        if not file.is_file():
            _compile(file)
        user_cache.refuse_foreign(file)
        library = ctypes.CDLL(str(file))
        for dtype in N_TERMS:
            groups = getattr(library, f"amx_groups_{dtype_name(dtype)}")
            groups.argtypes, groups.restype = [ctypes.c_long, ctypes.c_long], ctypes.c_long
        library.amx_allowed.restype = ctypes.c_bool
    except (OSError, AttributeError) as error:
        raise UnavailableError(f"it could not be kept or loaded ({error})") from error
    if not library.amx_allowed():
        raise UnavailableError("the system denies its use")
    return library


def _identity() -> str:
    """A hash of all that the compiled file depends on; homes may be shared by unlike machines."""
    parts = [SOURCE.read_bytes(), " ".join([*OPTIONS, *sorted(processor.flags())]).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _compiler() -> list[str]:
    """The command that starts the C++ compiler: CXX where it is set."""
    asked = shlex.split(os.environ.get("CXX", ""))
    names = asked[:1] or ["c++", "g++", "clang++"]
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None and asked:
        raise UnavailableError(f"it is compiled on first use, and CXX={names[0]} is not there")
    if found is None:
        raise UnavailableError("it is compiled on first use, and there is no C++ compiler")
    return [found, *asked[1:]]


def _compile(target: Path) -> None:
    """Compile to a file of another name first: other processes see it whole or not at all."""
    compiler = _compiler()
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        unfinished = Path(folder) / target.name
        try:
            done = subprocess.run(
                [*compiler, *OPTIONS, str(SOURCE), "-o", str(unfinished)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                env=os.environ | {"LC_ALL": "C"},
                timeout=COMPILER_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(
                f"{compiler[0]} had not compiled it after {COMPILER_SECONDS} s"
            ) from error
        if done.returncode != 0:
            raise UnavailableError(
                f"{compiler[0]} could not compile it ({_first_complaint(done.stderr)})"
            )
        unfinished.chmod(0o700)
        with unfinished.open("rb") as stream:
            os.fsync(stream.fileno())
        unfinished.replace(target)


def _first_complaint(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = (line for line in lines if "error:" in line or "cannot find" in line)
    return next(telling, lines[-1] if lines else "it gave no reason")


@cache
def _errors(dtype: torch.dtype) -> Errors:
    """How far the kernels are from float64 on some random numbers."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    exact_weight, bias = random(1100, 768) / 16, random(1100).to(dtype)
    inputs, residual = random(70, 768).to(dtype), random(70, 1100).to(dtype)
    weight, put_back = round_layer(exact_weight, None, dtype, CPU, AmxBias)
    layer = AmxLinear(weight, bias, dtype)
    exact = F.linear(inputs.double(), weight.double(), bias.double())
    query, key_value = random(1, 40, 64).to(dtype), random(1, 70, 128).to(dtype)
    queries, (keys, values) = query.double(), key_value.double().chunk(2, dim=2)
    mask = torch.ones(40, 70, dtype=torch.bool).tril(30)
    results = [
        (layer(inputs), exact),
        (layer.gelu(inputs), F.gelu(exact, approximate="tanh")),
        (layer.add_to(residual, inputs), exact + residual),
        (mix(query, key_value, 1), F.scaled_dot_product_attention(queries, keys, values, mask)),
    ]
    targets = torch.arange(70) * 15
    dots = _dots(inputs, weight, targets)
    sums = [
        (layer.sum_exp(inputs), exact.exp().sum(dim=1)),
        (dots, (inputs.double() * weight[targets].double()).sum(dim=1)),
    ]
    off = (exact_weight.double() - weight.double()) @ inputs.double().mean(dim=0)
    found = put_back(inputs)
    return Errors(
        max(relative_error(*pair) for pair in results),
        max(relative_error(*pair) for pair in sums),
        0.0 if found is None else relative_error(found, off),
    )
