"""Measure the demo model, whole and pruned, on every window of the books that it was trained on.

    python -m benchmarks.book_series --corpus train.txt.xz   # about a minute on a GPU

The books are in one file, in the order of training/corpus.tsv (training/README.md says how it is
made). Their windows are those of a run of the demo model. What is written, to
benchmarks/series/books.safetensors, is sums per window; `benchmarks.coverage` reads them.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.books import FILE, PLANS, Book, write
from pruning_kit.inputs.corpora import Corpus
from pruning_kit.inputs.texts import prepare_text, window_sizes
from pruning_kit.sweeps.building import find, prepare
from pruning_kit.sweeps.observer import SilentObserver
from pruning_kit.sweeps.settings import WorkbenchSettings

LIST = Path(__file__).parent.parent / "training" / "corpus.tsv"
SEPARATOR = "\n\n<|endoftext|>\n\n"
SHORT_NAMES = {"austen": "Jane Austen", "melville": "Herman Melville"}


def read_books(corpus: Path) -> Iterator[tuple[str, str, str]]:
    """Author, title and text of each book; refuses a file with other books than those listed."""
    raw = corpus.read_bytes()
    texts = (lzma.decompress(raw) if corpus.suffix == ".xz" else raw).decode().split(SEPARATOR)
    with LIST.open(encoding="utf-8", newline="") as file:
        listed = list(csv.DictReader(file, delimiter="\t"))
    for row, text in zip(listed, texts, strict=True):
        text = text.strip("\n")
        if not hashlib.sha256(text.encode()).hexdigest().startswith(row["sha256_16"]):
            raise SystemExit(f"{corpus}: {row['document']} is another text than {LIST.name} lists.")
        author, title = row["document"].strip().split("/", 1)
        if author in SHORT_NAMES:
            author, title = SHORT_NAMES[author], title.replace("-", " ").title()
        yield author.strip(), title.strip(), text


def measure(
    books: Sequence[tuple[str, str, str]], device: str, most_windows: int | None, out: Path
) -> None:
    """Store the sums over the windows of books."""
    settings = WorkbenchSettings(model="demo", device=device)
    found = find(settings, SilentObserver())
    bench = prepare(found, SilentObserver())
    measured = []
    for author, title, text in books:
        corpus = Corpus(title, title, lambda text=text: iter([text]))  # type: ignore[misc]
        prepared = prepare_text(corpus, found.inputs, max_windows=most_windows)
        sums = replace(bench, texts={"reported": prepared}).measure(PLANS)
        measured.append(Book(author, title, sums.sums["nll"], sums.targets.astype(np.float64)))
        print(f"{author}, {title}: {len(sums.targets)} windows", flush=True)
    context, stride = window_sizes(found.inputs, None, None)
    write(out, measured, context, stride, f"kernel {bench.kernel.name}, {bench.kernel.dtype}")


def main() -> None:
    """Measure all books and store the sums."""
    parser = argparse.ArgumentParser(description="per-window NLL of the demo model over books")
    parser.add_argument("--corpus", type=Path, required=True, help="train.txt or train.txt.xz")
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--books", type=int, help="only the first ones, for a try")
    parser.add_argument("--windows", type=int, help="only the first ones of each book, for a try")
    arguments = parser.parse_args()
    books = list(read_books(arguments.corpus))[: arguments.books]
    measure(books, arguments.device, arguments.windows, arguments.out)


if __name__ == "__main__":
    main()
