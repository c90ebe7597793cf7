"""Sentences on the texts of a run: the reported one, and the one that plans are chosen on."""

from __future__ import annotations

from pruning_kit.findings.analysis import Analysis


def on_selection(analysis: Analysis, form: str = " (on {})") -> str:
    """The text that plans are chosen on, where the run has two: such as ` (on valid)`."""
    same = analysis.selection == analysis.reported
    return "" if same else form.format(analysis.selection.short)


def two_texts(analysis: Analysis) -> list[str]:
    """On which text sets were chosen, where it is another than the reported one."""
    if analysis.selection == analysis.reported or not analysis.offers_choice:
        return []
    return [
        f"Sets were chosen on {analysis.selection.title}, and their costs are reported on "
        f"{analysis.reported.title}, so that choosing does not flatter them; what holds for the "
        f"first says “on {analysis.selection.short}”."
    ]
