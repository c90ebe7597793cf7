"""What `prune` writes: the number format of the folder, and a GGUF beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pruning_kit.cli.console import notes, out

if TYPE_CHECKING:
    from pruning_kit.inputs.models import LoadedModel, ModelSource


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is asked for besides the cut."""

    folder: Path
    dtype: str | None
    gguf: str | None

    def refuse_early(self, source: ModelSource) -> None:
        """Refuse what cannot be written, before anything is computed.

        Raises:
            ExportError: if the folder is taken, or there is no such format of this model.
            ModelError: if its config or tokenizer cannot be used.
        """
        from pruning_kit.export.huggingface import check_target, saved_format

        check_target(self.folder)
        if self.dtype is not None:
            saved_format(self.dtype)
        if self.gguf is not None:
            from pruning_kit.export.llama_cpp.writing import conversion_of, gguf_beside
            from pruning_kit.inputs.models import load_inputs

            gguf_beside(self.folder, self.gguf)
            conversion_of(load_inputs(source), self.gguf)

    def say_format(self, loaded: LoadedModel) -> None:
        """Say that what was measured and what is saved differ in their number format."""
        if self.dtype not in (None, loaded.stored_dtype):
            notes.say(
                f"weights are saved as {self.dtype}; all is measured with the base model's, in "
                f"{loaded.stored_dtype}.",
                "Note:",
                "bold yellow",
            )

    def write_beside(self, title: str) -> None:
        """Write what comes after the folder."""
        if self.gguf is not None:
            from pruning_kit.export.llama_cpp.writing import gguf_beside, write_gguf

            target = gguf_beside(self.folder, self.gguf)
            write_gguf(self.folder, target, self.gguf, title)
            size = target.stat().st_size / 1e6
            out.say(f"For llama.cpp it is {target} ({size:,.1f} MB, {self.gguf}).")
