"""What closed-form recoveries take back: the kit's bridges and what others do, on the same cuts.

    python -m benchmarks.recovery [--model demo] [--dataset TEXT] [--calibrate-on TEXT]
        [--also-on TEXT] [--plans 4 5 1+4] [--context N] [--stride N] [--max-windows N]
    python -m benchmarks.recovery --speed [--windows N]

All are fitted on the same tokens and have their strength chosen on the same others; each is folded
or applied exactly:

    scale       the stream times mean |X_j| / mean |X_i+1| at the gap (Prune&Comp)
    bias        the mean of X_j - X_i+1 added, where the projection has a bias
    ReplaceMe   a linear map of the MLP's output, by ridge (ReplaceMe)
    bridged     the kit: a linear map of what enters the MLP's output projection
    refitted    the kit: the projections from the first gap on fitted anew; nan where that gains
                no more than chance on text that nothing was chosen on

`--speed` times a sweep of 64 plans of distilgpt2's shape with and without bridges by turns, and
the fit of its 15 gaps on 51,200 tokens. The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import machine
from benchmarks.sweep import all_subsets, random_model, random_text
from pruning_kit import open_workbench
from pruning_kit.errors import NoGainError
from pruning_kit.inputs.calibration import Calibration
from pruning_kit.inputs.corpora import Corpus
from pruning_kit.inputs.layers import weight_and_bias
from pruning_kit.inputs.texts import PreparedText
from pruning_kit.inputs.windows import sliding_windows
from pruning_kit.kernels import choose_kernel
from pruning_kit.machine.devices import choose_device, choose_dtype, device_name
from pruning_kit.plans.paths import Path, as_cut
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import REFITTED, Variant
from pruning_kit.pruning.bridges.bridging import Bridging, bridging_of
from pruning_kit.pruning.bridges.fitting import (
    STRENGTHS,
    Fitter,
    inputs_of,
)
from pruning_kit.pruning.bridges.folding import Socket
from pruning_kit.pruning.bridges.gaps import Gap, bridged_path, gaps_of
from pruning_kit.pruning.bridges.moments import Inputs, Moments, Rows, rows_of
from pruning_kit.pruning.bridges.ridge import solve
from pruning_kit.sweeps.workbench import Workbench
from pruning_kit.walk.kernel import Form, Kernel
from pruning_kit.walk.measures import NLL
from pruning_kit.walk.sums import window_sums

PLANS = ("4", "5", "1+4", "1+3+4", "1+2+3+4")
FITTED_TOKENS, SPEED_CONTEXT = 51_200, 1024
TURNS = 3


def gaps_by_block(plans: Sequence[Plan], bridging: Bridging) -> dict[int, list[Gap]]:
    """All gaps of some plans that can be bridged, by the block that each begins at."""
    gaps = {gap for plan in plans for gap in gaps_of(plan, bridging.n_blocks)}
    known = sorted(gap for gap in gaps if gap.block not in bridging.refused)
    return {block: list(of_it) for block, of_it in groupby(known, key=attrgetter("block"))}


def fit_by(
    plans: Sequence[Plan],
    bridging: Bridging,
    inputs_from: Callable[[Socket, Rows], Tensor],
    form_from: Callable[[Socket, Tensor], Form],
    strengths: Sequence[float],
) -> dict[Gap, Form]:
    """Maps by ridge on other inputs than the kit's, the strength chosen by NLL as the kit does."""
    fitter = bridging.fitter
    by_block = gaps_by_block(plans, bridging)
    sums = _moments(fitter, by_block, inputs_from)
    solved = {
        (gap, strength): form_from(fitter.sockets[block], map_HD)
        for block, gaps in by_block.items()
        for strength in strengths
        if (maps_GHD := solve(sums[block], strength, fitter.sockets[block].has_bias)) is not None
        for gap, map_HD in zip(gaps, maps_GHD, strict=True)
    }
    gaps = [gap for of_it in by_block.values() for gap in of_it]
    cut = fitter.nats([as_cut(gap.plan, fitter.n_blocks) for gap in gaps])
    best = dict(zip(gaps, cut, strict=True))
    chosen: dict[Gap, Form] = {}
    for strength in strengths:
        tried = {gap: solved[gap, strength] for gap in gaps if (gap, strength) in solved}
        for gap, form in tried.items():
            fitter.kernel.learn(gap.call, form)
        paths = [bridged_path(gap.plan, fitter.n_blocks, tried) for gap in tried]
        for (gap, form), nats in zip(tried.items(), fitter.nats(paths), strict=True):
            if nats < best[gap]:
                best[gap], chosen[gap] = nats, form
    return chosen


def _moments(
    fitter: Fitter,
    by_block: Mapping[int, Sequence[Gap]],
    inputs_from: Callable[[Socket, Rows], Tensor],
) -> dict[int, Moments]:
    exact = fitter.make_exact()
    sums: dict[int, Moments] = {}
    for inputs in inputs_of(fitter.calibration.fitting, 4):
        for block, rows in rows_of(exact, inputs, by_block, fitter.sockets):
            inputs_NH = inputs_from(fitter.sockets[block], rows)
            if block not in sums:
                sizes = (inputs_NH.shape[1], rows.targets_NGD.shape[2], inputs_NH.device)
                sums[block] = Moments.zeros(by_block[block], *sizes)
            sums[block].add(replace(rows, inputs_NH=inputs_NH))
    return sums


def mlp_output(socket: Socket, rows: Rows) -> Tensor:
    """What the MLP gives, with the (weighted) column of ones where it has a bias."""
    weight_OI, bias_O = weight_and_bias(socket.layer)
    weight_OI = weight_OI.to(rows.inputs_NH)
    n_inputs = weight_OI.shape[1]
    output_ND = rows.inputs_NH[:, :n_inputs] @ weight_OI.t()
    if bias_O is None:
        return output_ND
    ones_N1 = rows.inputs_NH[:, n_inputs:]
    return torch.cat([output_ND + ones_N1 * bias_O.to(rows.inputs_NH), ones_N1], dim=1)


def replaced(dtype: torch.dtype) -> Callable[[Socket, Tensor], Form]:
    """ReplaceMe's map folded into the projection behind which it stands."""

    def form(socket: Socket, map_HD: Tensor) -> Form:
        weight_OI, bias_O = weight_and_bias(socket.layer)
        width = weight_OI.shape[0]
        linear_DD = map_HD[:width].cpu() / socket.factor
        folded_OI = weight_OI.double() + linear_DD.t() @ weight_OI.double()
        if bias_O is None:
            return Form(folded_OI.to(dtype).float(), None)
        folded_O = bias_O.double() + linear_DD.t() @ bias_O.double() + map_HD[width].cpu()
        return Form(folded_OI.to(dtype).float(), folded_O.to(dtype).float())

    return form


def bias_only(_socket: Socket, rows: Rows) -> Tensor:
    """The (weighted) column of ones alone."""
    return rows.inputs_NH[:, -1:]


def with_bias(dtype: torch.dtype) -> Callable[[Socket, Tensor], Form]:
    """A constant added to the projection's bias."""

    def form(socket: Socket, map_HD: Tensor) -> Form:
        n_inputs, width = socket.n_inputs, map_HD.shape[1]
        nothing = torch.zeros(n_inputs, width, dtype=map_HD.dtype)
        return socket.fold(torch.cat([nothing, map_HD.cpu()]), dtype)

    return form


def scales(plans: Sequence[Plan], bridging: Bridging) -> dict[Gap, float]:
    """Prune&Comp's factor for each gap: mean |X_j| / mean |X_i+1| over the fitting text."""
    fitter = bridging.fitter
    gaps = [gap for of_it in gaps_by_block(plans, bridging).values() for gap in of_it]
    sizes = np.zeros(fitter.n_blocks + 1)
    exact = fitter.make_exact()
    with torch.no_grad():
        for tokens, targets, first_output in inputs_of(fitter.calibration.fitting, 4):
            batch = exact.open(tokens.to(exact.device), targets.to(exact.device), first_output)
            state = batch.hidden_BTD
            for number, call in enumerate((None, *as_cut(Plan(), fitter.n_blocks))):
                state = state if call is None else batch.apply(call, state, False)
                sizes[number] += float(state.double().abs().sum())
    return {gap: sizes[gap.to] / sizes[gap.block + 1] for gap in gaps}


@torch.no_grad()
def scaled_nats(
    kernel: Kernel, plan: Plan, n_blocks: int, factors: Mapping[Gap, float], text: PreparedText
) -> float:
    """NLL per token with the stream scaled at each gap."""
    by_block = {gap.block: factors[gap] for gap in gaps_of(plan, n_blocks) if gap in factors}
    total, n_scored = 0.0, 0
    for tokens, targets, first_output in inputs_of(text, 8):
        batch = kernel.open(tokens.to(kernel.device), targets.to(kernel.device), first_output)
        state = batch.hidden_BTD
        for call in as_cut(plan, n_blocks):
            state = batch.apply(call, state, False) * by_block.get(call.block, 1.0)
        total += float(batch.nll(state).double().sum())
        n_scored += targets.numel()
    return total / n_scored


def nats_of(kernel: Kernel, paths: Sequence[Path], text: PreparedText) -> list[float]:
    """NLL per token of a text under some paths."""
    total, n_scored = torch.zeros(len(paths), dtype=torch.float64), 0
    for inputs in inputs_of(text, 8):
        total += window_sums(kernel, paths, *inputs)[NLL.name].sum(dim=1)
        n_scored += inputs[1].numel()
    return (total / n_scored).tolist()


def compare(bench: Workbench, plans: Sequence[Plan]) -> dict[str, Any]:
    """Perplexity of each plan by each recovery on each text, and the seconds that each took."""
    bridging = bench.bridging
    if isinstance(bridging, str):
        raise SystemExit(f"Nothing to compare: {bridging}.")
    fitter, dtype = bridging.fitter, bench.loaded.saved_dtype
    rows: dict[str, dict[str, dict[str, float]]] = {role: {} for role in bench.texts}
    took: dict[str, float] = {}

    def measure(name: str, fit: Callable[[], Mapping[Gap, Form]]) -> None:
        start = time.perf_counter()
        forms = fit()
        took[name] = time.perf_counter() - start
        for gap, form in forms.items():
            bench.kernel.learn(gap.call, form)
        paths = [bridged_path(plan, bench.n_blocks, forms) for plan in plans]
        for role, text in bench.texts.items():
            nats = nats_of(bench.kernel, paths, text)
            rows[role][name] = {str(p): float(np.exp(n)) for p, n in zip(plans, nats, strict=True)}

    measure("as cut", dict)
    start = time.perf_counter()
    factors = scales(plans, bridging)
    took["scale"] = time.perf_counter() - start
    for role, text in bench.texts.items():
        args = (bench.kernel, bench.n_blocks)
        rows[role]["scale"] = {
            str(p): float(np.exp(scaled_nats(args[0], p, args[1], factors, text))) for p in plans
        }
    if all(socket.has_bias for socket in fitter.sockets.values()):
        measure("bias", lambda: fit_by(plans, bridging, bias_only, with_bias(dtype), (0.0,)))
    measure("ReplaceMe", lambda: fit_by(plans, bridging, mlp_output, replaced(dtype), STRENGTHS))
    measure("bridged", partial(_bridges, bench, plans))
    start = time.perf_counter()
    refits = _refits(bench, plans)
    took["refitted"] = time.perf_counter() - start
    for role in bench.texts:
        found = bench.measure(refits, role).means() if refits else {}
        nats = {variant.plan: mean for variant, mean in found.items()}
        rows[role]["refitted"] = {str(p): float(np.exp(nats.get(p, np.nan))) for p in plans}
    for role, text in bench.texts.items():
        whole = nats_of(bench.kernel, [as_cut(Plan(), bench.n_blocks)], text)[0]
        rows[role]["whole"] = {str(plan): float(np.exp(whole)) for plan in plans}
    return {"perplexity": rows, "seconds": took}


def _bridges(bench: Workbench, plans: Sequence[Plan]) -> Mapping[Gap, Form]:
    bench.fit(plans)
    assert isinstance(bench.bridging, Bridging)
    return bench.bridging.forms


def _refits(bench: Workbench, plans: Sequence[Plan]) -> list[Variant]:
    """The refitted variants of plans that gain by more than chance."""
    found = []
    for variant in (Variant(plan, REFITTED) for plan in plans):
        try:
            bench.recover([variant])
        except NoGainError as error:
            print(f"{variant}: the kit {error}")
        else:
            found.append(variant)
            print(f"{variant}: {dict(bench.shelf[variant].details)}")
    return found


def show(bench: Workbench, found: Mapping[str, Any]) -> None:
    """The tables."""
    assert isinstance(bench.bridging, Bridging)
    fitting = bench.bridging.calibration.fitting
    print(f"Fitted on {len(fitting.ids):,} tokens of {fitting.corpus.title}; {bench.kernel.name}")
    for role, rows in found["perplexity"].items():
        print(
            f"\n{bench.texts[role].corpus.title} ({role}), {len(bench.texts[role].windows)} windows"
        )
        names = list(next(iter(rows.values())))
        print(f"{'':12}" + "".join(f"{name:>20.19}" for name in names) + f"{'seconds':>10}")
        for name, values in rows.items():
            seconds = found["seconds"].get(name)
            shown = "" if seconds is None else f"{seconds:10.1f}"
            print(f"{name:12}" + "".join(f"{value:20,.2f}" for value in values.values()) + shown)


def random_calibration(n_vocab: int) -> Calibration:
    """Random tokens, as many as a default calibration text gives."""
    drawn = torch.randint(0, n_vocab, (2 * FITTED_TOKENS,)).numpy().astype(np.int32)

    def text(ids: np.ndarray, stride: int, n_windows: int) -> PreparedText:
        windows = sliding_windows(len(ids), SPEED_CONTEXT, stride)[:n_windows]
        return PreparedText(
            Corpus("random", "random", lambda: [""]), ids, None, windows, None, None, 0, False
        )

    half = len(drawn) // 2
    fitting = text(drawn[:half], SPEED_CONTEXT, half)
    return Calibration(fitting, text(drawn[half:], SPEED_CONTEXT // 2, 4), SPEED_CONTEXT // 2)


def speed(device: torch.device, dtype: torch.dtype, n_windows: int) -> dict[str, Any]:
    """Seconds of a sweep as cut and of one with bridges, by turns, and of the fit."""
    decoder = random_model(torch.device("cpu"))
    n_vocab = decoder.model.config.vocab_size
    text = random_text(n_vocab)
    middle = len(text.windows) // 2
    kernel = choose_kernel(decoder, text.batch(middle, middle + 1)[0], dtype, device)
    exact = partial(
        choose_kernel, decoder, text.batch(middle, middle + 1)[0], torch.float32, device
    )
    bridging = bridging_of(decoder, random_calibration(n_vocab), kernel, exact, torch.float32)
    assert isinstance(bridging, Bridging)
    plans = all_subsets(decoder.n_blocks)
    start = time.perf_counter()
    list(bridging.fit([plan for plan in plans if plan.size < decoder.n_blocks]))
    fit_s = time.perf_counter() - start
    gaps = {gap for plan in plans if plan.size < 6 for gap in gaps_of(plan, decoder.n_blocks)}
    for gap in gaps:  # all of them, whatever random weights gain by it
        kernel.learn(gap.call, _own_weights(bridging.fitter.sockets[gap.block]))
    cut = [as_cut(plan, decoder.n_blocks) for plan in plans]
    forms = dict.fromkeys(gaps)
    both = [*cut, *(bridged_path(plan, decoder.n_blocks, forms) for plan in plans if plan.size < 6)]
    batch = min(n_windows, 64 if device.type == "cuda" else 2)
    groups: list[Inputs] = [
        text.batch(first, first + batch) for first in range(middle, middle + n_windows, batch)
    ]

    def sweep(paths: Sequence[Path]) -> None:
        for inputs in groups:
            window_sums(kernel, paths, *inputs)

    sweep(both)
    turns = [
        [machine.once(partial(sweep, paths), device) for paths in (cut, both)] for _ in range(TURNS)
    ]
    cut_s, both_s = (sorted(times)[TURNS // 2] for times in zip(*turns, strict=True))
    return {
        "kernel": kernel.name,
        "windows": n_windows,
        "plans": len(cut),
        "bridged": len(set(both)) - len(cut),
        "cut_s": cut_s,
        "both_s": both_s,
        "ratio": both_s / cut_s,
        "fit_s": fit_s,
        "fitted_tokens": FITTED_TOKENS,
    }


def _own_weights(socket: Socket) -> Form:
    weight_OI, bias_O = weight_and_bias(socket.layer)
    return Form(weight_OI.float().cpu(), None if bias_O is None else bias_O.float().cpu())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dataset")
    parser.add_argument("--calibrate-on")
    parser.add_argument("--also-on", action="append", default=[])
    parser.add_argument("--plans", nargs="+", default=PLANS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--context", type=int)
    parser.add_argument("--stride", type=int)
    parser.add_argument("--max-windows", type=int)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--windows", type=int, default=8)
    asked = parser.parse_args()
    device = choose_device(asked.device)
    dtype = choose_dtype(asked.dtype, device)
    print(device_name(device))
    if asked.speed:
        print(json.dumps(speed(device, dtype, asked.windows)))
        return
    bench = open_workbench(
        asked.model,
        asked.dataset,
        calibrate_on=asked.calibrate_on,
        also_on=tuple(asked.also_on),
        device=asked.device,
        dtype=asked.dtype,
        context=asked.context,
        stride=asked.stride,
        max_windows=asked.max_windows,
    )
    found = compare(bench, [Plan.parse(text) for text in asked.plans])
    show(bench, found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
