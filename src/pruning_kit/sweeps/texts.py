"""Texts: which are meant by the settings, by the role of each, and what bridges are fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pruning_kit.errors import CorpusError
from pruning_kit.inputs import corpora
from pruning_kit.inputs.calibration import Parts, parts_of
from pruning_kit.inputs.corpora import Corpus
from pruning_kit.inputs.models import ModelInputs
from pruning_kit.inputs.texts import PreparedText, prepare_text, window_sizes
from pruning_kit.runs.facts import NO_TEXT, Role
from pruning_kit.sweeps.observer import Observer
from pruning_kit.sweeps.settings import WorkbenchSettings

CALIBRATION = "calibration"
SPREAD_OVER = 32
"""Times as many windows are looked at as are kept of the text that plans are chosen on."""


@dataclass(frozen=True, slots=True)
class FoundTexts:
    """What is meant by the settings, before anything is tokenised."""

    by_role: Mapping[Role, Corpus]
    """Those that are measured."""
    calibration: Corpus | None
    """Of which `parts` are; None where nothing is to be bridged."""
    parts: Parts | None
    unbridged: str | None
    """Why nothing can be bridged, as a clause; None where it can, for all that the texts say."""
    training: Corpus | None = None
    """What is distilled on, where another text than the calibration text was named."""


def find_texts(settings: WorkbenchSettings, observer: Observer, inputs: ModelInputs) -> FoundTexts:
    """Find the reported text, others that are measured, and what bridges are made of.

    Raises:
        CorpusError: if one cannot be had, or is measured already.
    """
    window_sizes(inputs, settings.context, settings.stride)  # refused before a text is read
    reported = corpora.find_corpus(settings.dataset, inputs.source.name, settings.hub_text)
    if reported.note:
        observer.warn(f"{reported.note} This run scores the embedded text ({reported.title}).")
    calibration, unbridged = _find_calibration(settings, reported)
    parts = None if calibration is None else parts_of(calibration)
    texts: dict[Role, Corpus] = {"reported": reported}
    if settings.select_on:
        fitted_on = settings.calibrate_on or CALIBRATION
        name = fitted_on if settings.select_on == CALIBRATION else settings.select_on
        if calibration and name == fitted_on:
            selection = calibration
        else:
            selection = corpora.selection_corpus(name, reported)
        if selection.sha256 == reported.sha256:
            raise CorpusError(
                f"cannot choose plans on {settings.select_on!r}: it is the text that figures are "
                "reported on. Give `select_on` another text."
            )
        shared = calibration is not None and selection.sha256 == calibration.sha256
        texts["selection"] = parts.selection if shared and parts else selection
    for number, name in enumerate(settings.also_on, 1):
        text = corpora.find_corpus(name, "", settings.hub_text)
        _refuse_twice(name, text, texts)
        texts[f"also-{number}"] = text
    _refuse_leak(settings, calibration, texts)
    training = _find_training(settings, calibration, texts)
    return FoundTexts(texts, calibration, parts, unbridged, training)


def _find_calibration(
    settings: WorkbenchSettings, reported: Corpus
) -> tuple[Corpus | None, str | None]:
    """The text that bridges are fitted on, or why there is none.

    Raises:
        CorpusError: if the one that was asked for cannot be had.
    """
    if not settings.bridges:
        return None, "it was not asked for"
    if settings.calibrate_on not in (None, CALIBRATION):
        return corpora.selection_corpus(settings.calibrate_on, reported), None
    try:
        return corpora.selection_corpus(CALIBRATION, reported), None
    except CorpusError:
        if settings.calibrate_on:
            raise
        return None, NO_TEXT.format(reported.title)


def _find_training(
    settings: WorkbenchSettings, calibration: Corpus | None, texts: Mapping[Role, Corpus]
) -> Corpus | None:
    """A text that was named to be distilled on.

    Raises:
        CorpusError: if it cannot be had, or figures are taken on it, or trainings watched by it.
    """
    name = settings.distillation.train_on
    if settings.distillation.reads_calibration:
        return None
    found = corpora.find_corpus(name, "", settings.hub_text)
    others = {**texts, "calibration": calibration}
    for role, text in others.items():
        if text is not None and text.sha256 == found.sha256:
            what = (
                "trainings are watched by a part of it"
                if role == "calibration"
                else (f"figures are taken on it ({role})")
            )
            raise CorpusError(
                f"cannot train on {name!r}: {what}. Give `train_on` another text, or calibration."
            )
    return found


def _refuse_leak(
    settings: WorkbenchSettings, calibration: Corpus | None, texts: Mapping[Role, Corpus]
) -> None:
    """Refuse to fit on a text that figures are taken on."""
    for role, text in texts.items():
        if calibration is not None and text.sha256 == calibration.sha256:
            raise CorpusError(
                f"cannot fit bridges on {settings.calibrate_on or CALIBRATION!r}: it is the text "
                f"{text.name!r}, on which figures are taken ({role}). Give `calibrate_on` "
                "another text."
            )


def _refuse_twice(name: str, text: Corpus, others: Mapping[Role, Corpus]) -> None:
    """Refuse a further text that is measured already."""
    for role, other in others.items():
        if other.sha256 == text.sha256:
            what = {
                "reported": "the text that figures are reported on",
                "selection": "the text that plans are chosen on",
            }.get(role, "an earlier one of these texts")
            raise CorpusError(
                f"cannot measure also on {name!r}: {other.name!r} is the same text, and is {what}. "
                "Name another text, or leave it out."
            )


def prepare_texts(
    settings: WorkbenchSettings,
    texts: Mapping[Role, Corpus],
    inputs: ModelInputs,
    observer: Observer,
) -> dict[Role, PreparedText]:
    """The texts as tokens, cut into windows; slow tokenizers are told of.

    Of few windows, those of the text that plans are chosen on are spread over it, since what is
    best for its first pages is not always best for what follows. Figures are reported on the first
    ones, which other programs can read too.
    """
    prepared = {role: _prepared(role, corpus, settings, inputs) for role, corpus in texts.items()}
    for text in prepared.values():
        if text.at_once:
            observer.say(
                f"{text.corpus.title}: much of it was tokenised at once, since this tokenizer does "
                "not give shorter pieces the same tokens. That takes memory: about 150 bytes for "
                "each byte of text."
            )
    return prepared


def _prepared(
    role: Role, corpus: Corpus, settings: WorkbenchSettings, inputs: ModelInputs
) -> PreparedText:
    sizes, kept = (settings.context, settings.stride), settings.max_windows
    if role != "selection" or kept is None:
        return prepare_text(corpus, inputs, *sizes, kept, settings.bos)
    return prepare_text(corpus, inputs, *sizes, SPREAD_OVER * kept, settings.bos).spread(kept)
