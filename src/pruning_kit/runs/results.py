"""Results: a finished run read back.

This module and all that reads runs import no torch, so tables and reports start at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning_kit.errors import PruningKitError, RunError
from pruning_kit.machine import disk
from pruning_kit.machine.typed import MisfitError, fit
from pruning_kit.plans.costs import Cost, judged_by
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.variant import Variant
from pruning_kit.runs import recoveries
from pruning_kit.runs.asked import Asked, proposed_by, read_asked
from pruning_kit.runs.facts import NLL, Role, RoundFacts, RunFacts, Samples
from pruning_kit.runs.recovered import RecoveredFacts, read_recovered
from pruning_kit.runs.recoveries import BridgesFacts
from pruning_kit.runs.rows import COLUMNS, Row, Scored, mode_of, speed_columns
from pruning_kit.runs.scores import RankingFacts, read_scores
from pruning_kit.runs.screenings import Screened, read_screenings
from pruning_kit.runs.store import RunFolder
from pruning_kit.speed import stored_timings
from pruning_kit.speed.timings import Timings

if TYPE_CHECKING:
    import pandas as pd

LATENCY_FILE = "latency.json"
SAMPLES_FILE = "samples.json"
SAMPLE_AGAIN = "Delete the file; `resume` with `samples` writes it again."


@dataclass(frozen=True)
class Run:
    """A finished run: its facts, its sums and its timings."""

    folder: Path
    facts: RunFacts
    rounds: tuple[RoundFacts, ...]
    sums: Mapping[tuple[str, Role], np.ndarray]
    """By measure and text, float64, (variants, windows); NaN where nothing was measured."""
    recomputed: Mapping[Role, np.ndarray]
    """What overflowed in 16 bits and was computed again in float32: bool, (variants, windows)."""
    timings: Timings | None = None
    timings_note: str | None = None
    """Why stored timings are left out, as sentences; None where nothing is left out."""
    samples: Samples | None = None
    bridges: BridgesFacts | None = None
    """What bridges were fitted on, and which plans they help; None where none were fitted."""
    recovered: Mapping[Variant, RecoveredFacts] = field(default_factory=dict)
    """How models with weights of their own were made, or why there are none."""
    screenings: tuple[Screened, ...] = ()
    """Candidates of a search, which are no rows."""
    rankings: Mapping[str, RankingFacts] = field(default_factory=dict)
    """Scores of blocks by one pass, of the rankings that were asked for and what came with them."""
    asked: tuple[Asked, ...] = ()
    """What each proposer asked for; nothing of what was named by hand."""

    @cached_property
    def variants(self) -> list[Variant]:
        """What was measured in all rounds but screenings: the whole model first, then by size."""
        return variants_of(self.rounds)

    @cached_property
    def plans(self) -> list[Plan]:
        """The plans that were measured as cut, in the order of their variants."""
        return plans_of(self.variants)

    @property
    def n_blocks(self) -> int:
        """Blocks of the whole model."""
        return self.facts.model.n_blocks

    @property
    def roles(self) -> tuple[Role, ...]:
        """The texts measured: figures are reported on one, plans may be chosen on another."""
        return tuple(self.facts.windows)

    @cached_property
    def parameters(self) -> dict[Plan, int]:
        """Parameters of each plan's model, tied weights counted once; a bridge adds none."""
        counts = self._parameters
        return {variant.plan: counts[variant] for variant in self.judged_by(Cost.bridged)}

    @cached_property
    def _parameters(self) -> dict[Variant, int]:
        return {
            facts.parsed: facts.parameters for round_ in self.rounds for facts in round_.variants
        }

    def judged_by(self, cost: Cost) -> list[Variant]:
        """The variant that each plan is judged by, in the order of plans."""
        return judged_by(cost, self.variants)

    def measured(self, measure: str, role: Role = "reported") -> np.ndarray:
        """Sums of a measure on a text, float64, (variants, windows); NaN where nothing is."""
        return self.sums[measure, role]

    def as_cut(self, measure: str, role: Role = "reported") -> np.ndarray | None:
        """Sums of a measure for `plans`, (plans, windows); None where no round took it."""
        return self.sums_of(self.judged_by(Cost.as_cut), measure, role)

    def sums_of(
        self, variants: Sequence[Variant], measure: str, role: Role = "reported"
    ) -> np.ndarray | None:
        """Sums of a measure for some variants, (variants, windows); None where no round took it."""
        sums = self.sums.get((measure, role))
        return None if sums is None else sums[[self._place[variant] for variant in variants]]

    @cached_property
    def _place(self) -> dict[Variant, int]:
        return {variant: row for row, variant in enumerate(self.variants)}

    def nll(self, role: Role = "reported") -> np.ndarray:
        """NLL sums in nats, float64, (variants, windows); NaN where a forward failed."""
        return self.measured(NLL, role)

    def nll_as_cut(self, role: Role = "reported") -> np.ndarray:
        """NLL sums of `plans` in nats, float64, (plans, windows)."""
        nll_PW = self.as_cut(NLL, role)
        assert nll_PW is not None, "every round takes it"
        return nll_PW

    def targets(self, role: Role = "reported") -> np.ndarray:
        """Scored tokens of each window, int64, shape (windows,)."""
        return np.asarray(self.facts.windows[role].targets, dtype=np.int64)

    def rows(self, role: Role = "reported") -> list[Row]:
        """One row per variant measured on a text, by the columns of results.csv; None if empty."""
        tokens = int(self.targets(role).sum())
        rounds = [one for one in self.rounds if role in one.texts and not one.is_screening]
        taken = {name for one in rounds for name in one.names}
        places = [(v, index) for index, v in enumerate(self.variants) if str(v) in taken]
        return [dict.fromkeys(COLUMNS) | self._row(*place, role, tokens) for place in places]

    def rows_as_cut(self, role: Role = "reported") -> list[Row]:
        """The rows without those of recovered variants."""
        as_cut = set(map(str, self.plans))
        return [row for row in self.rows(role) if row["variant"] in as_cut]

    def frame(self) -> pd.DataFrame:
        """One row per variant and text, in the columns of results.csv."""
        import pandas as pd  # half a second, which what is only printed need not wait for

        rows = [row for role in self.roles for row in self.rows(role)]
        return pd.DataFrame(rows, columns=COLUMNS)

    def _row(self, variant: Variant, index: int, role: Role, tokens: int) -> Row:
        scored = Scored(
            role,
            nll_W=self.nll(role)[index],
            whole_W=self.nll(role)[self._place[Variant()]],
            again_W=self.recomputed[role][index],
            kl_W=self._if_measured("kl", role, index),
            agreeing_W=self._if_measured("agreement", role, index),
            tokens=tokens,
            n_bytes=self.facts.texts[role].n_bytes,
        )
        # a recovered model has the shape of its plan
        speed = {} if self.timings is None else speed_columns(self.timings, variant.plan)
        return {
            "mode": mode_of(variant.plan, self.n_blocks),
            "removed": str(variant.plan),
            "blocks": self.n_blocks - variant.plan.size,
            "params_m": self._parameters[variant] / 1e6,
            "variant": str(variant),
            "proposed_by": self.proposed_by.get(variant),
            **scored.columns(),
            **speed,
        }

    @cached_property
    def proposed_by(self) -> dict[Variant, str]:
        """Who asked for a row, several with spaces between them; none of those named by hand."""
        return proposed_by(self.asked)

    def _if_measured(self, measure: str, role: Role, index: int) -> np.ndarray | None:
        """Sums of a measure for one variant; None where no round took it."""
        sums = self.sums.get((measure, role))
        return None if sums is None else sums[index]


def variants_of(rounds: Sequence[RoundFacts]) -> list[Variant]:
    """What rounds measure, candidates apart, each variant once, in the order of rows."""
    rows = (round_.variants for round_ in rounds if not round_.is_screening)
    return sorted({facts.parsed for variants in rows for facts in variants})


def plans_of(variants: Sequence[Variant]) -> list[Plan]:
    """The plans among variants as cut, in their order."""
    return [variant.plan for variant in variants if variant.recovery is None]


def load_run(folder: Path | str) -> Run:
    """Read a finished run. Timings that cannot be read are left out, which `timings_note` says.

    Raises:
        RunError: if the folder is no run, its sums are damaged, or some window groups are missing.
    """
    run = RunFolder.open(Path(folder))
    rounds = run.rounds()
    _refuse_unfinished(run, len(rounds))
    sums, recomputed = _read_sums(run, rounds)
    timings, note = None, None
    try:
        timings = read_timings(run)
    except PruningKitError as error:
        note = f"Speeds are left out, because the kit {error}"
    return Run(
        run.folder,
        run.facts,
        tuple(rounds),
        sums,
        recomputed,
        timings,
        note,
        read_samples(run.folder),
        recoveries.read_facts(run.folder),
        read_recovered(run.folder),
        read_screenings(run, rounds),
        read_scores(run.folder, run.facts.model.n_blocks).rankings,
        read_asked(run),
    )


def _refuse_unfinished(run: RunFolder, n_rounds: int) -> None:
    if run.is_finished():
        return
    unmeasured = [number for number in range(n_rounds) if not run.is_measured(number)]
    number = (unmeasured or [n_rounds - 1])[0]
    done, asked = run.count_parts(number) if n_rounds else (0, 0)
    raise RunError(
        f"cannot read run {run.folder}: it is not finished, {done} of {asked} window groups of its "
        f"round {max(0, number)} are done. Run the same with `resume`."
    )


def _read_sums(
    run: RunFolder, rounds: Sequence[RoundFacts]
) -> tuple[dict[tuple[str, Role], np.ndarray], dict[Role, np.ndarray]]:
    """All stored sums, and which were computed again, in the order of `variants_of`."""
    place = {variant: row for row, variant in enumerate(variants_of(rounds))}
    windows = run.facts.windows
    shapes = {role: (len(place), len(windows[role].targets)) for role in windows}
    again = {role: np.zeros(shape, dtype=bool) for role, shape in shapes.items()}
    sums: dict[tuple[str, Role], np.ndarray] = {}
    for number, round_ in enumerate(rounds):
        if round_.is_screening:
            continue
        rows = [place[facts.parsed] for facts in round_.variants]
        for role in round_.texts:
            for group, (first, end) in enumerate(windows[role].groups):
                read, facts = run.read_part(number, role, group)
                again[role][rows, first:end] |= "recomputed" in facts
                for measure, values in read.items():
                    if (measure, role) not in sums:
                        sums[measure, role] = np.full(shapes[role], np.nan)
                    sums[measure, role][rows, first:end] = values
    return sums, again


def read_timings(run: RunFolder) -> Timings | None:
    """The timings stored in a run folder; None if it holds none.

    Raises:
        PruningKitError: if they are damaged, of another schema or of another model.
    """
    path = run.folder / LATENCY_FILE
    if not path.exists():
        return None
    timings = stored_timings.read(path)
    n_blocks = run.facts.model.n_blocks
    if timings.n_blocks != n_blocks:
        raise RunError(
            f"cannot use the timings in {path}: they are of a model of {timings.n_blocks} blocks, "
            f"and this run's has {n_blocks}. {stored_timings.TIME_AGAIN}"
        )
    return timings


def read_samples(folder: Path) -> Samples | None:
    """The samples stored in a run folder; None if it holds none.

    Raises:
        RunError: if they are damaged.
    """
    path = folder / SAMPLES_FILE
    if not path.exists():
        return None
    content = disk.read_json(path, SAMPLE_AGAIN)
    try:
        return fit(content, Samples)
    except MisfitError as misfit:
        raise RunError(
            f"cannot read the samples in {path}: they {misfit.of_many}. {SAMPLE_AGAIN}"
        ) from None


def write_samples(folder: Path, samples: Samples) -> None:
    """Store what variants wrote on from a prompt."""
    disk.write_json(folder / SAMPLES_FILE, samples)


def write_csv(run: Run, path: Path) -> None:
    """Write the rows as CSV, whole."""
    disk.write_file(path, run.frame().to_csv(index=False))


def measured_numbers(run: Run, variant: Variant, weights_sha256: str) -> dict[str, Any]:
    """What a run measured for a variant, by the names that a model card shows.

    Raises:
        RunError: if the run is of another model or did not measure the variant.
    """
    model, text, protocol = run.facts.model, run.facts.texts["reported"], run.facts.protocol
    if model.weights_sha256 != weights_sha256:
        raise RunError(
            f"cannot take numbers from {run.folder}: it measured {model.name!r} "
            "with other weights. Give a run of the model that is pruned."
        )
    plan = variant.plan.check(run.n_blocks)
    rows = {row["variant"]: row for row in run.rows()}
    if str(variant) not in rows:
        what = f"plan {plan.short}" if variant.recovery is None else str(variant)
        raise RunError(
            f"cannot take numbers from {run.folder}: it did not measure {what}. "
            f"Measure it with a sweep that tries {plan.short}."
        )
    pruned, as_cut, whole = (rows[str(one)] for one in (variant, Variant(plan), Variant()))
    return {
        "text": text.title + (f", {text.part}" if text.part else ""),
        "context and stride": f"{protocol.context} and {protocol.stride}",
        **({} if protocol.bos is None else {"first token of each window": "BOS"}),
        "tokens scored": pruned["tokens"],
        "perplexity": pruned["ppl"],
        **({} if variant.recovery is None else {"perplexity as cut": as_cut["ppl"]}),
        "perplexity of the whole model": whole["ppl"],
        "bits per byte": pruned["bits_per_byte"],
    }
