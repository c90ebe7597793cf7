"""Real series: NLL per window of some plans of the demo model over whole books. No torch.

`book_series.py` measures them and writes `series/books.safetensors`, which holds sums and no text.

Shapes: P plans, W windows of all books.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from pruning_kit.inputs.windows import sliding_windows
from pruning_kit.machine.disk import write_file

FILE = Path(__file__).parent / "series" / "books.safetensors"
PLANS = ("none", "0", "1", "3", "4", "5", "1+4", "1+3+4")


@dataclass(frozen=True, eq=False)
class Book:
    """Sums over the windows of one book, in text order."""

    author: str
    title: str
    nll_PW: NDArray[np.float64]
    """Nats, one row for each of `PLANS`."""
    targets_W: NDArray[np.float64]
    """Scored tokens of each window."""


def write(file: Path, books: Sequence[Book], context: int, stride: int, how: str) -> None:
    """Store the sums of books, as float32, and how they were measured."""
    named = [[book.author, book.title] for book in books]
    facts = {
        "plans": json.dumps(PLANS),
        "books": json.dumps(named, ensure_ascii=False),
        "context": str(context),
        "stride": str(stride),
        "how": how,
    }
    arrays = {
        "nll": np.concatenate([book.nll_PW for book in books], axis=1).astype(np.float32),
        "n_tokens": np.array([book.targets_W.sum() + 1 for book in books], dtype=np.int64),
    }
    file.parent.mkdir(exist_ok=True)
    write_file(file, save(arrays, metadata=facts))


def read(file: Path = FILE) -> list[Book]:
    """The stored books; the windows are those that the kit cuts of so many tokens."""
    with safe_open(file, framework="numpy") as stored:
        facts = stored.metadata()
        nll_PW, n_tokens = stored.get_tensor("nll"), stored.get_tensor("n_tokens")
    assert json.loads(facts["plans"]) == list(PLANS)
    context, stride = int(facts["context"]), int(facts["stride"])
    books, first = [], 0
    for (author, title), n in zip(json.loads(facts["books"]), n_tokens.tolist(), strict=True):
        windows = sliding_windows(n, context, stride)
        targets = np.array([window.n_targets for window in windows], dtype=np.float64)
        end = first + len(targets)
        books.append(Book(author, title, nll_PW[:, first:end].astype(np.float64), targets))
        first = end
    assert first == nll_PW.shape[1]
    return books
