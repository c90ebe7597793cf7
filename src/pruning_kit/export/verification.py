"""Verification: does a pruned model hold together, in memory and in its folder?

The faults looked for are those that removing blocks makes and that raise no error by themselves:
stale block numbers (the cache then gives wrong tokens), a config of the wrong depth (a reload
then has random blocks), weights that are not the ones that were measured.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from pruning_kit.errors import ModelError, VerificationError
from pruning_kit.export.own_weights import strange_weights
from pruning_kit.export.recipe import RECIPE_FILE, read_recipe
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.checkpoints import Checkpoint, load_checkpoint
from pruning_kit.inputs.models import context_limit
from pruning_kit.pruning.surgery import (
    PER_BLOCK_LISTS,
    block_numbers,
    count_parameters,
    stored_copy,
)

PROBE_TOKENS = 24
"""Tokens read by the teacher-forced checks."""
NEW_TOKENS = 16
"""Tokens that the generation check lets the model write."""
ROUNDED_WEIGHTS = 0.05
"""Share of the logits' spread by which rounding the weights to 16 bits may move them."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was verified."""

    name: str
    passed: bool
    detail: str
    """What was compared, with its numbers."""


def verify_folder(
    folder: Path | str,
    device: torch.device | str = "cpu",
    reference: PreTrainedModel | None = None,
) -> list[Check]:
    """Load a model folder as any user would and check all that can be checked about it.

    If the structure is wrong, the checks end there: what such a model computes says nothing.

    Args:
        folder: a Hugging Face model folder, with or without a recipe.
        device: where to run it, in float32. With a `reference` its device and format are used.
        reference: the model in memory that the folder was written from. Without it the folder is
            loaded twice and must give the same logits both times.

    Raises:
        ModelError: if the folder holds no model that can be loaded.
    """
    name, folder = str(folder), Path(folder)
    if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises for very long names
        raise ModelError(
            f"cannot verify {name!r}: there is no such folder. "
            "Give the folder that pruning-kit prune wrote."
        )
    where, dtype, attention = device, torch.float32, None
    if reference is not None:
        where, dtype = reference.device, reference.dtype
        attention = reference.config._attn_implementation
    checkpoint = load_checkpoint(name, folder, where, dtype, attention)
    model = checkpoint.model
    checks = [_check_weights(checkpoint.missing, checkpoint.unused), *_structure(model)]
    if (folder / RECIPE_FILE).exists():
        checks.append(_check_recipe(folder, checkpoint))
    if not all(check.passed for check in checks):
        return checks
    if reference is None:
        reference = load_checkpoint(name, folder, where, dtype, attention).model
    return [*checks, *_behaviour(model), _check_reload(reference, model)]


def verify_model(model: PreTrainedModel) -> list[Check]:
    """Check a model in memory, and that a folder written from it gives the same logits.

    Cost: the weights are written once to the directory for temporary files.

    Raises:
        ArchitectureError: if the kit cannot drive the model.
    """
    checks = _structure(model)
    if not all(check.passed for check in checks):
        return checks
    with tempfile.TemporaryDirectory() as folder:
        stored_copy(model, model.dtype).save_pretrained(folder)
        attention = model.config._attn_implementation
        reloaded = load_checkpoint(
            "the saved copy", Path(folder), model.device, model.dtype, attention
        ).model
        return [*checks, *_behaviour(model), _check_reload(model, reloaded)]


def require(checks: Sequence[Check], subject: str) -> None:
    """Raise if a check failed.

    Raises:
        VerificationError: naming every check that failed, with its numbers.
    """
    failed = [check for check in checks if not check.passed]
    if failed:
        reasons = "; ".join(f"{check.name}: {check.detail}" for check in failed)
        raise VerificationError(
            f"{subject} fails {len(failed)} of {len(checks)} checks: {reasons}. Do not use it."
        )


def _structure(model: PreTrainedModel) -> list[Check]:
    decoder = Decoder(model)
    return [_check_depth(decoder), _check_numbering(decoder)]


@torch.no_grad()
def _behaviour(model: PreTrainedModel) -> list[Check]:
    return [_check_cache(model), _check_generation(model)]


def _check_weights(missing: list[str], unused: list[str]) -> Check:
    faults = []
    if missing:
        faults.append(f"{_tensors(missing)} of the config not in the files ({missing[0]})")
    if unused:
        faults.append(f"{_tensors(unused)} of the files not in the config ({unused[0]})")
    detail = " and ".join(faults) or "the files hold exactly the tensors the config asks for"
    return Check("weights", not faults, detail)


def _tensors(names: Sequence[str]) -> str:
    return f"{len(names)} tensor{'s' * (len(names) > 1)}"


def _check_depth(decoder: Decoder) -> Check:
    config, n_blocks = decoder.model.config, decoder.n_blocks
    lengths = {"num_hidden_layers": config.num_hidden_layers}
    for name in PER_BLOCK_LISTS:
        values = getattr(config, name, None)
        if isinstance(values, list | tuple):
            lengths[name] = len(values)
    wrong = [f"{name} says {length}" for name, length in lengths.items() if length != n_blocks]
    said = f", but the config's {' and '.join(wrong)}" if wrong else ", as the config says"
    return Check("depth", not wrong, f"the model has {n_blocks} blocks{said}")


def _check_numbering(decoder: Decoder) -> Check:
    stale = [
        f"block {index} holds {name}={number}"
        for index, block in enumerate(decoder.stack)
        for _, name, number in block_numbers([block])
        if number != index
    ]
    detail = f"the blocks are numbered 0 to {decoder.n_blocks - 1}"
    if stale:
        detail = f"{len(stale)} block numbers are stale ({stale[0]})"
    return Check("numbering", not stale, detail)


def _check_recipe(folder: Path, checkpoint: Checkpoint) -> Check:
    """The recipe can be read, agrees with itself, and is about these files."""
    try:
        recipe = read_recipe(folder)
    except ModelError as error:
        return Check("recipe", False, str(error))
    faults = recipe.contradictions()
    model = checkpoint.model
    n_blocks, parameters = Decoder(model).n_blocks, count_parameters(model)
    if len(recipe.kept) != n_blocks:
        faults.append(f"it keeps {len(recipe.kept)} blocks, the model has {n_blocks}")
    if recipe.dtype != checkpoint.stored_dtype:
        faults.append(f"it says {recipe.dtype} weights, the files hold {checkpoint.stored_dtype}")
    if recipe.parameters != parameters:
        faults.append(f"it says {recipe.parameters:,} parameters, the model has {parameters:,}")
    if recipe.weights_sha256 != checkpoint.files.sha256():
        faults.append("config or weights were changed after the recipe was written")
    if not faults:
        faults += strange_weights(recipe, model)
    told = (
        f"{recipe.base} without {recipe.plan.short}: {n_blocks} blocks, {parameters:,} parameters"
    )
    if recipe.bridges is not None:
        told += f", {', '.join(recipe.bridges.gaps)} bridged"
    if recipe.recovery is not None:
        told += f", {len(recipe.recovery.weights)} tensors {recipe.recovery.recovery}"
    return Check("recipe", not faults, "; ".join(faults) or told)


def _check_cache(model: PreTrainedModel) -> Check:
    """Teacher-forced logits, token by token over the cache, against one call without it."""
    tokens = _probe(model)
    plain = _logits(model, tokens)
    prompt = tokens.shape[1] // 2
    step = model(tokens[:, :prompt], use_cache=True)
    pieces = [step.logits]
    for position in range(prompt, tokens.shape[1]):
        token = tokens[:, position : position + 1]
        step = model(token, past_key_values=step.past_key_values, use_cache=True)
        pieces.append(step.logits)
    difference, tolerance = _difference(torch.cat(pieces, dim=1), plain), _tolerance(plain)
    return Check(
        "cache",
        difference <= tolerance,
        f"logits of {tokens.shape[1]} tokens with and without cache differ by {difference:.2g} "
        f"at most (allowed {tolerance:.2g}: rounding)",
    )


def _check_generation(model: PreTrainedModel) -> Check:
    """Each token that cached greedy generation chose is the best one by a call without cache."""
    prompt = _probe(model)[:, : PROBE_TOKENS // 4]
    count = min(NEW_TOKENS, (context_limit(model.config) or 10**9) - prompt.shape[1])
    with _plain_generation(model):
        tokens = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=count,
            use_cache=True,
        )
    chosen = tokens[:, prompt.shape[1] :]
    logits = _logits(model, tokens)[:, prompt.shape[1] - 1 : -1]
    gaps = logits.amax(-1) - logits.gather(-1, chosen[..., None])[..., 0]
    tolerance, worst = _tolerance(logits), gaps.max().item()
    same = int((gaps == 0).sum())
    return Check(
        "generation",
        chosen.shape[1] == count and worst <= tolerance,
        f"{same} of {count} greedy tokens with cache are the best without it, the others "
        f"{worst:.2g} below the best at most (a tie: {tolerance:.2g})"
        if same < count
        else f"all {count} greedy tokens with cache are those without it",
    )


@contextmanager
def _plain_generation(model: PreTrainedModel) -> Iterator[None]:
    """Generate without the checkpoint's own end of text, penalties and sampling."""
    own = model.generation_config
    try:
        model.generation_config = GenerationConfig(pad_token_id=0)
        yield
    finally:
        model.generation_config = own


@torch.no_grad()
def _check_reload(model: PreTrainedModel, reloaded: PreTrainedModel) -> Check:
    """Identical weights must give identical logits; rounded ones, logits that are close."""
    tokens = _probe(model)
    logits, again = _logits(model, tokens), _logits(reloaded, tokens)
    difference = _difference(again, logits)
    if _same_weights(model, reloaded):
        # Bit for bit in float32 on the CPU. Other devices may sum in another order from call to
        # call, and a model cast to 16 bits in memory has cast its rotary tables too.
        exact = model.device.type == "cpu" and model.dtype == torch.float32
        allowed = 0.0 if exact else _tolerance(logits)
        said = "identical weights"
    else:
        allowed = ROUNDED_WEIGHTS * _spread(logits)
        said = "weights rounded or adapted for saving"
    return Check(
        "reload",
        difference <= allowed,
        f"{said}, logits differ by {difference:.2g} at most (allowed {allowed:.2g})",
    )


def _same_weights(model: PreTrainedModel, other: PreTrainedModel) -> bool:
    state, others = model.state_dict(), other.state_dict()
    return state.keys() == others.keys() and all(
        torch.equal(tensor, others[name]) for name, tensor in state.items()
    )


def _probe(model: PreTrainedModel) -> Tensor:
    """Token ids (1, T), drawn with a fixed seed: the checks need any input, but always the same."""
    length = min(PROBE_TOKENS, context_limit(model.config) or PROBE_TOKENS)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.config.vocab_size, (1, length), generator=generator)
    return tokens.to(model.device)


def _logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    return model(tokens, use_cache=False).logits


def _difference(one: Tensor, other: Tensor) -> float:
    return (one.float() - other.float()).abs().max().item()


def _spread(logits: Tensor) -> float:
    """Largest distance of a logit from the mean of its position: a shift of all says nothing."""
    logits = logits.float()
    return (logits - logits.mean(-1, keepdim=True)).abs().max().item()


def _tolerance(logits: Tensor) -> float:
    """What rounding may do to logits computed by matrix products of another shape.

    Such products add the same terms in another order. Measured on GPT-2s in float32 this moves
    logits by some 2e-6 of their spread; stale block numbers move them by as much as the spread.
    """
    return max(1e-4, 16 * torch.finfo(logits.dtype).eps) * _spread(logits)
