"""Written: a folder that a stopped command has exported, held against what it would export now."""

from __future__ import annotations

from pathlib import Path

from pruning_kit.errors import ExportError
from pruning_kit.export.recipe import RECIPE_FILE, Recipe, read_recipe
from pruning_kit.export.verification import Check, require, verify_folder

SAME = ("base_sha256", "removed", "dtype", "bridges", "recovery")
"""What makes the weights of a recipe."""


def is_written(folder: Path) -> bool:
    """Whether a folder is there that was exported; it is whole then."""
    return (folder / RECIPE_FILE).is_file()


def check_written(folder: Path, wanted: Recipe) -> list[Check]:
    """The checks of a folder in place of exporting it again.

    Args:
        folder: as `export` wrote it.
        wanted: the recipe of what would be exported.

    Returns:
        The checks, all passed.

    Raises:
        ExportError: if it holds another model.
        ModelError, VerificationError: if it is damaged.
    """
    stored = read_recipe(folder)
    for name in SAME:
        if getattr(stored, name) != getattr(wanted, name):
            raise ExportError(
                f"cannot go on with {str(folder)!r}: it holds the model without "
                f"{stored.plan.short} with another {name} than is asked for. Give a folder that "
                "does not exist yet."
            )
    checks = verify_folder(folder)
    require(checks, str(folder))
    return checks
