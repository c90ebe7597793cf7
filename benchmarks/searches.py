"""How far searches end from the best set of each size, or from one that was named by hand.

    pruning-kit sweep --mode combinatorial --select-on calibration --no-speed --output RUN
    python -m benchmarks.searches RUN [RUN …]

The runs must hold every set of their model's blocks. Each search is carried out anew on the stored
sums, for all sizes together, once by the cost as cut and once by the bridged one. A gap is the
perplexity of what was found over that of the best set, on the text that plans are chosen on; `!`
where the paired interval leaves 1 out.

    pruning-kit sweep --try search:6 --try greedy:6 --try influence:6 --try 13-18 \\
        --select-on calibration --also-on OTHER.txt --no-speed --output RUN
    python -m benchmarks.searches RUN --against 13-18

Of whatever asked for rows in the run, the set of each size that is best on the text chosen on; on
every text its perplexity, over that of the named set, with the paired 95 % interval. What several
asked for was measured once; each decided, and is counted, as if it were alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pruning_kit.errors import PlanError
from pruning_kit.findings.analysis import Analysis, analyse
from pruning_kit.findings.evidence import Interval, Scores, exp
from pruning_kit.findings.searching import Gap, Replayed, is_exhaustive, replayed
from pruning_kit.plans.costs import Cost
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import BRIDGED
from pruning_kit.runs.asked import Asked
from pruning_kit.runs.results import Run, load_run

BY_HAND = "named by hand"


def show(run: Run, cost: Cost) -> None:
    """How far each search ends from the best of each size: a table in Markdown."""
    sizes = range(1, run.n_blocks)
    _title(run, cost)
    print("| search | evaluations | candidates | " + " | ".join(map(str, sizes)) + " |")
    print("|---|---|---|" + "---|" * len(sizes))
    for one in replayed(run, cost):
        print(_line(one), flush=True)


def _title(run: Run, cost: Cost) -> None:
    text = run.facts.texts[run.facts.choosing_role].title
    print(f"\n{run.facts.model.name}, {run.n_blocks} blocks, {cost}, chosen on {text}\n")


def _line(one: Replayed) -> str:
    name = one.search.partition(":")[0]
    cells = [name, f"{one.evaluations:.0f}", str(one.candidates), *map(_cell, one.gaps)]
    return f"| {' | '.join(cells)} |"


def _cell(gap: Gap) -> str:
    if gap.found is None:
        return "-"
    return "best" if gap.found == gap.best else f"{gap.ratio:.3f}{'!' * gap.sure}"


def show_against(run: Run, named: Plan, cost: Cost) -> None:
    """The best set of each size that each proposer asked for, beside a named one, in Markdown."""
    analysis = analyse(run, cost)
    texts = _texts(analysis)
    _title(run, cost)
    print("| removed | proposed by | evaluations | " + " | ratio | ".join(texts) + " | ratio |")
    print("|---|---|---|" + "---|---|" * len(texts))
    for plan, by, evaluations in _found(run.asked, named, analysis.selection_scores):
        cells = [_beside(plan, named, scores) for scores in texts.values()]
        print(f"| {plan.short} | {by} | {evaluations} | {' | '.join(cells)} |")


def _texts(analysis: Analysis) -> Mapping[str, Scores]:
    """By title the scores on every text, that which plans are chosen on first."""
    others = {one.text.title: one.scores for one in analysis.elsewhere}
    chosen_on, reported = analysis.selection.title, analysis.reported.title
    return {
        f"{chosen_on} (chosen on)": analysis.selection_scores,
        **({reported: analysis.scores} if analysis.two_texts else {}),
        **others,
    }


def _found(asked: Sequence[Asked], named: Plan, scores: Scores) -> Iterator[tuple[Plan, str, str]]:
    """Sets, who proposed them, and with how many evaluations; those of the named size first."""
    yield Plan(), "", ""
    yield named, BY_HAND, ""
    best = [
        (plan, one.proposer, f"{one.evaluations:.0f}")
        for one in asked
        for plan in _best_of_each_size(one, scores)
    ]
    yield from sorted(best, key=lambda row: (row[0].size, scores.log_ppl(row[0])))


def _best_of_each_size(one: Asked, scores: Scores) -> list[Plan]:
    """Of what was measured in full on the text chosen on."""
    best: dict[int, Plan] = {}
    plans = {variant.plan for variant in one.rows} & scores.place.keys()
    for plan in sorted(plans, key=scores.log_ppl):
        best.setdefault(plan.size, plan)
    return list(best.values())


def _beside(plan: Plan, named: Plan, scores: Scores) -> str:
    """Perplexity, and its ratio to that of the named set."""
    if plan not in scores.place:
        return "failed | "
    ppl = f"{exp(scores.log_ppl(plan)):.2f}{' bridged' * (plan in scores.bridged)}"
    return f"{ppl} | {'' if plan == named else _bounds(scores.ppl_ratio(plan, named))}"


def _bounds(ratio: Interval) -> str:
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:.4g}"
    return f"{ratio.value:.4g} ({ratio.low:.4g} to {ratio.high:.4g})"


def _of_run(run: Run, against: Plan | None) -> None:
    """The tables of one run.

    Raises:
        PlanError: if it lacks what they are made of.
    """
    bridged = any(variant.recovery == BRIDGED for variant in run.variants)
    costs = list(Cost) if bridged else [Cost.as_cut]
    if against is None and not is_exhaustive(run):
        raise PlanError(
            f"cannot tell what is missed in {run.folder}: it does not hold every set of its "
            f"{run.n_blocks} blocks. Measure --mode combinatorial, or give --against."
        )
    if against is not None and against not in run.plans:
        raise PlanError(
            f"cannot compare with {against.short}: {run.folder} did not measure it. Sweep with "
            f"--try {against.short} too."
        )
    for cost in costs:
        if against is None:
            show(run, cost)
        else:
            show_against(run, against, cost)


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--against", type=Plan.parse, help="a set that the runs hold")
    options = parser.parse_args()
    for folder in options.runs:
        try:
            _of_run(load_run(folder), options.against)
        except PlanError as error:
            parser.error(str(error))


if __name__ == "__main__":
    main()
