"""A device that has no float64, as Apple's MPS, made of the host: where tensors are is checked.

It goes by the name of another device, `meta`: PyTorch refuses `mps` where it is built without.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

MPS, HOST = torch.device("meta"), torch.device("cpu")
MAY_MIX = ("copy_", "_to_copy", "index", "index_put_")
"""Operations that take tensors of both."""


class OnMps(Tensor):
    """A tensor that says it is on MPS, and computes on the host."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> OnMps:
        if host.dtype == torch.float64:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype: MPS does not support it."
            )
        made = Tensor._make_wrapper_subclass(
            cls, host.shape, strides=host.stride(), dtype=host.dtype, device=MPS
        )
        made.host = host
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return on_both(func, args, kwargs or {})


class Mps(TorchDispatchMode):
    """Within it, what is made on or moved to MPS is there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return on_both(func, args, kwargs or {})


def on_both(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on the host; the result is where it would be."""
    tensors: list[Tensor] = []
    tree_map_only(Tensor, tensors.append, (args, kwargs))
    on_mps = any(isinstance(one, OnMps) for one in tensors)
    target = kwargs.get("device")
    if target is not None:
        on_mps = torch.device(target) == MPS
        kwargs = kwargs | {"device": HOST}
    elif on_mps and func._schema.name.removeprefix("aten::") not in MAY_MIX:
        strangers = [one for one in tensors if not isinstance(one, OnMps) and one.ndim]
        assert not strangers, f"{func} mixes devices"
    hosts = tree_map_only(OnMps, lambda one: one.host, (args, kwargs))
    result = func(*hosts[0], **hosts[1])
    if func._schema.is_mutable and isinstance(result, Tensor):
        return args[0]
    return tree_map_only(Tensor, OnMps, result) if on_mps else result
