"""Estimates: how long a sweep will take, and durations in words."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pruning_kit.machine.devices import device_sync
from pruning_kit.plans.paths import plain
from pruning_kit.walk.kernel import Kernel


@dataclass(frozen=True, slots=True)
class WindowCost:
    """Seconds for one window: a block call, and the head with its log-sum-exp."""

    block_s: float
    head_s: float

    def seconds(self, n_windows: int, block_calls: int, plans: int) -> float:
        """Seconds for a sweep of this many windows, block calls per window and plans."""
        return n_windows * (block_calls * self.block_s + plans * self.head_s)


def measure_cost(
    kernel: Kernel,
    tokens_BT: Tensor,
    targets_BS: Tensor,
    first_output: int,
    clock: Callable[[], float] = time.perf_counter,
) -> WindowCost:
    """Time one block and one head on a batch, the second time each: the first one warms up."""
    batch = kernel.open(tokens_BT.to(kernel.device), targets_BS.to(kernel.device), first_output)
    hidden = batch.hidden_BTD
    sync = device_sync(hidden.device)
    times = []
    for _ in range(2):
        sync()
        start = clock()
        state = batch.apply(plain(0), hidden, False)
        sync()
        middle = clock()
        batch.nll(state).cpu()
        times.append((middle - start, clock() - middle))
    block_s, head_s = times[-1]
    return WindowCost(block_s / len(tokens_BT), head_s / len(tokens_BT))
