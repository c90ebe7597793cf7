"""The demo model's byte-level BPE: trained on the training text, stored as plain JSON.

``<|endoftext|>`` is the only special token; it stands between books and has the highest id.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

END_OF_TEXT = "<|endoftext|>"


def paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of ``text``, each with the blank line after it, end marks left out."""
    for document in text.split(END_OF_TEXT):
        for paragraph in document.split("\n\n"):
            yield paragraph + "\n\n"


def train_tokenizer(text: str, vocabulary_size: int) -> Tokenizer:
    """Train a byte-level BPE with GPT-2's word pattern on ``text``.

    Args:
        text: the training text, documents separated by ``<|endoftext|>``.
        vocabulary_size: number of entries, the 256 bytes and the special token included.

    Source: Radford et al. (2019) for byte-level BPE and its word pattern.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - 1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(paragraphs(text), trainer)
    tokenizer.add_special_tokens([END_OF_TEXT])
    assert tokenizer.get_vocab_size() == vocabulary_size
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write ``tokenizer.json`` and the ``tokenizer_config.json`` that AutoTokenizer reads."""
    config = {
        "add_prefix_space": False,
        "bos_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_TEXT,
        "model_max_length": context,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def encode_documents(tokenizer: Tokenizer, text: str) -> NDArray[np.uint16]:
    """Token ids of ``text``, one ``<|endoftext|>`` between documents, shape (N,), uint16."""
    end_id = tokenizer.token_to_id(END_OF_TEXT)
    documents = [document.strip("\n") for document in text.split(END_OF_TEXT)]
    encodings = tokenizer.encode_batch(documents)
    return np.concatenate([np.asarray([*e.ids, end_id], dtype=np.uint16) for e in encodings])[:-1]
