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

    def check(self, source: ModelSource, stopped: Path | None = None) -> Saving:
        """Refuse what cannot be written, before anything is computed.

        Args:
            source: the model.
            stopped: the run of a stopped command that is gone on with; None: none is. Where it is
                finished, a model folder, and what comes after it, may be there already.

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

        goes_on = stopped is not None and _came_to_save(stopped, self.folder)
        if not goes_on:
            check_target(self.folder)
        if self.dtype is not None:
            saved_format(self.dtype)
        if self.gguf is not None:
            from pruning_kit.export.llama_cpp.writing import (
                conversion_of,
                gguf_beside,
                refuse_taken,
            )
            from pruning_kit.inputs.models import load_inputs

            if not goes_on:
                refuse_taken(gguf_beside(self.folder, self.gguf))
            conversion_of(load_inputs(source), self.gguf)
        if self.push_to_hub is None:
            return Saving(self, goes_on, None)
        from pruning_kit.export.upload import new_repository

        begun = self.folder if goes_on else None
        return Saving(self, goes_on, new_repository(self.push_to_hub, self.public, begun))


@dataclass(frozen=True, slots=True)
class Saving:
    """What is asked for, where nothing that can be known beforehand is in the way."""

    asked: Outputs
    goes_on: bool
    """Whether a stopped command has written the folder."""
    repository: str | None
    """On the Hub, by its whole name."""

    def save(
        self, made: Made, plan: Plan, numbers: Mapping[str, Any] | None, command: str
    ) -> list[Check]:
        """Write the folder, verified; that it is saved in another format is said.

        Raises:
            ExportError, VerificationError: as `export`.
        """
        from pruning_kit.export.huggingface import export

        asked, stored = self.asked, made.loaded.stored_dtype
        if asked.dtype not in (None, stored):
            notes.say(
                f"weights are saved as {asked.dtype}; all is measured with the base model's, in "
                f"{stored}.",
                "Note:",
                "bold yellow",
            )
        return export(
            made.loaded,
            plan,
            asked.folder,
            numbers,
            command,
            made.bridges,
            made.recovered,
            asked.dtype,
            self.goes_on,
        )

    def go_further(self, title: str) -> None:
        """Make what comes after the folder, or what a stopped command left to do of it.

        Raises:
            ExportError: if it cannot be written or sent; the folder stays.
        """
        folder, format = self.asked.folder, self.asked.gguf
        if format is not None:
            from pruning_kit.export.llama_cpp.writing import gguf_beside, write_gguf

            target = gguf_beside(folder, format)
            write_gguf(folder, target, format, title)
            size = target.stat().st_size / 1e6
            out.say(f"For llama.cpp it is {target} ({size:,.1f} MB, {format}).")
        if self.repository is not None:
            from pruning_kit.export.upload import upload

            public = self.asked.public
            address = upload(folder, self.repository, public, title, self.goes_on)
            readers = "everybody" if public else "you alone"
            out.say(f"On the Hub it is {address}, for {readers} to read.")


def _came_to_save(run: Path, folder: Path) -> bool:
    """Whether a stopped command has written its model folder, which comes after its run."""
    from pruning_kit.export.written import is_written
    from pruning_kit.runs.store import RUN_FILE, RunFolder

    is_begun = (run / RUN_FILE).is_file() and is_written(folder)
    return is_begun and RunFolder.open(run).is_finished()


def title_of(model: str, variant: Variant) -> str:
    """What a pruned model is, in a line: `demo without 1+4, distilled:8M`."""
    how = f", {variant.recovery}" if variant.recovery else ""
    return f"{model} without {variant.plan.short}{how}"


def print_checks(checks: Sequence[Check]) -> None:
    """A line for each check."""
    for check in checks:
        mark, style = ("passed", "green") if check.passed else ("FAILED", "bold red")
        out.say(f" {check.name}: {check.detail}", mark, style)
