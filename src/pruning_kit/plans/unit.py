"""Units: what can be removed, a block or one of its two sublayers."""

from __future__ import annotations

import re
from typing import NamedTuple

from pruning_kit.errors import PlanError

MAX_DIGITS = 5  # no model has blocks of longer numbers
WHOLE, ATTENTION, MLP = "", "a", "m"

_UNIT = re.compile(rf"(\d{{1,{MAX_DIGITS}}})([am]?)")


class Unit(NamedTuple):
    """A block of the original model, numbered from 0, or a sublayer of it: `3`, `3a`, `3m`."""

    block: int
    part: str = WHOLE
    """`WHOLE`, or its sublayer: `ATTENTION` or `MLP`."""

    @classmethod
    def parse(cls, text: str) -> Unit:
        """Read `3`, `3a` or `3m`; the inverse of `str`.

        Raises:
            PlanError: if the text is none of these.
        """
        match = _UNIT.fullmatch(text)
        if match is None:
            raise PlanError(
                f"cannot read {text!r} as a unit: write the number of a block, such as 3, or of "
                "its attention or MLP, such as 3a or 3m."
            )
        return cls(int(match[1]), match[2])

    def __str__(self) -> str:
        return f"{self.block}{self.part}"
