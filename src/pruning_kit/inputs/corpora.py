"""Corpora: where the text comes from. Texts are read in pieces: they may be larger than memory."""

from __future__ import annotations

import codecs
import hashlib
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pruning_kit.errors import CorpusError, first_line
from pruning_kit.inputs import hub
from pruning_kit.inputs.hub_text import HubText
from pruning_kit.inputs.models import DEMO_FOLDER

WIKITEXT = ("Salesforce/wikitext", "wikitext-2-raw-v1")
BYTES_AT_ONCE = 1 << 16
ROWS_AT_ONCE = 1000
BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class Corpus:
    """A text and what identifies it in a result."""

    name: str
    title: str
    read: Callable[[], Iterable[str]]
    """Gives the text from its start, in pieces of any size."""
    note: str | None = None
    """What was substituted and why; None if the text is the one asked for."""
    file: Path | None = None
    """The file the user named, if it came from one."""

    @property
    def sha256(self) -> str:
        """Hash of the UTF-8 bytes of the text."""
        return self._hash_and_size[0]

    @property
    def n_bytes(self) -> int:
        """Length of the text in UTF-8."""
        return self._hash_and_size[1]

    @cached_property
    def _hash_and_size(self) -> tuple[str, int]:
        digest, n_bytes = hashlib.sha256(), 0
        for piece in self.read():
            encoded = piece.encode()
            digest.update(encoded)
            n_bytes += len(encoded)
        return digest.hexdigest(), n_bytes

    def bytes_to(self, n_characters: int) -> int:
        """Length in UTF-8 of the first `n_characters`; no more than these are read."""
        n_bytes = 0
        for piece in self.read():
            n_bytes += len(piece[:n_characters].encode())
            n_characters -= len(piece)
            if n_characters <= 0:
                break
        return n_bytes


def join_rows(rows: Iterable[str]) -> Iterator[str]:
    """Join rows as the Hugging Face guide on perplexity does: an empty row stays as ''."""
    for number, row in enumerate(rows):
        if number:
            yield "\n\n"
        yield row


def join_rows_as_published(rows: Iterable[str]) -> Iterator[str]:
    """The joining behind the published distilgpt2 table, which drops empty rows."""
    return join_rows(filter(None, rows))


JOINS: dict[str, Callable[[Iterable[str]], Iterator[str]]] = {
    "wikitext2": join_rows,
    "wikitext2-published": join_rows_as_published,
}


def raw_rows(pieces: Iterable[str]) -> Iterator[str]:
    """Rows of a canonical WikiText raw file as the Hub's dataset has them: blank lines as ''."""
    return (line if line.strip() else "" for line in _lines(pieces))


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    """The lines of a text that comes in pieces, each with its newline."""
    parts: list[str] = []
    for piece in pieces:
        # Not splitlines: it also splits at characters that stand within a row, such as U+2028.
        for part in io.StringIO(piece, newline="\n"):
            parts.append(part)
            if part.endswith("\n"):
                yield "".join(parts)
                parts.clear()
    if parts:
        yield "".join(parts)


def find_corpus(name: str | None, model_name: str, hub_text: HubText | None = None) -> Corpus:
    """Read the text that `dataset` means.

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
        file_name = Path(name)
        corpus = Corpus(name, file_name.name, partial(_read_file, file_name, name), file=file_name)
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
    return _checked(corpus, name)


def _checked(corpus: Corpus, name: str) -> Corpus:
    """The text, if it has words; all of it is read once, so that what is wrong shows at once."""
    _ = corpus.sha256
    if not any(piece.strip() for piece in corpus.read()):
        raise CorpusError(f"cannot score text {name!r}: it is empty. Give a text with words in it.")
    return corpus


def selection_corpus(name: str, corpus: Corpus) -> Corpus:
    """The text that plans are chosen on: `calibration` is the one that belongs to `corpus`.

    Raises:
        CorpusError: if `corpus` has no calibration text of its own, or that is empty.
    """
    if name != "calibration":
        return find_corpus(name, "")
    return _checked(_calibration_corpus(corpus), name)


def _calibration_corpus(corpus: Corpus) -> Corpus:
    if corpus.name == "demo":
        return demo_corpus("demo-calibration")
    if corpus.name in JOINS and corpus.file:
        return _raw_validation_file(corpus.name, corpus.file)
    if corpus.name in JOINS:
        return _wikitext(corpus.name, "validation")
    raise CorpusError(
        f"cannot select on the calibration text of {corpus.name!r}: only demo and wikitext2 have "
        "one. Name a text file with `select_on` FILE."
    )


def demo_corpus(name: str) -> Corpus:
    """The embedded texts: `demo` for figures, `demo-calibration` for choosing."""
    file, title = {
        "demo": ("heldout.txt", "Jane Austen, Persuasion"),
        "demo-calibration": ("calibration.txt", "Jane Austen, Northanger Abbey"),
    }[name]
    return Corpus(name, title, partial(_read_file, DEMO_FOLDER / file, name))


def _default_corpus(model_name: str) -> Corpus:
    if model_name == "demo":
        return demo_corpus("demo")
    try:
        return _wikitext("wikitext2", "test")
    except CorpusError as error:
        return replace(demo_corpus("demo"), note=f"WikiText-2 is not at hand: {error}")


def _raw_file(kind: str, file: Path, name: str) -> Corpus:
    """A local WikiText raw file, joined as `kind` says."""

    def read() -> Iterator[str]:
        return JOINS[kind](raw_rows(_read_file(file, name)))

    return Corpus(kind, f"WikiText-2 raw, {file.name}", read, file=file)


def _raw_validation_file(kind: str, test_file: Path) -> Corpus:
    """The validation text that WikiText's archive holds beside its test text."""
    file = test_file.with_name("wiki.valid.raw")
    if not file.is_file() or file.samefile(test_file):
        raise CorpusError(
            f"cannot select on the calibration text of {f'{kind}:{test_file}'!r}: there is no "
            f"other file {file.name} beside it. Name one with `select_on` {kind}:FILE."
        )
    return _raw_file(kind, file, f"{kind}:{file}")


def _wikitext(name: str, split: str) -> Corpus:
    repo, config = WIKITEXT
    rows = _hub_rows(repo, HubText(config, split), name)
    return Corpus(name, f"WikiText-2 raw, {split}", lambda: JOINS[name](rows()))


def _hub_corpus(name: str, part: HubText) -> Corpus:
    rows = _hub_rows(name, part, name)
    title = f"{name}, {part.config or 'default'}, {part.split}"
    return Corpus(name, title, lambda: join_rows(rows()))


def _hub_rows(repo: str, part: HubText, name: str) -> Callable[[], Iterator[str]]:
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
            "Check name, config and split, or use the text demo."
        ) from error
    if part.column not in table.column_names:
        raise CorpusError(
            f"cannot read column {part.column!r} of {repo}: its columns are "
            f"{', '.join(table.column_names)}. Choose one with `column`."
        )
    return partial(_texts, table.select_columns([part.column]), part.column, repo)


def _texts(table: Any, column: str, repo: str) -> Iterator[str]:
    """The rows, as far as each of them is a text; a byte order mark at its start is none."""
    batches = (batch[column] for batch in table.iter(batch_size=ROWS_AT_ONCE))
    for number, row in enumerate(itertools.chain.from_iterable(batches)):
        if not isinstance(row, str):
            kind = "empty (null)" if row is None else f"no text but {type(row).__name__}"
            raise CorpusError(
                f"cannot read column {column!r} of {repo}: its row {number} is {kind}. "
                "Choose a column of texts with `column`, or save the text to a file."
            )
        yield row.removeprefix(BYTE_ORDER_MARK)


def _read_file(path: Path, name: str) -> Iterator[str]:
    """The text of a UTF-8 file: no byte order mark, each line end a newline, nothing else changed.

    Raises:
        CorpusError: if the file cannot be read or is not UTF-8; `name` is what the user called it.
    """
    utf8 = codecs.getincrementaldecoder("utf-8")()
    decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
    n_read = 0
    try:
        with path.open("rb") as stream:
            head = stream.read(BYTES_AT_ONCE)
            _refuse_other_unicode(head, name)
            n_read = len(head)
            yield decoder.decode(head.removeprefix(codecs.BOM_UTF8))
            while data := stream.read(BYTES_AT_ONCE):
                n_read += len(data)
                yield decoder.decode(data)
            yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        position = n_read - len(error.object) + error.start
        raise CorpusError(
            f"cannot read text {name!r}: it is not UTF-8 (byte {position}). Convert the file."
        ) from None
    except OSError as error:
        raise CorpusError(
            f"cannot read text {name!r}: {error.strerror}. Give a text file in UTF-8."
        ) from None


def _refuse_other_unicode(head: bytes, name: str) -> None:
    """Refuse UTF-16 and UTF-32, which mostly are valid UTF-8 too, full of zero bytes.

    They are known by their byte order mark or by zeros among the first four bytes.

    Source: RFC 4627, section 3.
    """
    zeros = [byte == 0 for byte in head[:4]]
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)) or sum(zeros) == 3:
        found = "UTF-32"
    elif head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or (
        zeros in ([True, False, True, False], [False, True, False, True])
    ):
        found = "UTF-16"
    else:
        return
    raise CorpusError(
        f"cannot read text {name!r}: it is {found}, and UTF-8 is needed. Convert it, such as by "
        f"iconv -f {found} -t UTF-8."
    )
