"""Who is told how a sweep goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol


class Advance(Protocol):
    """Is told of progress."""

    def __call__(self, step: float, now: str = "", /) -> object:
        """So much was done, and this is how things stand."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a process is about to measure, and how long that is expected to take."""

    n_blocks: int
    """Of the whole model."""
    n_variants: int
    n_texts: int
    n_windows: int
    """Of this process, on all texts."""
    n_windows_of_all: int
    """Of all processes."""
    n_processes: int
    seconds_per_window: float
    goes_on: bool
    """Whether a stopped run is gone on with."""

    @property
    def seconds(self) -> float:
        """For the windows of this process."""
        return self.n_windows * self.seconds_per_window


class Observer(Protocol):
    """Who is told what happens."""

    def say(self, text: str) -> None:
        """A fact worth a line."""
        ...

    def warn(self, text: str) -> None:
        """Something was substituted or is doubtful."""
        ...

    def expect(self, work: Work) -> None:
        """What is about to be measured."""
        ...

    def expect_searches(self, evaluations: int, seconds: float) -> None:
        """Searches make so many evaluations at most, and take so long, bridges apart."""
        ...

    def track(self, what: str, total: int) -> AbstractContextManager[Advance]:
        """Show progress towards `total` while the context lasts."""
        ...


class SilentObserver:
    """For processes that share a run with the one that talks, and for use as a library."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say nothing; the result records it."""

    def expect(self, work: Work) -> None:
        """Say nothing."""

    def expect_searches(self, evaluations: int, seconds: float) -> None:
        """Say nothing."""

    @contextmanager
    def track(self, what: str, total: int) -> Iterator[Advance]:
        yield lambda step, now="": None
