"""What is timed and how long, as it is asked for. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pruning_kit import bounds
from pruning_kit.bounds import TOKENS, Range
from pruning_kit.errors import DeviceError, TimingError
from pruning_kit.intervals import MIN_ROUNDS

EXECUTIONS = ("eager", "compile", "cuda-graph")
SPEED = "Speed"
"""The group of these settings."""
_offered = partial(bounds.setting, group=SPEED, error=TimingError)
_for_the_library = partial(bounds.setting, error=TimingError)


@dataclass(frozen=True, slots=True)
class LatencyProtocol:
    """What is timed and how long.

    Raises:
        TimingError, DeviceError: if a number cannot be meant, a batch size is repeated, or there is
            no such execution.
    """

    prompt_tokens: int = _offered(128, "Prompt of the prefill.", allowed=Range(1, TOKENS))
    batch_size: int = _offered(
        1, "Sequences in every timed call.", allowed=Range(1, 2**16), name="batch"
    )
    new_tokens: int = _offered(
        16, "Tokens of the decode, after the prefill.", allowed=Range(1, TOKENS)
    )
    end_to_end_tokens: int = _for_the_library(
        75, "Length, prompt included, to which a text is continued.", allowed=Range(2, TOKENS)
    )
    target: float = _offered(
        0.02,
        "Wanted half-width of each ratio, as a share of it.",
        allowed=Range(0, 10**12, strictly=True),
        name="latency_target",
    )
    budget_s: float = _offered(
        25.0,
        "Seconds for timing, warm-up included; more where the first eight rounds need it.",
        allowed=Range(0, 10**12, strictly=True),
        name="latency_budget",
    )
    min_rounds: int = _for_the_library(
        MIN_ROUNDS,
        "Rounds made before the intervals are looked at; fewer give none.",
        allowed=Range(MIN_ROUNDS, 10**6),
    )
    warmup_rounds: int = _for_the_library(
        1, "Rounds over all entries that are not kept.", allowed=Range(1, 10**6)
    )
    threads: int | None = bounds.setting(
        None, "Of the CPU; by default trials choose.", "", DeviceError, Range(1, 2048)
    )
    execution: str = "eager"
    """`eager`, `compile` (static cache, compiled decode) or `cuda-graph` (the same, replayed)."""
    per_plan: bool = _offered(False, "Time every plan, not one of each depth.")
    batches: tuple[int, ...] = _offered(
        (),
        "Further batch sizes, such as 2,4,8, at which the whole model and one plan are timed "
        "afterwards, with the budget once more.",
        allowed=Range(1, 2**16),
        name="batch_sweep",
    )
    seed: int = 0
    """Of the random prompt and the orders."""

    def __post_init__(self) -> None:
        bounds.check(self)
        if len({self.batch_size, *self.batches}) <= len(self.batches):
            raise TimingError(
                f"cannot time batches of {self.batch_size} and also of "
                f"{', '.join(map(str, self.batches))}: a size is repeated. Give each once."
            )
        if self.execution not in EXECUTIONS:
            raise TimingError(
                f"cannot time with execution {self.execution!r}: they are {', '.join(EXECUTIONS)}."
            )
