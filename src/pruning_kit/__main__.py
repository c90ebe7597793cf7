"""The ways in: `pruning-kit`, `python -m pruning_kit` (torchrun starts it so) and `main.py`."""

from __future__ import annotations

import sys

from pruning_kit.cli import interrupts


def main(default_verb: str | None = None) -> int:
    """Run the command line and return its exit code.

    `default_verb` stands in where the first word is an option, as in the historic interface.
    """
    interrupts.end_at_once()
    from pruning_kit.cli import (
        app,  # takes a while
        invocation,
    )

    if default_verb is None:
        return app.main()
    return app.main(default_verb=default_verb, program=invocation.program_of(sys.argv[0]))


if __name__ == "__main__":
    sys.exit(main())
