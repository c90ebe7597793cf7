"""What a notebook shows of a run: a short table that needs no script."""

from __future__ import annotations

from html import escape

from pruning_kit.findings.analysis import analyse
from pruning_kit.reporting.contents import build_document
from pruning_kit.reporting.tables import sizes_table
from pruning_kit.runs.results import Run


def run_html(run: Run) -> str:
    """The summary of a run as an HTML fragment; names from outside are escaped."""
    analysis = analyse(run)
    document = build_document(run, analysis)
    said = [f"Note: {note}" for note in document.notes] + list(document.sections[0].sentences)
    parts = [
        f"<h4>{escape(document.title)}</h4>",
        f"<p>{escape(document.subtitle)}</p>",
        *(f"<p>{escape(sentence)}</p>" for sentence in said),
    ]
    table = sizes_table(analysis)
    if table is not None:
        parts += [
            "<table><thead><tr>",
            *(f"<th>{escape(heading)}</th>" for heading in table.headings),
            "</tr></thead><tbody>",
            *(
                "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
                for row in table.rows
            ),
            "</tbody></table>",
            f"<p><small>{escape(table.caption)}</small></p>",
        ]
    return "\n".join(parts)
