"""On which text plans are chosen, where a run has two."""

from __future__ import annotations

from pruning_kit.findings.analysis import Analysis


def on_selection(analysis: Analysis, form: str = " (on {})") -> str:
    """The text that plans are chosen on, where the run has two: such as ` (on valid)`."""
    return form.format(analysis.selection.short) if analysis.two_texts else ""


def chosen_on(analysis: Analysis) -> str:
    """What plans were chosen on, to stand beside a choice."""
    if not analysis.two_texts:
        return "chosen and reported on the same text"
    return f"chosen on {analysis.selection.short}, reported on {analysis.reported.short}"
