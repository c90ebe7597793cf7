"""The notebook for a start runs as it is, but on little text and for the installation."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
LITTLE_TEXT = """
from pruning_kit.inputs import calibration

calibration.FITTING_TOKENS, calibration.TUNING_TOKENS = 8192, 512
"""
PAGE = ROOT / "docs" / "quickstart.ipynb"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the libraries of notebooks
def test_it_runs_to_a_model_and_its_page(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    text = PAGE.read_text(encoding="utf-8")
    assert "max_windows=24" in text
    notebook = nbformat.reads(text.replace("max_windows=24", "max_windows=3"), as_version=4)
    nbformat.validate(notebook)
    assert [
        cell.outputs for cell in notebook.cells if cell.cell_type == "code" and cell.outputs
    ] == []
    notebook.cells = [
        cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", [])
    ]
    notebook.cells.insert(0, nbformat.v4.new_code_cell(LITTLE_TEXT))
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    said = "".join(
        output.get("text", "")
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    assert "passed reload" in said and "FAILED" not in said
    assert "It was a fine morning, and" in said
    assert {"pruned", "quickstart.html", "runs"} <= {path.name for path in tmp_path.iterdir()}
