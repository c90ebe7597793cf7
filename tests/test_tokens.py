"""Tokens: pieces of a text give the very tokens of the whole, whatever the tokenizer."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.models import BPE
from tokenizers_of_many_kinds import KINDS

from pruning_kit.inputs.corpora import demo_corpus
from pruning_kit.inputs.tokens import OVERLAP, PIECE, tokenise, tokens_in_pieces

DEMO = "".join(demo_corpus("demo").read())
AWKWARD = [
    " ",
    "\n",
    "\r\n",
    " \n",
    "\t",
    "a",
    "é",
    "e\u0301",
    "\u0301",
    "x\u0323\u0307",
    "中文",
    "あ",
    "7",
    "123",
    "👩‍👩‍👧",
    "🇩🇪",
    "\u200d",
    "'s",
    "'",
    ".",
    "<|endoftext|>",
    "<table>",
    "▁",
    "A",
    "\u3000",
    "ﬁ",
    "\u0000",
    "\ufeff",
    "the ",
    " whole",
]
RUNS = st.builds(lambda unit, times: unit * times, st.sampled_from(AWKWARD), st.integers(1, 150))
PROSE = st.builds(
    lambda start, length: DEMO[start : start + length], st.integers(0, 400_000), st.integers(1, 300)
)
TEXTS = st.lists(RUNS | PROSE | st.text(max_size=30), max_size=12).map("".join)


def in_pieces(text, tokenizer, size=PIECE, overlap=OVERLAP):
    parts = [text[start : start + 97] for start in range(0, len(text), 97)]
    return list(tokens_in_pieces(parts, tokenizer, size, overlap))


def whole(text, tokenizer):
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return encoded["input_ids"], encoded["offset_mapping"]


def same_as_whole(text, tokenizer, size=PIECE, overlap=OVERLAP):
    stretches = in_pieces(text, tokenizer, size, overlap)
    ids = np.concatenate([stretch.ids for stretch in stretches]).tolist()
    ends = np.concatenate([stretch.ends for stretch in stretches]).tolist()
    expected, offsets = whole(text, tokenizer)
    return (ids, ends) == (expected, [end for _, end in offsets])


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS, size=st.integers(160, 400), overlap=st.integers(64, 80))
@settings(deadline=None, max_examples=60)
def test_pieces_of_awkward_texts_give_the_tokens_of_the_whole(kind, text, size, overlap):
    assert same_as_whole(text, KINDS[kind](), size, overlap)


MORE_UNITS = ["7", "e\u0301", "👩‍👩‍👧", "<|endoftext|>", "ab "]
MORE_UNITS = [pytest.param(unit, marks=pytest.mark.slow) for unit in MORE_UNITS]


@pytest.mark.parametrize("unit", ["a", " ", "\n", "中", *MORE_UNITS])
def test_a_run_of_100000_characters_gives_the_tokens_of_the_whole(unit):
    run = unit * (100_000 // len(unit))
    text = DEMO[:80_000] + run + DEMO[80_000:100_000]
    assert same_as_whole(text, KINDS["demo"]())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", ["a", " \n", "7", "中", "🇩🇪"])
def test_a_run_longer_than_a_piece_gives_the_tokens_of_the_whole(kind, unit):
    text = DEMO[:3000] + unit * 3000 + DEMO[3000:6000]
    assert same_as_whole(text, KINDS[kind](), size=1024, overlap=256)


def test_pieces_are_not_joined_within_a_word_that_depends_on_its_beginning():
    tokenizer = KINDS["cased"]()
    with_beginning, without = "a" + "中" * 900 + "ABcd", "中" * 900 + "ABcd"
    assert tokenizer(with_beginning)["input_ids"][-3:] != tokenizer(without)["input_ids"][-3:]
    assert same_as_whole(with_beginning + DEMO[:1000], tokenizer, size=512, overlap=128)


@pytest.mark.parametrize("kind", KINDS)
def test_prose_is_joined_at_every_overlap_and_only_odd_tokenizers_need_longer_pieces(kind):
    stretches = in_pieces(DEMO[:20_000], KINDS[kind](), size=1000, overlap=200)
    longest = max(stretch.stop - stretch.start for stretch in stretches)
    if kind in ("unigram_of_the_whole_text", "fixed_length"):
        assert longest > 1000
    else:
        assert longest == 1000 and len(stretches) == 25


def test_no_more_is_read_than_the_next_tokens_need():
    read = []

    def pieces():
        for start in range(0, 20_000, 100):
            read.append(start)
            yield DEMO[start : start + 100]

    stretches = tokens_in_pieces(pieces(), KINDS["demo"](), size=1000, overlap=200)
    next(stretches)
    assert max(read) <= 1900
    next(stretches)
    assert max(read) <= 2700


def test_the_first_tokens_and_their_number_are_those_of_the_whole():
    tokenizer = KINDS["demo"]()
    text = DEMO[: PIECE + 20_000]
    ids, offsets = whole(text, tokenizer)
    for at_most in (0, 1, 34_000, len(ids), len(ids) + 1):
        found = tokenise(lambda: [text], tokenizer, at_most, count=True)
        assert found.ids.tolist() == ids[:at_most] and found.ids.dtype == np.int32
        assert found.end == (offsets[len(found.ids) - 1][1] if at_most else 0)
        assert found.n_in_all == len(ids)
    assert tokenise(lambda: [text], tokenizer, len(ids) - 1, count=False).n_in_all is None
    assert tokenise(lambda: [text], tokenizer, len(ids), count=False).n_in_all == len(ids)
    assert tokenise(lambda: [""], tokenizer, None, count=True).n_in_all == 0


def test_a_tokenizer_that_looks_far_ahead_is_given_the_whole_text():
    """Its tokens are characters, with other numbers where more than one piece is seen."""

    def tokenizer(text, **_):
        other = len(text) > PIECE
        numbers = range(len(text))
        encoding = SimpleNamespace(
            ids=[ord(character) + other for character in text],
            offsets=[(number, number + 1) for number in numbers],
            word_ids=[0 if character == "-" else number for number, character in enumerate(text)],
        )
        return SimpleNamespace(encodings=[encoding])

    tokenizer.backend_tokenizer = SimpleNamespace(
        model=BPE(), normalizer=None, pre_tokenizer=SimpleNamespace(pre_tokenize_str=list)
    )
    text = "a" * 2 * PIECE + "-" * PIECE
    found = tokenise(lambda: [text], tokenizer, None, count=True)
    assert found.ids.tolist() == [ord(character) + 1 for character in text]
    assert found.longest == len(text)
