"""Peak memory of a call: the bytes of tensors alive at once.

On an accelerator PyTorch's allocator counts. On the CPU it keeps no count and the process's
resident size tells nothing of one call, so every tensor an operator makes is followed until it
dies; scratch space inside an operator is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
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


def free_bytes(device: torch.device) -> int:
    """Memory that a computation on this device may still take."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min([psutil.virtual_memory().available, *control_group_room()])


def control_group_room(
    root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")
) -> list[int]:
    """Bytes left under each memory limit set for this process, from its group up to the root."""
    membership = proc / "self" / "cgroup"
    if not membership.exists():
        return []
    rooms = []
    for line in membership.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            rooms += _rooms(root, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            rooms += _rooms(root / "memory", path, *names)
    return rooms


def _rooms(root: Path, path: str, limit: str, usage: str, reclaimable: str) -> list[int]:
    """Room under the limits of a group and its ancestors; file pages can be given back."""
    inner = root / path.lstrip("/")
    rooms = []
    for folder in [inner, *inner.parents]:
        if not folder.is_relative_to(root):
            break
        limit_text = _read(folder / limit)
        if limit_text.isdigit():
            used = int(_read(folder / usage) or 0) - _stat(folder, reclaimable)
            rooms.append(max(0, int(limit_text) - used))
    return rooms


def _stat(folder: Path, name: str) -> int:
    fields = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
    return int(fields.get(name, 0))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
