"""Synthetic run folders, written as the kit writes them, with known costs and no model.

`python -m tests.synthetic_runs FOLDER N_BLOCKS` writes one to look at.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pruning_kit.machine.typed import fit
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import BRIDGED, Recovery, Variant
from pruning_kit.runs import recoveries, store
from pruning_kit.runs.facts import (
    ModelFacts,
    NumericsFacts,
    ProposalFacts,
    ProtocolFacts,
    RoundFacts,
    RunFacts,
    Samples,
    TextFacts,
    VariantFacts,
    WindowFacts,
)
from pruning_kit.runs.recoveries import BridgesFacts, PlanFacts
from pruning_kit.runs.results import Run, write_samples
from pruning_kit.speed import stored_timings
from pruning_kit.speed.timings import (
    END_TO_END,
    END_TO_END_PLAIN,
    QUANTITIES,
    Entry,
    Round,
    Timings,
)
from tests.synthetic_scores import additive_costs, all_plans, synthetic_nll

WHOLE_M, BLOCK_M = 81_912_576, 7_087_872
GROUP = 50
TITLES = {
    "reported": "WikiText-2 raw, test",
    "selection": "WikiText-2 raw, valid",
    "also-1": "novel.txt",
    "also-2": "letters-to-an-editor-in-the-year-of-the-comet.txt",
}
HASHES = {"reported": "b1" * 32, "selection": "c2" * 32, "also-1": "d3" * 32, "also-2": "e4" * 32}


def costs_of(n_blocks: int, steepness: float = 1.0):
    """log PPL costs in the manner of a GPT-2: the first block carries most, the last much.

    Blocks 0 and 1 replace each other, and so do all neighbours, a little.
    """
    middle = [0.25 + 0.03 * ((7 * block) % 5) for block in range(1, n_blocks - 1)]
    ends = ([3.0], [1.2]) if n_blocks > 1 else ([3.0], [])
    pairs = {(block, block + 1): 0.15 for block in range(1, n_blocks - 1)}
    if n_blocks > 1:
        pairs[0, 1] = 1.5
    cost = additive_costs([*ends[0], *middle, *ends[1]], pairs)
    return lambda plan: steepness * cost(plan)


def write_run(
    folder: Path,
    n_blocks: int = 6,
    plans: Iterable[Plan] | None = None,
    *,
    n_windows: int = 120,
    n_rounds: int = 1,
    timed: bool = True,
    timings: Timings | None = None,
    failed: Sequence[Plan] = (),
    selection: bool = False,
    recomputed: bool = False,
    cost=None,
    selection_cost=None,
    bridged=None,
    recovered: Mapping[str, Any] | None = None,
    also_on: Sequence[Any] = (),
    seed: int = 0,
    model: str = "distilgpt2",
    samples: Mapping[Plan, str] | None = None,
    comparing: bool = False,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Write a finished run through the store and return its folder.

    Args:
        folder: where to; new or empty.
        n_blocks: blocks of the model.
        plans: what was measured; by default every set of blocks, also the empty stack.
        n_windows: windows of each text.
        n_rounds: rounds that the plans are dealt out to, as many to each.
        timed: write latency.json, with one pool for each number of blocks.
        timings: what is in it; by default `synthetic_timings`.
        failed: plans with a window that is not finite.
        selection: measure a second text to choose on.
        recomputed: mark the first window group of each text as computed again in float32.
        cost: log PPL increase of a plan; by default that of `costs_of`.
        selection_cost: the same on the text to choose on, where it is another.
        bridged: the same of a plan's bridged variant, None where it has none; or by texts.
        recovered: the same of variants with weights of their own, by their recovery's text form.
        also_on: the same on each further text.
        seed: of the texts.
        model: its name.
        samples: what plans wrote on from a prompt.
        comparing: measure KL and agreement too, both made up from the cost.
        changes: of facts, by their paths, such as `model.name`.
    """
    plans = all_plans(n_blocks) if plans is None else list(plans)
    cost = cost or costs_of(n_blocks)
    costs = {"reported": cost} | ({"selection": selection_cost or cost} if selection else {})
    costs |= {f"also-{number}": other for number, other in enumerate(also_on, 1)}
    bridged = bridged if isinstance(bridged, Mapping) else dict.fromkeys(costs, bridged)
    helped = [plan for plan in plans if bridged["reported"] and bridged["reported"](plan)]
    own = {
        Recovery.parse(text): by_text
        if isinstance(by_text, Mapping)
        else dict.fromkeys(costs, by_text)
        for text, by_text in (recovered or {}).items()
    }
    by_form = {None: costs, BRIDGED: bridged, **own}
    made = {how: [p for p in plans if by["reported"](p) is not None] for how, by in own.items()}
    forms = {None: plans, BRIDGED: helped, **made}
    variants = [Variant(plan, how) for how, of_form in forms.items() for plan in of_form]
    sums, targets = {}, {}
    for number, role in enumerate(costs):
        text = n_windows, seed + 100 * number
        sums[role], targets[role] = synthetic_nll(plans, costs[role], *text)
        for plan in failed:
            sums[role][plans.index(plan), n_windows // 2] = np.nan
        for form, how in enumerate(list(forms)[1:]):
            if forms[how]:
                also, _ = synthetic_nll(forms[how], by_form[how][role], *text, form=998 - form)
                sums[role] = np.concatenate([sums[role], also])
    facts = facts_of(n_blocks, targets, "float16" if recomputed else "float32")
    named = {"model.name": model, "command": facts.command.replace("distilgpt2", model)}
    measured = {
        role: {"nll": nll_PN}
        | (comparing_sums(_costs(variants, by_form, role), targets[role]) if comparing else {})
        for role, nll_PN in sums.items()
    }
    run = store.RunFolder.create(folder, changed(facts, named | dict(changes or {})))
    for number, rows in enumerate(np.array_split(np.arange(len(variants)), n_rounds)):
        _write_round(run, number, [variants[row] for row in rows], measured, rows, recomputed)
    run.finish()
    if helped:
        recoveries.write_facts(folder, bridges_of(plans, helped, n_blocks))
    if samples:
        texts = {Variant(plan): text for plan, text in samples.items()}
        write_samples(folder, Samples.of("It was", 60, texts))
    if timed:
        stored_timings.write(folder / "latency.json", timings or synthetic_timings(plans, n_blocks))
    return folder


def _costs(variants, by_form, role) -> list[float]:
    """What each variant costs on a text; the whole model nothing."""
    return [v.plan.size and max(0.0, by_form[v.recovery][role](v.plan)) for v in variants]


def bridges_of(plans, helped, n_blocks) -> BridgesFacts:
    """Facts of bridges that help some plans; plans without block 0 are judged and not helped."""
    judged = [plan for plan in plans if 0 < plan.size < n_blocks and plan.removed != (0,)]
    text = _text("reported", [1000] * 50)
    return BridgesFacts(
        fitting=msgspec.structs.replace(text, title="A novel (fitting part)", n_tokens=54_177),
        tuning=msgspec.structs.replace(text, title="A novel (tuning part)"),
        dtype="float16",
        refused={},
        gaps={},
        plans={
            str(plan): PlanFacts(nats_as_cut=4.0, nats=3.5 if plan in helped else 4.5)
            for plan in judged
        },
    )


def comparing_sums(costs, targets) -> dict[str, np.ndarray]:
    """KL of 0.8 times the cost and a share of agreement that falls with it, with noise."""
    generator = np.random.default_rng(1)
    costs_P1 = np.array([costs], dtype=np.float64).T
    noise_PN = 1 + 0.1 * generator.standard_normal((len(costs), len(targets)))
    kl_PN = 0.8 * costs_P1 * noise_PN * targets
    return {"kl": kl_PN, "agreement": np.round(np.exp(-costs_P1 * noise_PN) * targets)}


def _write_round(run, number, variants, measured, rows, recomputed) -> None:
    measures = tuple(next(iter(measured.values())))
    run.add_round(number, round_of(variants, texts=tuple(measured), measures=measures))
    for role, sums in measured.items():
        for group, (first, end) in enumerate(run.facts.windows[role].groups):
            again = {"recomputed": "float32"} if recomputed and group == 0 else {}
            part = {name: sums_PN[rows, first:end] for name, sums_PN in sums.items()}
            run.write_part(number, role, group, part, {"kernel": "reference"} | again)


def round_of(asked, texts=("reported",), measures=("nll",)) -> RoundFacts:
    """A round of variants, or of plans as cut."""
    variants = tuple(
        VariantFacts(variant=str(one), parameters=max(1, WHOLE_M - BLOCK_M * _plan(one).size))
        for one in asked
    )
    return RoundFacts(variants=variants, measures=measures, texts=texts)


def _plan(asked: Plan | Variant) -> Plan:
    return asked.plan if isinstance(asked, Variant) else asked


def facts_of(
    n_blocks: int, targets: Mapping[str, Iterable[int]], dtype: str = "float32", group: int = GROUP
) -> RunFacts:
    """The facts of a run on texts whose windows score so many tokens each."""
    return RunFacts(
        command="pruning-kit sweep --model distilgpt2 --mode combinatorial",
        created="2026-01-02T03:04:05+00:00",
        identity={"proposal": "combinatorial", "context": 1024},
        model=ModelFacts(
            name="distilgpt2",
            revision=None,
            weights_sha256="a0" * 32,
            model_type="gpt2",
            n_blocks=n_blocks,
            stored_dtype="float32",
            context_limit=1024,
            note=None,
        ),
        texts={role: _text(role, [int(n) for n in targets[role]]) for role in targets},
        protocol=ProtocolFacts(context=1024, stride=512, bos=None, max_windows=None),
        numerics=NumericsFacts(
            dtype=dtype,
            device="cpu",
            device_name="AMD EPYC 9B14",
            kernel="reference",
            note=None,
            attention="sdpa",
            batch_size=8,
            threads=2,
        ),
        proposal=ProposalFacts(text="combinatorial", mode="combinatorial", seed=0),
        windows={role: _windows([int(n) for n in targets[role]], group) for role in targets},
        versions={"pruning_kit": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        git_commit="0123456789abcdef0123456789abcdef01234567",
        unbridged=None,
    )


def _text(role: str, targets: Sequence[int]) -> TextFacts:
    return TextFacts(
        name="wikitext2",
        title=TITLES[role],
        sha256=HASHES[role],
        n_tokens=sum(targets) + 1,
        n_bytes=int(4.4 * sum(targets)),
        n_windows_in_all=len(targets),
        part=None,
        note=None,
    )


def _windows(targets: Sequence[int], group: int) -> WindowFacts:
    n_windows = len(targets)
    groups = tuple((i, min(i + group, n_windows)) for i in range(0, n_windows, group))
    return WindowFacts(groups=groups, targets=tuple(targets))


def changed(facts: RunFacts, changes: Mapping[str, Any]) -> RunFacts:
    """Facts of which some are others, by their paths, such as `texts.reported.title`."""
    content = msgspec.to_builtins(facts)
    for path, value in changes.items():
        *way, last = path.split(".")
        inner = content
        for name in way:
            inner = inner[name]
        inner[last] = value
    return fit(content, RunFacts)


def with_facts(run: Run, changes: Mapping[str, Any]) -> Run:
    """A run that says other things of itself."""
    return replace(run, facts=changed(run.facts, changes))


def synthetic_timings(
    plans: Iterable[Plan], n_blocks: int, n_rounds: int = 12, seed: int = 0, whole_s: float = 0.4
) -> Timings:
    """Timings with a known line: 30 % of the whole model's time lies outside the blocks."""
    by_size: dict[int, list[Plan]] = {0: [Plan()]}
    for plan in plans:
        if 0 < plan.size < n_blocks:
            by_size.setdefault(plan.size, []).append(plan)
    pools = tuple(tuple(pool) for pool in by_size.values())
    entries = (
        Entry(Plan(), 0, 90_000_000),
        *(Entry(pool[0], index, 80_000_000) for index, pool in enumerate(pools)),
    )
    seconds_E = np.array(
        [whole_s * (0.3 + 0.7 * (n_blocks - entry.plan.size) / n_blocks) for entry in entries]
    )
    share = {"prefill_s": 0.1, "decode_s_per_token": 0.013, "end_to_end_s": 1.0}
    generator = np.random.default_rng(seed)

    def noisy(quantity: str) -> tuple[float, ...]:
        factors = np.exp(0.01 * generator.standard_normal(len(entries)))
        return tuple((share[quantity] * seconds_E * factors).tolist())

    def samples() -> dict[str, tuple[float, ...]]:
        found = {quantity: noisy(quantity) for quantity in QUANTITIES}
        return found | {END_TO_END_PLAIN: found[END_TO_END]}

    reading = {"time_s": 0.0, "cpu_busy_s": 0.0, "cpu_own_s": 0.0, "cpu_steal_s": 0.0}
    return Timings(
        n_blocks=n_blocks,
        protocol={
            "batch_size": 1,
            "prompt_tokens": 128,
            "new_tokens": 16,
            "end_to_end_prompt_tokens": 6,
            "end_to_end_new_tokens": 69,
            "target": 0.02,
            "budget_s": 15.0,
            "warmup_rounds": 1,
            "execution": "eager",
            "threads_asked": None,
        },
        machine={
            "cores": 2,
            "threads": 2,
            "threads_offered": 2,
            "device": "cpu",
            "device_name": "AMD EPYC 9B14",
        },
        pools=pools,
        entries=entries,
        start=reading | {"load_average": 0.1},
        rounds=tuple(
            Round(
                tuple(range(len(entries))),
                samples(),
                reading | {"time_s": float(number + 1), "load_average": 0.2},
            )
            for number in range(n_rounds)
        ),
        stopped_because="target met",
        elapsed_s=14.0,
    )


if __name__ == "__main__":
    print(write_run(Path(sys.argv[1]), int(sys.argv[2])))
