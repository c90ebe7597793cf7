"""Who is told how a sweep goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[float], None]


class Observer(Protocol):
    """Who is told what happens."""

    def say(self, text: str) -> None:
        """A fact worth a line."""
        ...

    def warn(self, text: str) -> None:
        """Something was substituted or is doubtful."""
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

    @contextmanager
    def track(self, what: str, total: int) -> Iterator[Callable[[float], None]]:
        yield lambda step: None
