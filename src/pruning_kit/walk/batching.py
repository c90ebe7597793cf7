"""How many windows fit: the batch size from free memory, and going on when a GPU runs out.

On a CPU there is no second chance, since the system kills the process; so the estimate knows what
the control group (a container's limit, version 1 or 2) still allows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pruning_kit.errors import DeviceError
from pruning_kit.machine.memory import free_bytes, peak_added_bytes
from pruning_kit.plans.plan import Plan
from pruning_kit.walk.kernel import Kernel
from pruning_kit.walk.sums import nll_sums

CPU_SHARE, GPU_SHARE = 0.5, 0.8
"""How much of the free memory a batch may take."""
CPU_STATE_BYTES, GPU_STATE_BYTES = 6 * 2**20, 2**27
"""A batch's hidden state of this size fills the chip: larger ones leave a CPU's cache, and measured
slower there (distilgpt2 with windows of 1,024: 2 in float32, 4 in bfloat16) and no faster on GPUs.
"""


def choose_batch_size(
    kernel: Kernel,
    plans: Sequence[Plan],
    tokens_BT: Tensor,
    targets_BS: Tensor,
    first_output: int,
) -> int:
    """The largest batch that free memory allows and that still makes the walk faster.

    Args:
        kernel: computes one window here, to see what it takes.
        plans: the plans to be walked; the most blocks removed bounds the live states.
        tokens_BT, targets_BS, first_output: at least one window of the usual shape, as for
            `nll_sums`.

    Raises:
        DeviceError: if not even one window fits.
    """
    window = (tokens_BT[:1], targets_BS[:1], first_output)
    window_bytes, state_bytes = _window_cost(kernel, plans, *window)
    n_tokens = tokens_BT.shape[1]
    on_cpu = kernel.device.type == "cpu"
    allowed = int(free_bytes(kernel.device) * (CPU_SHARE if on_cpu else GPU_SHARE))
    if window_bytes > allowed:
        raise DeviceError(
            f"cannot compute a window of {n_tokens} tokens on {kernel.device}: it takes "
            f"{window_bytes / 2**20:,.0f} MiB, and {allowed / 2**20:,.0f} MiB may be used. "
            "Choose a shorter --context."
        )
    useful = (CPU_STATE_BYTES if on_cpu else GPU_STATE_BYTES) // state_bytes
    return max(1, min(allowed // window_bytes, useful))


def _window_cost(
    kernel: Kernel, plans: Sequence[Plan], tokens_BT: Tensor, targets_BS: Tensor, first_output: int
) -> tuple[int, int]:
    """Peak bytes of walking one window, and bytes of its hidden state."""
    batch = kernel.open(tokens_BT.to(kernel.device), targets_BS.to(kernel.device), first_output)
    state = batch.hidden_BTD
    one_path = peak_added_bytes(lambda: batch.nll(batch.block(0, state, False)), kernel.device)
    n_states = max(plan.size for plan in plans) + 2
    return one_path + n_states * state.nbytes, state.nbytes


def nll_sums_within_memory(
    kernel: Kernel,
    plans: Sequence[Plan],
    n_blocks: int,
    tokens_BT: Tensor,
    targets_BS: Tensor,
    first_output: int,
) -> tuple[Tensor, int]:
    """`nll_sums`, halving the batch as often as the device runs out of memory.

    Returns:
        The sums (P, B), and the windows computed at a time: B unless memory ran out.

    Raises:
        DeviceError: if a single window does not fit.
    """
    micro_batch = len(tokens_BT)
    while True:
        sums = _try(kernel, plans, n_blocks, tokens_BT, targets_BS, first_output, micro_batch)
        if sums is not None:
            return sums, micro_batch
        if micro_batch == 1:
            raise DeviceError(
                f"cannot compute a window of {tokens_BT.shape[1]} tokens on {kernel.device}: its "
                "memory is full even for one. Choose a shorter --context or --device cpu."
            )
        torch.cuda.empty_cache()  # here, not in the handler: its traceback holds the tensors
        micro_batch = -(-micro_batch // 2)


def _try(
    kernel: Kernel,
    plans: Sequence[Plan],
    n_blocks: int,
    tokens_BT: Tensor,
    targets_BS: Tensor,
    first_output: int,
    micro_batch: int,
) -> Tensor | None:
    """The sums, computed `micro_batch` windows at a time; None if memory ran out."""
    starts = range(0, len(tokens_BT), micro_batch)
    pieces = [slice(start, start + micro_batch) for start in starts]
    try:
        return torch.cat(
            [
                nll_sums(kernel, plans, n_blocks, tokens_BT[p], targets_BS[p], first_output)
                for p in pieces
            ],
            dim=1,
        )
    except torch.OutOfMemoryError:
        return None
