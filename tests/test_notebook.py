"""Runs in a notebook: what the documentation prints is run as printed."""

import re
from pathlib import Path

import matplotlib.figure
import pandas as pd
import pytest

from pruning_kit.plans.plan import Plan
from pruning_kit.reporting.notebook import show
from tests.synthetic_runs import write_run

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The runs that the documentation takes for granted."""
    (tmp_path / "results").mkdir()
    write_run(tmp_path / "results" / "my-run", 6, n_windows=64)
    write_run(tmp_path / "results" / "other-run", 6, n_windows=64, seed=1)
    monkeypatch.chdir(tmp_path)


def snippets(name):
    return re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize(
    ("page", "number"),
    [(name, i) for name in ("report.md", "statistics.md") for i in range(len(snippets(name)))],
)
def test_snippets_of_the_documentation_run_as_printed(runs, capsys, page, number):
    exec(compile(snippets(page)[number], f"{page} {number}", "exec"), {})


def test_a_run_gives_a_data_frame_figures_and_a_summary(runs):
    names = {}
    exec(snippets("report.md")[0], names)
    run, frame = names["run"], names["frame"]
    assert isinstance(frame, pd.DataFrame) and len(frame) == 64
    assert frame.columns[:4].tolist() == ["mode", "removed", "blocks", "ppl"]
    assert isinstance(names["figures"].perplexity_bars(run), matplotlib.figure.Figure)
    html = show(run)._repr_html_()
    assert html.startswith("<h4>Removing blocks from distilgpt2</h4>") and "<td>3 *</td>" in html
    assert names["analysis"].recommended == Plan((3,))
    saved = {path.name for path in run.folder.glob("*.png")}
    assert saved == {
        "perplexity.png",
        "speed.png",
        "removed-block.png",
        "pairs.png",
        "interactions.png",
        "shapley.png",
        "sizes.png",
    }
