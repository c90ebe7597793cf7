"""The details of a distilled variant: `1+3~distilled:8M`, `1+3~distilled:2M,lora`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pruning_kit.errors import PlanError
from pruning_kit.plans.variant import Recovery, Variant

NAME = "distilled"
ADAPTERS = "lora"
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
LEAST_TOKENS = 1024
_AMOUNT = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([kMG]?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Amount:
    """How long a training is, and what is trained."""

    tokens: int
    adapters: bool = False

    @classmethod
    def of(cls, recovery: Recovery) -> Amount:
        """Read the details of a recovery; `recovery` gives it back.

        Raises:
            PlanError: if they are no number of tokens, with or without `lora` behind it, or too
                few of them.
        """
        first, *others = recovery.details or ("",)
        match = _AMOUNT.fullmatch(first)
        tokens = round(float(match[1]) * UNITS[match[2]]) if match else 0
        found = cls(tokens, others == [ADAPTERS])
        if not tokens or others not in ([], [ADAPTERS]) or str(recovery) != str(found.recovery):
            shown = f" (which is written {found.recovery})" if tokens else ""
            raise PlanError(
                f"cannot recover by {str(recovery)!r:.60}{shown}: write the tokens to learn from, "
                f"such as {NAME}:2M, {NAME}:500k or {NAME}:8M,{ADAPTERS}."
            )
        refuse_few(tokens)
        return found

    @classmethod
    def read(cls, tokens: str, adapters: bool = False) -> Amount:
        """Read a number of tokens alone, such as `8M`.

        Raises:
            PlanError: if it is none, or too small a one.
        """
        match = _AMOUNT.fullmatch(tokens)
        if match is None or not float(match[1]):
            raise PlanError(
                f"cannot read {tokens!r:.60} as a number of tokens: write it such as 500k or 8M."
            )
        found = cls(round(float(match[1]) * UNITS[match[2]]), adapters)
        refuse_few(found.tokens)
        return found

    @property
    def recovery(self) -> Recovery:
        """The recovery that has this amount."""
        return Recovery(NAME, (count(self.tokens), *[ADAPTERS] * self.adapters))


def count(tokens: int) -> str:
    """Tokens as a variant names them: `8M`, `1.5M`, `500k`."""
    unit = next((u for u in ("G", "M", "k") if tokens >= UNITS[u]), "")
    return f"{tokens / UNITS[unit]:.6f}".rstrip("0").rstrip(".") + unit


def is_trained(variant: Variant) -> bool:
    """Whether a variant is distilled; several processes make it together."""
    return variant.recovery is not None and variant.recovery.name == NAME


def refuse_few(tokens: int) -> None:
    """Refuse a number of tokens that nothing is learnt from.

    Raises:
        PlanError: naming it.
    """
    if tokens < LEAST_TOKENS:
        raise PlanError(
            f"cannot distil on {tokens:,} tokens: at least {LEAST_TOKENS:,} are needed. Give more."
        )
