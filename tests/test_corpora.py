"""Texts: the two joinings of WikiText, what is refused, and which bytes the tokens cover."""

import os

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning_kit.errors import CorpusError
from pruning_kit.inputs import corpora
from pruning_kit.inputs.corpora import (
    Corpus,
    HubText,
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


@pytest.mark.parametrize("character", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\r"])
def test_only_a_newline_ends_a_row(character):
    rows = [f" one {character} two . \n", f"{character} \n", " three"]
    assert raw_rows("".join(rows)) == [rows[0], "", rows[2]]


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


@pytest.fixture
def hub_gives(monkeypatch):
    """Let the Hub's dataset library give these columns, or raise."""

    def give(columns):
        def load_dataset(*_, **__):
            if isinstance(columns, Exception):
                raise columns
            return datasets.Dataset.from_dict(columns)

        monkeypatch.setattr(corpora.hub, "silence", lambda: None)
        monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    return give


def test_a_hub_dataset_of_which_the_hub_says_nothing_is_named(monkeypatch, hub_gives):
    hub_gives(ConnectionError("Couldn't reach it."))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "0")  # to be restored
    monkeypatch.setattr(corpora.hub, "silence", lambda: "HF_HUB_OFFLINE is set")
    with pytest.raises(CorpusError) as error:
        find_corpus("nobody/nothing", "")
    assert os.environ["HF_DATASETS_OFFLINE"] == "1"
    assert str(error.value) == (
        "cannot read text 'nobody/nothing' (nobody/nothing, default, test): Couldn't reach it, and "
        "HF_HUB_OFFLINE is set. Check name, config and split, or use --dataset demo."
    )


def test_rows_of_a_hub_dataset_are_joined(hub_gives):
    hub_gives({"text": ["one", "", "two"]})
    assert find_corpus("some/data", "").text == "one\n\n\n\ntwo"


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (["a", None, "b"], "its row 1 is empty (null)"),
        ([3, 4], "its row 0 is no text but int"),
        ([["a"], ["b"]], "its row 0 is no text but list"),
    ],
)
def test_a_column_that_is_not_text_is_named_with_its_row(hub_gives, rows, reason):
    hub_gives({"words": rows})
    with pytest.raises(CorpusError) as error:
        find_corpus("some/data", "", HubText(column="words"))
    assert str(error.value) == (
        f"cannot read column 'words' of some/data: {reason}. "
        "Choose a column of texts with --text-column, or save the text to a file."
    )


def test_a_column_that_is_not_there_is_named_with_those_that_are(hub_gives):
    hub_gives({"words": ["a"], "label": [1]})
    with pytest.raises(CorpusError, match=r"'text' of some/data: its columns are words, label\."):
        find_corpus("some/data", "")


def test_a_dataset_that_cannot_be_fetched_says_why(hub_gives):
    hub_gives(RuntimeError())
    with pytest.raises(CorpusError, match=r"\(some/data, default, test\): RuntimeError\. Check"):
        find_corpus("some/data", "")


def test_a_folder_is_not_read_as_a_hub_dataset(tmp_path, monkeypatch, hub_gives):
    hub_gives({"text": ["from the folder"]})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Salesforce" / "wikitext").mkdir(parents=True)
    for name in ("Salesforce", "Salesforce/wikitext", str(tmp_path)):
        with pytest.raises(CorpusError, match=f"cannot read text '{name}': it is a folder. Name"):
            find_corpus(name, "")
    with pytest.raises(CorpusError, match="'Salesforce/wikitext' is a path here too, and would"):
        find_corpus("wikitext2", "")


@pytest.mark.parametrize("name", ["", "a" * 300, "a--b/c", "~/x", "nobody", "a/b/c"])
def test_a_name_that_means_nothing_is_named(name, hub_gives):
    hub_gives(AssertionError("asked"))
    with pytest.raises(CorpusError) as error:
        find_corpus(name, "")
    assert str(error.value) == (
        f"cannot find text {name!r}: there is no such file. Give a text file, wikitext2, demo, or "
        "a Hugging Face dataset such as Salesforce/wikitext."
    )


@pytest.mark.parametrize("file", ["", "none.raw"])
def test_a_raw_file_that_is_not_there_is_not_sought_on_the_hub(file, hub_gives):
    hub_gives(AssertionError("asked"))
    with pytest.raises(
        CorpusError, match=rf"cannot read text 'wikitext2:{file}': .*\. Give a text"
    ):
        find_corpus(f"wikitext2:{file}", "")


def test_the_calibration_text_of_a_raw_file_is_the_validation_file_beside_it(tmp_path, hub_gives):
    hub_gives(AssertionError("asked"))
    (tmp_path / "wiki.test.raw").write_text(RAW, encoding="utf-8")
    test = find_corpus(f"wikitext2-published:{tmp_path / 'wiki.test.raw'}", "gpt2")
    with pytest.raises(CorpusError) as error:
        selection_corpus("calibration", test)
    assert str(error.value) == (
        f"cannot select on the calibration text of 'wikitext2-published:{test.file}': there is no "
        "other file wiki.valid.raw beside it. Name one with --select-on wikitext2-published:FILE."
    )
    (tmp_path / "wiki.valid.raw").write_text(" \n Other . \n", encoding="utf-8")
    chosen = selection_corpus("calibration", test)
    assert (chosen.text, chosen.title) == (" Other . \n", "WikiText-2 raw, wiki.valid.raw")
    with pytest.raises(CorpusError, match=r"there is no other file wiki\.valid\.raw"):
        selection_corpus("calibration", chosen)


@given(st.lists(st.sampled_from(["a", "é", "€", " word"]), min_size=2, max_size=20), st.data())
def test_bytes_are_counted_to_the_end_of_the_last_token(tokens, data):
    count = data.draw(st.integers(1, len(tokens)))
    corpus = Corpus("x", "x", "".join(tokens))
    ends = np.cumsum([len(token) for token in tokens])
    text = TokenisedText(np.zeros(len(tokens), dtype=np.int64), ends)
    assert bytes_covered(corpus, text, count) == len("".join(tokens[:count]).encode())
