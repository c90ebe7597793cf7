"""Kernels: ways to compute a walk. `choose_kernel` picks the fastest one that proves itself.

    fastest   the one place where a kernel is chosen, on a probe against the reference
    gpt2      GPT-2 written out as functions, on CPUs and GPUs
    attention GPT-2's attention: PyTorch's, or products of some queries at a time on CPUs
    amx       linear layers, sums of exponentials and attention on Intel's AMX units
    generic   any other family: the model's own blocks with faster linear layers and head
    linear    linear layers: oneDNN with packed weights, or PyTorch's
    head      output embedding and log-sum-exp in pieces
    fused     the same by Triton's `programs`, for NVIDIA GPUs

The plain reference of them all is `walk.reference.ReferenceKernel`.
"""

from pruning_kit.kernels.fastest import choose_kernel

__all__ = ["choose_kernel"]
