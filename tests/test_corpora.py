"""Texts: the two joinings of WikiText, what is refused, and which bytes the tokens cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning_kit.errors import CorpusError
from pruning_kit.inputs import corpora
from pruning_kit.inputs.corpora import (
    Corpus,
    TokenisedText,
    bytes_covered,
    find_corpus,
    join_rows,
    join_rows_as_published,
    raw_rows,
    selection_corpus,
)

RAW = " \n = Title = \n \n First row . \n Second row . \n"


def test_rows_of_a_raw_file_are_those_of_the_hub_dataset():
    assert raw_rows(RAW) == ["", " = Title = \n", "", " First row . \n", " Second row . \n"]


def test_the_usual_joining_keeps_empty_rows_and_the_published_one_drops_them():
    rows = raw_rows(RAW)
    assert join_rows(rows) == "\n\n = Title = \n\n\n\n\n First row . \n\n\n Second row . \n"
    assert join_rows_as_published(rows) == " = Title = \n\n\n First row . \n\n\n Second row . \n"


def test_a_local_raw_file_is_joined_by_the_name_before_the_colon(tmp_path):
    file = tmp_path / "wiki.test.raw"
    file.write_text(RAW, encoding="utf-8")
    assert find_corpus(f"wikitext2:{file}", "gpt2").text == join_rows(raw_rows(RAW))
    published = find_corpus(f"wikitext2-published:{file}", "gpt2")
    assert published.text == join_rows_as_published(raw_rows(RAW))
    assert published.name == "wikitext2-published"


def test_the_demo_model_reads_the_embedded_text_by_default():
    assert find_corpus(None, "demo").title == "Jane Austen, Persuasion"


def test_other_models_fall_back_to_the_embedded_text_with_a_note(monkeypatch):
    def refuse(*_):
        raise CorpusError("cannot read text 'wikitext2': no network.")

    monkeypatch.setattr(corpora, "_wikitext", refuse)
    corpus = find_corpus(None, "distilgpt2")
    assert corpus.name == "demo"
    assert corpus.note == "WikiText-2 is not at hand: cannot read text 'wikitext2': no network."
    with pytest.raises(CorpusError, match="no network"):
        find_corpus("wikitext2", "distilgpt2")


def test_the_calibration_text_of_the_demo_text_is_another_novel():
    chosen = selection_corpus("calibration", find_corpus("demo", ""))
    assert chosen.title == "Jane Austen, Northanger Abbey"


def test_a_text_of_ones_own_has_no_calibration_text(tmp_path):
    file = tmp_path / "own.txt"
    file.write_text("words", encoding="utf-8")
    with pytest.raises(CorpusError, match="Name a text file with --select-on FILE"):
        selection_corpus("calibration", find_corpus(str(file), ""))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.txt", None, "cannot find text"),
        ("empty.txt", b" \n ", "it is empty"),
        ("latin.txt", "déjà".encode("latin-1"), r"it is not UTF-8 \(byte 1\)"),
    ],
)
def test_a_text_that_cannot_be_used_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        find_corpus(str(path), "")


def test_a_hub_dataset_of_which_the_hub_says_nothing_is_named(monkeypatch):
    monkeypatch.setattr(corpora.hub, "answers", lambda *_: None)
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    with pytest.raises(CorpusError) as error:
        find_corpus("nobody/nothing", "")
    assert "cannot read text 'nobody/nothing' (nobody/nothing, default, test)" in str(error.value)
    assert "the Hub did not answer within 4 s" in str(error.value)


@given(st.lists(st.sampled_from(["a", "é", "€", " word"]), min_size=2, max_size=20), st.data())
def test_bytes_are_counted_to_the_end_of_the_last_token(tokens, data):
    count = data.draw(st.integers(1, len(tokens)))
    corpus = Corpus("x", "x", "".join(tokens))
    ends = np.cumsum([len(token) for token in tokens])
    text = TokenisedText(np.zeros(len(tokens), dtype=np.int64), ends)
    assert bytes_covered(corpus, text, count) == len("".join(tokens[:count]).encode())
