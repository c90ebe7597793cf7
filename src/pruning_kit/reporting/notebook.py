"""What a notebook shows of a run: a short table that needs no script."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from pruning_kit.findings.analysis import analyse
from pruning_kit.reporting.contents import build_document
from pruning_kit.reporting.document import Document
from pruning_kit.runs.results import Run


@dataclass(frozen=True, eq=False, repr=False)
class Summary:
    """The summary of a run: rich in a notebook, plain text elsewhere."""

    document: Document

    @property
    def sentences(self) -> list[str]:
        """What to know first, then the run in short."""
        notes = [f"Note: {note}" for note in self.document.notes]
        return [*notes, *self.document.sections[0].sentences]

    def __str__(self) -> str:
        return "\n".join((self.document.title, self.document.subtitle, *self.sentences))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The summary as an HTML fragment; names from outside are escaped."""
        parts = [
            f"<h4>{escape(self.document.title)}</h4>",
            f"<p>{escape(self.document.subtitle)}</p>",
            *(f"<p>{escape(sentence)}</p>" for sentence in self.sentences),
        ]
        return "\n".join(parts + self._table_html())

    def _table_html(self) -> list[str]:
        table = self.document.sections[0].table
        if table is None:
            return []
        return [
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


def show(run: Run) -> Summary:
    """The summary of a run, as the last line of a notebook's cell or for `print`."""
    return Summary(build_document(run, analyse(run)))
