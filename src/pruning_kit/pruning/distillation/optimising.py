"""Optimising: which optimiser has which weights, and their state by name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from pruning_kit.pruning.distillation.muon import Muon
from pruning_kit.pruning.distillation.schedule import Schedule

LARGEST_NORM = 1.0
"""Of all gradients together; longer ones are cut."""


class Optimising:
    """The weights of a model that are trained, each by its optimiser.

    Args:
        model: whose weights need gradients where they are to be trained.
        stack: its blocks; their matrices are Muon's, all else is AdamW's.
        schedule: rates.
        adapters: whether low-rank adapters are trained, which are AdamW's.
    """

    def __init__(
        self, model: nn.Module, stack: nn.Module, schedule: Schedule, adapters: bool = False
    ) -> None:
        self.weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
        in_blocks = {id(p) for p in stack.parameters() if p.ndim == 2}
        matrices = [p for p in self.weights.values() if id(p) in in_blocks and not adapters]
        others = [p for p in self.weights.values() if id(p) not in in_blocks or adapters]
        self._schedule = schedule
        other_rate = schedule.matrix_rate if adapters else schedule.other_rate
        self._optimisers: list[tuple[Optimizer, float]] = []
        if matrices:
            muon = Muon(matrices, schedule.matrix_rate)
            self._optimisers.append((muon, schedule.matrix_rate))
        if others:
            adam = AdamW(others, other_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
            self._optimisers.append((adam, other_rate))

    def step(self, number: int) -> None:
        """One step by the gradients there are, which are gone then."""
        nn.utils.clip_grad_norm_(list(self.weights.values()), LARGEST_NORM)
        for optimiser, rate in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * self._schedule.factor(number)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def drop_gradients(self) -> None:
        """Forget the gradients there are."""
        for optimiser, _ in self._optimisers:
            optimiser.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """What the optimisers remember: `momentum of WEIGHT` and so on; copies on the host."""
        return {
            f"{what} of {name}": value.detach().to("cpu", copy=True)
            for name, remembered in self._remembered()
            for what, value in remembered.items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take in what `state` gave."""
        by_weight: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for key, value in state.items():
            what, name = key.split(" of ")
            by_weight[name][what] = value
        names = {id(p): name for name, p in self.weights.items()}
        for optimiser, _ in self._optimisers:
            for group in optimiser.param_groups:
                for parameter in group["params"]:
                    optimiser.state[parameter] = {
                        what: value.to(parameter.device, copy=True)
                        for what, value in by_weight[names[id(parameter)]].items()
                    }

    def _remembered(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        names = {id(p): name for name, p in self.weights.items()}
        for optimiser, _ in self._optimisers:
            for parameter, remembered in optimiser.state.items():
                yield names[id(parameter)], remembered
