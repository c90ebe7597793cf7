"""Linear layers and attention on Intel's AMX units: `tiles.cpp`, compiled where it runs.

In bfloat16 oneDNN's products reach about 40 % of what these units can do, and its last steps come
after them. Here the rows of one block of 32 by 32 have their last step (bias, GELU, residual sum,
or the sum of exponentials) while the tiles multiply the next, from products that were never
rounded to 16 bits.

In float32 the units compute too: each number is the sum of three in bfloat16, a product that of six
(Henry, Tang, Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype For
Higher-Precision Computations", 2019). That is as exact as products in float32 are, and faster than
those of the vector units. Not so below 1e-30, where the units take the smallest terms for zero, and
infinite inputs give no number where float32 may give an infinite one.

This is the only door: what `fastest` chooses from. `library` compiles and calls, `layers` are
PyTorch's to call, `proof` says whether they may be used.
"""

from pruning_kit.kernels.amx.layers import (
    HEAD_STEP,
    PIECE,
    AmxAttention,
    AmxEmbedding,
    AmxLinear,
    fits,
)
from pruning_kit.kernels.amx.library import N_TERMS, is_offered
from pruning_kit.kernels.amx.proof import refusal

__all__ = [
    "HEAD_STEP",
    "N_TERMS",
    "PIECE",
    "AmxAttention",
    "AmxEmbedding",
    "AmxLinear",
    "fits",
    "is_offered",
    "refusal",
]
