"""Calibration: a text in three parts, so that nothing is judged by the tokens that made it.

fitting     bridges are solved from it
tuning      their strengths are chosen on it, and which plans are better with them
selection   plans are chosen on it, where that is asked for (`select_on` calibration)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pruning_kit.errors import CorpusError
from pruning_kit.inputs.corpora import Corpus
from pruning_kit.inputs.models import ModelInputs
from pruning_kit.inputs.texts import PreparedText, prepare_text, window_sizes

FITTING, TUNING = 1 / 2, 1 / 8
"""Shares of the text; selection has the rest."""
LEAST_BYTES = 20_000
"""Some 5,000 tokens: with less there is nothing to fit and to judge."""
FITTING_TOKENS = 65_536
"""More of them gain little: see docs/bridges.md."""
TUNING_TOKENS = 2048
"""That are scored, by two windows at least."""
JUDGING_TOKENS = 16_384
"""Of the same part, that are scored where a recovery as a whole is judged."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The three parts of a calibration text."""

    fitting: Corpus
    tuning: Corpus
    selection: Corpus


@dataclass(frozen=True, slots=True)
class Calibration:
    """What bridges are fitted and judged on."""

    fitting: PreparedText
    tuning: PreparedText
    stride: int
    """Tokens that the windows of the tuning text advance by."""


def parts_of(corpus: Corpus) -> Parts:
    """Cut a calibration text into its parts, each at the end of a line where there is one.

    Raises:
        CorpusError: if it is too short.
    """
    if corpus.n_bytes < LEAST_BYTES:
        raise CorpusError(
            f"cannot fit bridges on text {corpus.name!r}: it has {corpus.n_bytes:,} bytes, and at "
            f"least {LEAST_BYTES:,} are needed. Give `calibrate_on` a longer one."
        )
    n_characters = sum(map(len, corpus.read()))
    within = int(n_characters * TUNING / 2)  # lest one line be all of a part
    first = _line_end(corpus, int(n_characters * FITTING), within)
    second = _line_end(corpus, int(n_characters * (FITTING + TUNING)), within)
    return Parts(
        _part(corpus, "fitting", 0, first),
        _part(corpus, "tuning", first, second),
        _part(corpus, "selection", second, n_characters),
    )


def _part(corpus: Corpus, name: str, start: int, stop: int) -> Corpus:
    def read() -> Iterator[str]:
        return _slice(corpus, start, stop)

    return replace(corpus, title=f"{corpus.title} ({name} part)", read=read)


def _slice(corpus: Corpus, start: int, stop: int) -> Iterator[str]:
    """The characters from `start` to before `stop`."""
    for piece in corpus.read():
        if stop <= 0:
            return
        if start < len(piece):
            yield piece[max(0, start) : stop]
        start, stop = start - len(piece), stop - len(piece)


def _line_end(corpus: Corpus, near: int, within: int) -> int:
    """The place behind the first line end from a place on; the place itself if none is near."""
    head = "".join(_slice(corpus, near, near + min(within, 10_000)))
    return near + head.find("\n") + 1


def tuning_windows(stride: int) -> int:
    """Windows of the tuning part that strengths are chosen on."""
    return max(2, TUNING_TOKENS // stride)


def prepare_calibration(
    parts: Parts,
    inputs: ModelInputs,
    context: int | None = None,
    stride: int | None = None,
    bos: bool | None = None,
) -> Calibration:
    """Tokenise the parts that bridges need: fitting in windows that do not overlap.

    Args:
        parts: of the calibration text.
        inputs: the model that reads it.
        context, stride, bos: of the windows that figures are measured on, for tuning.

    Raises:
        CorpusError, ModelError, WindowError: as `prepare_text`.
    """
    context, stride = window_sizes(inputs, context, stride)
    n_windows = max(1, FITTING_TOKENS // context)
    return Calibration(
        prepare_text(parts.fitting, inputs, context, context, n_windows, bos),
        prepare_text(parts.tuning, inputs, context, stride, tuning_windows(stride), bos),
        stride,
    )


def prepare_judging(
    parts: Parts,
    inputs: ModelInputs,
    context: int | None = None,
    stride: int | None = None,
    bos: bool | None = None,
) -> PreparedText:
    """More of the tuning part than strengths are chosen on, to judge a recovery as a whole.

    Args, Raises: as `prepare_calibration`.
    """
    context, stride = window_sizes(inputs, context, stride)
    most = max(2, JUDGING_TOKENS // stride)
    return prepare_text(parts.tuning, inputs, context, stride, most, bos)
