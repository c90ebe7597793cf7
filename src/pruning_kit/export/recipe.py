"""The recipe: what a pruned folder tells about itself, to machines and to people. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from msgspec import Meta, Struct, to_builtins

from pruning_kit.errors import ModelError, PlanError, first_line
from pruning_kit.machine.disk import parse_json
from pruning_kit.machine.typed import Count, MisfitError, fit
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import BRIDGED, REFITTED, Recovery, Variant
from pruning_kit.printable import copyable, markdown_text, quoted
from pruning_kit.pruning.bridges.gaps import Gap, gaps_of

RECIPE_FILE = "pruning.json"
CARD_FILE = "README.md"
SCHEMA = 1

Number = str | int | float | bool | None

Block = Annotated[int, Meta(ge=0, lt=10_000)]


class FittingText(Struct, frozen=True, kw_only=True):
    """A part of a text that bridges were made of."""

    name: str
    """As it was asked for."""
    title: str
    sha256: str
    """Hash of the part, in UTF-8."""
    tokens: Count
    """That were read of it."""
    tokens_sha256: str
    """Hash of these token ids, as little-endian int64."""


class GapRecipe(Struct, frozen=True, kw_only=True):
    """How a gap is bridged: by another output projection of the MLP of the block before it."""

    strength: float
    """Of the ridge, relative to the mean of the diagonal."""
    sha256: str
    """Hash of that projection's weight and bias, as they are saved."""


class BridgesRecipe(Struct, frozen=True, kw_only=True):
    """The bridges of a pruned model, fitted on the base model's states."""

    gaps: dict[str, GapRecipe]
    """By the kept block before the gap and the one after it, such as `2>4`."""
    fitting: FittingText
    """What they are solved from."""
    tuning: FittingText
    """What their strengths are chosen on, and whether they help together."""
    context: Count
    """Tokens per window."""
    stride: Count
    """Tokens that windows of the tuning text advance by."""
    bos: int | None
    """Token before each window."""
    nats_as_cut: float
    """NLL per token of the tuning text without them."""
    nats: float
    """The same with them."""

    def contradictions(self, plan: Plan, n_blocks: int) -> list[str]:
        """What cannot be true of a plan's bridges."""
        found = []
        try:
            gaps = set(map(Gap.parse, self.gaps))
        except PlanError as error:
            return [str(error)]
        if not gaps:
            found.append("no gap is bridged, and the recipe has bridges")
        if others := gaps - set(gaps_of(plan, n_blocks)):
            found.append(f"{', '.join(map(str, others))} is bridged, which is no gap of the plan")
        if not self.nats < self.nats_as_cut:
            found.append("its bridges are said to cost more than none")
        return found


class RecoveryRecipe(Struct, frozen=True, kw_only=True):
    """What a recovery made of the pruned, and perhaps bridged, model."""

    recovery: str
    """As `str` writes it, such as `refitted`."""
    weights: dict[str, str]
    """Hash of each weight that is not the base model's, by its name."""
    details: dict[str, Number]
    """How they were made, under names that are words."""

    def contradictions(self) -> list[str]:
        """What cannot be true of it."""
        try:
            Recovery.parse(self.recovery)
        except PlanError as error:
            return [str(error)]
        return [] if self.weights else [f"it is {self.recovery}, and no weight is its own"]


class Recipe(Struct, frozen=True, kw_only=True):
    """How a pruned model was made. Blocks are numbered as in the base model."""

    base: str
    """Hub id or folder of the model that was pruned."""
    revision: str | None
    base_sha256: str
    """Hash of the base model's config and weight files."""
    model_type: str
    removed: tuple[Block, ...]
    kept: tuple[Block, ...]
    """The block of the base model that stands at each place of the pruned one."""
    whole_parameters: Count
    parameters: Count
    """Parameters of the pruned model, tied weights counted once."""
    dtype: str
    """Number format of the saved weights."""
    weights_sha256: str
    """Hash of the pruned model's own config and weight files."""
    created: str
    versions: dict[str, str]
    base_license: dict[str, str]
    """What the base model's card tells the Hub about its licence; empty if it tells nothing."""
    command: str | None
    numbers: dict[str, Number]
    """What was measured, under the names it is shown by."""
    base_dtype: str | None = None
    """Number format of the base model's weights, with which all was measured; None: `dtype`."""
    bridges: BridgesRecipe | None = None
    """What was folded into the blocks before the gaps; None: nothing."""
    recovery: RecoveryRecipe | None = None
    """What was made of that; None: nothing."""

    @property
    def plan(self) -> Plan:
        """The blocks that were removed."""
        return Plan(self.removed)

    @property
    def repeatable(self) -> Variant | None:
        """What can be made again in closed form, from bridges on; None where nothing can."""
        if self.recovery is None:
            return Variant(self.plan, BRIDGED)
        stated = Recovery.parse(self.recovery.recovery)
        return Variant(self.plan, stated) if stated == REFITTED else None

    def contradictions(self) -> list[str]:
        """What in the recipe cannot be true; empty if it agrees with itself."""
        found = []
        n_blocks = len(self.kept) + len(self.removed)
        if sorted({*self.kept, *self.removed}) != list(range(n_blocks)):
            found.append("kept and removed blocks do not make up the base model")
        if list(self.kept) != sorted(self.kept):
            found.append("the kept blocks are out of order")
        if not 0 < self.parameters <= self.whole_parameters:
            found.append("the pruned model has more parameters than the base model")
        if self.bridges is not None and not found:
            found += self.bridges.contradictions(self.plan, n_blocks)
        if self.recovery is not None:
            found += self.recovery.contradictions()
        return found


class StoredRecipe(Recipe, frozen=True, kw_only=True):
    """A recipe as `pruning.json` holds it."""

    schema: Literal[1]
    block_map: dict[str, Block]
    """What follows from the kept blocks, for those who read the file with other tools."""

    def __post_init__(self) -> None:
        if self.block_map != block_map(self.kept):
            raise MisfitError("block_map", "it is not that of the kept blocks")


def block_map(kept: Sequence[int]) -> dict[str, int]:
    """From the pruned model's block numbers, as text, to those of the base model."""
    return {str(new): old for new, old in enumerate(kept)}


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """Write `pruning.json` into a folder."""
    content = {"schema": SCHEMA, **to_builtins(recipe), "block_map": block_map(recipe.kept)}
    (folder / RECIPE_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_recipe(folder: Path) -> Recipe:
    """Read the `pruning.json` of a folder.

    Raises:
        ModelError: if the file is missing, broken, or of another schema.
    """
    path = folder / RECIPE_FILE
    try:
        return _parse(parse_json(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot read the recipe {str(path)!r}: {_reason(error)}. "
            "Write the model anew with pruning-kit prune."
        ) from error


def _parse(content: Any) -> Recipe:
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"it has schema {schema!r:.40}, this version reads {SCHEMA}")
    stored = fit(content, StoredRecipe)
    if unknown := content.keys() - set(StoredRecipe.__struct_fields__):
        raise ValueError(f"it holds {', '.join(sorted(unknown))}, which no recipe does")
    return Recipe(**{name: getattr(stored, name) for name in Recipe.__struct_fields__})


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, MisfitError):
        return f"it {error.of_one}"
    return first_line(error)


def write_card(recipe: Recipe, folder: Path) -> None:
    """Write the model card, `README.md`, into a folder."""
    (folder / CARD_FILE).write_text(render_card(recipe), encoding="utf-8")


def render_card(recipe: Recipe) -> str:
    """The model card as Markdown, with the front matter that the Hub reads."""
    environment = Environment(
        loader=PackageLoader("pruning_kit.export"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML
    )
    environment.filters |= {
        "words": markdown_text,
        "cell": _cell,
        "command": copyable,
        "word": quoted,
    }
    template = environment.get_template("model_card.md.j2")
    return template.render(
        recipe=recipe,
        bridges=recipe.bridges,
        recovery=recipe.recovery,
        n_blocks=len(recipe.kept) + len(recipe.removed),
        base_on_hub=recipe.revision is not None,
    )


def _cell(value: Number) -> str:
    """A value in a Markdown table."""
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return markdown_text(str(value)).replace("|", r"\|")
