"""Weights: which files of a model folder they are read from, and what identifies them.

One decision serves reading, the hash, the stored format and the download. The library's own loader
would follow names out of the folder, to pickles and to adapters; it is therefore given the tensors
of the files decided here (`WeightFiles.open`), and never the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pruning_kit.errors import ModelError, first_line

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
INDEX_ENDING = ".safetensors.index.json"
LFS_POINTER = b"version https://git-lfs"

ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")

_PICKLE = (
    "weights only as a pickle ({}), which can run code when it is read",
    "Where you trust it, save it as safetensors: "
    "AutoModelForCausalLM.from_pretrained(...).save_pretrained(...).",
)
OTHER_FORMATS = {
    "*.safetensors": (
        f"{{}}, but no {SINGLE} and no {INDEX}, from which weights are read",
        "Fetch the model whole, or, if that file is all of it, give it the first name.",
    ),
    "*model*.bin": _PICKLE,
    "*model*.pt": _PICKLE,
    "*.pth": _PICKLE,
    "*.ckpt": _PICKLE,
    "*.gguf": (
        "weights only as GGUF ({}), the format of llama.cpp",
        "Give the model that it was made from, or save it as safetensors: "
        "AutoModelForCausalLM.from_pretrained(..., gguf_file=...).save_pretrained(...).",
    ),
}
"""What may lie in a folder in place of weights: pattern, what to say of it, what to do."""

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files that a model's weights are read from, by their names in its folder."""

    folder: Path
    index: str | None
    """The file that names the others; None if there is but one."""
    shards: tuple[str, ...]
    """The safetensors files, in the order in which they are read."""

    @contextmanager
    def open(self) -> Iterator[dict[str, StoredTensor]]:
        """The tensors by name, as long as the files are open; of equal names the last one."""
        with ExitStack() as stack:
            tensors: dict[str, StoredTensor] = {}
            for shard in self.shards:
                file = stack.enter_context(safe_open(self.folder / shard, framework="pt"))
                tensors |= {name: StoredTensor(file.get_slice(name)) for name in file.keys()}  # noqa: SIM118
            yield tensors

    def sha256(self) -> str:
        """SHA-256 over names and contents of the config, the index and the safetensors files."""
        digest = hashlib.sha256()
        for name in filter(None, (CONFIG, self.index, *self.shards)):
            with (self.folder / name).open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256")
            digest.update(os.fsencode(name) + b"\0" + content.digest())
        return digest.hexdigest()


class StoredTensor:
    """A tensor in a file, that is read when it is indexed and then knows that it was."""

    def __init__(self, stored: Any) -> None:
        self._stored = stored
        self.was_read = False

    def __getitem__(self, index: Any) -> Any:
        self.was_read = True
        return self._stored[index]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stored, name)


def stored_dtype(tensors: Mapping[str, StoredTensor]) -> str:
    """The format of most numbers in the tensors that were read; `none` if none was.

    What a model has no place for, such as the masks of old checkpoints, was not.
    """
    counts: Counter[str] = Counter()
    for tensor in tensors.values():
        if tensor.was_read:
            counts[tensor.get_dtype()] += prod(tensor.get_shape())
    most = max(counts, key=lambda dtype: counts[dtype], default="none")
    return DTYPES.get(most, most)


def weights_hash(folder: Path) -> str:
    """SHA-256 over config and weights of a model folder, with the names of their files.

    Raises:
        ModelError: if the folder holds no weights that can be read.
    """
    return find_weights(str(folder), folder).sha256()


def find_weights(model: str, folder: Path) -> WeightFiles:
    """Decide which files in a folder are the model's weights, and check that they can be read.

    Args:
        model: what the user calls the model, for errors.
        folder: the model's folder; its files may be links, as in the Hub's cache.

    Raises:
        ModelError: if there are none, or one that is no safetensors file in the folder itself.
    """
    present = listing(model, folder)
    check_config(model, str(folder), present)
    files = choose_files(model, folder, present)
    for shard in files.shards:
        _check_shard(model, folder, shard)
    return files


def choose_files(model: str, folder: Path, present: Collection[str]) -> WeightFiles:
    """The weight files among the names `present`, of which config and index lie in `folder`.

    As the library's loader chooses: what `transformers_weights` in the config names, else
    `model.safetensors`, else what `model.safetensors.index.json` names.

    Raises:
        ModelError: if there are none, or one that is no safetensors file in the folder itself.
    """
    refuse_adapter(model, present)
    entry = _entry(model, folder, present)
    if not entry.endswith(INDEX_ENDING):
        return WeightFiles(folder, None, (_inside(model, entry, CONFIG, present),))
    names = _shards_of(model, folder / _inside(model, entry, CONFIG, present))
    shards = tuple(sorted({_inside(model, name, entry, present) for name in names}))
    return WeightFiles(folder, entry, shards)


def _entry(model: str, folder: Path, present: Collection[str]) -> str:
    """The file that reading begins with: weights, or an index of them."""
    named = read_object(model, folder / CONFIG).get("transformers_weights")
    if named is not None:
        return str(named)
    for name in (SINGLE, INDEX):
        if name in present:
            return name
    refuse_other_formats(model, present)
    raise ModelError(
        f"cannot load model {model!r}: it has no weights. The folder needs config.json, "
        "safetensors weights and a tokenizer."
    )


def check_config(model: str, where: str, present: Collection[str]) -> None:
    """Refuse a folder without a config, and say what lies there in place of a model.

    Args:
        model: what the user calls the model.
        where: what to call its folder.
        present: the names of the files in it.

    Raises:
        ModelError: naming what is there, or the folder.
    """
    if CONFIG not in present:
        refuse_adapter(model, present)
        refuse_other_formats(model, present)
        raise ModelError(
            f"cannot load model {model!r}: {where} holds no config.json. "
            "Give a folder that a Hugging Face model was saved to."
        )


def refuse_other_formats(model: str, present: Collection[str]) -> None:
    """Say what lies there in place of weights, if something does.

    Raises:
        ModelError: naming a file, its kind and what can be done.
    """
    if SINGLE in present or INDEX in present:
        return
    for pattern, (what, remedy) in OTHER_FORMATS.items():
        found = sorted(name for name in present if fnmatch(name.lower(), pattern))
        if found:
            what = what.format(repr(found[0]))
            raise ModelError(f"cannot load model {model!r}: it has {what}. {remedy}")


def refuse_adapter(model: str, present: Collection[str]) -> None:
    """Refuse a folder with a PEFT adapter, which some programs would apply and others leave out.

    Raises:
        ModelError: naming the adapter's file.
    """
    for name in ADAPTERS:
        if name in present:
            raise ModelError(
                f"cannot load model {model!r}: it holds a PEFT adapter ({name!r}), which would be "
                "left out. Merge it: load it with peft's AutoPeftModelForCausalLM, call "
                "merge_and_unload() and save_pretrained(...), and give that folder."
            )


def _inside(model: str, name: str, named_by: str, present: Collection[str]) -> str:
    """The name, if it is that of a safetensors file, or an index, in the folder itself."""
    plain = name == os.path.basename(name) and "\\" not in name  # noqa: PTH119
    if not plain or not name.endswith((".safetensors", INDEX_ENDING)):
        raise ModelError(
            f"cannot load model {model!r}: its {named_by} names {name!r} as weights, which is no "
            "safetensors file in the model's own folder. Save the model anew with "
            "save_pretrained(...)."
        )
    if name not in present:
        raise ModelError(
            f"cannot load model {model!r}: its {named_by} names {name!r} as weights, which is not "
            "there. Fetch or copy the model whole."
        )
    return name


def _shards_of(model: str, index: Path) -> list[str]:
    """The file names in an index of weights."""
    files = read_object(model, index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise ModelError(
            f"cannot load model {model!r}: its {index.name} has no weight_map that names files. "
            "Fetch or copy the model whole."
        )
    return [str(file) for file in files.values()]


def _check_shard(model: str, folder: Path, name: str) -> None:
    """Refuse what is no safetensors file whose header and length agree."""
    path = folder / name
    try:
        if not path.is_file():
            raise OSError("it is no file")
        with path.open("rb") as stream:
            beginning = stream.read(len(LFS_POINTER))
        if beginning == LFS_POINTER:
            raise ModelError(
                f"cannot load model {model!r}: {name!r} is a git-lfs pointer, not the weights "
                "themselves. Run git lfs pull in the folder that it was cloned to."
            )
        with safe_open(path, framework="pt"):
            pass
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ModelError(
            f"cannot load model {model!r}: {name!r} cannot be read as safetensors ({reason}). "
            "Fetch or copy it anew."
        ) from error


def listing(model: str, folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names are what counts
    except OSError as error:
        raise ModelError(
            f"cannot load model {model!r}: {folder} cannot be read ({error.strerror}). "
            "Give a folder that you may read."
        ) from error


def read_object(model: str, file: Path) -> dict[str, Any]:
    """What a JSON file says, which must be an object."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"cannot load model {model!r}: its {file.name} cannot be used ({first_line(error)}). "
            "Mend the file or give another folder."
        ) from error
    return content
