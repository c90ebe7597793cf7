"""Stored timings: `latency.json`, written whole and checked when it is read. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, to_builtins

from pruning_kit.errors import TimingError
from pruning_kit.machine import disk
from pruning_kit.machine.typed import Blocks, Count, MisfitError, Place, Seconds, fit
from pruning_kit.plans.plan import Plan
from pruning_kit.speed.threads import Trial
from pruning_kit.speed.timings import (
    END_TO_END,
    END_TO_END_PLAIN,
    SAMPLED,
    Entry,
    Reading,
    Round,
    Timings,
)

SCHEMA = 3
"""Versions: 2, calls in turns, further batch sizes; 3, quantities rest, trials of threads."""
TIME_AGAIN = "Delete the file and resume the sweep to time again."

READ = ("time_s", "load_average", "cpu_busy_s", "cpu_own_s", "cpu_steal_s")
"""What every machine offers of its state."""
PlanText = Annotated[str, Meta(pattern=r"\A(none|[0-9]{1,5}(\+[0-9]{1,5})*)\Z")]


class StoredProtocol(Struct, frozen=True, kw_only=True):
    """What is read of a timing's protocol; more is stored, to be compared."""

    batch_size: Count
    prompt_tokens: Count
    end_to_end_prompt_tokens: Count
    end_to_end_new_tokens: Count
    target: Seconds
    budget_s: Seconds
    warmup_rounds: Place
    threads_asked: Count | None


class StoredMachine(Struct, frozen=True, kw_only=True):
    """What is read of a timing's machine; more is stored, to be compared."""

    cores: Count
    threads: Count
    threads_offered: Count
    device: str
    device_name: str


class StoredEntry(Struct, frozen=True, kw_only=True):
    """A timed plan; see `timings.Entry`."""

    plan: PlanText
    pool: Place
    peak_bytes: Place | None


class StoredTimings(Struct, frozen=True, kw_only=True):
    """All samples of one timing run; see `timings.Timings`."""

    schema: Literal[3]
    n_blocks: Blocks
    protocol: StoredProtocol
    machine: StoredMachine
    pools: tuple[tuple[PlanText, ...], ...]
    entries: tuple[StoredEntry, ...]
    start: Reading
    rounds: tuple[Round, ...]
    stopped_because: str
    elapsed_s: Annotated[float, Meta(ge=0, le=1e12)]
    batches: tuple[StoredTimings, ...]
    trials: tuple[Trial, ...]

    def __post_init__(self) -> None:
        readings = {f"rounds[{at}].reading": turn.reading for at, turn in enumerate(self.rounds)}
        for path, reading in {"start": self.start, **readings}.items():
            for lacking in [name for name in READ if name not in reading]:
                raise MisfitError(f"{path}.{lacking}")
        if not (_pools_fit(self) and _samples_fit(self) and _batches_fit(self)):
            raise MisfitError("", "plans, pools and samples do not fit together")

    @property
    def plans(self) -> list[str]:
        """Every plan that was timed or does the work of one that was."""
        return [plan for pool in self.pools for plan in pool]


def _pools_fit(timings: StoredTimings) -> bool:
    """Whether entries stand for pools of plans, the whole model's first and twice."""
    pools, entries = timings.pools, timings.entries
    whole = str(Plan())
    return (
        pools[:1] == ((whole,),)
        and [entry.plan for entry in entries[:2]] == [whole, whole]
        and all(pools)
        and {entry.pool for entry in entries} == set(range(len(pools)))
        and all(entry.plan in pools[entry.pool] for entry in entries)
        and _are_plans(timings.plans, timings.n_blocks)
    )


def _samples_fit(timings: StoredTimings) -> bool:
    """Whether every entry has samples, of all quantities first and never of one that rested."""
    n_entries = len(timings.entries)
    named = [set(turn.samples) for turn in timings.rounds]
    columns = [values for turn in timings.rounds for values in turn.samples.values()]
    tried = {len(times) for trial in timings.trials for times in trial.decode_s}
    return (
        named[:1] == [set(SAMPLED)]
        and all(later <= earlier for earlier, later in pairwise(named))
        and all((END_TO_END in names) == (END_TO_END_PLAIN in names) for names in named)
        and all(len(values) == n_entries for values in columns)
        and all(sorted(turn.order) == list(range(n_entries)) for turn in timings.rounds)
        and (not tried or tried in ({2}, {3}))
    )


def _batches_fit(timings: StoredTimings) -> bool:
    """Whether further batch sizes were timed with the same plans, of those of the first size."""
    plans = [set(run.plans) for run in timings.batches]
    return all(found == plans[0] and found <= set(timings.plans) for found in plans) and all(
        run.n_blocks == timings.n_blocks and not run.batches for run in timings.batches
    )


def _are_plans(texts: Sequence[str], n_blocks: int) -> bool:
    """Whether these are plans of a model of so many blocks, each once and as `str` writes it."""
    plans = [Plan.parse(text) for text in texts]
    return (
        len(set(texts)) == len(texts)
        and [str(plan) for plan in plans] == list(texts)
        and all(block < n_blocks for plan in plans for block in plan.removed[-1:])
    )


def write(path: Path, timings: Timings) -> None:
    """Write timings to a file, whole; `read` is the inverse.

    Raises:
        RunError: if the disk refuses.
    """
    disk.write_json(path, to_json(timings))


def read(path: Path) -> Timings:
    """Read what `write` wrote.

    Raises:
        RunError: if the file cannot be read or holds no JSON.
        TimingError: if the schema is not this version's, or the timings are damaged.
    """
    return from_json(disk.read_json(path, TIME_AGAIN), str(path))


def to_json(timings: Timings) -> dict[str, Any]:
    """Timings as plain lists and numbers; `from_json` is the inverse."""
    return {
        "schema": SCHEMA,
        "n_blocks": timings.n_blocks,
        "protocol": dict(timings.protocol),
        "machine": dict(timings.machine),
        "pools": [[str(plan) for plan in pool] for pool in timings.pools],
        "entries": [asdict(entry) | {"plan": str(entry.plan)} for entry in timings.entries],
        "start": dict(timings.start),
        "rounds": to_builtins(timings.rounds),
        "stopped_because": timings.stopped_because,
        "elapsed_s": timings.elapsed_s,
        "batches": [to_json(run) for run in timings.batches],
        "trials": to_builtins(timings.trials),
    }


def from_json(data: Mapping[str, Any], file: str = "the file") -> Timings:
    """Timings from what `to_json` gave; errors name the file it was stored in.

    Raises:
        TimingError: if the schema is not this version's, or the timings are damaged.
    """
    if data.get("schema") != SCHEMA:
        raise TimingError(
            f"cannot read the timings in {file}: their schema is {data.get('schema')!r:.40}, "
            f"this version reads {SCHEMA}. {TIME_AGAIN}"
        )
    try:
        return _timings(fit(data, StoredTimings), data)
    except MisfitError as misfit:
        raise TimingError(
            f"cannot read the timings in {file}: they {misfit.of_many}. {TIME_AGAIN}"
        ) from None


def _timings(stored: StoredTimings, data: Mapping[str, Any]) -> Timings:
    """Checked timings; protocol, machine and readings with all that is stored of them."""
    return Timings(
        n_blocks=stored.n_blocks,
        protocol=data["protocol"],
        machine=data["machine"],
        pools=tuple(tuple(map(Plan.parse, pool)) for pool in stored.pools),
        entries=tuple(
            Entry(Plan.parse(entry.plan), entry.pool, entry.peak_bytes) for entry in stored.entries
        ),
        start=stored.start,
        rounds=stored.rounds,
        stopped_because=stored.stopped_because,
        elapsed_s=stored.elapsed_s,
        batches=tuple(map(_timings, stored.batches, data["batches"])),
        trials=stored.trials,
    )
