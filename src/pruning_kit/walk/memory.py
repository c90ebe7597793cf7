"""Peak memory of a call: the bytes of tensors alive at once.

On an accelerator PyTorch's allocator counts. On the CPU it keeps no count and the process's
resident size tells nothing of one call, so every tensor an operator makes is followed until it
dies; scratch space inside an operator is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def weight_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers, shared storage counted once."""
    tensors = [*model.parameters(), *model.buffers()]
    storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in tensors}
    return sum(tensor.untyped_storage().nbytes() for tensor in storages.values())


def peak_added_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Most bytes alive at once that `call` added to what was alive before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _LiveTensors() as live:
        call()
    return live.peak_bytes


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the storages that operators make while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = 0
        self.peak_bytes = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        known = {_storage_id(leaf) for leaf in tree_leaves((args, kwargs)) if _is_tensor(leaf)}
        out = func(*args, **kwargs)
        for leaf in tree_leaves(out):
            if _is_tensor(leaf) and _storage_id(leaf) not in known | self._seen:
                self._follow(leaf)
        return out

    def _follow(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        size, identity = storage.nbytes(), storage._cdata
        self._seen.add(identity)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._forget, identity, size)

    def _forget(self, identity: int, size: int) -> None:
        self._seen.discard(identity)
        self.live_bytes -= size


def _is_tensor(value: object) -> bool:
    """Whether a value is a tensor with storage of its own; packed oneDNN weights hide theirs."""
    return isinstance(value, torch.Tensor) and not value.is_mkldnn


def _storage_id(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
