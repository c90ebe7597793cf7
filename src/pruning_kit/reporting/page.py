"""The web page: one HTML file that needs nothing else, neither network nor kit.

Its policy forbids every request, so what a mail program or browser shows is what is in the file.
The table and the chart of all plans are drawn by a script from data in the page; words, figures
and the tables of chosen plans are there without it.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from pruning_kit.findings.analysis import Analysis
from pruning_kit.findings.evidence import Interval
from pruning_kit.findings.sizes import PlanRow
from pruning_kit.plans.plan import Plan
from pruning_kit.printable import printable
from pruning_kit.reporting.commands import prune_command
from pruning_kit.reporting.contents import samples
from pruning_kit.reporting.document import Document
from pruning_kit.reporting.figures.canvas import image
from pruning_kit.reporting.figures.catalogue import FIGURES, draw_all
from pruning_kit.reporting.figures.front import front_note, quantities_across
from pruning_kit.reporting.tables import as_cut_text, format_params, latency_text
from pruning_kit.reporting.words.front import what_is_the_front
from pruning_kit.reporting.words.numbers import format_change, format_ppl
from pruning_kit.runs.results import Run

DIGITS = 6
PLAN_MARK = "PLAN"
LONG_NAME = 24
IN_A_PAGE = [name for name in FIGURES if name != "perplexity"]  # whose plans are in its table


def render_page(run: Run, analysis: Analysis, document: Document) -> str:
    """The page as text."""
    return _template().render(
        document=document,
        figures=_images(run, analysis),
        alt_texts={name: entry.alt for name, entry in FIGURES.items()},
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
    """Figures by name, as addresses that hold the whole SVG."""
    return {
        name: _address(image(figure, "svg"))
        for name, figure in draw_all(run, analysis, IN_A_PAGE).items()
    }


def _address(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _data(run: Run, analysis: Analysis) -> dict[str, Any]:
    """What the script shows: numbers to sort and draw by, and the same numbers as text."""
    return {
        "nBlocks": run.n_blocks,
        "compared": any(row.kl is not None for row in analysis.rows),
        "bridged": analysis.judged_bridged,
        "timed": any(row.latency is not None for row in analysis.rows),
        "across": [[quantity.name, quantity.label] for quantity in quantities_across(analysis)],
        "recommended": analysis.recommended.short,
        "commands": [prune_command(run, PLAN_MARK, bridged) for bridged in (False, True)],
        "planMark": PLAN_MARK,
        "longName": LONG_NAME,
        "plans": {
            field: list(map(write, analysis.rows)) for field, write in _fields(analysis).items()
        },
    }


def _change_text(row: PlanRow) -> str:
    return "" if row.plan == Plan() or row.failed else format_change(row.ppl_ratio)


def _latency_ms(row: PlanRow) -> float | None:
    return None if row.latency is None else 1e3 * row.latency.median_s


def _ppl_text(row: PlanRow) -> str:
    if row.ppl.low is None or row.ppl.high is None:
        return format_ppl(row.ppl.value)
    return f"{format_ppl(row.ppl.value)} [{format_ppl(row.ppl.low)} to {format_ppl(row.ppl.high)}]"


def _value(interval: Interval | None) -> float | None:
    return None if interval is None else _rounded(interval.value)


def _plus_minus(interval: Interval | None, form: str) -> str:
    """A value and half the width of its interval."""
    if interval is None:
        return ""
    half = None if interval.high is None else interval.high - interval.value
    return f"{interval.value:{form}}" + ("" if half is None else f" ± {half:{form}}")


def _rounded(value: float | None) -> float | None:
    """Six digits, as JSON can hold them; None for what is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


FIELDS: Mapping[str, Callable[[PlanRow], Any]] = {
    "name": lambda row: row.plan.short,
    "size": lambda row: row.plan.size,
    "ppl": lambda row: _rounded(row.ppl.value),
    "pplText": _ppl_text,
    "ratio": lambda row: _rounded(row.ppl_ratio.value),
    "changeText": _change_text,
    "kl": lambda row: _value(row.kl),
    "klText": lambda row: _plus_minus(row.kl, ".3g"),
    "agreement": lambda row: _value(row.agreement),
    "agreementText": lambda row: _plus_minus(row.agreement, ".1%").replace("%", " %"),
    "parameters": lambda row: row.parameters,
    "paramsText": format_params,
    "latency": lambda row: _rounded(_latency_ms(row)),
    "latencyText": latency_text,
    "front": lambda row: int(row.on_front),
    "chosenBy": lambda row: _rounded(row.selection_ratio),
}
"""What the script knows of a plan, by the names that it uses; a column each, which is shortest."""

OF_BRIDGED: Mapping[str, Callable[[PlanRow], Any]] = {
    "isBridged": lambda row: int(row.bridged),
    "asCut": lambda row: _value(row.as_cut),
    "asCutText": as_cut_text,
    "bridged": lambda row: _rounded(row.ppl.value) if row.bridged else None,
    "bridgedText": lambda row: _ppl_text(row) if row.bridged else "",
}
"""And of one that is judged bridged, where there are such."""


def _fields(analysis: Analysis) -> Mapping[str, Callable[[PlanRow], Any]]:
    return {**FIELDS, **(OF_BRIDGED if analysis.judged_bridged else {})}
