"""Muon: momentum whose matrices are made orthogonal, for the weights of blocks.

Keller Jordan et al., Muon: An optimizer for hidden layers in neural networks (2024), with the
scale of Liu et al., Muon is Scalable for LLM Training (2025), by which its rates are those of
AdamW. PyTorch has it one matrix at a time and in bfloat16 alone, which CPUs without bfloat16
emulate; here all matrices of one shape are one batch, in float32 on CPUs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""Of the Newton-Schulz iteration; Jordan et al."""
ITERATIONS = 5
MOMENTUM = 0.95
RMS = 0.2
"""That a step of rate 1 changes each number by, as AdamW's do; Liu et al."""


class Muon(Optimizer):
    """Muon with Nesterov's momentum and no weight decay, for matrices alone."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(list(parameters), {"lr": lr})
        assert all(p.ndim == 2 for group in self.param_groups for p in group["params"])

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step for all matrices that have a gradient."""
        assert closure is None, "steps are not tried twice"
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[tuple(parameter.shape)].append(parameter)
            for shape, parameters in alike.items():
                self._step(parameters, group["lr"] * RMS * math.sqrt(max(shape)))

    def _step(self, parameters: list[Tensor], size: float) -> None:
        """One step for matrices of one shape."""
        directions = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum, gradient = state["momentum"], parameter.grad
            assert gradient is not None
            momentum.lerp_(gradient, 1 - MOMENTUM)
            directions.append(gradient.lerp(momentum, MOMENTUM))
        changes = orthogonal(torch.stack(directions))
        for parameter, change in zip(parameters, changes.unbind(), strict=True):
            parameter.add_(change.to(parameter.dtype), alpha=-size)


def orthogonal(matrices_KRC: Tensor) -> Tensor:
    """Near to U V' of each matrix U S V', its singular values between 0.7 and 1.2."""
    dtype = torch.bfloat16 if matrices_KRC.is_cuda else torch.float32
    tall = matrices_KRC.shape[1] > matrices_KRC.shape[2]
    x = (matrices_KRC.mT if tall else matrices_KRC).to(dtype)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
