"""Do 95 % intervals cover the truth, and do groups of best plans hold the best? By simulation.

    python -m benchmarks.coverage            # about four minutes on one core
    python -m benchmarks.coverage --corpora 200 --windows 200

Each corpus is an autocorrelated series of window losses for several plans: a shared part (how hard
the text is), a part of its own for each plan, and windows of unequal size, the first twice as
large. The truth is known, so coverage is counted. The table goes to docs/statistics.md.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from pruning_kit.intervals.windows import Array, draw_resampling, estimate, not_worse_than_best

SHAPES = ("normal", "skewed")
AUTOCORRELATIONS = (-0.2, 0.0, 0.25, 0.5)
LOSS_NATS, SHARED_SD, OWN_SD = 3.3, 0.4, 0.1
BURN_IN = 200


@dataclass(frozen=True)
class Design:
    """One cell of the table: corpora of one length, autocorrelation and shape of the noise."""

    n_windows: int
    autocorrelation: float
    shape: str
    n_corpora: int


@dataclass(frozen=True)
class Coverage:
    """Shares of corpora: intervals that cover the truth, and error rates of the tests."""

    design: Design
    perplexity: float
    ratio: float
    false_family: float
    best_in_group: float


def noise(generator: np.random.Generator, rows: int, design: Design) -> Array:
    """Autoregressive series of variance one, shape (rows, windows)."""
    shape = (rows, design.n_windows + BURN_IN)
    if design.shape == "skewed":
        shocks = generator.exponential(size=shape) - 1
    else:
        shocks = generator.standard_normal(shape)
    rho = design.autocorrelation
    series = lfilter([np.sqrt(1 - rho**2)], [1, -rho], shocks, axis=1)
    return np.asarray(series[:, BURN_IN:])


def corpus(generator: np.random.Generator, means_P: Array, design: Design) -> tuple[Array, Array]:
    """NLL sums of plans with these true mean losses, (P, N), and targets per window, (N,)."""
    targets_N = np.full(design.n_windows, 512.0)
    targets_N[0], targets_N[-1] = 1023.0, 130.0
    shared = SHARED_SD * noise(generator, 1, design)
    own = OWN_SD * noise(generator, len(means_P), design)
    return (means_P[:, None] + shared + own) * targets_N, targets_N


def measure(design: Design, seed: int) -> Coverage:
    """Count coverage over the corpora of one design.

    Ten plans are equally good, so that every rejection among them is false, and the first of
    them counts as the truly best: the hardest case for a group of best plans.
    """
    generator = np.random.default_rng(seed)
    means_P = np.full(10, LOSS_NATS)
    hits = np.zeros(4)
    for index in range(design.n_corpora):
        nll_PN, targets_N = corpus(generator, means_P, design)
        resampling = draw_resampling(design.n_windows, seed=seed + index)
        alone = estimate(nll_PN[:1], targets_N, resampling)
        pairs = estimate(nll_PN[1:] - nll_PN[:1], targets_N, resampling)
        group = not_worse_than_best(nll_PN, targets_N, resampling)
        hits += (
            abs(alone.value_C[0] - LOSS_NATS) <= alone.half_width_C[0],
            abs(pairs.value_C[0]) <= pairs.half_width_C[0],
            pairs.adjusted_p_C.min() <= 0.05,
            group[0],
        )
    return Coverage(design, *(hits / design.n_corpora).tolist())


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description="coverage of intervals, by simulation")
    parser.add_argument("--corpora", type=int, default=2000)
    parser.add_argument("--windows", type=int, nargs="+", default=[50, 100, 200, 500])
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print("| windows | noise | autocorrelation | PPL | PPL ratio | false family | best in group |")
    print("|---|---|---|---|---|---|---|")
    for n_windows in arguments.windows:
        for shape in SHAPES:
            for autocorrelation in AUTOCORRELATIONS:
                design = Design(n_windows, autocorrelation, shape, arguments.corpora)
                found = measure(design, arguments.seed)
                shares = (found.perplexity, found.ratio, found.false_family, found.best_in_group)
                cells = " | ".join(f"{100 * share:.1f}" for share in shares)
                print(f"| {n_windows} | {shape} | {autocorrelation:+.2f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
