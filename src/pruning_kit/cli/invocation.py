"""How the kit was started: the words typed, and the command that does the same again."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from pruning_kit.errors import PruningKitError
from pruning_kit.printable import printable
from pruning_kit.runs.ranks import is_one_of_several


def program_of(script: str) -> str:
    """What to type for this Python and a script: `python main.py` where `python` is this one."""
    for name in ("python", "python3"):
        if shutil.which(name) == sys.executable:
            return shlex.join([name, script])
    here, executable = _current_folder(), sys.executable
    if here and Path(executable).is_relative_to(here):
        executable = f"./{Path(executable).relative_to(here)}"
    return shlex.join([executable, script])


def _current_folder() -> Path | None:
    """The folder that relative paths start from; None where it was deleted."""
    try:
        return Path.cwd()
    except OSError:
        return None


def command_of(program: str, words: Sequence[str]) -> str:
    """The command that starts this process, for a shell."""
    return shlex.join([*_launcher(program), *words])


def _launcher(program: str) -> list[str]:
    words = shlex.split(program)
    if not {"TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE"} <= set(os.environ):
        return words
    script = words[1:] or ["-m", "pruning_kit"]
    return ["torchrun", "--nproc-per-node", os.environ["LOCAL_WORLD_SIZE"], *script]


def with_option(command: str, option: str) -> str:
    """A command with one more option, unless it has it."""
    return command if option in shlex.split(command) else f"{command} {option}"


def check_start(words: Sequence[str]) -> None:
    """Refuse words that no option can mean, and a current folder that is not there.

    Raises:
        PruningKitError: naming the word or the folder.
    """
    before = "the command"
    for word in words:
        option, equals, value = word.partition("=")
        if not word or (equals and not value and option.startswith("--")):
            raise PruningKitError(
                f"cannot use an empty value for {option or before}: it names nothing. "
                "Write a value, or leave the option out."
            )
        _check_word(word)
        before = word
    if _current_folder() is None:
        raise PruningKitError(
            "cannot work here: the current folder was deleted. Change to one that exists."
        )


def refuse_several(verb: str) -> None:
    """Refuse to be one of several processes, before anything is asked of the others.

    Raises:
        PruningKitError: saying how many were started.
    """
    if is_one_of_several():
        raise PruningKitError(
            f"cannot {verb} in {os.environ['WORLD_SIZE']} processes: only sweep and recover share "
            "their work. Start it without torchrun."
        )


def _check_word(word: str) -> None:
    if "\0" in word:
        raise PruningKitError(
            f"cannot use '{printable(word)}': no name can have a null character in it. "
            "Write it without."
        )
    try:
        word.encode()
    except UnicodeEncodeError:
        raise PruningKitError(
            f"cannot use '{printable(word)}': its bytes are no UTF-8, so no result could name it. "
            "Rename the file or folder."
        ) from None
