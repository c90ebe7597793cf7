"""The adapter: any Hugging Face decoder seen as embed → blocks → norm and head.

No family's forward is copied. The model's own forward runs with every block replaced by a
*recorder*, which returns its input untouched and keeps the arguments the model passed. That costs
no block and yields the embedding and each block's arguments; the blocks are then called with them
in any combination. What differs between families is data: where the stack and the final norm are.

Shapes: B windows, T tokens read, S of them scored, D hidden width, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pruning_kit.errors import ArchitectureError
from pruning_kit.inputs.families import family_of
from pruning_kit.inputs.layers import close, submodule


@dataclass(frozen=True, slots=True)
class BlockCall:
    """What the model passed to one block besides the hidden state."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Recording:
    """The embedding of a batch and the arguments of each block for that batch."""

    hidden_BTD: Tensor
    calls: tuple[BlockCall, ...]


Recorder = Callable[..., Any]


class Decoder:
    """A causal language model as embed → blocks → norm and head. The model is not modified.

    Making one costs nothing and works on the meta device too; the first recording runs two tokens
    through the model to learn what its blocks return.

    Args:
        model: a Hugging Face causal language model; it is put in eval mode.

    Raises:
        ArchitectureError: if the family is unknown or the model lacks the family's parts.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model.eval()
        self.family = family_of(model.config.model_type)
        self.stack = self._find_stack()
        self.norm = submodule(model, self.family.norm) or nn.Identity()
        options = inspect.signature(model.forward).parameters
        self._keeps_logits = "logits_to_keep" in options
        self._options = {"use_cache": False}
        if "output_router_logits" in options:  # the blocks would have to return theirs
            self._options["output_router_logits"] = False

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks now in the stack."""
        return list(self.stack)

    @property
    def n_blocks(self) -> int:
        """Number of blocks now in the stack."""
        return len(self.stack)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    def _find_stack(self) -> nn.ModuleList:
        stack = submodule(self.model, self.family.stack)
        if stack is None or self.model.get_output_embeddings() is None:
            kind, name = self.model.config.model_type, type(self.model).__name__
            part = self.family.stack if stack is None else "output embedding"
            raise ArchitectureError(
                f"cannot drive a {kind} model of class {name}: it has no {part}. "
                "Load a causal language model, such as with AutoModelForCausalLM."
            )
        assert isinstance(stack, nn.ModuleList), f"{self.family.stack} is no ModuleList"
        return stack

    @torch.no_grad()
    def record(self, tokens_BT: Tensor) -> Recording:
        """Embed a batch and learn each block's arguments, running no block."""
        order: list[int] = []
        calls: list[BlockCall] = []
        states: list[Tensor] = []

        def recorder(index: int, *args: Any, **kwargs: Any) -> Any:
            hidden, args, kwargs = _split_hidden(args, kwargs)
            order.append(index)
            calls.append(BlockCall(args, kwargs))
            states.append(hidden)
            return self._wrap(hidden)

        with self._recorders(recorder):
            self._forward(tokens_BT, keep=torch.zeros(1, dtype=torch.long, device=self.device))
        self._check_called_once(order)
        return Recording(states[0], tuple(calls))

    @torch.no_grad()
    def run_block(
        self,
        index: int,
        hidden_BTD: Tensor,
        recording: Recording,
        block: nn.Module | None = None,
    ) -> Tensor:
        """Apply one block to a hidden state, with the arguments the model passed.

        Args:
            index: which block.
            hidden_BTD: the state.
            recording: of the batch.
            block: is applied in its place, if given.
        """
        call = recording.calls[index]
        out = (self.stack[index] if block is None else block)(hidden_BTD, *call.args, **call.kwargs)
        return out[0] if self._returns_tuple else out

    @torch.no_grad()
    def head(self, hidden_BTD: Tensor, outputs: slice) -> Tensor:
        """Final norm and output embedding at the positions `outputs`: the fast tail.

        Families that scale or cap their logits need `head_by_forward`; `head_is_exact` tells.
        """
        return self.model.get_output_embeddings()(self.norm(hidden_BTD[:, outputs]))

    @torch.no_grad()
    def head_by_forward(self, hidden_BTD: Tensor, tokens_BT: Tensor, outputs: slice) -> Tensor:
        """Logits at `outputs` by the model's own forward, the state injected after the last block.

        The reference tail: it has whatever the family does to its logits. Shape (B, S, V).
        """
        last = self.n_blocks - 1

        def recorder(index: int, *args: Any, **kwargs: Any) -> Any:
            hidden, _, _ = _split_hidden(args, kwargs)
            return self._wrap(hidden_BTD if index == last else hidden)

        with self._recorders(recorder):
            positions = torch.arange(tokens_BT.shape[1], device=self.device)[outputs]
            return self._forward(tokens_BT, keep=positions)

    @torch.no_grad()
    def head_is_exact(self, tokens_BT: Tensor, outputs: slice) -> bool:
        """Whether the fast tail is all that this model does to its last hidden state.

        True if the logits are, bit for bit, what the output embedding returned (so nothing scales
        or caps them, however little it shows on this batch), and if that module was given the
        final norm of the last state, to rounding (so nothing projects or scales in between).
        """
        hidden_BTD = self.record(tokens_BT).hidden_BTD
        seen: list[tuple[Tensor, Tensor]] = []
        embedding = self.model.get_output_embeddings()
        hook = embedding.register_forward_hook(lambda _m, args, out: seen.append((args[0], out)))
        try:
            logits = self.head_by_forward(hidden_BTD, tokens_BT, outputs)
        finally:
            hook.remove()
        [(given, returned)] = seen
        untouched = torch.equal(returned[:, -logits.shape[1] :].to(logits.dtype), logits)
        normed = self.norm(hidden_BTD[:, outputs])
        return untouched and close(given[:, -logits.shape[1] :], normed)

    @torch.no_grad()
    def sees_the_future(self, length: int) -> bool:
        """Whether logits depend on later tokens: two calls that differ in the last one tell.

        No setting of a config is believed: there are several, and not every family reads them.
        """
        tokens_BT = torch.arange(length, device=self.device)[None] % self.model.config.vocab_size
        changed_BT = tokens_BT.clone()
        changed_BT[:, -1] = (changed_BT[:, -1] + 1) % self.model.config.vocab_size
        earlier = torch.arange(length - 1, device=self.device)
        logits, again = (self._forward(ids, earlier) for ids in (tokens_BT, changed_BT))
        return not close(again.nan_to_num(), logits.nan_to_num())

    def _forward(self, tokens_BT: Tensor, keep: Tensor) -> Tensor:
        """The model's own forward without cache; logits at the positions `keep`."""
        if self._keeps_logits:
            return self.model(tokens_BT, logits_to_keep=keep, **self._options).logits
        return self.model(tokens_BT, **self._options).logits[:, keep]

    def _wrap(self, hidden: Tensor) -> Any:
        """The hidden state as this family's blocks return it."""
        return (hidden,) if self._returns_tuple else hidden

    @contextmanager
    def _recorders(self, recorder: Recorder) -> Iterator[None]:
        """Let `recorder(index, *args, **kwargs)` stand in for every block's forward."""
        _ = self._returns_tuple  # learnt from real blocks, before the recorders stand in
        # A library that places weights may have put its own forward on the instance.
        own = [block.__dict__.get("forward") for block in self.stack]
        try:
            for index, block in enumerate(self.stack):
                block.forward = _bind(recorder, index)
            yield
        finally:
            for block, forward in zip(self.stack, own, strict=True):
                block.__dict__.pop("forward", None)
                if forward is not None:
                    block.forward = forward

    @cached_property
    def _returns_tuple(self) -> bool:
        """Whether the blocks return tuples: two tokens through the whole model tell."""
        order: list[int] = []
        kinds: set[bool] = set()

        def observe(index: int, out: Any) -> None:
            order.append(index)
            kinds.add(isinstance(out, tuple))

        hooks = [
            block.register_forward_hook(lambda _m, _i, out, index=index: observe(index, out))
            for index, block in enumerate(self.stack)
        ]
        try:
            with torch.no_grad():
                tokens = torch.zeros((1, 2), dtype=torch.long, device=self.device)
                self.model(tokens, **self._options)
        finally:
            for hook in hooks:
                hook.remove()
        self._check_called_once(order)
        assert len(kinds) == 1, "blocks of one stack return one type"
        return kinds.pop()

    def _check_called_once(self, order: Sequence[int]) -> None:
        if list(order) != list(range(self.n_blocks)):
            raise ArchitectureError(
                f"cannot drive this {self.model.config.model_type} model: its forward called the "
                f"blocks {list(order)}, not each of 0 to {self.n_blocks - 1} once and in order. "
                "See docs/architectures.md."
            )


def _bind(recorder: Recorder, index: int) -> Recorder:
    return lambda *args, **kwargs: recorder(index, *args, **kwargs)


def _split_hidden(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """Part the hidden state, positional or by name, from a block's other arguments."""
    if args:
        return args[0], args[1:], kwargs
    others = dict(kwargs)
    return others.pop("hidden_states"), args, others
