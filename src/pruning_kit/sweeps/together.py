"""Together: processes that train one model, each on a device of its own."""

from __future__ import annotations

import atexit

import torch
import torch.distributed as dist
from torch import Tensor

from pruning_kit.runs.ranks import Ranks


class Distributed:
    """The processes that torchrun started; they are joined when they first train.

    Args:
        ranks: the processes of the run.
        device: on which this one trains.
    """

    def __init__(self, ranks: Ranks, device: torch.device) -> None:
        self.rank, self.size = ranks.rank, ranks.size
        self._ranks, self._device = ranks, device

    def add_up(self, tensors: list[Tensor]) -> None:
        """Replace tensors by their sums over all processes: one exchange of one buffer."""
        self._join()
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        sizes = [tensor.numel() for tensor in tensors]
        for tensor, summed in zip(tensors, torch.split(flat, sizes), strict=True):
            tensor.copy_(summed.view_as(tensor))

    def sum_of(self, value: float) -> float:
        """The sum of a number over all processes, the same to the bit in each."""
        self._join()
        total = torch.tensor([value], dtype=torch.float64, device=self._device)
        dist.all_reduce(total)
        return total.item()

    def first(self, value: float) -> float:
        """The number that the first process has."""
        return self.sum_of(value if self.rank == 0 else 0.0)

    def wait(self) -> None:
        """Return when every process has called this."""
        self._join()
        flag = torch.zeros(1, device=self._device)
        dist.all_reduce(flag)
        flag.item()

    def _join(self) -> None:
        if not dist.is_initialized():
            backend = "nccl" if self._device.type == "cuda" else "gloo"
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)
            store = dist.PrefixStore("training", self._ranks.store)  # type: ignore[attr-defined,arg-type]
            dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size)
            atexit.register(dist.destroy_process_group)
