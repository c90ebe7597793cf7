"""Scoring: blocks ranked by one pass over the text that plans are chosen on, once for a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from pruning_kit.errors import DeviceError, PlanError
from pruning_kit.inputs import models
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.inputs.texts import PreparedText
from pruning_kit.inputs.windows import spread
from pruning_kit.machine.devices import using_threads
from pruning_kit.pruning import scores
from pruning_kit.pruning.scores import Inputs
from pruning_kit.runs.ranks import Ranks
from pruning_kit.runs.scores import RankingFacts, ScoresFacts, read_scores, write_scores
from pruning_kit.runs.store import RunFolder
from pruning_kit.search.ranked import Scores
from pruning_kit.sweeps.workbench import Workbench

STATES_TOKENS, GRADIENT_TOKENS = 65_536, 8192
"""Tokens that are read, or all that there are; a gradient takes as long as three forwards."""


def scored(
    run: RunFolder, names: Sequence[str], workbench: Workbench, ranks: Ranks
) -> dict[str, Scores]:
    """The scores of some rankings: those that the run folder holds, and the others from one pass.

    The first process computes; all that one pass gives is kept.

    Args:
        run: keeps them.
        names: of the rankings.
        workbench: what they are computed on.
        ranks: the processes that share the run.

    Raises:
        PlanError: if a score is no number.
        RunError: if what is kept is damaged.
    """
    if ranks.leads:
        _complete(run, names, workbench)
    ranks.share(f"scores/{','.join(names)}", "stored" if ranks.leads else None)
    known = read_scores(run.folder, workbench.n_blocks).by_name
    return {name: known[name] for name in names}


def _complete(run: RunFolder, names: Sequence[str], workbench: Workbench) -> None:
    """Compute and store what is asked for and not kept yet."""
    known = dict(read_scores(run.folder, workbench.n_blocks).rankings)
    for group, compute in ((scores.OF_STATES, _of_states), (scores.OF_GRADIENTS, _of_gradients)):
        asked = [name for name in group if name in names]
        if asked and not known.keys() >= set(asked):
            known |= _finite(compute, ",".join(asked), workbench)
            write_scores(run.folder, ScoresFacts(rankings=known))


def _finite(
    compute: Callable[[Workbench], dict[str, RankingFacts]], names: str, workbench: Workbench
) -> dict[str, RankingFacts]:
    """What one pass gives, if it is numbers."""
    try:
        with using_threads(workbench.threads):
            found = compute(workbench)
    except torch.OutOfMemoryError:
        raise DeviceError(
            f"cannot rank blocks by {names} on {workbench.device}: its memory is full. Choose "
            "another `device`, or a shorter `context`."
        ) from None
    if not scores.are_finite(facts.scores for facts in found.values()):
        raise PlanError(
            f"cannot rank blocks by {names}: on {workbench.chosen_on.corpus.title} the forward of "
            "the whole model overflows. Leave the ranking out."
        )
    return found


def _of_states(workbench: Workbench) -> dict[str, RankingFacts]:
    """By a kernel in float32: angles between neighbours would be all rounding in 16 bits."""
    kernel = workbench.kernel
    if kernel.dtype != torch.float32:
        kernel = workbench.kernel_for(workbench.decoder, torch.float32)
    windows = _windows(workbench.chosen_on, STATES_TOKENS)
    with workbench.observer.track("scores of blocks by their states", len(windows)) as advance:
        found = scores.score_states(kernel, windows, workbench.n_blocks, advance)
    n_tokens = sum(first + targets_BS.shape[1] for _, targets_BS, first in windows)
    return _described(found, n_tokens, kernel.name)


def _of_gradients(workbench: Workbench) -> dict[str, RankingFacts]:
    """By the plain model in float32, since no kernel goes backwards."""
    decoder, source = workbench.decoder, workbench.loaded.source
    if workbench.device.type != "cpu":
        attention = workbench.settings.attention
        model = models.load_model(source, workbench.device, torch.float32, attention).model
        decoder = Decoder(model)
    windows = _windows(workbench.chosen_on, GRADIENT_TOKENS)
    with workbench.observer.track("scores of blocks by gradients", len(windows)) as advance:
        found = scores.score_gradients(decoder, windows, advance)
    n_tokens = sum(targets_BS.numel() for _, targets_BS, _ in windows)
    return _described(found, n_tokens, "plain model")


def _windows(text: PreparedText, n_tokens: int) -> list[Inputs]:
    """Windows spread over a text, one by one, until they hold so many tokens."""
    found: list[Inputs] = []
    n_read, n_windows = 0, len(text.windows)
    for first, end in spread([(0, n_windows)], n_windows):
        if n_read >= n_tokens:
            break
        found.append(text.tensors(first, end))
        n_read += found[-1][0].numel()
    return found


def _described(found: Mapping[str, Scores], tokens: int, kernel: str) -> dict[str, RankingFacts]:
    return {
        name: RankingFacts(tokens=tokens, kernel=kernel, scores=tuple(map(tuple, rows)))
        for name, rows in found.items()
    }
