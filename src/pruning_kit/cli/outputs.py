"""What a command makes of a pruned model: its folder, a GGUF beside it, a repository on the Hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning_kit.cli.console import notes, out
from pruning_kit.errors import ExportError

if TYPE_CHECKING:
    from pruning_kit.export.verification import Check
    from pruning_kit.inputs.models import ModelSource
    from pruning_kit.plans.plan import Plan
    from pruning_kit.plans.variant import Variant
    from pruning_kit.sweeps.making import Made


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is asked for besides the cut."""

    folder: Path
    dtype: str | None
    gguf: str | None
    push_to_hub: str | None
    public: bool

    def runs_in(self, named: Path | None) -> Path:
        """The folder of what is measured: the one that was named, or one beside the model folder.

        Raises:
            RunError: if it could not be written.
        """
        from pruning_kit.runs.opening import check_place

        folder = named or Path(f"{self.folder}-run")
        check_place(folder)
        return folder

    def refuse_early(self, source: ModelSource) -> str | None:
        """Refuse what cannot be written, before anything is computed; the repository's name.

        Raises:
            ExportError: if the folder or the repository is taken, or there is no such format of
                this model.
            ModelError: if its config or tokenizer cannot be used.
        """
        if self.public and self.push_to_hub is None:
            raise ExportError(
                "cannot use --public without --push-to-hub: it says who may read what that makes. "
                "Give both, or neither."
            )
        from pruning_kit.export.huggingface import check_target, saved_format

        check_target(self.folder)
        if self.dtype is not None:
            saved_format(self.dtype)
        if self.gguf is not None:
            from pruning_kit.export.llama_cpp.writing import conversion_of, gguf_beside
            from pruning_kit.inputs.models import load_inputs

            gguf_beside(self.folder, self.gguf)
            conversion_of(load_inputs(source), self.gguf)
        if self.push_to_hub is None:
            return None
        from pruning_kit.export.upload import new_repository

        return new_repository(self.push_to_hub)

    def save(
        self, made: Made, plan: Plan, numbers: Mapping[str, Any] | None, command: str
    ) -> list[Check]:
        """Write the folder, verified; what it was measured in and is saved as may differ: said.

        Raises:
            ExportError, VerificationError: as `export`.
        """
        from pruning_kit.export.huggingface import export

        stored = made.loaded.stored_dtype
        if self.dtype not in (None, stored):
            notes.say(
                f"weights are saved as {self.dtype}; all is measured with the base model's, in "
                f"{stored}.",
                "Note:",
                "bold yellow",
            )
        bridges, own = made.bridges, made.recovered
        return export(made.loaded, plan, self.folder, numbers, command, bridges, own, self.dtype)

    def go_further(self, title: str, repository: str | None) -> None:
        """Make what comes after the folder."""
        if self.gguf is not None:
            from pruning_kit.export.llama_cpp.writing import gguf_beside, write_gguf

            target = gguf_beside(self.folder, self.gguf)
            write_gguf(self.folder, target, self.gguf, title)
            size = target.stat().st_size / 1e6
            out.say(f"For llama.cpp it is {target} ({size:,.1f} MB, {self.gguf}).")
        if repository is not None:
            from pruning_kit.export.upload import upload

            address = upload(self.folder, repository, self.public, title)
            readers = "everybody" if self.public else "you alone"
            out.say(f"On the Hub it is {address}, for {readers} to read.")


def title_of(model: str, variant: Variant) -> str:
    """What a pruned model is, in a line: `demo without 1+4, distilled:8M`."""
    how = f", {variant.recovery}" if variant.recovery else ""
    return f"{model} without {variant.plan.short}{how}"


def print_checks(checks: Sequence[Check]) -> None:
    """A line for each check."""
    for check in checks:
        mark, style = ("passed", "green") if check.passed else ("FAILED", "bold red")
        out.say(f" {check.name}: {check.detail}", mark, style)
