"""Export: write a pruned model as an ordinary Hugging Face folder, whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from huggingface_hub import metadata_load
from msgspec import structs
from safetensors import SafetensorError
from transformers import PreTrainedModel

from pruning_kit.errors import ExportError, PlanError, first_line
from pruning_kit.export.recipe import (
    CARD_FILE,
    BridgesRecipe,
    FittingText,
    GapRecipe,
    Number,
    Recipe,
    RecoveryRecipe,
    write_card,
    write_recipe,
)
from pruning_kit.export.verification import Check, require, verify_folder
from pruning_kit.export.written import check_written, is_written
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.models import LoadedModel
from pruning_kit.inputs.texts import PreparedText
from pruning_kit.inputs.weights import DTYPES, weights_hash
from pruning_kit.machine.devices import dtype_name
from pruning_kit.machine.versions import now, versions
from pruning_kit.plans.plan import Plan
from pruning_kit.pruning.bridges.bridging import Bridges
from pruning_kit.pruning.bridges.folding import folded, form_sha256, rounded
from pruning_kit.pruning.recovered import Recovered
from pruning_kit.pruning.surgery import (
    count_parameters,
    predicted_parameters,
    recut,
    standalone,
    stored_copy,
)

SPARE_BYTES = 16 * 2**20
"""Room for tokenizer, card and recipe next to the weights."""


def export(
    loaded: LoadedModel,
    plan: Plan,
    folder: Path | str,
    numbers: Mapping[str, Number] | None = None,
    command: str | None = None,
    bridges: Bridges | None = None,
    recovered: Recovered | None = None,
    save_dtype: str | None = None,
    goes_on: bool = False,
) -> list[Check]:
    """Cut the plan's blocks out, verify the result and save it with tokenizer, card and recipe.

    The folder appears when all of it is written and every check has passed. `loaded` keeps all its
    blocks.

    Args:
        loaded: the base model.
        plan: the blocks to remove.
        folder: a folder that does not exist yet, or an empty one.
        numbers: what was measured, by the names to show in the card.
        command: what the user typed, for card and recipe.
        bridges: those of the plan, to be folded into the blocks before its gaps.
        recovered: the plan's model with weights of its own, made from the bridged one if there
            are bridges.
        save_dtype: number format of the saved weights, such as `bfloat16`; None for the one in
            which the base model stores them, whatever it runs in.
        goes_on: whether a folder with the same model, from an export before, is taken as it is.

    Returns:
        The checks, all passed.

    Raises:
        PlanError: if the plan is empty, does not fit the model, or is not that of the bridges or
            of the recovered model.
        ExportError: if the folder is taken, cannot be written, or the format holds not all weights.
        VerificationError: if the saved model is not the one in memory, or does not hold together.
    """
    if not plan.removed:
        raise PlanError("cannot prune by an empty plan: it removes no block. Name blocks: 1,3.")
    if bridges is not None and bridges.plan != plan:
        raise PlanError(
            f"cannot fold the bridges of {bridges.plan.short} into the model without {plan.short}: "
            "the gaps are others. Give those of this plan."
        )
    if recovered is not None and recovered.variant.plan != plan:
        raise PlanError(
            f"cannot save {recovered.variant} as the model without {plan.short}: its blocks are "
            "others. Give that of this plan."
        )
    decoder, target = Decoder(loaded.model), Path(folder)
    forms = {} if bridges is None else bridges.forms
    saved_as = saved_format(loaded.stored_dtype if save_dtype is None else save_dtype)
    recovered = recovered and recovered.rounded(saved_as)
    recipe = _recipe(loaded, decoder, plan, saved_as, numbers or {}, command, bridges, recovered)
    if goes_on and is_written(target):
        return check_written(target, recipe)
    with disk_errors_said(target):
        _remove_stale_partials(target)
        check_target(target, needed_bytes=recipe.parameters * saved_as.itemsize + SPARE_BYTES)
        with (
            _written_whole(target) as partial,
            folded(decoder, forms),
            recut(decoder, plan) as model,
        ):
            own = {} if recovered is None else recovered.weights
            _save_weights(_held(stored_copy(model, saved_as, own)), partial)
            _save_tokenizer(loaded.tokenizer, partial)
            recipe = structs.replace(recipe, weights_sha256=weights_hash(partial))
            write_recipe(recipe, partial)
            write_card(recipe, partial)
            reference = model if recovered is None else standalone(model, own)
            checks = verify_folder(partial, reference=reference)
            require(checks, f"{loaded.source.name} without {plan.short}")
    return checks


def _held(model: PreTrainedModel) -> PreTrainedModel:
    """The model, if its number format holds all of its weights."""
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise ExportError(
                f"cannot save weights as {dtype_name(weight.dtype)}: {name} holds a number that is "
                f"not finite in it (its largest is {torch.finfo(weight.dtype).max:,.6g}). Save "
                "them as `save_dtype` bfloat16 or float32."
            )
    return model


def _save_weights(model: PreTrainedModel, folder: Path) -> None:
    if model.config.model_type == "gpt2":  # transformers 5 leaves out what other programs read
        model.config.n_ctx = model.config.n_positions
    model.save_pretrained(folder)
    for file in folder.glob("*.safetensors"):  # written readable by the owner alone
        shutil.copymode(folder / "config.json", file)


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:
        if type(error) is Exception:  # how the tokenizers library says that the disk is full
            raise OSError(str(error)) from error
        raise


def _recipe(
    loaded: LoadedModel,
    decoder: Decoder,
    plan: Plan,
    dtype: torch.dtype,
    numbers: Mapping[str, Number],
    command: str | None,
    bridges: Bridges | None,
    recovered: Recovered | None,
) -> Recipe:
    """The recipe but for the hash of the weights, which are not written yet."""
    return Recipe(
        base=loaded.source.name,
        revision=loaded.source.revision,
        base_sha256=loaded.weights_sha256,
        base_license=_base_license(loaded.source.folder),
        model_type=loaded.model.config.model_type,
        removed=plan.removed,
        kept=plan.kept(decoder.n_blocks),
        whole_parameters=count_parameters(loaded.model),
        parameters=predicted_parameters(decoder, plan),
        dtype=dtype_name(dtype),
        base_dtype=loaded.stored_dtype,
        weights_sha256="",
        created=now(),
        versions=versions(),
        command=command,
        numbers=dict(numbers),
        bridges=None if bridges is None else _bridges_recipe(bridges, dtype),
        recovery=None if recovered is None else _recovery_recipe(recovered),
    )


def _bridges_recipe(bridges: Bridges, dtype: torch.dtype) -> BridgesRecipe:
    fitting, tuning = bridges.calibration.fitting, bridges.calibration.tuning
    return BridgesRecipe(
        gaps={
            str(gap): GapRecipe(strength=fit.strength, sha256=form_sha256(rounded(fit.form, dtype)))
            for gap, fit in bridges.fits.items()
            if fit.strength is not None and fit.form is not None
        },
        fitting=_fitting_text(fitting),
        tuning=_fitting_text(tuning),
        context=fitting.windows[0].context,
        stride=bridges.calibration.stride,
        bos=fitting.bos,
        nats_as_cut=bridges.judgement.nats_as_cut,
        nats=bridges.judgement.nats,
    )


def _recovery_recipe(recovered: Recovered) -> RecoveryRecipe:
    return RecoveryRecipe(
        recovery=str(recovered.variant.recovery),
        weights=recovered.hashes,
        details=dict(recovered.details),
    )


def _fitting_text(text: PreparedText) -> FittingText:
    return FittingText(
        name=text.corpus.name,
        title=text.corpus.title,
        sha256=text.corpus.sha256,
        tokens=len(text.ids),
        tokens_sha256=text.ids_sha256,
    )


def _base_license(folder: Path) -> dict[str, str]:
    """What the base model's card tells the Hub about its licence; empty if it tells nothing.

    A link is kept only if it leads there from anywhere, not just from the base model's folder.
    """
    card = folder / CARD_FILE
    if not card.is_file():
        return {}
    try:
        declared = metadata_load(card) or {}
    except Exception:  # the YAML parser's and others: a card of no use here, but no harm either
        return {}
    known = {name: declared.get(name) for name in ("license", "license_name", "license_link")}
    return {
        name: value
        for name, value in known.items()
        if isinstance(value, str) and (name != "license_link" or value.startswith("http"))
    }


def saved_format(name: str) -> torch.dtype:
    """The number format of that name, if weights can be saved in it.

    Raises:
        ExportError: naming it, and those that there are.
    """
    if name in DTYPES.values():
        return getattr(torch, name)
    raise ExportError(
        f"cannot save weights as {name!r:.40}: the kit writes {', '.join(DTYPES.values())}. Name "
        "one of these with `save_dtype`."
    )


def check_target(folder: Path, needed_bytes: int = 0) -> None:
    """Refuse what cannot end well before anything is computed.

    Raises:
        ExportError: if the folder is taken or the disk has no room for it.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        pass
    elif folder.exists() or folder.is_symlink():
        kind = "folder is not empty" if folder.is_dir() else "path is a file"
        raise ExportError(
            f"cannot write the pruned model to {str(folder)!r}: the {kind}. "
            "Give a folder that does not exist yet."
        )
    existing = next(parent for parent in folder.resolve().parents if parent.exists())
    free_bytes = shutil.disk_usage(existing).free
    if free_bytes < needed_bytes:
        raise ExportError(
            f"cannot write the pruned model to {str(folder)!r}: it needs about "
            f"{needed_bytes / 1e6:,.0f} MB, the disk has {free_bytes / 1e6:,.0f} MB left. "
            "Make room or choose another disk."
        )


def _remove_stale_partials(folder: Path) -> None:
    """Remove what exports to the same folder left behind that were killed while they wrote."""
    final = folder.resolve()
    name = re.compile(re.escape(f".{final.name}.") + r"(\d{1,9})\.partial")
    for path in final.parent.glob(".*.partial"):
        match = name.fullmatch(path.name)
        # Where the number is our own, it belonged to a process before us.
        if match and (int(match[1]) == os.getpid() or not psutil.pid_exists(int(match[1]))):
            shutil.rmtree(path, ignore_errors=True)  # another user's may stay: it harms nobody


@contextmanager
def disk_errors_said(folder: Path) -> Iterator[None]:
    """Raise what the disk or the file system refuses as an `ExportError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ExportError(
            f"cannot write the pruned model to {str(folder)!r}: {reason}. "
            "Make room, or choose another folder."
        ) from error


@contextmanager
def _written_whole(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its name at the end, or vanishes on any failure."""
    final = folder.resolve()
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        if final.exists():
            final.rmdir()
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
