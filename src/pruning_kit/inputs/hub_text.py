"""Which part of a dataset of the Hub is a text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pruning_kit.bounds import setting

WHERE = "Model and text"
"""The group of these settings, and of those that name a text and its windows."""
_offered = partial(setting, group=WHERE)


@dataclass(frozen=True, slots=True)
class HubText:
    """Which part of a Hub dataset to read."""

    config: str | None = _offered(None, "Config of a Hub dataset.", name="dataset_config")
    split: str = _offered("test", "Split of a Hub dataset.", name="dataset_split")
    column: str = _offered("text", "Column of a Hub dataset.", name="text_column")
