"""Weights of a folder that are not its base model's: are they those that the recipe names?"""

from __future__ import annotations

from transformers import PreTrainedModel

from pruning_kit.export.recipe import BridgesRecipe, Recipe, RecoveryRecipe
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.layers import is_linear_kind, submodule
from pruning_kit.pruning.bridges.folding import form_of, form_sha256
from pruning_kit.pruning.bridges.gaps import Gap
from pruning_kit.pruning.recovered import tensor_sha256


def strange_weights(recipe: Recipe, model: PreTrainedModel) -> list[str]:
    """What is not as bridges and recovery of the recipe left it, in words."""
    found = []
    if recipe.bridges is not None:
        found += _strange_bridges(recipe, recipe.bridges, Decoder(model))
    if recipe.recovery is not None:
        found += _strange_recovery(recipe.recovery, model)
    return found


def _strange_recovery(recovery: RecoveryRecipe, model: PreTrainedModel) -> list[str]:
    found = dict(model.named_parameters())
    return [
        f"{name} is not as it was {recovery.recovery}"
        for name, sha256 in recovery.weights.items()
        if name not in found or tensor_sha256(found[name]) != sha256
    ][:1]


def _strange_bridges(recipe: Recipe, bridges: BridgesRecipe, decoder: Decoder) -> list[str]:
    """Projections whose weights are not those that the recipe says were folded in.

    What a recovery has changed since has hashes of its own.
    """
    path, strange = decoder.family.projection, []
    changed = recipe.recovery.weights if recipe.recovery is not None else {}
    for text, gap in bridges.gaps.items():
        place = recipe.kept.index(Gap.parse(text).block)
        if f"{decoder.family.stack}.{place}.{path}.weight" in changed:
            continue
        block = decoder.stack[place]
        layer = None if path is None else submodule(block, path)
        if layer is None or not is_linear_kind(layer) or form_sha256(form_of(layer)) != gap.sha256:
            strange.append(f"the projection that bridges {text} is another one")
    return strange
