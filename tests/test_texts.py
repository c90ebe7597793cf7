"""Texts: which tokens are read and scored, what identifies them, and BOS before each window."""

import hashlib
import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TEXT, save_tiny_gpt2
from tokenizers_of_many_kinds import KINDS
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
)

from pruning_kit.cli.terminal import describe_run
from pruning_kit.errors import CorpusError, ModelError, RunError, WindowError
from pruning_kit.findings.analysis import analyse
from pruning_kit.findings.comparison import Unpaired, why_unpaired
from pruning_kit.inputs import texts
from pruning_kit.inputs.corpora import Corpus
from pruning_kit.inputs.models import find_model, load_model
from pruning_kit.inputs.texts import prepare_text
from pruning_kit.inputs.tokens import PIECE
from pruning_kit.reporting.contents import build_document
from pruning_kit.reporting.figures.canvas import caption
from pruning_kit.runs.provenance import describe_text
from pruning_kit.sweeps.observer import SilentObserver
from tests.sweeping import asked, begin, measured


def own(text):
    return Corpus("own", "own", lambda: [text])


def save_tiny_llama(folder, kind, **sizes):
    """A random Llama or Gemma of context 32 whose tokenizer puts BOS before texts."""
    tokenizer = KINDS[kind]()
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        {"llama": "llama", "gemma": "gemma2"}[kind],
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_hidden_layers=2,
        head_dim=8,
        max_position_embeddings=32,
        bos_token_id=tokenizer.bos_token_id,
        initializer_range=0.3,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["llama", "gemma"])
def loaded_with_bos(request, tmp_path_factory):
    return load_model(
        find_model(str(save_tiny_llama(tmp_path_factory.mktemp("bos"), request.param)))
    )


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load_model(find_model(str(save_tiny_gpt2(tmp_path_factory.mktemp("tiny")))))


def test_the_hash_of_the_tokens_is_that_of_their_ids_as_little_endian_int64(loaded):
    text = prepare_text(own(TEXT), loaded)
    ids = loaded.tokenizer(TEXT)["input_ids"]
    assert text.ids_sha256 == hashlib.sha256(struct.pack(f"<{len(ids)}q", *ids)).hexdigest()


def test_the_hash_of_the_tokens_is_of_those_that_the_windows_read(loaded):
    ids = loaded.tokenizer(TEXT)["input_ids"]
    sizes = {"context": 16, "stride": 8, "max_windows": 2}
    part = prepare_text(own(TEXT), loaded, **sizes)
    longer = prepare_text(own(TEXT + TEXT), loaded, **sizes)
    expected = hashlib.sha256(struct.pack("<24q", *ids[:24])).hexdigest()
    assert part.ids_sha256 == longer.ids_sha256 == expected
    assert part.corpus.sha256 != longer.corpus.sha256


def test_a_part_of_a_text_has_the_windows_and_bytes_of_the_whole(loaded):
    whole = prepare_text(own(TEXT), loaded, context=16)
    part = prepare_text(own(TEXT), loaded, context=16, max_windows=3)
    assert part.windows == whole.windows[:3]
    assert part.n_windows_in_all == whole.n_windows_in_all == len(whole.windows)
    assert part.n_tokens_in_all == len(whole.ids) > len(part.ids) == 32
    offsets = loaded.tokenizer(TEXT, return_offsets_mapping=True)["offset_mapping"]
    assert part.n_bytes == len(TEXT[: offsets[31][1]].encode())
    assert whole.n_bytes == len(TEXT.encode())
    assert describe_text(part).part == f"first 3 of {len(whole.windows)} windows"
    assert describe_text(whole).part is None


@given(count=st.integers(1, 60))
def test_spread_windows_are_at_equal_distances_from_both_ends_and_each_other(loaded, count):
    whole = prepare_text(own(TEXT), loaded, context=16)
    found, n_in_all = whole.spread(count), len(whole.windows)
    places = [whole.windows.index(window) for window in found.windows]
    if count >= n_in_all:
        assert found is whole
        return
    assert places == sorted(set(places)) and len(places) == count
    for place, wanted in zip(places, (np.arange(count) + 0.5) * n_in_all / count, strict=True):
        assert 0 <= wanted - place < 1
    scored = [sum(w.n_targets for w in text.windows) for text in (found, whole)]
    assert found.n_bytes / whole.n_bytes == pytest.approx(scored[0] / scored[1], abs=1e-2)
    assert describe_text(found).part == f"{count} of {n_in_all} windows, spread over it"


@pytest.mark.parametrize(("max_windows", "words"), [(1, "window"), (3, "windows")])
def test_a_long_text_is_tokenised_only_as_far_as_the_windows_need(
    loaded, monkeypatch, max_windows, words
):
    monkeypatch.setattr(texts, "ALWAYS_COUNTED_BYTES", 1000)
    read = []

    def pieces():
        for number in range(2000):
            read.append(number)
            yield TEXT

    corpus = Corpus("own", "own", pieces)
    assert corpus.n_bytes == 2000 * len(TEXT)
    read.clear()
    part = prepare_text(corpus, loaded, context=16, max_windows=max_windows)
    assert PIECE < max(read) * len(TEXT) < 2 * PIECE
    facts = describe_text(part)
    assert facts.part == f"first {max_windows} {words}"
    assert facts.n_tokens is facts.n_windows_in_all is None
    whole = prepare_text(own(TEXT * 9), loaded, context=16)
    assert part.windows == whole.windows[:max_windows]
    np.testing.assert_array_equal(part.ids, whole.ids[: len(part.ids)])


def test_as_many_windows_as_there_are_is_the_whole_text(loaded):
    whole = prepare_text(own(TEXT), loaded, context=16)
    for count in (len(whole.windows), len(whole.windows) + 1, 10**9):
        same = prepare_text(own(TEXT), loaded, context=16, max_windows=count)
        assert describe_text(same) == describe_text(whole)
        assert same.ids_sha256 == whole.ids_sha256


def test_another_tokenizer_gives_another_hash_of_the_same_text(loaded, tmp_path):
    folder = save_tiny_gpt2(tmp_path)
    settings = json.loads((folder / "tokenizer.json").read_text())
    settings["model"]["merges"] = settings["model"]["merges"][:10]
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    corpus = own(TEXT)
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
        prepare_text(own(TEXT), load_model(find_model(str(tmp_path))))
    assert str(error.value) == (
        f"cannot score text 'own': the tokenizer gives token {highest}, the model knows 100. "
        "Give the model its own tokenizer."
    )


def test_a_text_of_one_token_is_too_short(loaded):
    with pytest.raises(CorpusError, match="cannot score text 'own': it has 1 token, and at"):
        prepare_text(own("a"), loaded)


def test_windows_longer_than_the_model_reads_are_refused(loaded):
    with pytest.raises(WindowError, match=r"cannot use context 33: .* reads at most 32 tokens"):
        prepare_text(own(TEXT), loaded, context=33)
    with pytest.raises(WindowError, match="cannot score 0 windows"):
        prepare_text(own(TEXT), loaded, max_windows=0)


def read_and_scored(text):
    """What the model reads and what is scored, window by window, as lists."""
    for index in range(len(text.windows)):
        tokens, targets, first_output = text.tensors(index, index + 1)
        yield tokens[0].tolist(), targets[0].tolist(), first_output


@given(context=st.integers(2, 32), data=st.data())
@settings(max_examples=60, deadline=None)
def test_with_bos_every_window_begins_with_it_and_every_token_is_scored_once(
    loaded_with_bos, context, data
):
    stride = data.draw(st.integers(1, context))
    max_windows = data.draw(st.none() | st.integers(1, 9))
    text = prepare_text(own(TEXT), loaded_with_bos, context, stride, max_windows)
    tokenizer = loaded_with_bos.tokenizer
    bos = tokenizer.bos_token_id
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    done = 0
    for tokens, targets, first_output in read_and_scored(text):
        assert tokens[0] == bos and bos not in targets and len(tokens) <= context
        assert targets == ids[done : done + len(targets)]
        # What stands before a scored token, up to BOS, is the text before it.
        for number in range(len(targets)):
            seen = tokens[1 : first_output + number + 1]
            assert seen == ids[done + number - len(seen) : done + number]
        assert done == 0 or first_output + 1 >= max(context - stride, 1)
        done += len(targets)
    assert done == len(ids) or len(text.windows) == max_windows
    assert text.bos == bos and text.n_tokens_in_all == len(ids)


def test_without_bos_no_window_has_it(loaded_with_bos):
    text = prepare_text(own(TEXT), loaded_with_bos, bos=False)
    ids = loaded_with_bos.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert text.ids.tolist() == ids and text.bos is None
    assert [token for _, targets, _ in read_and_scored(text) for token in targets] == ids[1:]


def test_gpt2_is_measured_without_bos_unless_it_is_asked_for(loaded):
    ids = loaded.tokenizer(TEXT)["input_ids"]
    assert prepare_text(own(TEXT), loaded).bos is None
    text = prepare_text(own(TEXT), loaded, bos=True)
    assert text.bos == loaded.tokenizer.bos_token_id == loaded.tokenizer.eos_token_id
    read = list(read_and_scored(text))
    assert {tokens[0] for tokens, _, _ in read} == {text.bos}
    assert [token for _, targets, _ in read for token in targets] == ids


def test_bos_is_refused_where_the_tokenizer_has_none(tmp_path):
    folder = save_tiny_gpt2(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.bos_token = None
    tokenizer.save_pretrained(folder)
    without = load_model(find_model(str(folder)))
    assert prepare_text(own(TEXT), without).bos is None
    with pytest.raises(ModelError) as error:
        prepare_text(own(TEXT), without, bos=True)
    assert str(error.value) == (
        f"cannot begin windows with BOS: the tokenizer of {str(folder)!r} has no such token. "
        "Leave out `bos`."
    )


def plain_loop(folder, bos, ids, context, stride):
    """Sum of the Hugging Face loss, window by window, each with BOS in its first place."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = [bos, *ids]
    total, done = 0.0, 1
    for start in range(0, len(ids), stride):
        end = min(start + context, len(ids))
        window = torch.tensor([[bos, *ids[start + 1 : end]]])
        labels = window.clone()
        labels[:, : -(end - done)] = -100
        with torch.no_grad():
            loss = model(window, labels=labels, use_cache=False).loss
        total, done = total + loss.double().item() * (end - done), end
        if done == len(ids):
            return total
    raise AssertionError


def sweep_settings(folder, tmp_path, **changes):
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    defaults = {
        "model": str(folder),
        "dataset": str(text),
        "context": 32,
        "threads": 1,
        "output": tmp_path / "run",
    }
    return asked("baseline", **{**defaults, **changes})


class Listener(SilentObserver):
    """Remembers what was said."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def test_a_text_that_is_tokenised_at_once_is_named(loaded, tmp_path, monkeypatch):
    listener = Listener()
    begin(sweep_settings(loaded.source.folder, tmp_path), listener)
    assert listener.said == []
    monkeypatch.setattr(texts, "LONG_PIECE", len(TEXT) - 1)
    begin(sweep_settings(loaded.source.folder, tmp_path, output=tmp_path / "other"), listener)
    assert listener.said == [
        "text.txt: much of it was tokenised at once, since this tokenizer does not give shorter "
        "pieces the same tokens. That takes memory: about 150 bytes for each byte of text."
    ]


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_the_sums_with_bos_are_those_of_the_plain_loop(tmp_path, kind):
    folder = save_tiny_llama(tmp_path / "model", kind)
    tokenizer = KINDS[kind]()
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    run = measured(sweep_settings(folder, tmp_path, dtype="float32"))
    whole = run.frame().set_index("removed").loc["none"]
    assert whole["tokens"] == len(ids)
    expected = plain_loop(folder, tokenizer.bos_token_id, ids, 32, 16)
    assert whole["nll_nats"] == pytest.approx(expected, rel=1e-6)


def test_a_run_says_whether_its_windows_begin_with_bos_and_is_not_mixed(tmp_path):
    folder = save_tiny_llama(tmp_path / "model", "llama")
    bos = KINDS["llama"]().bos_token_id
    run = measured(sweep_settings(folder, tmp_path))
    assert run.facts.protocol.bos == run.facts.identity["bos"] == bos
    assert describe_run(run)[1].endswith("context 32, stride 16, BOS first in each window")
    assert "tokens, BOS first in each window; 20" in build_document(run, analyse(run)).subtitle
    assert "stride 16, BOS first in each window." in caption(run)[0]
    with pytest.raises(RunError, match=rf"it was measured with bos={bos}, this run uses None\."):
        begin(sweep_settings(folder, tmp_path, bos=False, resume=True))
    without = measured(sweep_settings(folder, tmp_path, bos=False, output=tmp_path / "other"))
    assert without.facts.protocol.bos is None
    assert describe_run(without)[1].endswith("context 32, stride 16")
    assert "BOS" not in build_document(without, analyse(without)).subtitle
    assert why_unpaired(run, without) is Unpaired.BOS
