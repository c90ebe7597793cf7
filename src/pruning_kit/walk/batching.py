"""How many windows fit: the batch size from free memory, and going on when a GPU runs out.

On a CPU there is no second chance, since the system kills the process; so the estimate knows what
the control group (a container's limit, version 1 or 2) still allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from pruning_kit.errors import DeviceError
from pruning_kit.machine.memory import free_bytes, peak_added_bytes
from pruning_kit.plans.paths import Path, plain
from pruning_kit.walk.kernel import Kernel
from pruning_kit.walk.measures import NLL, Measure
from pruning_kit.walk.sums import Sums, window_sums

CPU_SHARE, GPU_SHARE = 0.5, 0.8
"""How much of the free memory a batch may take."""
CPU_STATE_BYTES, GPU_STATE_BYTES = 6 * 2**20, 2**27
"""A batch's hidden state of this size fills the chip: larger ones leave a CPU's cache, and measured
slower there (distilgpt2 with windows of 1,024: 2 in float32, 4 in bfloat16) and no faster on GPUs.
"""


def choose_batch_size(
    kernel: Kernel, most_skipped: int, tokens_BT: Tensor, targets_BS: Tensor, first_output: int
) -> int:
    """The largest batch that free memory allows and that still makes the walk faster.

    Args:
        kernel: computes one window here, to see what it takes.
        most_skipped: blocks that a path skips at most, which bounds the live states.
        tokens_BT, targets_BS, first_output: at least one window of the usual shape, as for
            `window_sums`.

    Raises:
        DeviceError: if not even one window fits.
    """
    window = (tokens_BT[:1], targets_BS[:1], first_output)
    window_bytes, state_bytes = _window_cost(kernel, most_skipped + 2, *window)
    n_tokens = tokens_BT.shape[1]
    on_cpu = kernel.device.type == "cpu"
    allowed = int(free_bytes(kernel.device) * (CPU_SHARE if on_cpu else GPU_SHARE))
    if window_bytes > allowed:
        raise DeviceError(
            f"cannot compute a window of {n_tokens} tokens on {kernel.device}: it takes "
            f"{window_bytes / 2**20:,.0f} MiB, and {allowed / 2**20:,.0f} MiB may be used. "
            "Choose a shorter context."
        )
    useful = (CPU_STATE_BYTES if on_cpu else GPU_STATE_BYTES) // state_bytes
    return max(1, min(allowed // window_bytes, useful))


def _window_cost(
    kernel: Kernel, n_states: int, tokens_BT: Tensor, targets_BS: Tensor, first_output: int
) -> tuple[int, int]:
    """Peak bytes of walking one window with so many live states, and bytes of a state."""
    batch = kernel.open(tokens_BT.to(kernel.device), targets_BS.to(kernel.device), first_output)
    state = batch.hidden_BTD
    one_path = peak_added_bytes(
        lambda: batch.nll(batch.apply(plain(0), state, False)), kernel.device
    )
    return one_path + n_states * state.nbytes, state.nbytes


def sums_within_memory(
    kernel: Kernel,
    paths: Sequence[Path],
    tokens_BT: Tensor,
    targets_BS: Tensor,
    first_output: int,
    *,
    measures: Sequence[Measure] = (NLL,),
    whole: Path | None = None,
    whole_kernel: Kernel | None = None,
) -> tuple[Sums, int]:
    """`window_sums`, halving the batch as often as the device runs out of memory.

    Returns:
        The sums, each (P, B), and the windows computed at a time: B unless memory ran out.

    Raises:
        DeviceError: if a single window does not fit.
    """
    micro_batch = len(tokens_BT)
    while True:
        starts = range(0, len(tokens_BT), micro_batch)
        slices = [slice(start, start + micro_batch) for start in starts]
        pieces = [
            partial(
                window_sums,
                kernel,
                paths,
                tokens_BT[some],
                targets_BS[some],
                first_output,
                measures,
                whole,
                whole_kernel,
            )
            for some in slices
        ]
        sums = _try(pieces)
        if sums is not None:
            return sums, micro_batch
        if micro_batch == 1:
            raise DeviceError(
                f"cannot compute a window of {tokens_BT.shape[1]} tokens on {kernel.device}: its "
                "memory is full even for one. Choose a shorter context, or the CPU."
            )
        torch.cuda.empty_cache()  # here, not in the handler: its traceback holds the tensors
        micro_batch = -(-micro_batch // 2)


def _try(pieces: Sequence[Callable[[], Sums]]) -> Sums | None:
    """The sums of some pieces, one after the other; None if memory ran out."""
    try:
        found = [piece() for piece in pieces]
    except torch.OutOfMemoryError:
        return None
    return {name: torch.cat([sums[name] for sums in found], dim=1) for name in found[0]}
