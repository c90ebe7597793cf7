"""What was chosen about bridges, and by which figures: none of a text that figures are reported on.

    python -m benchmarks.bridge_choices [--also-on wiki.valid.raw] [--device cuda]

The demo model is bridged in several ways, each judged on the selection part of the calibration text
and on a text of another kind: perplexity of some plans, and the mean NLL of all 31 plans that keep
block 0 and remove another.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks.recovery import nats_of
from pruning_kit import open_workbench
from pruning_kit.inputs.calibration import Calibration, parts_of, prepare_calibration
from pruning_kit.inputs.corpora import demo_corpus, find_corpus
from pruning_kit.inputs.texts import PreparedText, prepare_text
from pruning_kit.inputs.windows import sliding_windows
from pruning_kit.plans.paths import Path, as_cut, plain
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import subsets
from pruning_kit.pruning.bridges import fitting, moments
from pruning_kit.pruning.bridges.bridging import Bridging, bridging_of
from pruning_kit.pruning.bridges.fitting import inputs_of
from pruning_kit.pruning.bridges.moments import Rows
from pruning_kit.sweeps.workbench import Workbench

SHOWN = [Plan.parse(text) for text in ("4", "5", "1+4", "1+3+4", "1+2+3+4")]
WRITTEN, PROMPT = 128, 16
"""Sequences that the model writes, and the tokens of the calibration text that each begins with."""
FURTHER_WINDOWS = 300


def bridging(bench: Workbench, calibration: Calibration) -> Bridging:
    """The bridges of all plans that keep block 0, fitted on a text."""
    made = bridging_of(
        bench.decoder,
        calibration,
        bench.kernel,
        lambda: bench.kernel_for(bench.decoder, torch.float32),
        bench.loaded.saved_dtype,
    )
    assert isinstance(made, Bridging)
    list(made.fit(plans_with_block_0(bench)))
    return made


def plans_with_block_0(bench: Workbench) -> list[Plan]:
    """All that remove a block, but not the first."""
    plans = subsets(bench.n_blocks, range(1, bench.n_blocks))
    return [plan for plan in plans if 0 not in plan.removed]


def show(
    what: str, bench: Workbench, texts: Mapping[str, PreparedText], path_of: Callable[[Plan], Path]
) -> None:
    """A line for each text."""
    plans = plans_with_block_0(bench)
    for name, text in texts.items():
        nats = dict(zip(plans, nats_of(bench.kernel, list(map(path_of, plans)), text), strict=True))
        shown = "".join(f"{np.exp(nats[plan]):10,.2f}" for plan in SHOWN)
        print(f"{what:28}{name:11}{shown}{np.mean(list(nats.values())):10.4f}", flush=True)


def show_bridged(
    what: str, bench: Workbench, texts: Mapping[str, PreparedText], calibration: Calibration
) -> None:
    """The same for bridges that are fitted on a text."""
    made = bridging(bench, calibration)
    for plan in plans_with_block_0(bench):
        made.teach(bench.kernel, made.path(plan))
    show(what, bench, texts, made.path)


@torch.no_grad()
def written(bench: Workbench, calibration: Calibration, device: torch.device) -> np.ndarray:
    """Tokens that the whole model writes at temperature 1 after starts from the fitting part."""
    torch.manual_seed(0)
    ids = torch.from_numpy(calibration.fitting.ids.astype(np.int64))
    starts = torch.randint(0, len(ids) - PROMPT, (WRITTEN,)).tolist()
    prompt = torch.stack([ids[start : start + PROMPT] for start in starts]).to(device)
    model = bench.loaded.model.to(device)
    new_tokens = calibration.fitting.windows[0].context - PROMPT
    out = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        min_new_tokens=new_tokens,
        max_new_tokens=new_tokens,
        pad_token_id=0,
    )
    model.to("cpu")
    return out.cpu().numpy().astype(np.int32).reshape(-1)


def fitted_on(calibration: Calibration, *pieces: np.ndarray) -> Calibration:
    """The calibration with other tokens to fit on."""
    ids, context = np.concatenate(pieces), calibration.fitting.windows[0].context
    windows = sliding_windows(len(ids), context, context)
    return replace(calibration, fitting=replace(calibration.fitting, ids=ids, windows=windows))


@contextmanager
def weighted_by(change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let rows have other weights: a function of the root of the inverse variance, (N, 1)."""
    original = moments.rows_of

    def rows_of(*args: object) -> Iterator[tuple[int, Rows]]:
        for block, rows in original(*args):  # type: ignore[arg-type]
            root_N1 = rows.inputs_NH[:, -1:]  # the weighted column of ones
            factor_N1 = change(root_N1) / root_N1
            targets_NGD = rows.targets_NGD * factor_N1[..., None]
            yield block, Rows(rows.inputs_NH * factor_N1, targets_NGD)

    with (
        mock.patch.object(moments, "rows_of", rows_of),
        mock.patch.object(fitting, "rows_of", rows_of),
    ):
        yield


@torch.no_grad()
def without_block_0(bench: Workbench, fitted: PreparedText, judged: PreparedText) -> None:
    """The stream shifted in place of a missing block 0, by a constant or one for each position."""
    kernel, path = bench.kernel_for(bench.decoder, torch.float32), as_cut(Plan((0,)), 6)
    total: Tensor | float = 0.0
    n_windows = 0
    for tokens, targets, first_output in inputs_of(fitted, 16):
        batch = kernel.open(tokens.to(kernel.device), targets.to(kernel.device), first_output)
        moved = batch.apply(plain(0), batch.hidden_BTD, False) - batch.hidden_BTD
        if moved.shape[1] == fitted.windows[1].n_inputs:
            total, n_windows = total + moved.double().sum(dim=0), n_windows + len(moved)
    assert isinstance(total, Tensor)
    by_position_TD = (total / n_windows).float()
    shifts = {"nothing": 0 * by_position_TD[:1], "a constant": by_position_TD[1:].mean(0)[None]}
    for what, shift in {**shifts, "one for each position": by_position_TD}.items():
        nats, n_scored = 0.0, 0
        for tokens, targets, first_output in inputs_of(judged, 16):
            batch = kernel.open(tokens.to(kernel.device), targets.to(kernel.device), first_output)
            state = batch.hidden_BTD + shift[: batch.hidden_BTD.shape[1]]
            for call in path:
                state = batch.apply(call, state, False)
            nats += float(batch.nll(state).double().sum())
            n_scored += targets.numel()
        print(f"without block 0, {what} in its place: {np.exp(nats / n_scored):,.2f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--also-on")
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    bench = open_workbench("demo", device=asked.device)
    parts = parts_of(demo_corpus("demo-calibration"))
    calibration = prepare_calibration(parts, bench.loaded)
    texts = {"selection": prepare_text(parts.selection, bench.loaded)}
    if asked.also_on:
        corpus = find_corpus(asked.also_on, "")
        texts["further"] = prepare_text(corpus, bench.loaded, max_windows=FURTHER_WINDOWS)
    print(f"{'':39}{''.join(f'{plan!s:>10}' for plan in SHOWN)}  mean nats")
    show("as cut", bench, texts, lambda plan: as_cut(plan, bench.n_blocks))
    show_bridged("bridged", bench, texts, calibration)
    choices: Sequence[int] = (1, 3)
    before = fitting.SHORTLISTED
    for fitting.SHORTLISTED in choices:
        show_bridged(f"{fitting.SHORTLISTED} shortlisted", bench, texts, calibration)
    fitting.SHORTLISTED = before
    with weighted_by(torch.ones_like):
        show_bridged("no weights", bench, texts, calibration)
    with weighted_by(lambda root_N1: root_N1.sqrt()):
        show_bridged("inverse standard deviation", bench, texts, calibration)
    ids, own = calibration.fitting.ids, written(bench, calibration, bench.device)
    for what, pieces in {
        "with what the model writes": (ids, own),
        "half of each": (ids[: len(ids) // 2], own[: len(own) // 2]),
        "what the model writes alone": (own,),
    }.items():
        show_bridged(what, bench, texts, fitted_on(calibration, *pieces))
    without_block_0(bench, calibration.fitting, texts["selection"])


if __name__ == "__main__":
    main()
