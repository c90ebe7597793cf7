"""How pairs of blocks add up, in sentences."""

from __future__ import annotations

from pruning_kit.findings.analysis import COLLAPSE_RATIO, Analysis
from pruning_kit.findings.evidence import exp
from pruning_kit.findings.importance import Interaction
from pruning_kit.reporting.words.numbers import change, first_few, format_nats, listed
from pruning_kit.reporting.words.sureness import few_windows


def interaction_sentences(analysis: Analysis) -> list[str]:
    """How many pairs cost more or less together than apart, and which ones most."""
    pairs = analysis.interactions
    if not pairs:
        return []
    if not analysis.scores.has_intervals:
        why = few_windows(analysis.scores.n_windows)
        return [f"None of the {len(pairs)} pairs was tested against its two single costs ({why})."]
    clear = sorted((pair for pair in pairs if pair.is_clear), key=lambda pair: pair.excess.value)
    if not clear:
        return [f"None of the {len(pairs)} pairs differs clearly from the sum of its single costs."]
    sound = analysis.sound_interactions
    usable = [pair for pair in clear if pair in sound]
    found = [_count(analysis, usable)] if sound else []
    if usable and usable[-1].excess.value > 0:
        found.append(_pair(usable[-1], "above"))
    if usable and usable[0].excess.value < 0:
        found.append(_pair(usable[0], "below"))
    return found


def ruined_pairs(analysis: Analysis) -> str:
    """Which pairs mean little, and why, where there are some."""
    each = "each of " * (len(analysis.ruinous) > 1)
    return (
        f"pairs with block {_ruinous(analysis)}, {each}which alone multiplies perplexity by more "
        f"than {COLLAPSE_RATIO:g}"
    )


def _count(analysis: Analysis, clear: list[Interaction]) -> str:
    """How many sound pairs cost more or less together than apart."""
    pairs = analysis.sound_interactions
    without = f" without ruinous block {_ruinous(analysis)}" if analysis.ruinous else ""
    those = f"Of {len(pairs)} pair{'s' * (len(pairs) > 1)}{without},"
    worse = sum(pair.excess.value > 0 for pair in clear)
    costs = f"{worse} clearly cost{'s' * (worse == 1)} more than the sum"
    return f"{those} {costs}, {len(clear) - worse} less."


def _ruinous(analysis: Analysis) -> str:
    return listed(first_few(analysis.ruinous), "or")


def _pair(pair: Interaction, side: str) -> str:
    size = pair.excess if side == "above" else pair.excess.negated
    return (
        f"Farthest {side} it: {pair.first}+{pair.second}, by {format_nats(size)} nats per token "
        f"({change(exp(pair.excess.value))})."
    )
