"""What to measure, as it was typed, and what to type instead where that is too much."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pruning_kit.errors import PlanError, TooManyPlansError
from pruning_kit.plans.distilled import NAME, Amount
from pruning_kit.search.limits import with_budget, with_minutes
from pruning_kit.search.named import parse
from pruning_kit.search.narrowing import narrower
from pruning_kit.search.together import MAX_PLANS, Together


class Mode(StrEnum):
    """The three modes of the kit, searches that have an option of their own."""

    BASELINE = "baseline"
    SEQUENTIAL = "sequential"
    COMBINATORIAL = "combinatorial"


def refuse_untimed_limit(max_latency: float | None, speed: bool) -> None:
    """Refuse a limit on time where nothing is timed.

    Raises:
        PlanError: naming both options.
    """
    if max_latency is not None and not speed:
        raise PlanError(
            f"cannot use --max-latency {max_latency:g} with --no-speed: nothing is timed then. "
            "Leave one out."
        )


@dataclass(frozen=True, slots=True)
class Request:
    """The options that say what to measure.

    Raises:
        PlanError: if they name nothing, or an option would not be used.
    """

    mode: Mode | None = None
    tries: tuple[str, ...] = ()
    """One word each, see `search.parse`."""
    max_removed: int | None = None
    """Of the combinatorial mode."""
    max_plans: int = MAX_PLANS
    search_minutes: int | None = None
    """Of each search."""
    top: int | None = None
    """Of each size, to be distilled too."""
    tokens: str | None = None
    """That each of them learns from."""
    max_params: int | None = None
    """That may stay, by a search that names no number of blocks."""
    max_latency: float | None = None
    """Milliseconds end to end, likewise."""

    def __post_init__(self) -> None:
        if not (self.mode or self.tries):
            raise PlanError(
                "cannot start a sweep: nothing says what to measure. Give --mode baseline, "
                "sequential or combinatorial, or --try pairs or 1+3, or more of --help."
            )
        if self.tokens and self.top is None:
            raise PlanError(
                f"cannot use --tokens {self.tokens} here: no plan is distilled. Say with --top how "
                f"many of each size are, or write --try 1+3~{NAME}:{self.tokens}."
            )
        if self.max_removed is not None and self.mode != Mode.COMBINATORIAL:
            raise PlanError(
                f"cannot use --max-removed {self.max_removed} here: it bounds --mode combinatorial "
                f"alone. Give that, or write --try combinatorial:max={self.max_removed}."
            )

    @property
    def proposer(self) -> Together:
        """What asks for all of it.

        Raises:
            PlanError: if a word cannot be read.
        """
        bound = "" if self.max_removed is None else f":max={self.max_removed}"
        words = [f"{self.mode}{bound}"] if self.mode else []
        words += [*self.tries, *self._distilled]
        asked = Together((parse(" ".join(words)),), self.max_plans)
        if self.search_minutes is not None:
            asked = with_minutes(asked, self.search_minutes)
        microseconds = None if self.max_latency is None else round(1e3 * self.max_latency)
        if (self.max_params, microseconds) == (None, None):
            return asked
        return with_budget(asked, self.max_params, microseconds)

    @property
    def _distilled(self) -> list[str]:
        """The word that asks for the best, distilled; none where it is not asked for."""
        if self.top is None:
            return []
        tokens = f",tokens={Amount.read(self.tokens).tokens}" if self.tokens else ""
        return [f"{NAME}:{self.top}{tokens}"]

    def __str__(self) -> str:
        options = {
            "--mode": self.mode,
            "--max-removed": self.max_removed,
            "--search-minutes": self.search_minutes,
            "--top": self.top,
            "--tokens": self.tokens,
            "--max-params": self.max_params and f"{self.max_params / 1e6:g}",
            "--max-latency": self.max_latency and f"{self.max_latency:g}",
        }
        given = [f"{name} {value}" for name, value in options.items() if value is not None]
        return " ".join([*given, *(f"--try {word}" for word in self.tries)])

    def narrower(self, n_blocks: int, at_most: int) -> str:
        """What to type, to measure no more plans than that; empty where nothing is narrower."""
        fewer = " or ".join(
            f"{in_options(union)} ({count:,} plan{'s' * (count != 1)})"
            for union, count in narrower(self.proposer, n_blocks, at_most)
        )
        return fewer and f"{fewer} in place of {self}"

    def too_many(self, error: TooManyPlansError) -> PlanError:
        """What to say of more plans than were allowed for."""
        fewer = self.narrower(error.n_blocks, self.max_plans)
        choose = f"Choose fewer, such as with {fewer}" if fewer else "Choose fewer"
        if error.count is None:
            return PlanError(
                f"cannot measure all that was asked for of {error.n_blocks} blocks: that is more "
                f"than {error.limit:,} plans, and a sweep holds no more. {choose}."
            )
        work = error.calls and f", in {error.calls:,} block calls for each window"
        return PlanError(
            f"cannot measure {error.count:,} plans of {error.n_blocks} blocks without your word: "
            f"that is more than {error.limit:,}{work or ''}. {choose}, or ask for all with "
            f"--max-plans {error.count}."
        )


def in_options(asked: object) -> str:
    """What to type for a proposer or its text form: `--try pairs --try 1+3`."""
    return " ".join(f"--try {word}" for word in str(asked).split())
