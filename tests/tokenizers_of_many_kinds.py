"""Small tokenizers of the kinds that model families have, trained on the demo's text."""

from collections.abc import Callable
from functools import cache
from itertools import islice

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pruning_kit.inputs.corpora import demo_corpus, raw_rows
from pruning_kit.inputs.models import DEMO_FOLDER

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CASED_WORDS = (
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+|\p{N}{1,3}|\s+|[^\s\p{L}\p{N}]+"
)
ALPHABET = pre_tokenizers.ByteLevel.alphabet()


def demo():
    return AutoTokenizer.from_pretrained(DEMO_FOLDER)


def llama():
    """One word from end to end, merges, bytes for what is unknown; BOS before texts."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return _trained(backend, _merges(bytes_too=True), "<s>")


def gemma():
    """The same by a normalizer, with runs of newlines and spaces as tokens of their own."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer = _trained(backend, _merges(bytes_too=True), "<bos>")
    tokenizer.add_tokens(["\n" * n for n in (2, 3, 7)] + ["▁" * 5, "<table>"])
    return tokenizer


def llama3():
    """Byte-level merges within words by a pattern that takes digits by threes; BOS before texts."""
    backend = Tokenizer(models.BPE(ignore_merges=True))
    words = pre_tokenizers.Split(Regex(LLAMA3_WORDS), "isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_])
    return _trained(
        backend,
        trainers.BpeTrainer(show_progress=False, vocab_size=900, initial_alphabet=ALPHABET),
        "<b>",
    )


def cased():
    """Words that end before a capital, where what a capital ends depends on how the word began."""
    backend = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(CASED_WORDS), "isolated")
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_])
    trainer = trainers.BpeTrainer(show_progress=False, vocab_size=900, initial_alphabet=ALPHABET)
    return _trained(backend, trainer, more=["中ABcd\n"] * 1000)


def composed():
    """Byte-level merges of composed and lower-cased characters."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return _trained(
        backend, trainers.BpeTrainer(show_progress=False, vocab_size=900, initial_alphabet=ALPHABET)
    )


def word_piece():
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=30))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _trained(
        backend,
        trainers.WordPieceTrainer(show_progress=False, vocab_size=900, special_tokens=["[UNK]"]),
    )


def unigram():
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return _trained(backend, _unigrams())


def unigram_of_the_whole_text():
    """The likeliest parts of a text that is one word: every one depends on all others."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(split=True)
    tokenizer = _trained(backend, _unigrams())
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    return tokenizer


def fixed_length():
    """Words of nine characters, counted from the start of the text."""
    tokenizer = composed()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.FixedLength(9), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    return tokenizer


KINDS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    make.__name__: cache(make)
    for make in (
        demo,
        llama,
        gemma,
        llama3,
        cased,
        composed,
        word_piece,
        unigram,
        unigram_of_the_whole_text,
        fixed_length,
    )
}


def _merges(bytes_too):
    special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256) if bytes_too)]
    return trainers.BpeTrainer(show_progress=False, vocab_size=1100, special_tokens=special)


def _unigrams():
    return trainers.UnigramTrainer(
        show_progress=False, vocab_size=600, unk_token="<unk>", special_tokens=["<unk>"]
    )


def _trained(backend, trainer, bos=None, more=()):
    lines = islice(raw_rows(demo_corpus("demo-calibration").read()), 1500)
    backend.train_from_iterator([*lines, *more], trainer)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos, model_max_length=512
    )
    if bos:
        backend = tokenizer.backend_tokenizer
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.bos_token_id)]
        )
    return tokenizer
