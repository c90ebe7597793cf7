"""The mixture: what is read in each step, as a function of the step alone.

So a training that was stopped goes on at its place in the text without remembering it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Mixture:
    """A text, of which any stretch may be read, and sequences that are read whole."""

    text_N: np.ndarray
    """Token ids, (N,); may be empty."""
    written_KT: np.ndarray
    """Sequences, read in their order and again; may be none."""
    share: float
    """Of sequences that are written ones."""
    seed: int
    bos: int | None = None
    """Token that each sequence begins with, if not with its own."""

    @cached_property
    def sha256(self) -> str:
        """Hash of all that decides what is read in each step."""
        digest = hashlib.sha256(f"{self.share} {self.seed} {self.bos}".encode())
        for ids in (self.text_N, self.written_KT):
            digest.update(f" {ids.shape} ".encode())
            digest.update(np.ascontiguousarray(ids, dtype="<i4").tobytes())
        return digest.hexdigest()

    def batch(self, step: int, sequences: int, length: int) -> Tensor:
        """What a step reads: token ids, (B, T) int64.

        Args:
            step: which.
            sequences: read in each step.
            length: of each, in tokens.
        """
        first, end = (int(number * sequences * self.share + 1e-9) for number in (step, step + 1))
        rows = [self.written_KT[n % len(self.written_KT)][:length] for n in range(first, end)]
        draw = np.random.default_rng((self.seed, step))
        places = draw.integers(0, max(1, len(self.text_N) - length + 1), sequences - len(rows))
        rows += [self.text_N[at : at + length] for at in places]
        tokens_BT = torch.from_numpy(np.stack(rows).astype(np.int64))
        if self.bos is not None:
            tokens_BT[:, 0] = self.bos
        return tokens_BT
