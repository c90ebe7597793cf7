"""Calibration texts: three parts that share no character, each of a size that is of use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning_kit.errors import CorpusError
from pruning_kit.inputs import calibration as calibration_module
from pruning_kit.inputs.calibration import (
    FITTING_TOKENS,
    LEAST_BYTES,
    TUNING_TOKENS,
    parts_of,
    prepare_calibration,
)
from pruning_kit.inputs.corpora import Corpus, demo_corpus
from pruning_kit.inputs.models import find_model, load_inputs
from pruning_kit.sweeps.observer import SilentObserver
from pruning_kit.sweeps.settings import WorkbenchSettings
from pruning_kit.sweeps.texts import find_texts


def corpus_of(pieces) -> Corpus:
    return Corpus("some.txt", "Some text", lambda: iter(pieces))


def texts_of(parts):
    return ["".join(part.read()) for part in (parts.fitting, parts.tuning, parts.selection)]


@given(st.lists(st.text(alphabet="ab \né𝄞", max_size=30), max_size=30))
def test_the_parts_follow_each_other_and_are_all_of_the_text(pieces):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration_module, "LEAST_BYTES", 0)
        fitting, tuning, selection = texts_of(parts_of(corpus_of(pieces)))
    assert fitting + tuning + selection == "".join(pieces)


def test_half_is_fitted_and_an_eighth_is_for_strengths_to_the_end_of_a_line():
    lines = [f"{number:09}\n" for number in range(4000)]
    fitting, tuning, selection = texts_of(parts_of(corpus_of(lines)))
    assert [len(fitting), len(tuning), len(selection)] == [20_010, 5_000, 14_990]


@pytest.mark.parametrize("place", range(10_000, 20_000, 500))
def test_a_line_as_long_as_a_part_leaves_something_in_each(place):
    text = "x" * place + "\n" + "x" * (20_000 - place)
    assert all(len(part) >= 1_000 for part in texts_of(parts_of(corpus_of([text]))))


def test_parts_are_named_by_what_they_are_for():
    parts = parts_of(demo_corpus("demo-calibration"))
    assert parts.fitting.title == "Jane Austen, Northanger Abbey (fitting part)"
    assert parts.tuning.title == "Jane Austen, Northanger Abbey (tuning part)"
    hashes = {part.sha256 for part in (parts.fitting, parts.tuning, parts.selection)}
    assert len(hashes) == 3


def test_a_text_that_is_too_short_is_refused():
    pieces = ["x" * (LEAST_BYTES - 1)]
    with pytest.raises(CorpusError) as refused:
        parts_of(corpus_of(pieces))
    assert str(refused.value) == (
        "cannot fit bridges on text 'some.txt': it has 19,999 bytes, and at least 20,000 are "
        "needed. Give `calibrate_on` a longer one."
    )
    assert texts_of(parts_of(corpus_of([*pieces, "y"]))) == [
        "x" * 10_000,
        "x" * 2500,
        "x" * 7499 + "y",
    ]


def test_the_fitting_text_is_read_in_windows_that_do_not_overlap_and_no_longer_than_is_of_use():
    parts = parts_of(demo_corpus("demo-calibration"))
    inputs = load_inputs(find_model("demo"))
    found = prepare_calibration(parts, inputs, context=512, stride=256)
    assert len(found.fitting.windows) <= FITTING_TOKENS // 512
    stops = [window.stop for window in found.fitting.windows[:-1]]
    assert stops == [512 * (number + 1) for number in range(len(stops))]
    assert len(found.tuning.windows) == TUNING_TOKENS // 256
    assert found.stride == 256 == found.tuning.windows[1].stop - found.tuning.windows[0].stop


@pytest.mark.parametrize(
    ("bridges", "title"), [(True, "own.txt (selection part)"), (False, "own.txt")]
)
def test_plans_are_chosen_on_the_text_that_was_named_for_calibration(tmp_path, bridges, title):
    own = tmp_path / "own.txt"
    own.write_text("A line of a text.\n" * 3000, encoding="utf-8")
    inputs = load_inputs(find_model("demo"))
    for select_on in ("calibration", str(own)):
        asked = WorkbenchSettings(
            model="demo", select_on=select_on, calibrate_on=str(own), bridges=bridges
        )
        texts = find_texts(asked, SilentObserver(), inputs).by_role
        assert texts["selection"].title == title
