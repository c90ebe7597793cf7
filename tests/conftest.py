"""Settings of the whole suite, and what many of its files start from."""

from collections.abc import Callable, Iterator
from itertools import count

import pytest
import torch

from pruning_kit.runs.results import Run, load_run
from tests.synthetic_runs import write_run

# The models are tiny: a second thread costs more in waiting than it computes, above all where
# several test processes share the cores.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def stored_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Writes a synthetic run, with the options of `write_run`, and reads it back."""
    numbers: Iterator[int] = count()
    base = tmp_path_factory.mktemp("runs")
    return lambda **options: load_run(write_run(base / f"run-{next(numbers)}", **options))
