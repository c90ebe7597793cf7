"""A model's two ends for the loss: the states before its output embedding, and that embedding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from pruning_kit.errors import ArchitectureError
from pruning_kit.inputs.layers import close

PROBE_TOKENS = 8


@dataclass(frozen=True, eq=False)
class Ends:
    """A causal language model as a body that ends with the final norm, and a linear head."""

    model: PreTrainedModel

    def states(self, tokens_BT: Tensor) -> Tensor:
        """What the output embedding reads, (B, T, D)."""
        states: Tensor = self.model.base_model(tokens_BT, use_cache=False).last_hidden_state
        return states

    @property
    def embedding(self) -> nn.Module:
        """The output embedding."""
        return self.model.get_output_embeddings()

    @property
    def weight(self) -> Tensor:
        """Of the output embedding, (V, D)."""
        weight: Tensor = self.embedding.weight  # type: ignore[assignment]
        return weight

    @property
    def bias(self) -> Tensor | None:
        """Of the output embedding, (V,), if it has one."""
        return getattr(self.embedding, "bias", None)


@torch.no_grad()
def ends_of(model: PreTrainedModel) -> Ends:
    """The two ends of a model.

    Raises:
        ArchitectureError: if something is done to its logits behind the output embedding (a cap, a
            scale), or to the states before it, so that the two do not make up the model.
    """
    ends = Ends(model)
    tokens_BT = torch.arange(PROBE_TOKENS, device=model.device)[None] % model.config.vocab_size
    expected = model(tokens_BT, use_cache=False).logits
    found = F.linear(ends.states(tokens_BT), ends.weight, ends.bias)
    if not close(found.to(expected.dtype), expected):
        raise ArchitectureError(
            f"cannot distil a {model.config.model_type} model: its logits are not what its output "
            "embedding gives. Bridge it, or train the exported folder by other means."
        )
    return ends
