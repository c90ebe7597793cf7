"""Corpora: where the text comes from, and its tokens."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pruning_kit.errors import CorpusError, first_line
from pruning_kit.inputs import hub
from pruning_kit.inputs.models import DEMO_FOLDER

WIKITEXT = ("Salesforce/wikitext", "wikitext-2-raw-v1")


@dataclass(frozen=True, slots=True)
class Corpus:
    """A text and what identifies it in a result."""

    name: str
    title: str
    text: str
    note: str | None = None
    """What was substituted and why; None if the text is the one asked for."""
    file: Path | None = None
    """The file the user named, if it came from one."""

    @property
    def sha256(self) -> str:
        """Hash of the UTF-8 bytes of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class HubText:
    """Which part of a Hub dataset to read."""

    config: str | None = None
    split: str = "test"
    column: str = "text"


def join_rows(rows: Iterable[str]) -> str:
    """Join rows as the Hugging Face guide on perplexity does: an empty row stays as ''."""
    return "\n\n".join(rows)


def join_rows_as_published(rows: Iterable[str]) -> str:
    """The joining behind the published distilgpt2 table, which drops empty rows."""
    return "\n\n".join(filter(None, rows))


JOINS: dict[str, Callable[[Iterable[str]], str]] = {
    "wikitext2": join_rows,
    "wikitext2-published": join_rows_as_published,
}


def raw_rows(text: str) -> list[str]:
    """Rows of a canonical WikiText raw file as the Hub's dataset has them: blank lines as ''."""
    # Not splitlines: it also splits at characters that stand within a row, such as U+2028.
    return [line if line.strip() else "" for line in io.StringIO(text, newline="\n")]


def find_corpus(name: str | None, model_name: str, hub_text: HubText | None = None) -> Corpus:
    """Read the text that `--dataset` means.

    Args:
        name: `demo`, `demo-calibration`, `wikitext2`, `wikitext2-published` (either may be
            followed by `:FILE`, a local wiki.test.raw), a text file, a Hub dataset, or None for
            the default: WikiText-2 for any model but the demo model, else the embedded text.
        model_name: the model that will read it; decides the default.
        hub_text: config, split and column of a Hub dataset.

    Raises:
        CorpusError: if the text cannot be found or read, or is empty.
    """
    if name is None:
        return _default_corpus(model_name)
    kind, colon, file = name.partition(":")
    if name in ("demo", "demo-calibration"):
        corpus = demo_corpus(name)
    elif kind in JOINS and colon:
        corpus = _raw_file(kind, Path(file), name)
    elif kind in JOINS:
        corpus = _wikitext(kind, "test")
    elif os.path.isfile(name):  # noqa: PTH113 - Path.is_file raises for very long names
        corpus = Corpus(name, Path(name).name, _read_text(Path(name), name), file=Path(name))
    elif name and os.path.isdir(name):  # noqa: PTH112
        raise CorpusError(
            f"cannot read text {name!r}: it is a folder. Name a text file in it, or, for a Hub "
            "dataset of that name, work from another directory."
        )
    elif "/" in name and hub.is_repo_id(name):
        corpus = _hub_corpus(name, hub_text or HubText())
    else:
        raise CorpusError(
            f"cannot find text {name!r}: there is no such file. Give a text file, wikitext2, "
            "demo, or a Hugging Face dataset such as Salesforce/wikitext."
        )
    if not corpus.text.strip():
        raise CorpusError(f"cannot score text {name!r}: it is empty. Give a text with words in it.")
    return corpus


def selection_corpus(name: str, corpus: Corpus) -> Corpus:
    """The text that plans are chosen on: `calibration` is the one that belongs to `corpus`.

    Raises:
        CorpusError: if `corpus` has no calibration text of its own.
    """
    if name != "calibration":
        return find_corpus(name, "")
    if corpus.name == "demo":
        return demo_corpus("demo-calibration")
    if corpus.name in JOINS and corpus.file:
        return _raw_validation_file(corpus.name, corpus.file)
    if corpus.name in JOINS:
        return _wikitext(corpus.name, "validation")
    raise CorpusError(
        f"cannot select on the calibration text of {corpus.name!r}: only demo and wikitext2 have "
        "one. Name a text file with --select-on FILE."
    )


def demo_corpus(name: str) -> Corpus:
    """The embedded texts: `demo` for figures, `demo-calibration` for choosing."""
    file, title = {
        "demo": ("heldout.txt", "Jane Austen, Persuasion"),
        "demo-calibration": ("calibration.txt", "Jane Austen, Northanger Abbey"),
    }[name]
    return Corpus(name, title, (DEMO_FOLDER / file).read_text(encoding="utf-8"))


def _default_corpus(model_name: str) -> Corpus:
    if model_name == "demo":
        return demo_corpus("demo")
    try:
        return _wikitext("wikitext2", "test")
    except CorpusError as error:
        return replace(demo_corpus("demo"), note=f"WikiText-2 is not at hand: {error}")


def _raw_file(kind: str, file: Path, name: str) -> Corpus:
    """A local WikiText raw file, joined as `kind` says."""
    text = JOINS[kind](raw_rows(_read_text(file, name)))
    return Corpus(kind, f"WikiText-2 raw, {file.name}", text, file=file)


def _raw_validation_file(kind: str, test_file: Path) -> Corpus:
    """The validation text that WikiText's archive holds beside its test text."""
    file = test_file.with_name("wiki.valid.raw")
    if not file.is_file() or file.samefile(test_file):
        raise CorpusError(
            f"cannot select on the calibration text of {f'{kind}:{test_file}'!r}: there is no "
            f"other file {file.name} beside it. Name one with --select-on {kind}:FILE."
        )
    return _raw_file(kind, file, f"{kind}:{file}")


def _wikitext(name: str, split: str) -> Corpus:
    repo, config = WIKITEXT
    rows = _hub_rows(repo, HubText(config, split), name)
    return Corpus(name, f"WikiText-2 raw, {split}", JOINS[name](rows))


def _hub_corpus(name: str, part: HubText) -> Corpus:
    text = join_rows(_hub_rows(name, part, name))
    return Corpus(name, f"{name}, {part.config or 'default'}, {part.split}", text)


def _hub_rows(repo: str, part: HubText, name: str) -> list[str]:
    """A text column of a Hub dataset, from the local cache if the Hub does not answer."""
    if Path(repo).exists():
        raise CorpusError(
            f"cannot read text {name!r} from the Hub: {repo!r} is a path here too, and would be "
            "read instead. Work from another directory."
        )
    silence = hub.silence()
    if silence:
        os.environ["HF_DATASETS_OFFLINE"] = "1"
    import datasets  # slow to import, and reads HF_DATASETS_OFFLINE once

    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        table = datasets.load_dataset(repo, part.config, split=part.split)
    except Exception as error:  # the library raises many kinds; each means: not to be had
        raise CorpusError(
            f"cannot read text {name!r} ({repo}, {part.config or 'default'}, {part.split}): "
            f"{first_line(error)}{f', and {silence}' if silence else ''}. "
            "Check name, config and split, or use --dataset demo."
        ) from error
    if part.column not in table.column_names:
        raise CorpusError(
            f"cannot read column {part.column!r} of {repo}: its columns are "
            f"{', '.join(table.column_names)}. Choose one with --text-column."
        )
    return _texts(list(table[part.column]), part.column, repo)


def _texts(rows: list[Any], column: str, repo: str) -> list[str]:
    """The rows, if each of them is a text."""
    for number, row in enumerate(rows):
        if not isinstance(row, str):
            kind = "empty (null)" if row is None else f"no text but {type(row).__name__}"
            raise CorpusError(
                f"cannot read column {column!r} of {repo}: its row {number} is {kind}. "
                "Choose a column of texts with --text-column, or save the text to a file."
            )
    return rows


def _read_text(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"cannot read text {name!r}: it is not UTF-8 (byte {error.start}). Convert the file."
        ) from None
    except OSError as error:
        raise CorpusError(
            f"cannot read text {name!r}: {error.strerror}. Give a text file in UTF-8."
        ) from None


@dataclass(frozen=True, slots=True)
class TokenisedText:
    """A text as the model sees it."""

    ids: np.ndarray
    """Token ids, int64, shape (N,)."""
    ends: np.ndarray
    """Position in the text, in characters, behind each token, shape (N,)."""


def tokenise(corpus: Corpus, tokenizer: Any) -> TokenisedText:
    """Tokenise the whole text at once, with the special tokens the tokenizer adds by default.

    Raises:
        CorpusError: if fewer than two tokens come out.
    """
    encoded = tokenizer(corpus.text, return_offsets_mapping=True, verbose=False)
    ids = np.asarray(encoded["input_ids"], dtype=np.int64)
    if len(ids) < 2:
        raise CorpusError(
            f"cannot score text {corpus.name!r}: it has {len(ids)} token{'s' * (len(ids) != 1)}, "
            "and at least 2 are needed, one to read and one to predict. Give a longer text."
        )
    ends = np.asarray([end for _, end in encoded["offset_mapping"]], dtype=np.int64)
    return TokenisedText(ids, ends)


def bytes_covered(corpus: Corpus, tokens: TokenisedText, n_tokens: int) -> int:
    """UTF-8 bytes of the text up to the end of token number `n_tokens`."""
    if n_tokens == len(tokens.ids):
        return len(corpus.text.encode())
    return len(corpus.text[: int(tokens.ends[n_tokens - 1])].encode())
