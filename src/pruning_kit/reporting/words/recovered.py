"""Recovered models in sentences: what was made of what, and what is not to be had."""

from __future__ import annotations

from pruning_kit.runs.results import Run


def recovered_sentences(run: Run) -> list[str]:
    """How each model with own weights was made, and why others have no row."""
    found = []
    for variant, facts in run.recovered.items():
        if facts.refused is not None:
            found.append(f"There is no row of {variant}: the kit {facts.refused}")
        elif facts.details:
            how = "; ".join(f"{name}: {value}" for name, value in facts.details.items())
            found.append(f"{variant}: {how}.")
    return found
