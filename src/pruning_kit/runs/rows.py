"""Rows: one for each variant and text, in the columns of results.csv.

Rows are derived from the stored sums at any time and never stored as the truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pruning_kit.plans.plan import Plan
from pruning_kit.runs.facts import SPLITS, Role
from pruning_kit.speed.timings import END_TO_END, Timings

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
    "variant",
    "kl_nats",
    "agreement",
    "proposed_by",
]
Row = dict[str, Any]


@dataclass(frozen=True, eq=False, slots=True)
class Scored:
    """A variant on a text: what its perplexity columns are made of."""

    role: Role
    nll_W: np.ndarray
    """Nats of each window; NaN where a forward failed."""
    whole_W: np.ndarray
    """The same of the whole model."""
    again_W: np.ndarray
    """Whether a window overflowed in 16 bits and was computed again in float32."""
    kl_W: np.ndarray | None
    """Divergence from the whole model, nats of each window; None where it was not measured."""
    agreeing_W: np.ndarray | None
    """Tokens of each window on which the whole model agrees; None where that was not measured."""
    tokens: int
    n_bytes: int

    def columns(self) -> Row:
        """The columns of a row that depend on the text."""
        nll_nats, whole_nats = float(self.nll_W.sum()), float(self.whole_W.sum())
        failed = int(np.count_nonzero(~np.isfinite(self.nll_W)))
        return {
            "ppl": perplexity(nll_nats, self.tokens),
            "ppl_change_pct": 100 * (ratio(nll_nats, whole_nats, self.tokens) - 1),
            "nll_nats": nll_nats,
            "tokens": self.tokens,
            "bits_per_byte": nll_nats / math.log(2) / self.n_bytes,
            "split": SPLITS.get(self.role, self.role),
            "status": "failed" if failed else "ok",
            "note": self._note(failed),
            "kl_nats": self._mean(self.kl_W),
            "agreement": self._mean(self.agreeing_W),
        }

    def _mean(self, sums_W: np.ndarray | None) -> float | None:
        """A sum over all windows for each token."""
        return None if sums_W is None else float(sums_W.sum()) / self.tokens

    def _note(self, failed: int) -> str:
        n_windows, again = len(self.nll_W), int(np.count_nonzero(self.again_W))
        notes = [f"not finite in {failed} of {n_windows} windows"] * bool(failed)
        notes += [f"{again} of {n_windows} windows recomputed in float32"] * bool(again)
        return "; ".join(notes)


def speed_columns(timings: Timings, plan: Plan) -> Row:
    """The speed columns of a plan; empty if it was not timed."""
    if not timings.covers(plan):
        return {}
    timing = timings.summary(plan)
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
