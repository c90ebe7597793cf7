"""How a command ends: its exit code, and what a person reads where it could not be done."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from pruning_kit.cli.console import arose_in_printing, notes, out
from pruning_kit.cli.invocation import with_option
from pruning_kit.cli.options import spell_settings
from pruning_kit.errors import DeviceError, in_words
from pruning_kit.printable import copyable, printable

MISTAKE = 70
"""`EX_SOFTWARE` of sysexits.h: an error inside the program."""
MOST_LETTERS = 1200


def explain(error: BaseException, debug: bool) -> int:
    """Say why a command ended, with the traceback in `debug`; its exit code."""
    match error:
        case typer.Exit():
            return error.exit_code
        case SystemExit():
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        case KeyboardInterrupt():
            if _may_lead():
                notes.say("Stopped.")
            return 130
        case OSError() if arose_in_printing(error):
            out.failure = error
            return 1
    said = in_words(error)
    sentence = _usage(error) or (said and spell_settings(said))
    if debug or sentence is None:
        for line in "".join(traceback.format_exception(error)).splitlines():
            notes.show_line(line)
    if sentence is None:
        notes.say(
            "this is a mistake of pruning-kit, not yours. Please report it with the lines above.",
            "Error:",
            "bold red",
        )
        return MISTAKE
    _say_once(sentence, error)
    return 2


@contextmanager
def resumable(done: str, command: str, leads: bool = True) -> Iterator[None]:
    """Where Ctrl-C ends a command whose work is kept, and how to go on is said.

    Args:
        done: where that is, to begin a sentence.
        command: what was typed.
        leads: whether this process says it.
    """
    try:
        yield
    except KeyboardInterrupt:
        if leads:
            again = copyable(with_option(command, "--resume"))
            notes.show_line(f"Stopped. {done}; go on with: {again}")
        raise typer.Exit(130) from None


def _usage(error: BaseException) -> str | None:
    """What the parser of the command line could not use; None for errors of other kinds."""
    message = getattr(error, "format_message", str)()
    context = getattr(error, "ctx", None)
    if not message or context is None:
        return None
    return f"{message[0].lower()}{message[1:].rstrip('.')}. See {context.command_path} --help."


def _say_once(sentence: str, error: BaseException) -> None:
    """Print an error, of several processes that fail alike by the first.

    Processes that have not met yet do not meet for that: one might be alone, and wait for long.
    """
    from pruning_kit.runs.ranks import Ranks, current_ranks

    met = current_ranks.cache_info().currsize > 0
    ranks = current_ranks() if met else Ranks()
    if ranks.should_say(sentence) and (met or _may_lead() or isinstance(error, DeviceError)):
        who = "" if ranks.leads else f" in process {ranks.rank}"
        notes.say(_shortened(sentence), f"Error{who}:", "bold red")


def _may_lead() -> bool:
    """Whether this process is the first, by what torchrun tells it."""
    return os.environ.get("RANK", "0") == "0"


def _shortened(sentence: str) -> str:
    """A sentence with the middle left out where somebody gave a book for a name."""
    if len(sentence) <= MOST_LETTERS:
        return sentence
    half = MOST_LETTERS // 2
    return f"{printable(sentence[:half])} … {printable(sentence[-half:])}"
