"""What a whole run says, word for word, and the sentences for runs of every kind.

`python -m tests.goldens.make` writes the files beside this script anew. Read what changed
(`git diff tests/goldens`) before it is kept: every sentence has to be true of its run.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from pruning_kit.findings.analysis import Analysis, analyse, analyse_scores
from pruning_kit.findings.evidence import Scores
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles
from pruning_kit.reporting import formats
from pruning_kit.reporting.words.sections import section_sentences, summary_sentences
from pruning_kit.runs.results import load_run
from tests.synthetic_runs import write_run
from tests.synthetic_scores import (
    additive_costs,
    all_plans,
    parameters,
    synthetic_nll,
    synthetic_scores,
)

FOLDER = Path(__file__).parent
COST = additive_costs((1.5, 0.1, 0.3, 0.4), {(1, 2): 0.2})
FORMATS = {"report.txt": "terminal", "report.md": "md"}


def analysis_of(plans, costs, pairs=None, latency=None, selection=None, further=None, **options):
    scores = synthetic_scores(plans, additive_costs(costs, pairs), **options)
    chosen_on, title = scores, "Persuasion"
    if selection is not None:
        chosen_on = synthetic_scores(plans, additive_costs(selection), seed=7, **options)
        title = "Northanger Abbey"
    return analyse_scores(
        scores,
        chosen_on,
        len(costs),
        parameters(plans),
        latency or {},
        titles=("Persuasion", title),
        further={
            f"also-{number}": (text, synthetic_scores(plans, additive_costs(other), seed=number))
            for number, (text, other) in enumerate((further or {}).items(), 1)
        },
    )


def with_failures() -> Analysis:
    plans = [Plan(), *singles(4)]
    nll, targets = synthetic_nll(plans, additive_costs((1.5, 0.1, 0.3, 0.05)))
    nll[2:4, 7] = math.nan
    scores = Scores.of(plans, nll, targets)
    return analyse_scores(scores, scores, 4, parameters(plans), {})


def analysis_of_run(**options) -> Analysis:
    with tempfile.TemporaryDirectory() as scratch:
        return analyse(load_run(write_run(Path(scratch) / "run", **options)))


def half_bridged(cost):
    """Costs of which bridges leave half, of block 3 a tenth; sets without block 0 have none."""

    def bridged(plan: Plan) -> float | None:
        kept = [block for block in plan.removed if block != 3]
        rest = 0.5 * cost(Plan(tuple(kept))) + 0.1 * cost(Plan((3,))) * (3 in plan.removed)
        return rest if plan.size and 0 not in plan.removed else None

    return bridged


ANALYSES = {
    "all plans": lambda: analysis_of(
        all_plans(4), (1.5, 0.1, 0.3, 0.05), {(1, 2): 0.2, (2, 3): -0.1}
    ),
    "baseline only": lambda: analysis_of([Plan()], (1, 1, 1, 1)),
    "sequential, two tied": lambda: analysis_of([Plan(), *singles(4)], (1.5, 0.1, 0.3, 0.1)),
    "sequential, all tied": lambda: analysis_of([Plan(), *singles(3)], (0.2, 0.2, 0.2)),
    "chosen plans": lambda: analysis_of(
        [Plan(), Plan((1, 3)), Plan((0, 2)), Plan((1, 2, 3))], (1.5, 0.1, 0.3, 0.05)
    ),
    "one chosen plan": lambda: analysis_of([Plan(), Plan((2,))], (1.5, 0.1, 0.3)),
    "huge perplexities": lambda: analysis_of([Plan(), *singles(3)], (12.0, 0.9, 1.0)),
    "few windows": lambda: analysis_of(
        all_plans(4, empty=False)[:11], (1.5, 0.1, 0.3, 0.05), n_windows=30
    ),
    "two texts": lambda: analysis_of(
        all_plans(4), (1.5, 0.1, 0.3, 0.2), selection=(1.5, 0.15, 0.3, 0.05)
    ),
    "further texts": lambda: analysis_of(
        all_plans(4),
        (1.5, 0.1, 0.3, 0.2),
        further={"Emma": (1.5, 0.1, 0.3, 0.2), "letters.txt": (1.2, 0.3, 0.3, 0.15)},
    ),
    "further texts, few windows": lambda: analysis_of(
        [Plan(), *singles(4)], (1.5, 0.1, 0.3, 0.2), further={"Emma": (1, 1, 1, 1)}, n_windows=30
    ),
    "collapse": lambda: analysis_of(
        all_plans(4, empty=False), (2.0, 0.1, 1.2, 1.3), {(1, 2): 0.9, (1, 3): 0.9}
    ),
    "failures": with_failures,
    "one block": lambda: analysis_of([Plan(), Plan((0,))], (4.0,)),
    "bridged, two texts": lambda: analysis_of_run(
        n_blocks=4, cost=COST, bridged=half_bridged(COST), selection=True, timed=False
    ),
    "bridged, few windows": lambda: analysis_of_run(
        n_blocks=4,
        plans=[Plan(), *singles(4)],
        cost=COST,
        bridged=half_bridged(COST),
        n_windows=30,
        timed=False,
    ),
    "no whole model": lambda: analysis_of([Plan((1,)), Plan((2,))], (1, 1, 1, 1)),
}


def sentences(kind: str) -> str:
    """The summary under the terminal table, then every section of a report."""
    analysis = ANALYSES[kind]()
    parts = {"under the table": summary_sentences(analysis), **section_sentences(analysis)}
    return "\n".join(line for name, said in parts.items() for line in (f"[{name}]", *said))


def report_of_a_run(folder: Path, name: str) -> str:
    """A run of 5 blocks with all there is: two texts, all measures, timings, samples, float32."""
    where = folder / "golden"
    if not where.exists():
        samples = {Plan(): "It is a truth", Plan((3,)): "It was a truth"}
        write_run(where, 5, selection=True, recomputed=True, samples=samples, comparing=True)
    return formats.render(load_run(where), FORMATS[name])


def stored(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def stored_sentences(kind: str) -> str:
    """The part of sentences.txt that belongs to one kind of run."""
    return stored("sentences.txt").split(f"== {kind}\n")[1].split("\n\n== ")[0].rstrip("\n")


if __name__ == "__main__":
    said = "\n\n".join(f"== {kind}\n{sentences(kind)}" for kind in ANALYSES)
    (FOLDER / "sentences.txt").write_text(said + "\n", encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        for file in FORMATS:
            text = report_of_a_run(Path(scratch), file)
            (FOLDER / file).write_text(text, encoding="utf-8")
