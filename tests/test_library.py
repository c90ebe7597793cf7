"""The library by its public names: the page that shows it is run as printed."""

import re
from pathlib import Path

import pytest
import torch

import pruning_kit
from pruning_kit import PruningKitError, open_workbench, sweep

PAGE = Path(__file__).parents[1] / "docs" / "library.md"


def test_the_page_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    threads = torch.get_num_threads()
    for snippet in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S):
        exec(compile(snippet, "library.md", "exec"), names)
    assert torch.get_num_threads() == threads
    assert [str(v) for v in names["chosen"].variants] == ["none", "0+1", "1+3"]
    assert list(names["found"].perplexities()) == ["none", "1+3"]
    assert names["analysis"].recommended.size >= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_every_public_name_is_there():
    for name in pruning_kit.__all__:
        assert getattr(pruning_kit, name).__module__.startswith("pruning_kit.")
    with pytest.raises(AttributeError, match="has no attribute 'Sweep'"):
        _ = pruning_kit.Sweep


def test_a_folder_that_holds_a_run_is_gone_on_with_only_when_asked(tmp_path):
    bench = open_workbench("demo", max_windows=1)
    first = sweep("baseline", bench, tmp_path / "run")
    with pytest.raises(PruningKitError, match="a run is already there"):
        sweep("baseline", bench, tmp_path / "run")
    again = sweep("baseline", bench, tmp_path / "run", resume=True)
    assert again.nll().tobytes() == first.nll().tobytes()
    with pytest.raises(PruningKitError, match="it was measured with plans=baseline, this run uses"):
        sweep("sequential", bench, tmp_path / "run", resume=True)
