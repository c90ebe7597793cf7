"""The recipe: what a pruned folder tells about itself, to machines and to people. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pruning_kit.errors import ModelError, first_line
from pruning_kit.plan import Plan

RECIPE_FILE = "pruning.json"
CARD_FILE = "README.md"
SCHEMA = 1

Number = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a pruned model was made. Blocks are numbered as in the base model."""

    base: str
    """Hub id or folder of the model that was pruned."""
    revision: str | None
    base_sha256: str
    """Hash of the base model's config and weight files."""
    model_type: str
    removed: tuple[int, ...]
    kept: tuple[int, ...]
    """The block of the base model that stands at each place of the pruned one."""
    whole_parameters: int
    parameters: int
    """Parameters of the pruned model, tied weights counted once."""
    dtype: str
    """Number format of the saved weights."""
    weights_sha256: str
    """Hash of the pruned model's own config and weight files."""
    created: str
    versions: Mapping[str, str]
    base_license: Mapping[str, str] = field(default_factory=dict)
    """What the base model's card tells the Hub about its licence; empty if it tells nothing."""
    command: str | None = None
    numbers: Mapping[str, Number] = field(default_factory=dict)
    """What was measured, under the names it is shown by."""

    @property
    def plan(self) -> Plan:
        """The blocks that were removed."""
        return Plan(self.removed)

    @property
    def block_map(self) -> dict[int, int]:
        """From the pruned model's block numbers to those of the base model."""
        return dict(enumerate(self.kept))

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
        return found


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """Write `pruning.json` into a folder."""
    content = {"schema": SCHEMA, **asdict(recipe), "block_map": recipe.block_map}
    (folder / RECIPE_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_recipe(folder: Path) -> Recipe:
    """Read the `pruning.json` of a folder.

    Raises:
        ModelError: if the file is missing, broken, or of another schema.
    """
    try:
        content = json.loads((folder / RECIPE_FILE).read_text(encoding="utf-8"))
        return _parse(content)
    except (OSError, UnicodeDecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"cannot read the recipe {str(folder / RECIPE_FILE)!r}: {_reason(error)}. "
            "Write the model anew with pruning-kit prune."
        ) from error


def _parse(content: dict[str, Any]) -> Recipe:
    values = dict(content)
    schema, block_map = values.pop("schema"), values.pop("block_map")
    if schema != SCHEMA:
        raise ValueError(f"it has schema {schema!r}, this version reads {SCHEMA}")
    for name in ("removed", "kept"):
        values[name] = tuple(int(block) for block in values[name])
    recipe = Recipe(**values)
    if {int(new): int(old) for new, old in block_map.items()} != recipe.block_map:
        raise ValueError("its block map is not that of its kept blocks")
    return recipe


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return first_line(error)


def write_card(recipe: Recipe, folder: Path) -> None:
    """Write the model card, `README.md`, into a folder."""
    (folder / CARD_FILE).write_text(render_card(recipe), encoding="utf-8")


def render_card(recipe: Recipe) -> str:
    """The model card as Markdown, with the front matter that the Hub reads."""
    environment = Environment(
        loader=PackageLoader("pruning_kit.cutting"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML
    )
    environment.filters["cell"] = _cell
    template = environment.get_template("model_card.md.j2")
    return template.render(recipe=recipe, base_on_hub=recipe.revision is not None)


def _cell(value: Number) -> str:
    """A value in a Markdown table."""
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value).replace("|", r"\|").replace("\n", " ")
