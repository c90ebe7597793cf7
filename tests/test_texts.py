"""Texts: what identifies the tokens, and tokens that the model does not know."""

import hashlib
import json
import struct

import pytest
from tiny import TEXT, save_tiny_gpt2
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from pruning_kit.errors import CorpusError, ModelError, WindowError
from pruning_kit.inputs.corpora import Corpus
from pruning_kit.inputs.models import find_model, load_model
from pruning_kit.inputs.texts import prepare_text


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load_model(find_model(str(save_tiny_gpt2(tmp_path_factory.mktemp("tiny")))))


def test_the_hash_of_the_tokens_is_that_of_their_ids_as_little_endian_int64(loaded):
    text = prepare_text(Corpus("own", "own", TEXT), loaded)
    ids = loaded.tokenizer(TEXT)["input_ids"]
    assert text.ids_sha256 == hashlib.sha256(struct.pack(f"<{len(ids)}q", *ids)).hexdigest()


def test_the_hash_of_the_tokens_is_of_all_of_them_and_of_nothing_else(loaded):
    whole = prepare_text(Corpus("own", "own", TEXT), loaded)
    part = prepare_text(Corpus("other", "other", TEXT), loaded, context=16, max_windows=1)
    longer = prepare_text(Corpus("own", "own", TEXT + TEXT), loaded, context=16, max_windows=1)
    assert whole.ids_sha256 == part.ids_sha256 != longer.ids_sha256


def test_another_tokenizer_gives_another_hash_of_the_same_text(loaded, tmp_path):
    folder = save_tiny_gpt2(tmp_path)
    settings = json.loads((folder / "tokenizer.json").read_text())
    settings["model"]["merges"] = settings["model"]["merges"][:10]
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    corpus = Corpus("own", "own", TEXT)
    other = prepare_text(corpus, load_model(find_model(str(folder))))
    assert other.corpus.sha256 == prepare_text(corpus, loaded).corpus.sha256
    assert other.ids_sha256 != prepare_text(corpus, loaded).ids_sha256


def test_tokens_that_the_embedding_lacks_are_one_sentence(loaded, tmp_path):
    GPT2LMHeadModel(
        GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=100, bos_token_id=0, eos_token_id=0)
    ).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(loaded.source.folder).save_pretrained(tmp_path)
    highest = max(loaded.tokenizer(TEXT)["input_ids"])
    with pytest.raises(ModelError) as error:
        prepare_text(Corpus("own", "own", TEXT), load_model(find_model(str(tmp_path))))
    assert str(error.value) == (
        f"cannot score text 'own': the tokenizer gives token {highest}, the model knows 100. "
        "Give the model its own tokenizer."
    )


def test_a_text_of_one_token_is_too_short(loaded):
    with pytest.raises(CorpusError, match="cannot score text 'own': it has 1 token, and at"):
        prepare_text(Corpus("own", "own", "a"), loaded)


def test_windows_longer_than_the_model_reads_are_refused(loaded):
    with pytest.raises(WindowError, match=r"cannot use context 33: .* reads at most 32 tokens"):
        prepare_text(Corpus("own", "own", TEXT), loaded, context=33)
    with pytest.raises(WindowError, match="cannot score 0 windows"):
        prepare_text(Corpus("own", "own", TEXT), loaded, max_windows=0)
