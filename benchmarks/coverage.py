"""Do 95 % intervals cover the truth, and do groups of best plans hold the best? Counted.

    python -m benchmarks.coverage            # about four minutes on one core
    python -m benchmarks.coverage --corpora 200 --seed 2 --kinds short chapters

Three kinds of series of which the truth is known: windows that resemble their neighbours for a
short while, chapters whose levels differ, and stretches of real books, of which the whole book (or
all that its author wrote) is the truth. The tables go to docs/statistics.md.

Shapes: P plans, N windows of a text.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from scipy.signal import lfilter

from benchmarks.books import Book, read
from pruning_kit.intervals.memory import Array
from pruning_kit.intervals.windows import estimate, not_worse_than_best, ratio

PLANS = 10
LOSS_NATS, SHARED_SD, OWN_SD = 3.3, 0.4, 0.1
BURN_IN = 200
CHAPTER_WINDOWS = (15, 40)
TIMES_AS_LONG = 5
STEPS = 2
"""Stretches of a book overlap by half."""

Noise = Callable[[np.random.Generator, int, int], Array]
"""Series of variance one, shape (rows, windows)."""


@dataclass(frozen=True, eq=False)
class Text:
    """What was measured of a text, and the log perplexity that each plan has in truth."""

    nll_PN: Array
    targets_N: Array
    truth_P: Array


@dataclass(frozen=True)
class Coverage:
    """Shares of texts, but for the widths.

    Intervals that cover the truth, of plans, of ratios to the first and of neighbours in the
    list; where all plans are made equally good, at least one false difference to the first, and
    the first inside the group of the best. The width is that of the ratios, as a multiple of the
    1.96 standard deviations that would do if these were known.
    """

    n_texts: int
    perplexity: float
    ratio: float
    difference: float
    false_family: float
    best_in_group: float
    width: float

    def __str__(self) -> str:
        shares = (
            self.perplexity,
            self.ratio,
            self.difference,
            self.false_family,
            self.best_in_group,
        )
        cells = " | ".join(f"{100 * share:.1f}" for share in shares)
        return f"{self.n_texts:,} | {cells} | {self.width:.2f}"


HEAD = "texts | PPL | PPL ratio | difference | false family | best in group | width |"


def measure(texts: Iterable[Text]) -> Coverage:
    """Count over texts of one length."""
    counts, errors, halves = [], [], []
    for text in texts:
        kinds = _contrasts(len(text.truth_P))
        rows_CP, ends = np.concatenate(kinds), np.cumsum([len(kind) for kind in kinds])[:-1]
        found = estimate(rows_CP @ text.nll_PN, text.targets_N)
        off_C = found.value_C - rows_CP @ text.truth_P
        hits = [hit.mean() for hit in np.split(np.abs(off_C) <= found.half_width_C, ends)]
        level_PN = text.nll_PN - text.truth_P[:, None] * text.targets_N
        tested = estimate(level_PN[1:] - level_PN[:1], text.targets_N)
        group = not_worse_than_best(level_PN, text.targets_N)
        counts.append([*hits, tested.adjusted_p_C.min() <= 0.05, group[0]])
        errors.append(np.split(off_C, ends)[1])
        halves.append(np.split(found.half_width_C, ends)[1])
    needed_C = 1.96 * np.sqrt(np.square(errors).mean(axis=0))
    half_C = np.mean(halves, axis=0)
    width = float((half_C / needed_C).mean())
    return Coverage(len(counts), *[*np.mean(counts, axis=0).tolist(), width])


def _contrasts(n_plans: int) -> tuple[Array, Array, Array]:
    """Weights of plans: each alone, less the first, and less the one before."""
    alone = np.eye(n_plans)
    return alone, alone[1:] - alone[:1], alone[2:] - alone[1:-1]


def short_memory(rho: float, skewed: bool) -> Noise:
    """Autoregressive noise, normal or of exponential shocks."""

    def noise(generator: np.random.Generator, rows: int, n_windows: int) -> Array:
        shape = (rows, n_windows + BURN_IN)
        if skewed:
            shocks = generator.exponential(size=shape) - 1
        else:
            shocks = generator.standard_normal(shape)
        series = lfilter([np.sqrt(1 - rho**2)], [1, -rho], shocks, axis=1)
        return np.asarray(series[:, BURN_IN:])

    return noise


def chapters(level_sd: float) -> Noise:
    """Chapters of 15 to 40 windows, with levels, and autoregressive noise about them."""
    within = short_memory(0.25, skewed=False)

    def noise(generator: np.random.Generator, rows: int, n_windows: int) -> Array:
        least, most = CHAPTER_WINDOWS
        lengths = generator.integers(least, most + 1, n_windows // least + 3)
        of_window = np.repeat(np.arange(len(lengths)), lengths)[generator.integers(lengths[0]) :]
        levels = generator.standard_normal((rows, len(lengths)))[:, of_window[:n_windows]]
        rest = np.sqrt(1 - level_sd**2) * within(generator, rows, n_windows)
        return np.asarray(level_sd * levels + rest)

    return noise


def simulated(noise: Noise, n_windows: int, n_texts: int, seed: int) -> Iterator[Text]:
    """Texts of ten equally good plans: noise that they share, how hard a text is, and their own."""
    generator = np.random.default_rng(seed)
    targets_N = np.full(n_windows, 512.0)
    targets_N[0], targets_N[-1] = 1023.0, 130.0
    for _ in range(n_texts):
        shared = SHARED_SD * noise(generator, 1, n_windows)
        own = OWN_SD * noise(generator, PLANS, n_windows)
        yield Text((LOSS_NATS + shared + own) * targets_N, targets_N, np.full(PLANS, LOSS_NATS))


def stretches(works: Iterable[Book], n_windows: int) -> Iterator[Text]:
    """Stretches of works at least five times as long; the truth is the whole work."""
    for work in works:
        if len(work.targets_W) >= TIMES_AS_LONG * n_windows:
            truth_P = ratio(work.nll_PW, work.targets_W)
            for first in range(0, len(work.targets_W) - n_windows + 1, n_windows // STEPS):
                part = slice(first, first + n_windows)
                yield Text(work.nll_PW[:, part], work.targets_W[part], truth_P)


def joined(books: Sequence[Book]) -> list[Book]:
    """All books of an author, one after the other."""

    def author(book: Book) -> str:
        return book.author

    return [
        Book(
            name,
            "all",
            np.concatenate([book.nll_PW for book in together], axis=1),
            np.concatenate([book.targets_W for book in together]),
        )
        for name, group in groupby(sorted(books, key=author), key=author)
        for together in [list(group)]
    ]


@dataclass(frozen=True)
class Reach:
    """Shares of pairs of a stretch and a book whose mean the stretch's interval covers."""

    n_stretches: int
    same_author: tuple[float, float, float]
    """Other books of its author: perplexity, ratio, difference."""
    other_authors: tuple[float, float, float]

    def __str__(self) -> str:
        cells = (f"{100 * share:.0f}" for share in (*self.same_author, *self.other_authors))
        return f"{self.n_stretches:,} | {' | '.join(cells)}"


def reach(books: Sequence[Book], n_windows: int) -> Reach:
    """How often the interval from a stretch of one book covers the mean of another one."""
    long = [book for book in books if len(book.targets_W) >= TIMES_AS_LONG * n_windows]
    truth_PB = np.stack([ratio(book.nll_PW, book.targets_W) for book in books], axis=1)
    of_author_B = np.array([book.author for book in books])
    counts, n_stretches = np.zeros((2, 3, 2)), 0
    for book in long:
        same_B = of_author_B == book.author
        same_B &= [other is not book for other in books]
        for text in stretches([book], n_windows):
            n_stretches += 1
            for kind, rows_CP in enumerate(_contrasts(len(truth_PB))):
                found = estimate(rows_CP @ text.nll_PN, text.targets_N)
                off_CB = np.abs(found.value_C[:, None] - rows_CP @ truth_PB)
                hit_CB = off_CB <= found.half_width_C[:, None]
                for side, among_B in enumerate((same_B, of_author_B != book.author)):
                    counts[side, kind] += hit_CB[:, among_B].sum(), hit_CB[:, among_B].size
    same, others = (counts[..., 0] / counts[..., 1]).tolist()
    return Reach(n_stretches, tuple(same), tuple(others))


SIMULATIONS: dict[str, dict[str, Noise]] = {
    "short": {
        f"{'skewed' if skewed else 'normal'}, {rho:+.2f}": short_memory(rho, skewed)
        for skewed in (False, True)
        for rho in (-0.2, 0.0, 0.25, 0.5, 0.75)
    },
    "chapters": {f"{level_sd}": chapters(level_sd) for level_sd in (0.3, 0.4, 0.5)},
}
TITLES = {"short": "shocks, autocorrelation", "chapters": "spread of levels", "real": "truth"}


def real_rows(books: Sequence[Book], lengths: Sequence[int]) -> Iterator[tuple[int, str, Coverage]]:
    """Coverage of the own book, and of all that its author wrote, where some are long enough."""
    for name, works in (("the book", books), ("the author's books", joined(books))):
        for n_windows in lengths:
            texts = list(stretches(works, n_windows))
            if texts:
                yield n_windows, name, measure(texts)


def simulated_rows(
    kind: str, lengths: Sequence[int], n_texts: int, seed: int
) -> Iterator[tuple[int, str, Coverage]]:
    """Coverage of all simulations of a kind."""
    for n_windows in lengths:
        for name, noise in SIMULATIONS[kind].items():
            yield n_windows, name, measure(simulated(noise, n_windows, n_texts, seed))


def print_reach(books: Sequence[Book], lengths: Sequence[int]) -> None:
    """The table of other books, as Markdown."""
    kinds = "PPL | PPL ratio | difference"
    print(f"\n| windows | stretches | same author: {kinds} | other authors: {kinds} |")
    print(f"|{'---|' * 8}")
    for n_windows in lengths:
        print(f"| {n_windows} | {reach(books, n_windows)} |", flush=True)


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description="coverage of intervals, counted")
    kinds = list(TITLES)
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--windows", type=int, nargs="+", default=[50, 100, 200, 450])
    parser.add_argument("--corpora", type=int, default=500, help="of each simulation")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for kind in arguments.kinds:
        print(f"\n| windows | {TITLES[kind]} | {HEAD}\n|{'---|' * 9}")
        rows = (
            real_rows(read(), arguments.windows)
            if kind == "real"
            else simulated_rows(kind, arguments.windows, arguments.corpora, arguments.seed)
        )
        for n_windows, name, found in rows:
            print(f"| {n_windows} | {name} | {found} |", flush=True)
    if "real" in arguments.kinds:
        print_reach(read(), arguments.windows[:-1])


if __name__ == "__main__":
    main()
