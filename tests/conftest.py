"""Settings of the whole suite, and what many of its files start from."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING

# Before torch is loaded: a second thread that spins while it waits takes the core of another test.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

from pruning_kit.runs.results import Run, load_run
from tests.synthetic_runs import write_run

if TYPE_CHECKING:  # transformers takes seconds, and most files can do without
    from writers import Writer

# The models are tiny: a second thread costs more in waiting than it computes, above all where
# several test processes share the cores.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def stored_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Writes a synthetic run, with the options of `write_run`, and reads it back."""
    numbers: Iterator[int] = count()
    base = tmp_path_factory.mktemp("runs")
    return lambda **options: load_run(write_run(base / f"run-{next(numbers)}", **options))


@pytest.fixture(scope="session")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Writer:
    """A tiny model whose bridges help, and its texts."""
    from writers import save_writer

    return save_writer(tmp_path_factory.mktemp("writer"))


@pytest.fixture(scope="session")
def rounding_writer(tmp_path_factory: pytest.TempPathFactory) -> Writer:
    """One whose checkpoints hold few digits."""
    from writers import save_writer

    return save_writer(tmp_path_factory.mktemp("writer16"), torch.bfloat16)


@pytest.fixture(scope="module")
def little_text() -> Iterator[None]:
    """Of calibration texts only the tokens that bridges and trainings need to help."""
    import bridging

    with bridging.little_text():
        yield


@pytest.fixture(scope="module")
def blank_figures() -> Iterator[None]:
    """Figures are made and written, and nothing is drawn on them: that takes most of their time."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("figures.catalogue", "page"):
            patch.setattr(f"pruning_kit.reporting.{module}.image", lambda *_: b"<svg/>")
        yield
