"""Several processes on one run, started by torchrun: who takes which window group.

The processes share only the run folder. They meet through torchrun's own key-value store:
to learn which folder the first one opened and what is left to do there, and to wait for the last
group.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

from pruning_kit.errors import DeviceError

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

FOREVER = timedelta(days=30)
A_MOMENT = timedelta(seconds=5)
NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those of the run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    store: Store | None = None

    @property
    def leads(self) -> bool:
        """Whether this process prints, creates the folder and derives the results."""
        return self.rank == 0

    def takes(self, sizes: Sequence[int]) -> list[int]:
        """Which of some pieces of work this process does; every process asks with the same sizes.

        The largest pieces are dealt out first, each to the process that has least so far.
        """
        loads = [0] * self.size
        mine = []
        for piece in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
            taker = loads.index(min(loads))
            loads[taker] += sizes[piece]
            if taker == self.rank:
                mine.append(piece)
        return sorted(mine)

    def share(self, name: str, value: str | None) -> str:
        """Give every process the value that the first one has."""
        if self.store is None:
            assert value is not None
            return value
        if self.leads:
            assert value is not None
            self.store.set(name, value)
        return str(self.store.get(name).decode())

    def should_say(self, error: str) -> bool:
        """Whether this process prints an error: the others leave to the first what it says too."""
        if self.store is None:
            return True
        if self.leads:
            self.store.set("error", error)
            return True
        try:
            self.store.wait(["error"], A_MOMENT)
            return str(self.store.get("error").decode()) != error
        except RuntimeError:  # the first process is well, or gone with the store
            return True

    def wait_for_all(self, name: str) -> None:
        """Return when every process has called this."""
        if self.store is not None:
            self.store.set(f"{name}/{self.rank}", "here")
            self.store.wait([f"{name}/{rank}" for rank in range(self.size)], FOREVER)
            self.store.set(f"{name}/left/{self.rank}", "gone")
            if self.leads:  # it may own the store: leave last
                self.store.wait([f"{name}/left/{rank}" for rank in range(self.size)], FOREVER)


def is_one_of_several() -> bool:
    """Whether this process was started as one of several; nothing is asked of the others.

    A size without a rank is a scheduler's, which starts its processes by itself.
    """
    return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


@cache
def current_ranks() -> Ranks:
    """The place of this process according to torchrun; one alone without it.

    Raises:
        DeviceError: if this process is one of several and is not told how to join the others.
    """
    if not is_one_of_several():
        return Ranks()
    rank, size, local_rank, local_size, port = (_number(name) for name in NUMBERS)
    if not (0 <= rank < size and 0 <= local_rank < local_size and 0 < port < 2**16):
        raise DeviceError(_cannot_join("their numbers contradict each other"))
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    # torchrun's agent may host the store itself, then every rank is a client of it
    hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = TCPStore(
        _given("MASTER_ADDR"),
        port,
        is_master=rank == 0 and not hosted,
        wait_for_workers=False,
        timeout=FOREVER,
    )
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return Ranks(
        rank=rank,
        size=size,
        local_rank=local_rank,
        local_size=local_size,
        # the keys of a restarted run are kept apart from those of the attempt before it
        store=PrefixStore(f"pruning-kit/{attempt}", store),
    )


def _given(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise DeviceError(_cannot_join(f"{name} is not"))
    return value


def _number(name: str) -> int:
    value = _given(name)
    try:
        return int(value)
    except ValueError:
        raise DeviceError(_cannot_join(f"{name} is {value!r}, no number")) from None


def _cannot_join(why: str) -> str:
    rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    return (
        f"cannot join the other processes: RANK={rank} and WORLD_SIZE={size} are set, but {why}. "
        "Start all of them with torchrun, or unset RANK to run alone."
    )
