"""The web page: one HTML file that needs nothing else, neither network nor kit.

Its policy forbids every request, so what a mail program or browser shows is what is in the file.
The table and the chart of all plans are drawn by a script from data in the page; words, pictures
and the tables of chosen plans are there without it.
"""

from __future__ import annotations

import base64
import math
import re
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.sizes import PlanRow
from pruning_kit.plans.plan import Plan
from pruning_kit.printable import printable
from pruning_kit.reporting.commands import prune_command
from pruning_kit.reporting.contents import samples
from pruning_kit.reporting.document import Document
from pruning_kit.reporting.figures.canvas import image
from pruning_kit.reporting.figures.catalogue import PICTURES, draw_all
from pruning_kit.reporting.figures.front import front_note, quantities_across
from pruning_kit.reporting.tables import format_params
from pruning_kit.reporting.words.front import what_is_the_front
from pruning_kit.reporting.words.numbers import format_change, format_ppl
from pruning_kit.runs.results import Run

DIGITS = 6
PLAN_MARK = "PLAN"
LONG_NAME = 24


def render_page(run: Run, analysis: Analysis, document: Document) -> str:
    """The page as text."""
    return _template().render(
        document=document,
        pictures=_images(run, analysis),
        alt_texts={name: picture.alt for name, picture in PICTURES.items()},
        data=_data(run, analysis),
        samples=samples(run, analysis),
        front=what_is_the_front(analysis),
        front_note=[printable(note) for note in front_note(analysis)],
        style=Markup(_resource("report.css")),
        script=Markup(_resource("report.js")),
    )


def _template() -> Any:
    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["words"] = _words
    environment.filters["breakable"] = _breakable
    return environment.get_template("report.html.j2")


def _resource(name: str) -> str:
    return (files("pruning_kit.reporting") / "templates" / name).read_text(encoding="utf-8")


def _words(sentence: str) -> Markup:
    """A sentence as HTML, with commands in backticks set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))


def _breakable(name: str) -> Markup:
    """The name of a plan; a long one may be broken behind plus signs, as report.js does it too."""
    text = str(escape(name))
    return Markup(text.replace("+", "+<wbr>") if len(name) > LONG_NAME else text)


def _images(run: Run, analysis: Analysis) -> dict[str, str]:
    """Pictures by name, as addresses that hold the whole SVG."""
    return {
        name: _address(image(figure, "svg")) for name, figure in draw_all(run, analysis).items()
    }


def _address(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _data(run: Run, analysis: Analysis) -> dict[str, Any]:
    """What the script shows: numbers to sort and draw by, and the same numbers as text."""
    return {
        "nBlocks": run.n_blocks,
        "timed": any(row.latency is not None for row in analysis.rows),
        "across": [[quantity.name, quantity.label] for quantity in quantities_across(analysis)],
        "recommended": analysis.recommended.short,
        "command": prune_command(run, PLAN_MARK),
        "planMark": PLAN_MARK,
        "longName": LONG_NAME,
        "plans": [_record(row) for row in analysis.rows],
    }


def _record(row: PlanRow) -> list[Any]:
    """One plan, in the order that report.js names in its FIELDS."""
    latency_ms = None if row.latency is None else 1e3 * row.latency.median_s
    return [
        row.plan.short,
        row.plan.size,
        _rounded(row.ppl.value),
        _ppl_text(row),
        _rounded(row.ppl_ratio.value),
        "" if row.plan == Plan() or row.failed else format_change(row.ppl_ratio),
        row.parameters,
        format_params(row),
        _rounded(latency_ms),
        _latency_text(row),
        int(row.on_front),
        _rounded(row.selection_ratio),
    ]


def _latency_text(row: PlanRow) -> str:
    """Milliseconds, and how far off the interval of the ratio to the whole model may put them."""
    if row.latency is None:
        return ""
    ms, ratio = 1e3 * row.latency.median_s, row.latency.ratio
    if row.plan == Plan() or ratio.low is None or ratio.high is None:
        return f"{ms:.3g}"
    farther = max(ratio.high - ratio.value, ratio.value - ratio.low)
    return f"{ms:.3g} ± {ms * farther / ratio.value:.2g}"


def _ppl_text(row: PlanRow) -> str:
    if row.ppl.low is None or row.ppl.high is None:
        return format_ppl(row.ppl.value)
    return f"{format_ppl(row.ppl.value)} [{format_ppl(row.ppl.low)} to {format_ppl(row.ppl.high)}]"


def _rounded(value: float | None) -> float | None:
    """Six digits, as JSON can hold them; None for what is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")
