"""The reference kernel: the model's own modules, called one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.layers import layer_like, with_submodule
from pruning_kit.plans.paths import Call, plain
from pruning_kit.walk.kernel import Comparison, Form

LOGIT_CHUNK_BYTES = 128 * 2**20


def token_nll(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """NLL in nats of each target, reduced in float32 whatever the dtype of the logits: (N,)."""
    return F.cross_entropy(logits_NV.float(), targets_N, reduction="none")


def divergence(whole: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Divergence of a prediction from the whole model's, and 1 where both agree, from logits."""
    log_p, log_q = whole.float().log_softmax(dim=-1), logits.float().log_softmax(dim=-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
    return kl, (log_p.argmax(dim=-1) == log_q.argmax(dim=-1)).float()


class ReferenceKernel:
    """The model's own modules, called one after the other.

    The head runs on scored positions only. `exact_head` tells that final norm and output
    embedding are all there is to the logits; otherwise the model's own forward ends the walk.
    """

    def __init__(self, decoder: Decoder, exact_head: bool) -> None:
        self.decoder = decoder
        self.exact_head = exact_head
        self.name = "reference" if exact_head else "reference, head by forward"
        self.note = ""
        self.dtype, self.device = decoder.model.dtype, decoder.device
        self.n_blocks = decoder.n_blocks
        self.blocks: Sequence[nn.Module] = decoder.blocks
        self._forms: dict[Call, nn.Module] = {}

    def learn(self, call: Call, form: Form) -> None:
        path = self.decoder.family.projection
        assert path is not None, "families without it have no bridges"
        layer = self._layer(self.decoder.stack[call.block].get_submodule(path), form)
        self._forms[call] = with_submodule(self.blocks[call.block], path, layer)

    def _layer(self, own: nn.Module, form: Form) -> nn.Module:
        """The output projection of a form, to stand in place of the model's own."""
        return layer_like(own, *form)

    def block_of(self, call: Call) -> nn.Module:
        """The module that a call applies."""
        return self.blocks[call.block] if call.is_plain_block else self._forms[call]

    def open(self, tokens_BT: Tensor, targets_BS: Tensor, first_output: int) -> ReferenceBatch:
        return ReferenceBatch(self, tokens_BT, targets_BS, first_output)


class ReferenceBatch:
    """One batch of the reference kernel."""

    def __init__(
        self, kernel: ReferenceKernel, tokens_BT: Tensor, targets_BS: Tensor, first_output: int
    ) -> None:
        self._decoder, self._block_of = kernel.decoder, kernel.block_of
        self._exact_head = kernel.exact_head
        self._tokens_BT = tokens_BT
        self._targets_BS = targets_BS
        self._first_output = first_output
        self._recording = self._decoder.record(tokens_BT)
        self.hidden_BTD = self._recording.hidden_BTD

    def apply(self, call: Call, hidden_BTD: Tensor, last: bool) -> Tensor:
        module = self._block_of(call)
        return self._decoder.run_block(call.block, hidden_BTD, self._recording, module)

    def activations(self, block: int, hidden_BTD: Tensor) -> tuple[Tensor, Tensor]:
        path, call = self._decoder.family.projection, plain(block)
        assert path is not None, "families without it have no bridges"
        seen: list[Tensor] = []
        layer = self._block_of(call).get_submodule(path)
        hook = layer.register_forward_pre_hook(lambda _layer, args: seen.append(args[0]))
        try:
            after_BTD = self.apply(call, hidden_BTD, last=False)
        finally:
            hook.remove()
        return seen[0].view(*hidden_BTD.shape[:2], -1), after_BTD

    def whole(self, hidden: Tensor) -> Tensor:
        return hidden

    def compare(self, hidden: Tensor, whole: Tensor) -> Comparison:
        """From the logits of both, which are computed anew for each path."""
        pieces = []
        for outputs, targets in self._pieces(hidden, 4):
            logits = self._logits(hidden, outputs)
            nll = token_nll(logits.flatten(0, 1), targets.flatten()).view_as(targets)
            pieces.append(Comparison(nll, *divergence(self._logits(whole, outputs), logits)))
        return Comparison(*(torch.cat(values, dim=1) for values in zip(*pieces, strict=True)))

    def logits(self, hidden: Tensor, scored: slice) -> Tensor:
        start, stop, _ = scored.indices(self._targets_BS.shape[1])
        outputs = slice(self._first_output + start, self._first_output + stop)
        return self._logits(hidden, outputs).float()

    def nll(self, hidden: Tensor) -> Tensor:
        pieces = []
        for outputs, targets in self._pieces(hidden):
            logits = self._logits(hidden, outputs)
            pieces.append(token_nll(logits.flatten(0, 1), targets.flatten()).view_as(targets))
        return torch.cat(pieces, dim=1)

    def _pieces(self, hidden: Tensor, n_alive: int = 1) -> Iterator[tuple[slice, Tensor]]:
        """Some outputs and their targets at a time; so many arrays of logits are alive at once."""
        n_scored = self._targets_BS.shape[1]
        per_position = n_alive * len(hidden) * self._decoder.model.config.vocab_size * 4
        step = max(1, LOGIT_CHUNK_BYTES // per_position)
        for start in range(0, n_scored, step):
            stop = min(start + step, n_scored)
            outputs = slice(self._first_output + start, self._first_output + stop)
            yield outputs, self._targets_BS[:, start:stop]

    def _logits(self, hidden_BTD: Tensor, outputs: slice) -> Tensor:
        if self._exact_head:
            return self._decoder.head(hidden_BTD, outputs)
        return self._decoder.head_by_forward(hidden_BTD, self._tokens_BT, outputs)
