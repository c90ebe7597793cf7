"""The library by its public names: the page that shows it is run as printed."""

import re
from pathlib import Path

import pytest
import torch

import pruning_kit
from pruning_kit import PruningKitError, open_workbench, sweep
from pruning_kit.inputs import calibration

PAGE = Path(__file__).parents[1] / "docs" / "library.md"


def test_the_page_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibration, "FITTING_TOKENS", 4096)
    monkeypatch.setattr(calibration, "TUNING_TOKENS", 512)
    names = {}
    threads = torch.get_num_threads()
    for snippet in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S):
        exec(compile(snippet, "library.md", "exec"), names)
    assert torch.get_num_threads() == threads
    assert [str(v) for v in names["chosen"].variants] == ["none", "0+1", "1+3", "1+3~bridged"]
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


@pytest.fixture(scope="module")
def bench():
    return open_workbench("demo", max_windows=2)


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"variants": []}, "cannot measure without a variant"),
        ({"role": "selection"}, "on the text 'selection': this workbench has reported. Open it wi"),
        ({"role": "also-1"}, "reported. Open it with select_on or also_on for others."),
        ({"windows": range(2, 3)}, "cannot measure windows range(2, 3): the text has 2. Give neig"),
        ({"windows": range(0)}, "cannot measure windows range(0, 0): the text has 2."),
        ({"windows": range(0, 2, 2)}, "cannot measure windows range(0, 2, 2): the text has 2."),
    ],
)
def test_what_a_workbench_cannot_measure_is_said_in_a_sentence(bench, asked, error):
    with pytest.raises(PruningKitError, match=re.escape(error)):
        bench.measure(**{"variants": ["none"], **asked})


def test_a_text_asks_for_no_more_plans_than_a_command_does(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(type(bench), "n_blocks", 13)
    error = "cannot measure 8,192 plans of 13 blocks: that is more than 5,000"
    with pytest.raises(PruningKitError, match=error):
        sweep("combinatorial", bench, tmp_path / "run")
    assert not (tmp_path / "run").exists()
