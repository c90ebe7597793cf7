"""How far each search ends from the best set of each size, and with how many evaluations.

    pruning-kit sweep --mode combinatorial --select-on calibration --no-speed --output RUN
    python -m benchmarks.searches RUN [RUN …]

The runs must hold every set of their model's blocks. Each search is carried out anew on the stored
sums, for all sizes together, once by the cost as cut and once by the bridged one. A gap is the
perplexity of what was found over that of the best set, on the text that plans are chosen on; `!`
where the paired interval leaves 1 out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pruning_kit.findings.searching import Gap, Replayed, is_exhaustive, replayed
from pruning_kit.plans.costs import Cost
from pruning_kit.runs.results import Run, load_run


def show(run: Run, cost: Cost) -> None:
    """A table in Markdown."""
    sizes = range(1, run.n_blocks)
    text = run.facts.texts[run.facts.choosing_role].title
    print(f"\n{run.facts.model.name}, {run.n_blocks} blocks, {cost}, chosen on {text}\n")
    print("| search | evaluations | candidates | " + " | ".join(map(str, sizes)) + " |")
    print("|---|---|---|" + "---|" * len(sizes))
    for one in replayed(run, cost):
        print(_line(one), flush=True)


def _line(one: Replayed) -> str:
    name = one.search.partition(":")[0]
    cells = [name, f"{one.evaluations:.0f}", str(one.candidates), *map(_cell, one.gaps)]
    return f"| {' | '.join(cells)} |"


def _cell(gap: Gap) -> str:
    if gap.found is None:
        return "-"
    return "best" if gap.found == gap.best else f"{gap.ratio:.3f}{'!' * gap.sure}"


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    for folder in parser.parse_args().runs:
        run = load_run(folder)
        if not is_exhaustive(run):
            parser.error(f"{folder} does not hold every set of its {run.n_blocks} blocks")
        for cost in Cost:
            show(run, cost)


if __name__ == "__main__":
    main()
