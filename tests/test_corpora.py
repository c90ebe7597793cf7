"""Texts: the two joinings of WikiText, how files are read, what is refused."""

import codecs
import hashlib
import os
from unittest import mock

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning_kit.errors import CorpusError
from pruning_kit.inputs import corpora
from pruning_kit.inputs.corpora import (
    Corpus,
    HubText,
    find_corpus,
    join_rows,
    join_rows_as_published,
    raw_rows,
    selection_corpus,
)

RAW = " \n = Title = \n \n First row . \n Second row . \n"


def text_of(corpus):
    return "".join(corpus.read())


def joined(rows):
    return "".join(join_rows(rows))


def test_rows_of_a_raw_file_are_those_of_the_hub_dataset():
    assert list(raw_rows([RAW])) == ["", " = Title = \n", "", " First row . \n", " Second row . \n"]


@pytest.mark.parametrize("character", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\r"])
def test_only_a_newline_ends_a_row(character):
    rows = [f" one {character} two . \n", f"{character} \n", " three"]
    assert list(raw_rows("".join(rows))) == [rows[0], "", rows[2]]
    assert list(raw_rows(["".join(rows)])) == [rows[0], "", rows[2]]


def test_the_usual_joining_keeps_empty_rows_and_the_published_one_drops_them():
    rows = list(raw_rows([RAW]))
    assert joined(rows) == "\n\n = Title = \n\n\n\n\n First row . \n\n\n Second row . \n"
    published = "".join(join_rows_as_published(rows))
    assert published == " = Title = \n\n\n First row . \n\n\n Second row . \n"


def test_a_local_raw_file_is_joined_by_the_name_before_the_colon(tmp_path):
    file = tmp_path / "wiki.test.raw"
    file.write_text(RAW, encoding="utf-8")
    assert text_of(find_corpus(f"wikitext2:{file}", "gpt2")) == joined(raw_rows([RAW]))
    published = find_corpus(f"wikitext2-published:{file}", "gpt2")
    assert text_of(published) == "".join(join_rows_as_published(raw_rows([RAW])))
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
    with pytest.raises(CorpusError, match="Name a text file with `select_on` FILE"):
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
        "HF_HUB_OFFLINE is set. Check name, config and split, or use the text demo."
    )


def test_rows_of_a_hub_dataset_are_joined(hub_gives):
    hub_gives({"text": ["one", "", "two"]})
    assert text_of(find_corpus("some/data", "")) == "one\n\n\n\ntwo"


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
        "Choose a column of texts with `column`, or save the text to a file."
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
        "other file wiki.valid.raw beside it. Name one with `select_on` wikitext2-published:FILE."
    )
    (tmp_path / "wiki.valid.raw").write_text(" \n Other . \n", encoding="utf-8")
    chosen = selection_corpus("calibration", test)
    assert (text_of(chosen), chosen.title) == (" Other . \n", "WikiText-2 raw, wiki.valid.raw")
    with pytest.raises(CorpusError, match=r"there is no other file wiki\.valid\.raw"):
        selection_corpus("calibration", chosen)


MARK = codecs.BOM_UTF8


@pytest.mark.parametrize("kind", ["", "wikitext2:", "wikitext2-published:"])
def test_a_byte_order_mark_is_no_text(tmp_path, kind):
    plain, marked = tmp_path / "plain.txt", tmp_path / "marked.txt"
    plain.write_bytes(RAW.encode())
    marked.write_bytes(MARK + RAW.encode())
    with_mark, without = (find_corpus(f"{kind}{file}", "") for file in (marked, plain))
    assert text_of(with_mark) == text_of(without)
    assert (with_mark.sha256, with_mark.n_bytes) == (without.sha256, without.n_bytes)


def test_a_byte_order_mark_is_a_mark_only_once_and_only_at_the_start(tmp_path):
    file = tmp_path / "own.txt"
    file.write_bytes(MARK + MARK + b"one" + MARK + b"two")
    assert text_of(find_corpus(str(file), "")) == "\ufeffone\ufefftwo"


def test_a_file_of_nothing_but_a_byte_order_mark_is_empty(tmp_path):
    file = tmp_path / "own.txt"
    file.write_bytes(MARK + b" \n")
    with pytest.raises(CorpusError, match=rf"cannot score text '{file}': it is empty\. Give a"):
        find_corpus(str(file), "")


def test_a_byte_order_mark_before_a_row_of_the_hub_is_no_text(hub_gives):
    hub_gives({"text": ["\ufeffone", "\ufeff", "t\ufeffwo"]})
    assert text_of(find_corpus("some/data", "")) == "one\n\n\n\nt\ufeffwo"


@pytest.mark.parametrize(
    ("encoding", "found"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("utf-32-le", "UTF-32"),
        ("utf-32-be", "UTF-32"),
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("kind", ["", "wikitext2:"])
def test_text_of_two_or_four_bytes_a_character_is_named(tmp_path, encoding, found, mark, kind):
    file = tmp_path / "own.txt"
    file.write_bytes((mark + "The rain.").encode(encoding))
    with pytest.raises(CorpusError) as error:
        find_corpus(f"{kind}{file}", "")
    assert str(error.value) == (
        f"cannot read text {f'{kind}{file}'!r}: it is {found}, and UTF-8 is needed. Convert it, "
        f"such as by iconv -f {found} -t UTF-8."
    )


@given(st.text(alphabet="a\r\n\u2028é\x0b ", min_size=1, max_size=40))
def test_every_line_end_of_a_file_becomes_a_newline_and_nothing_else_changes(
    tmp_path_factory, text
):
    file = tmp_path_factory.mktemp("texts") / "own.txt"
    file.write_bytes(b"." + text.encode())
    for at_once in (4, 5, 1 << 16):
        with mock.patch.object(corpora, "BYTES_AT_ONCE", at_once):
            expected = "." + text.replace("\r\n", "\n").replace("\r", "\n")
            assert text_of(find_corpus(str(file), "")) == expected


def test_characters_are_neither_composed_nor_trimmed(tmp_path):
    text = " \n e\u0301 é ﬁ \u00a0\u200b\x00 \n\n"
    file = tmp_path / "own.txt"
    file.write_bytes(text.encode())
    assert text_of(find_corpus(str(file), "")) == text


@pytest.mark.parametrize("at_once", [4, 7, 1 << 16])
@pytest.mark.parametrize("start", [b"", MARK])
@pytest.mark.parametrize(("end", "position"), [(b"\xff rest", 19), (b"a\xe2\x82", 20)])
def test_the_first_byte_that_is_not_utf8_is_counted_in_the_file(
    tmp_path, monkeypatch, at_once, start, end, position
):
    monkeypatch.setattr(corpora, "BYTES_AT_ONCE", at_once)
    file = tmp_path / "own.txt"
    file.write_bytes(start + "The rain\r\nhad é , ".encode()[:19] + end)
    position += len(start)
    with pytest.raises(CorpusError, match=rf"it is not UTF-8 \(byte {position}\)\. Convert the"):
        find_corpus(str(file), "")


def test_a_text_is_hashed_and_counted_as_utf8(tmp_path):
    text = "é€ word " * 30_000
    file = tmp_path / "own.txt"
    file.write_bytes(text.encode())
    corpus = find_corpus(str(file), "")
    assert corpus.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert corpus.n_bytes == len(text.encode())


@given(st.lists(st.text(alphabet="aé€😀", max_size=5), max_size=9), st.integers(0, 50))
def test_bytes_are_counted_to_a_character(pieces, count):
    corpus = Corpus("own", "own", lambda: pieces)
    assert corpus.bytes_to(count) == len("".join(pieces)[:count].encode())


def test_an_empty_calibration_text_is_named(tmp_path):
    (tmp_path / "wiki.test.raw").write_text(RAW, encoding="utf-8")
    (tmp_path / "wiki.valid.raw").write_text(" \n", encoding="utf-8")
    test = find_corpus(f"wikitext2:{tmp_path / 'wiki.test.raw'}", "gpt2")
    with pytest.raises(CorpusError, match="cannot score text 'calibration': it is empty"):
        selection_corpus("calibration", test)
