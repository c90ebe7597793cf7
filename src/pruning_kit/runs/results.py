"""Results: a stored run read back, and its rows.

Rows are derived from the stored sums at any time and never stored as the truth. This module and
all that reads runs import no torch, so tables and reports start at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning_kit.errors import PruningKitError, RunError
from pruning_kit.machine import disk
from pruning_kit.machine.forms import COUNT, PLAN, Restricted, what_is_missing
from pruning_kit.plans.plan import Plan
from pruning_kit.runs import store
from pruning_kit.speed.timings import END_TO_END, TIME_AGAIN, Timings

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = [
    "mode",
    "removed",
    "blocks",
    "ppl",
    "ppl_change_pct",
    "speed_ms",
    "speed_change_pct",
    "params_m",
    "nll_nats",
    "tokens",
    "bits_per_byte",
    "split",
    "status",
    "speed_change_low_pct",
    "speed_change_high_pct",
    "speed_pooled",
    "speed_claimed",
    "prefill_ms",
    "decode_ms_per_token",
    "peak_mb",
    "note",
]
LATENCY_FILE = "latency.json"
SAMPLES_FILE = "samples.json"
SAMPLES_FORM = {
    "prompt": str,
    "new_tokens": COUNT,
    "texts": Restricted({str: str}, lambda texts: all(map(PLAN.allows, texts))),
}
SAMPLE_AGAIN = "Delete the file; --resume with --samples writes it again."


@dataclass(frozen=True)
class Run:
    """A finished run: its facts, its sums and its timings."""

    folder: Path
    info: dict[str, Any]
    sums: Mapping[str, np.ndarray]
    timings: Timings | None
    timings_note: str | None
    """Why stored timings are left out, as sentences; None where nothing is left out."""
    recomputed: Mapping[str, int]
    """Windows of each text whose group overflowed in 16 bits and was computed again in float32."""
    samples: Mapping[Plan, str] = field(default_factory=dict)
    """What some plans wrote on from the prompt, the prompt included."""

    @cached_property
    def plans(self) -> list[Plan]:
        """The measured plans, the whole model first."""
        return [Plan.parse(text) for text in self.info["plans"]]

    @property
    def n_blocks(self) -> int:
        """Blocks of the whole model."""
        return int(self.info["model"]["n_blocks"])

    @property
    def splits(self) -> tuple[str, ...]:
        """The texts measured: `test` is reported on, `calibration` is chosen on."""
        return tuple(self.info["windows"])

    @cached_property
    def parameters(self) -> dict[Plan, int]:
        """Parameters of each pruned model, tied weights counted once."""
        return {Plan.parse(text): count for text, count in self.info["parameters"].items()}

    @cached_property
    def _timed(self) -> frozenset[Plan]:
        """Plans whose latency is known."""
        return frozenset() if self.timings is None else frozenset(self.timings.plans)

    def nll(self, split: str = "test") -> np.ndarray:
        """NLL sums in nats, float64, shape (plans, windows); NaN where a forward failed."""
        return self.sums[split]

    def targets(self, split: str = "test") -> np.ndarray:
        """Scored tokens of each window, int64, shape (windows,)."""
        return np.asarray(self.info["windows"][split]["targets"], dtype=np.int64)

    def rows(self, split: str = "test") -> list[dict[str, Any]]:
        """One row per plan on a text, by the columns of results.csv; None where nothing is."""
        return [
            dict.fromkeys(COLUMNS) | self._row(plan, index, split)
            for index, plan in enumerate(self.plans)
        ]

    def frame(self) -> pd.DataFrame:
        """One row per plan and split, in the columns of results.csv."""
        import pandas as pd  # half a second, which what is only printed need not wait for

        rows = [row for split in self.splits for row in self.rows(split)]
        return pd.DataFrame(rows, columns=COLUMNS)

    def _repr_html_(self) -> str:
        """The summary of the run, for notebooks."""
        # it reads runs, so it imports this module
        from pruning_kit.reporting.notebook import run_html

        return run_html(self)

    def _row(self, plan: Plan, index: int, split: str) -> dict[str, Any]:
        tokens = int(self.targets(split).sum())
        nll_nats = float(self.nll(split)[index].sum())
        base_nats = float(self.nll(split)[self.plans.index(Plan())].sum())
        failed = int(np.count_nonzero(~np.isfinite(self.nll(split)[index])))
        n_bytes = self.info["texts"][split]["n_bytes"]
        return {
            "mode": mode_of(plan, self.n_blocks),
            "removed": str(plan),
            "blocks": self.n_blocks - plan.size,
            "ppl": perplexity(nll_nats, tokens),
            "ppl_change_pct": 100 * (ratio(nll_nats, base_nats, tokens) - 1),
            "params_m": self.parameters[plan] / 1e6,
            "nll_nats": nll_nats,
            "tokens": tokens,
            "bits_per_byte": nll_nats / math.log(2) / n_bytes,
            "split": split,
            "status": "failed" if failed else "ok",
            "note": self._note(split, failed),
            **self._speed(plan),
        }

    def _note(self, split: str, failed: int) -> str:
        n_windows, again = self.nll(split).shape[1], self.recomputed[split]
        notes = [f"not finite in {failed} of {n_windows} windows"] * bool(failed)
        notes += [f"{again} of {n_windows} windows recomputed in float32"] * bool(again)
        return "; ".join(notes)

    def _speed(self, plan: Plan) -> dict[str, Any]:
        """The speed columns of a plan; empty if it was not timed."""
        if self.timings is None or plan not in self._timed:
            return {}
        timing = self.timings.summary(plan)
        ratio_to_whole = timing.end_to_end_s.ratio
        return {
            "speed_ms": 1e3 * timing.end_to_end_s.median_s,
            "speed_change_pct": 100 * (ratio_to_whole.value - 1),
            "speed_change_low_pct": _percent_if_known(ratio_to_whole.low),
            "speed_change_high_pct": _percent_if_known(ratio_to_whole.high),
            "speed_pooled": timing.pooled,
            "speed_claimed": plan == Plan() or timing.claimed[END_TO_END],
            "prefill_ms": 1e3 * timing.prefill_s.median_s,
            "decode_ms_per_token": 1e3 * timing.decode_s_per_token.median_s,
            "peak_mb": None if timing.peak_bytes is None else timing.peak_bytes / 1e6,
        }


def _percent_if_known(ratio_bound: float) -> float | None:
    """A bound of a ratio as a change in per cent; None where too few rounds gave none."""
    unknown = ratio_bound <= 0 or not math.isfinite(ratio_bound)
    return None if unknown else 100 * (ratio_bound - 1)


def mode_of(plan: Plan, n_blocks: int) -> str:
    """The mode a row belongs to; the stack without any block is `empty`."""
    return "empty" if plan.size == n_blocks else plan.mode


def perplexity(nll_nats: float, tokens: int) -> float:
    """exp(all nats / all scored tokens); infinity where float64 ends, NaN where a sum failed."""
    with np.errstate(over="ignore"):
        return float(np.exp(np.float64(nll_nats) / tokens))


def ratio(nll_nats: float, base_nats: float, tokens: int) -> float:
    """Perplexity relative to another on the same tokens."""
    return perplexity(nll_nats - base_nats, tokens)


def load_run(folder: Path | str) -> Run:
    """Read a finished run. Timings that cannot be read are left out, which `timings_note` says.

    Raises:
        RunError: if the folder is no run, its sums are damaged, or some window groups are missing.
    """
    run = store.RunFolder.open(Path(folder))
    read = {split: _read_parts(run, split) for split in run.info["windows"]}
    sums = {
        split: np.concatenate([nll_PW for nll_PW, _ in parts], 1) for split, parts in read.items()
    }
    recomputed = {
        split: sum(nll_PW.shape[1] for nll_PW, facts in parts if "recomputed" in facts)
        for split, parts in read.items()
    }
    timings, note = None, None
    try:
        timings = read_timings(run)
    except PruningKitError as error:
        note = f"Speeds are left out, because the kit {error}"
    return Run(run.folder, run.info, sums, timings, note, recomputed, read_samples(run.folder))


def read_timings(run: store.RunFolder) -> Timings | None:
    """The timings stored in a run folder; None if it holds none.

    Raises:
        PruningKitError: if they are damaged, of another schema or of another model.
    """
    path = run.folder / LATENCY_FILE
    if not path.exists():
        return None
    timings = Timings.from_json(disk.read_json(path, TIME_AGAIN), str(path))
    n_blocks = run.info["model"]["n_blocks"]
    if timings.n_blocks != n_blocks:
        raise RunError(
            f"cannot use the timings in {path}: they are of a model of {timings.n_blocks} blocks, "
            f"and this run's has {n_blocks}. {TIME_AGAIN}"
        )
    return timings


def write_samples(folder: Path, prompt: str, new_tokens: int, texts: Mapping[Plan, str]) -> None:
    """Store what plans wrote on from a prompt."""
    written = {str(plan): text for plan, text in texts.items()}
    content = {"prompt": prompt, "new_tokens": new_tokens, "texts": written}
    disk.write_json(folder / SAMPLES_FILE, content)


def read_samples(folder: Path) -> dict[Plan, str]:
    """The samples stored in a run folder; none if it holds none.

    Raises:
        RunError: if they are damaged.
    """
    path = folder / SAMPLES_FILE
    if not path.exists():
        return {}
    content = disk.read_json(path, SAMPLE_AGAIN)
    if missing := what_is_missing(content, SAMPLES_FORM):
        raise RunError(
            f"cannot read the samples in {path}: they lack {missing}, or hold it in another form. "
            f"{SAMPLE_AGAIN}"
        )
    return {Plan.parse(name): text for name, text in content["texts"].items()}


def _read_parts(run: store.RunFolder, split: str) -> list[tuple[np.ndarray, dict[str, str]]]:
    """The sums of each window group in text order, with the facts stored beside them."""
    groups = run.info["windows"][split]["groups"]
    done = [group for group in range(len(groups)) if run.has_part(split, group)]
    if len(done) < len(groups):
        raise RunError(
            f"cannot read run {run.folder}: it is not finished, {len(done)} of {len(groups)} "
            "window groups are done. Run the same command with --resume."
        )
    return [run.read_part(split, group) for group in done]


def write_csv(run: Run, path: Path) -> None:
    """Write the rows as CSV, whole."""
    disk.write_file(path, run.frame().to_csv(index=False))


def measured_numbers(run: Run, plan: Plan, weights_sha256: str) -> dict[str, Any]:
    """What a run measured for a plan, by the names that a model card shows.

    Raises:
        RunError: if the run is of another model or did not measure the plan.
    """
    if run.info["model"]["weights_sha256"] != weights_sha256:
        raise RunError(
            f"cannot take numbers from {run.folder}: it measured {run.info['model']['name']!r} "
            "with other weights. Give a run of the model that is pruned."
        )
    plan.check(run.n_blocks)
    if plan not in run.plans:
        raise RunError(
            f"cannot take numbers from {run.folder}: it did not measure plan {plan.short}. "
            f"Measure it with sweep --plans {plan.short}."
        )
    rows = {row["removed"]: row for row in run.rows()}
    text, protocol = run.info["texts"]["test"], run.info["protocol"]
    pruned, whole = rows[str(plan)], rows[str(Plan())]
    return {
        "text": text["title"] + (f", {text['part']}" if text["part"] else ""),
        "context and stride": f"{protocol['context']} and {protocol['stride']}",
        **({} if protocol.get("bos") is None else {"first token of each window": "BOS"}),
        "tokens scored": pruned["tokens"],
        "perplexity": pruned["ppl"],
        "perplexity of the whole model": whole["ppl"],
        "bits per byte": pruned["bits_per_byte"],
    }
