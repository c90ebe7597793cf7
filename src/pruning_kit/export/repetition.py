"""Repetition: a pruned folder made again from its base model, and every weight compared."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from pruning_kit.export.huggingface import saved_format
from pruning_kit.export.recipe import BridgesRecipe, Recipe, read_recipe
from pruning_kit.export.verification import Check
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.checkpoints import load_checkpoint
from pruning_kit.inputs.models import LoadedModel
from pruning_kit.pruning.bridges.bridging import Bridges
from pruning_kit.pruning.bridges.folding import folded, form_of, rounded
from pruning_kit.pruning.bridges.gaps import Gap
from pruning_kit.pruning.recovered import Recovered
from pruning_kit.pruning.surgery import recut, stored_copy
from pruning_kit.walk.kernel import Form

ROUNDING = 0.05
"""Share of what a bridge adds by which another machine's arithmetic may change it."""


def check_base(recipe: Recipe, loaded: LoadedModel) -> Check:
    """Whether a model is the one that a folder was made from."""
    same = recipe.base_sha256 == loaded.weights_sha256
    detail = f"{loaded.source.name} has the hash {loaded.weights_sha256[:8]}"
    if not same:
        detail += f", the model was made from one of {recipe.base_sha256[:8]}"
    return Check("base", same, detail)


@torch.no_grad()
def repeat(
    folder: Path | str,
    loaded: LoadedModel,
    bridges: Bridges | None,
    recovered: Recovered | None = None,
) -> list[Check]:
    """Compare a folder's weights with those of its base, cut, bridged and recovered again.

    Args:
        folder: a pruned model with its recipe.
        loaded: its base model; it is left as it is.
        bridges: the plan's, fitted again; None if the recipe has none.
        recovered: the same made again; None if the recipe has no recovery, or it is not repeated.

    Raises:
        ModelError: if the folder holds no model or no recipe.
    """
    recipe = read_recipe(Path(folder))
    decoder = Decoder(loaded.model)
    forms = {} if bridges is None or recipe.recovery is not None else bridges.forms
    checkpoint = load_checkpoint(str(folder), Path(folder), "cpu", torch.float32, None)
    pruned, dtype = checkpoint.model, saved_format(checkpoint.stored_dtype)
    forms = {gap: rounded(form, dtype) for gap, form in forms.items()}
    found = stored_copy(pruned, dtype).state_dict()
    with folded(decoder, forms), recut(decoder, recipe.plan) as model:
        again = stored_copy(model, dtype).state_dict()
    bridged = {
        f"{decoder.family.stack}.{recipe.kept.index(gap.block)}.{decoder.family.projection}"
        for gap in forms
    }
    changed = {} if recipe.recovery is None else recipe.recovery.weights
    checks = [_check_kept(found, again, bridged, changed)]
    if recovered is not None:
        checks.append(_check_recovered(changed, recovered.rounded(dtype), found, again))
    elif recipe.bridges is not None and bridges is not None and not changed:
        checks.append(
            _check_bridges(recipe, recipe.bridges, bridges, forms, decoder, Decoder(pruned))
        )
    return checks


def _check_kept(
    found: Mapping[str, Tensor],
    again: Mapping[str, Tensor],
    bridged: set[str],
    changed: Collection[str],
) -> Check:
    """Weights that nothing is folded into, and no recovery has changed, are the base's to the bit.

    Args:
        found: of the folder.
        again: of the base, cut and bridged.
        bridged: layers that a bridge is folded into.
        changed: weights that are a recovery's own; tied ones stand here once.
    """
    names = {name for name in again if name.rpartition(".")[0] not in bridged}
    owned = {again[name].data_ptr() for name in changed if name in again}
    names = {name for name in names if again[name].data_ptr() not in owned}
    other = sorted(
        name for name in names if name not in found or not torch.equal(found[name], again[name])
    )
    detail = f"{len(names)} tensors are those of the base, bit for bit"
    if other:
        detail = f"{len(other)} of {len(names)} tensors are not those of the base ({other[0]})"
    return Check("kept weights", not other, detail)


def _check_bridges(
    recipe: Recipe,
    stored: BridgesRecipe,
    bridges: Bridges,
    forms: Mapping[Gap, Form],
    base: Decoder,
    pruned: Decoder,
) -> Check:
    """What was folded in is what a fit of today gives, but for rounding."""
    path = base.family.projection
    assert path is not None, "families without it have no bridges"
    faults: list[str] = []
    told: list[str] = []
    for gap in sorted({*map(Gap.parse, stored.gaps), *forms}):
        form, one = forms.get(gap), stored.gaps.get(str(gap))
        if form is None or one is None:
            faults.append(f"{gap} is bridged {'there' if form is None else 'here'} alone")
            continue
        saved = form_of(pruned.stack[recipe.kept.index(gap.block)].get_submodule(path))
        own = form_of(base.stack[gap.block].get_submodule(path))
        share, strength = _distance(saved, form, own), bridges.fits[gap].strength
        said = f"{gap} {share:.2%} of what it adds away (allowed {ROUNDING:.0%})"
        if strength != one.strength:
            said += f", with strength {strength:g} and not {one.strength:g}"
        (told if share <= ROUNDING else faults).append(said)
    nats = f"{bridges.judgement.nats:.4f} nats per token, {stored.nats:.4f} in the recipe"
    return Check("bridges", not faults, f"fitted again: {'; '.join([*(faults or told), nats])}")


def _check_recovered(
    changed: Collection[str],
    recovered: Recovered,
    found: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
) -> Check:
    """What a recovery changed is what it changes today, but for rounding.

    Args:
        changed: weights that are the recovery's own, by the recipe.
        recovered: made again.
        found: of the folder.
        start: of the model that the recovery began with.
    """
    faults = [
        f"{name} is changed in one of both alone" for name in changed ^ recovered.weights.keys()
    ]
    shares = {
        name: _share(found[name], weight, start[name])
        for name, weight in recovered.weights.items()
        if name in changed
    }
    worst = max(shares, key=shares.__getitem__, default=None)
    if worst is not None and shares[worst] > ROUNDING:
        faults.append(f"{worst} is {shares[worst]:.2%} of its change away (allowed {ROUNDING:.0%})")
    told = (
        f"{len(shares)} tensors at most {max(shares.values(), default=0):.2%} of their change away"
    )
    return Check("recovery", not faults, f"made again: {'; '.join(faults[:3]) or told}")


def _share(found: Tensor, again: Tensor, start: Tensor) -> float:
    """How far a weight is from its like, relative to how far that is from where it began."""
    off, change = (found.float() - again).norm(), (again - start.float()).norm()
    return float(off / change.clamp_min(1e-30))


def _distance(saved: Form, again: Form, own: Form) -> float:
    """How far two folded weights are apart, relative to what was folded in."""
    off = (saved.weight_OI - again.weight_OI).norm()
    return float(off / (again.weight_OI - own.weight_OI).norm().clamp_min(1e-30))
