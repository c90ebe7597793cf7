"""Train the embedded demo model: a 6-block GPT-2 that learns from a larger one.

    python -m training.train_demo --corpus FOLDER --out FOLDER

FOLDER of the corpus holds ``train.txt`` or ``train.txt.xz``, ``calibration.txt`` and
``heldout.txt``; training/README.md says which books they are. Stages, each skipped where its
output exists already in the out folder:

1. the tokenizer, trained on the training text (``tokenizer.json``);
2. a teacher GPT-2, too large to ship, trained on the same text (``teacher/``);
3. the teacher's most probable next tokens at each position of the training text (in memory);
4. the student, trained towards the text and the teacher at once (``model.safetensors``, float16);
5. the evaluation of the stored weights in float32.

Shape legend: B windows of a batch, T positions of a window, D width, H heads, V vocabulary,
K teacher candidates per position, N tokens of the training text.
"""

from __future__ import annotations

import argparse
import lzma
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from training.evaluate import score_folder
from training.tokenizer import encode_documents, save_tokenizer, train_tokenizer


@dataclass(frozen=True)
class Recipe:
    """One model's shape and how it is trained."""

    width: int
    """Hidden size D."""
    blocks: int
    """Number of transformer blocks."""
    heads: int
    """Attention heads H; they divide the width."""
    steps: int
    """Optimiser steps."""
    lr: float
    """Peak learning rate of Muon; AdamW has ``ADAMW_SHARE`` of it."""
    weight_decay: float
    """Decoupled weight decay of all matrices, the embeddings included."""
    dropout: float
    """Dropout probability on the embeddings and on what each sublayer adds to the residual."""
    teacher_weight: float = 0.0
    """Weight of the teacher's distribution in the loss; the text has the rest."""
    batch: int = 64
    """Windows B per step."""
    seed: int = 0
    """Seed of the initial weights, the dropout and the order of the windows."""


VOCABULARY = 6144
CONTEXT = 512
CANDIDATES = 128
ADAMW_SHARE = 0.5
WARMUP_STEPS = 200
TEACHER = Recipe(640, 8, 10, steps=2250, lr=2.5e-3, weight_decay=0.1, dropout=0.15)
STUDENT = Recipe(288, 6, 6, steps=3750, lr=6e-3, weight_decay=0.03, dropout=0.0, teacher_weight=0.9)


# --- the model, as a function of Hugging Face's parameters ------------------------------------


def build(recipe: Recipe) -> GPT2LMHeadModel:
    """A freshly initialised GPT-2 in float32; its own dropout is off, `residual` has ours."""
    torch.manual_seed(recipe.seed)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=recipe.width,
        n_layer=recipe.blocks,
        n_head=recipe.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=VOCABULARY - 1,
        eos_token_id=VOCABULARY - 1,
    )
    return GPT2LMHeadModel(config)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GPT-2's Conv1D, ``x @ weight + bias``, in the type of ``x``."""
    return x @ weight.to(x.dtype) + bias.to(x.dtype)


def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Layer norm over the width in float32, returned in the type of ``x``."""
    return F.layer_norm(x.float(), weight.shape, weight, bias, 1e-5).to(x.dtype)


def block_forward(x_BTD: Tensor, parameters: list[Tensor], heads: int, dropout: float) -> Tensor:
    """One GPT-2 block with its twelve parameters in Hugging Face's order."""
    ln1_w, ln1_b, qkv_w, qkv_b, out_w, out_b, ln2_w, ln2_b, up_w, up_b, down_w, down_b = parameters
    B, T, D = x_BTD.shape
    qkv = linear(norm(x_BTD, ln1_w, ln1_b), qkv_w, qkv_b).view(B, T, 3, heads, D // heads)
    q_BHTd, k_BHTd, v_BHTd = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    mixed = F.scaled_dot_product_attention(q_BHTd, k_BHTd, v_BHTd, is_causal=True)
    attended = linear(mixed.transpose(1, 2).reshape(B, T, D), out_w, out_b)
    x_BTD = x_BTD + F.dropout(attended, dropout)
    hidden = F.gelu(linear(norm(x_BTD, ln2_w, ln2_b), up_w, up_b), approximate="tanh")
    return x_BTD + F.dropout(linear(hidden, down_w, down_b), dropout)


compiled_block = torch.compile(block_forward, dynamic=False)


def residual(model: GPT2LMHeadModel, tokens_BT: Tensor, dropout: float) -> Tensor:
    """The residual stream after the last block, before the final norm; bfloat16 on a GPU.

    Equal to the model's own forward pass, with two changes for speed: one block is compiled and
    serves all, and dropout leaves the attention weights alone, so that they are never stored.
    """
    transformer = model.transformer
    dtype = torch.bfloat16 if tokens_BT.is_cuda else torch.float32
    run_block = compiled_block if tokens_BT.is_cuda else block_forward
    embedded = transformer.wte(tokens_BT) + transformer.wpe.weight[: tokens_BT.shape[1]]
    x_BTD = F.dropout(embedded.to(dtype), dropout)
    for block in transformer.h:
        x_BTD = run_block(x_BTD, list(block.parameters()), model.config.n_head, dropout)
    return x_BTD


def head(x_BTD: Tensor, norm_w: Tensor, norm_b: Tensor, wte_VD: Tensor) -> Tensor:
    """Logits in float32, shape (B, T, V), from the residual stream."""
    return (norm(x_BTD, norm_w, norm_b) @ wte_VD.to(x_BTD.dtype).T).float()


# --- the losses -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labels:
    """The teacher's K most probable tokens for each position of the training text."""

    ids_NK: Tensor
    """Token ids, int16."""
    probabilities_NK: Tensor
    """Their probabilities, float16; what is missing to 1 belongs to all other tokens."""


def text_loss(
    x_BTD: Tensor, norm_w: Tensor, norm_b: Tensor, wte_VD: Tensor, targets_BT: Tensor
) -> Tensor:
    """Mean NLL of the text in nats per token."""
    logits_BTV = head(x_BTD, norm_w, norm_b, wte_VD)
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())


def mixed_loss(
    x_BTD: Tensor,
    norm_w: Tensor,
    norm_b: Tensor,
    wte_VD: Tensor,
    targets_BT: Tensor,
    ids_BTK: Tensor,
    probabilities_BTK: Tensor,
    teacher_weight: Tensor,
) -> Tensor:
    """Cross-entropy in nats per token against the text and the teacher, weighted.

    The teacher's part compares K + 1 outcomes: its K candidates and *any other token*. No
    temperature. Source: Hinton et al. (2015) for soft targets.
    """
    logits_BTV = head(x_BTD, norm_w, norm_b, wte_VD)
    log_total_BT1 = logits_BTV.logsumexp(-1, keepdim=True)
    text_BT1 = log_total_BT1 - logits_BTV.gather(-1, targets_BT.unsqueeze(-1))
    log_q_BTK = logits_BTV.gather(-1, ids_BTK.long()) - log_total_BT1
    p_BTK = probabilities_BTK.float()
    other_p_BT = (1 - p_BTK.sum(-1)).clamp(min=0)
    other_q_BT = (1 - log_q_BTK.exp().sum(-1)).clamp(min=1e-6)
    teacher_BT = -(p_BTK * log_q_BTK).sum(-1) - other_p_BT * other_q_BT.log()
    return teacher_weight * teacher_BT.mean() + (1 - teacher_weight) * text_BT1.mean()


compiled_text_loss = torch.compile(text_loss, dynamic=False)
compiled_mixed_loss = torch.compile(mixed_loss, dynamic=False)


# --- the optimiser ----------------------------------------------------------------------------


def orthogonalise(matrices: Tensor) -> Tensor:
    """Bring the singular values of each matrix, shape (M, R, C) with R <= C, near 1.

    Five Newton-Schulz steps in bfloat16. Source: Jordan et al. (2024), Muon, coefficients too.
    """
    x = matrices.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.float()


compiled_orthogonalise = torch.compile(orthogonalise, dynamic=False)


class Muon:
    """Momentum with orthogonalised updates, for the matrices inside the blocks.

    The joint query-key-value matrix counts as three. Matrices of one shape are updated together.
    Updates are scaled to a root mean square of 0.2, about AdamW's, so that one learning rate
    and one weight decay mean the same in both. Source: Liu et al. (2025), Moonlight.
    """

    def __init__(self, model: GPT2LMHeadModel, weight_decay: float, momentum: float = 0.95):
        self.weight_decay, self.momentum = weight_decay, momentum
        square, wide = [], []
        for block in model.transformer.h:
            square += [(block.attn.c_attn.weight, part) for part in range(3)]
            square += [(block.attn.c_proj.weight, 0)]
            wide += [(block.mlp.c_fc.weight, 0), (block.mlp.c_proj.weight, 0)]
        self.groups = [square, wide]
        self.averages: list[Tensor | None] = [None, None]

    @staticmethod
    def view(tensor: Tensor, part: int) -> Tensor:
        """The matrix that an entry names, as a view with no more rows than columns."""
        rows, columns = tensor.shape
        if columns == 3 * rows:
            return tensor[:, part * rows : (part + 1) * rows]
        return tensor.mT if rows > columns else tensor

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update all matrices from their gradients."""
        for index, group in enumerate(self.groups):
            gradients = torch.stack([self.view(weight.grad, part) for weight, part in group])
            average = self.averages[index]
            average = torch.zeros_like(gradients) if average is None else average
            average = average.lerp_(gradients, 1 - self.momentum)
            self.averages[index] = average
            ahead = gradients.lerp(average, self.momentum)
            on_gpu = gradients.is_cuda
            update = compiled_orthogonalise(ahead) if on_gpu else orthogonalise(ahead)
            weights = [self.view(weight.data, part) for weight, part in group]
            torch._foreach_mul_(weights, 1 - lr * self.weight_decay)
            scale = 0.2 * math.sqrt(gradients.shape[-1])
            torch._foreach_add_(weights, list(update.unbind(0)), alpha=-lr * scale)


def build_adamw(model: GPT2LMHeadModel, weight_decay: float, on_gpu: bool) -> torch.optim.AdamW:
    """AdamW for the embeddings (decayed), the norms and the biases (not decayed)."""
    embeddings = [model.transformer.wte.weight, model.transformer.wpe.weight]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [
        {"params": embeddings, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=on_gpu)


# --- training ---------------------------------------------------------------------------------


def window_starts(token_count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield batches of window starts, shape (B,), for ever.

    Each epoch cuts the text into disjoint windows at a new offset and shuffles them.
    """
    while True:
        offset = int(torch.randint(CONTEXT, (1,), generator=generator))
        starts = torch.arange(offset, token_count - CONTEXT, CONTEXT)
        starts = starts[torch.randperm(len(starts), generator=generator)]
        yield from (part for part in torch.split(starts, batch) if len(part) == batch)


def lr_factor(step: int, steps: int) -> float:
    """Share of the peak learning rate: linear warm-up, then linear to zero."""
    return min((step + 1) / WARMUP_STEPS, (steps - step) / max(1, steps - WARMUP_STEPS), 1.0)


def train(
    model: GPT2LMHeadModel,
    tokens_N: Tensor,
    recipe: Recipe,
    labels: Labels | None = None,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train ``model`` in place, on the device where it and the tokens are.

    Args:
        model: from `build`, float32.
        tokens_N: the training text, shape (N,), int64.
        recipe: the steps, the learning rate and so on.
        labels: the teacher's candidates, needed if ``recipe.teacher_weight`` is not zero.
        progress: called every 250 steps with the steps done and the loss in nats per token.
    """
    device = tokens_N.device
    generator = torch.Generator().manual_seed(recipe.seed)
    starts = window_starts(len(tokens_N), recipe.batch, generator)
    muon = Muon(model, recipe.weight_decay)
    adamw = build_adamw(model, recipe.weight_decay, tokens_N.is_cuda)
    positions = torch.arange(CONTEXT + 1, device=device)
    teacher_weight = torch.tensor(recipe.teacher_weight, device=device)
    final_norm, wte = model.transformer.ln_f, model.transformer.wte
    for step in range(recipe.steps):
        index_BT = next(starts).to(device, non_blocking=True).unsqueeze(1) + positions
        window_BT, target_index_BT = tokens_N[index_BT], index_BT[:, 1:]
        x_BTD = residual(model, window_BT[:, :-1], recipe.dropout)
        inputs = (x_BTD, final_norm.weight, final_norm.bias, wte.weight, window_BT[:, 1:])
        if labels is None:
            loss = (compiled_text_loss if x_BTD.is_cuda else text_loss)(*inputs)
        else:
            ids_BTK = labels.ids_NK[target_index_BT]
            probabilities_BTK = labels.probabilities_NK[target_index_BT]
            function = compiled_mixed_loss if x_BTD.is_cuda else mixed_loss
            loss = function(*inputs, ids_BTK, probabilities_BTK, teacher_weight)
        model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        lr = recipe.lr * lr_factor(step, recipe.steps)
        for group in adamw.param_groups:
            group["lr"] = lr * ADAMW_SHARE
        adamw.step()
        muon.step(lr)
        if (step + 1) % 250 == 0:
            progress(step + 1, loss.item())


@torch.no_grad()
def label(teacher: GPT2LMHeadModel, tokens_N: Tensor, batch: int = 64) -> Labels:
    """The teacher's candidates at each position, from windows that overlap by half.

    So each token but the first few is predicted from at least ``CONTEXT / 2`` tokens before it.
    Memory: 4 K bytes per token.
    """
    device, half = tokens_N.device, CONTEXT // 2
    ids_NK = torch.zeros(len(tokens_N), CANDIDATES, dtype=torch.int16, device=device)
    probabilities_NK = torch.zeros_like(ids_NK, dtype=torch.float16)
    final_norm, wte = teacher.transformer.ln_f, teacher.transformer.wte
    positions = torch.arange(CONTEXT, device=device)
    last_start = len(tokens_N) - CONTEXT
    starts_W = torch.tensor([*range(0, last_start, half), last_start])
    batch = min(batch, len(starts_W))
    firsts = [*range(0, len(starts_W) - batch, batch), len(starts_W) - batch]
    for first in firsts:
        index_BT = starts_W[first : first + batch, None].to(device) + positions
        x_BTD = residual(teacher, tokens_N[index_BT], 0.0)
        for rows, scored in ((slice(0, 1), 1), (slice(None), half)):
            if scored == 1 and first > 0:
                continue
            x_part = x_BTD[rows, scored - 1 : -1]
            logits_BTV = head(x_part, final_norm.weight, final_norm.bias, wte.weight)
            best = logits_BTV.softmax(-1).topk(CANDIDATES, -1, sorted=False)
            ids_NK[index_BT[rows, scored:]] = best.indices.to(torch.int16)
            probabilities_NK[index_BT[rows, scored:]] = best.values.to(torch.float16)
    return Labels(ids_NK, probabilities_NK)


@torch.no_grad()
def quick_nll(model: GPT2LMHeadModel, tokens_N: Tensor) -> float:
    """Mean NLL in nats over disjoint windows of ``tokens_N``; to watch the training, no more."""
    windows_NT = tokens_N[: len(tokens_N) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    total = 0.0
    with torch.autocast(tokens_N.device.type, torch.bfloat16, enabled=tokens_N.is_cuda):
        for window_BT in torch.split(windows_NT, 64):
            logits_BTV = model(window_BT).logits[:, :-1].float()
            targets = window_BT[:, 1:].flatten()
            total += F.cross_entropy(logits_BTV.flatten(0, 1), targets, reduction="sum").item()
    return total / (len(windows_NT) * (CONTEXT - 1))


# --- the stages -------------------------------------------------------------------------------


def read_text(path: Path) -> str:
    """The text of ``path``, or of ``path`` with ``.xz`` appended, line ends as stored."""
    if path.exists():
        return path.read_bytes().decode("utf-8")
    return lzma.decompress(path.with_name(path.name + ".xz").read_bytes()).decode("utf-8")


def prepare_tokens(corpus: Path, out: Path) -> NDArray[np.uint16]:
    """Train the tokenizer if ``out`` has none, and encode the training text, shape (N,)."""
    text = read_text(corpus / "train.txt")
    if not (out / "tokenizer.json").exists():
        save_tokenizer(train_tokenizer(text, VOCABULARY), out, CONTEXT)
    return encode_documents(Tokenizer.from_file(str(out / "tokenizer.json")), text)


def train_logged(
    name: str,
    recipe: Recipe,
    tokens_N: Tensor,
    calibration_N: Tensor,
    labels: Labels | None = None,
) -> GPT2LMHeadModel:
    """Build and train a model, printing the loss and the calibration NLL as it goes."""
    model = build(recipe).to(tokens_N.device)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{name}: {count:,} parameters, {recipe}", flush=True)
    begin = time.perf_counter()

    def progress(step: int, loss: float) -> None:
        nll = quick_nll(model, calibration_N)
        elapsed_s = time.perf_counter() - begin
        print(
            f"{name}: step {step}, {elapsed_s:.0f} s, loss {loss:.3f}, "
            f"calibration {nll:.4f} nats per token",
            flush=True,
        )

    train(model, tokens_N, recipe, labels, progress)
    return model


def main() -> None:
    """Run the stages whose output is not there yet, then evaluate the stored model."""
    parser = argparse.ArgumentParser(description="Train the embedded demo model.")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    corpus, out, device = arguments.corpus, arguments.out, arguments.device

    torch.set_float32_matmul_precision("high")
    tokens_N = torch.from_numpy(prepare_tokens(corpus, out).astype(np.int64)).to(device)
    print(f"{len(tokens_N):,} training tokens", flush=True)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    calibration = tokenizer.encode(read_text(corpus / "calibration.txt")).ids
    calibration_N = torch.tensor(calibration, device=device)

    if not (out / "teacher" / "model.safetensors").exists():
        teacher = train_logged("teacher", TEACHER, tokens_N, calibration_N)
        teacher.save_pretrained(out / "teacher")
    if not (out / "model.safetensors").exists():
        teacher = GPT2LMHeadModel.from_pretrained(out / "teacher", dtype=torch.float32)
        labels = label(teacher.to(device), tokens_N)
        student = train_logged("student", STUDENT, tokens_N, calibration_N, labels)
        student.half().save_pretrained(out)

    torch.set_float32_matmul_precision("highest")
    for name in ("calibration.txt", "heldout.txt"):
        text = read_text(corpus / name)
        result = score_folder(out, text, device)
        bits = result.bits_per_byte(len(text.encode("utf-8")))
        print(f"{name}: perplexity {result.perplexity:.3f}, {bits:.4f} bits per byte")


if __name__ == "__main__":
    main()
