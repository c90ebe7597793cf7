"""Ctrl-C before there is anything to stop: one line, and the process ends where it stands.

An interrupt inside an import can come out as any other error, or as a traceback.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress


def end_at_once() -> None:
    """From now on Ctrl-C ends the process, unless it is ignored, as in the background."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_again() -> None:
    """From now on Ctrl-C is a `KeyboardInterrupt` again, which may be answered."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: object) -> None:
    with suppress(OSError):
        os.write(2, b"Stopped.\n")
    os._exit(130)
