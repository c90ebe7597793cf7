"""Learning: what distillations of a workbench learn from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch

from pruning_kit.errors import PlanError
from pruning_kit.inputs import models
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.calibration import tuning_windows
from pruning_kit.inputs.corpora import Corpus
from pruning_kit.inputs.texts import PreparedText, choose_bos, prepare_text, window_sizes
from pruning_kit.pruning.distillation.distilled import Keeping, Learning, NotKept
from pruning_kit.pruning.distillation.ends import ends_of
from pruning_kit.pruning.distillation.schedule import LENGTH
from pruning_kit.pruning.distillation.training import Alone, Together
from pruning_kit.pruning.distillation.writing import write
from pruning_kit.pruning.material import Advance
from pruning_kit.sweeps.keeping import Kept
from pruning_kit.sweeps.settings import WorkbenchSettings
from pruning_kit.sweeps.texts import FoundTexts

MOST_TEXT = 2**23
"""Tokens of a text that is learnt from."""
LEAST_WATCHED = 2
"""Windows."""


def learning_of(
    settings: WorkbenchSettings,
    loaded: models.LoadedModel,
    decoder: Decoder,
    found: FoundTexts,
    judging: Callable[[], PreparedText],
    device: torch.device,
    track: Callable[[str, int], AbstractContextManager[Advance]],
    keeping: Keeping | None = None,
    together: Together | None = None,
) -> Learning:
    """The whole model, texts and place of the distillations of a workbench.

    Args:
        settings: of the workbench.
        loaded: the whole model.
        decoder: the same in float32 on the host.
        found: its texts.
        judging: gives the part of the calibration text that nothing is fitted on.
        device: on which it is trained.
        track: begins to tell of progress.
        keeping: where trainings are kept; by default nowhere.
        together: the processes that train; by default this one.

    Raises:
        PlanError: if there is no calibration text, or too little text.
        ArchitectureError: if the model's logits are not what its output embedding gives.
    """
    watched = check_learning(settings, loaded, found, judging)
    dtype = _products_in(device)
    whole = decoder
    if device.type != "cpu":
        source, attention = loaded.source, settings.attention
        whole = Decoder(models.load_model(source, device, dtype, attention).model)
    texts = _texts(settings, found)
    context, _ = window_sizes(loaded, settings.context, settings.stride)
    bos = choose_bos(loaded, settings.bos)
    n_windows = MOST_TEXT // context
    ids = [_ids(text, loaded, context, settings.bos, n_windows) for text in texts]
    text_N = np.concatenate(ids)
    title = " and ".join(text.title for text in texts)
    seed, processes = settings.distillation.seed, together or Alone()

    def written(n_sequences: int, length: int) -> np.ndarray:
        def write_now() -> np.ndarray:
            with track("the whole model writes", n_sequences * length) as advance:
                return write(whole.model, text_N, n_sequences, length, seed, advance)

        if not isinstance(keeping, Kept):
            return write_now()
        read = hashlib.sha256(text_N.tobytes()).hexdigest()
        key = json.dumps([loaded.weights_sha256, read, length, seed, str(dtype)])
        if processes.rank == 0:
            keeping.written(key, n_sequences, write_now)
        processes.wait()
        return keeping.written(key, n_sequences, write_now)

    return Learning(
        whole,
        loaded.weights_sha256,
        loaded.saved_dtype,
        text_N,
        title,
        bos,
        watched,
        settings.distillation,
        written,
        keeping or NotKept(),
        processes,
    )


def check_learning(
    settings: WorkbenchSettings,
    loaded: models.LoadedModel,
    found: FoundTexts,
    judging: Callable[[], PreparedText],
) -> PreparedText:
    """Refuse what cannot be distilled, before anything is made for it.

    Args: as `learning_of`.

    Returns:
        The text that tells how a training goes.

    Raises:
        PlanError, ArchitectureError: as `learning_of`.
    """
    if found.parts is None:
        raise PlanError(
            f"cannot distil: gaps are not bridged ({found.unbridged}), and the same text tells "
            "how a training goes. Ask for `bridges`, and give `calibrate_on` a text."
        )
    ends_of(loaded.model)
    watched = _watched(judging(), settings, loaded)
    if found.training is not None:
        length = min(LENGTH, max(window.context for window in watched.windows))
        _refuse_short(found.training, loaded, length, settings.bos)
    return watched


def _refuse_short(text: Corpus, loaded: models.LoadedModel, length: int, bos: bool | None) -> None:
    """Refuse a text that is shorter than the sequences which are read of it.

    Raises:
        PlanError: naming it and both lengths.
    """
    n_tokens = len(_ids(text, loaded, length, bos, n_windows=2))
    if n_tokens < length:
        raise PlanError(
            f"cannot distil on {text.name!r}: it has {n_tokens:,} tokens, and one sequence has "
            f"{length}. Give `train_on` a longer text."
        )


def _products_in(device: torch.device) -> torch.dtype:
    """The format of products: bfloat16 on GPUs that have it."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def _watched(
    judging: PreparedText, settings: WorkbenchSettings, loaded: models.LoadedModel
) -> PreparedText:
    """Of the calibration text what bridges are neither fitted nor chosen on, and nobody reads.

    Raises:
        PlanError: if there is too little.
    """
    _, stride = window_sizes(loaded, settings.context, settings.stride)
    first = tuning_windows(stride)
    if len(judging.windows) < first + LEAST_WATCHED:
        raise PlanError(
            f"cannot distil with calibration text {judging.corpus.name!r}: it has "
            f"{max(0, len(judging.windows) - first)} windows that nothing is fitted on, and at "
            f"least {LEAST_WATCHED} are needed. Give `calibrate_on` a longer text."
        )
    return judging.part(range(first, len(judging.windows)))


def _texts(settings: WorkbenchSettings, found: FoundTexts) -> list[Corpus]:
    """What is read: a text that was named, or the calibration text but for what is kept apart."""
    if found.training is not None:
        return [found.training]
    assert found.parts is not None
    chosen_on = found.by_role.get("selection")
    if chosen_on is not None and chosen_on.sha256 == found.parts.selection.sha256:
        return [found.parts.fitting]
    return [found.parts.fitting, found.parts.selection]


def _ids(
    text: Corpus, loaded: models.LoadedModel, context: int, bos: bool | None, n_windows: int
) -> np.ndarray:
    """Its token ids, those of a long text up to some length."""
    prepared = prepare_text(text, loaded, context, context, n_windows, bos)
    return prepared.ids if prepared.bos is None else prepared.ids[1:]
