"""The command line: each verb parses, calls the library and prints.

Exit codes: 0 done, 1 a check failed or nobody reads the output, 2 an input that cannot be used or
an output that takes nothing, 3 some plans failed, 70 a mistake of the kit's own, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import typer

from pruning_kit.cli import interrupts, prune, recover, report, shrink, sweep
from pruning_kit.cli.console import replace_what_is_lacking, say_what_is_lost
from pruning_kit.cli.endings import explain
from pruning_kit.cli.invocation import check_start, command_of
from pruning_kit.cli.options import ways_to_choose
from pruning_kit.printable import printable

app = typer.Typer(
    name="pruning-kit",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
DEBUG = "--debug"
EPILOG = f"With {DEBUG} anywhere, an error shows its traceback."
COMMANDS = (
    shrink.shrink,
    sweep.sweep,
    prune.prune,
    prune.verify,
    recover.recover,
    report.report,
    report.compare,
)
VERBS = tuple(command.__name__ for command in COMMANDS)
MORE: dict[Callable[..., None], str] = {sweep.sweep: f"{ways_to_choose()}\n\n"}
"""What the help of a command ends with."""


def main(
    argv: Sequence[str] | None = None,
    default_verb: str | None = None,
    program: str = "pruning-kit",
) -> int:
    """Run the command line and return its exit code.

    `default_verb` stands in where the first word is an option, as in the historic interface.
    """
    replace_what_is_lacking((sys.stdout, sys.stderr))
    typed = list(sys.argv[1:] if argv is None else argv)
    words = [word for word in typed if word != DEBUG]
    try:
        _run(words, default_verb, program)
        code = 0
    except BaseException as error:
        code = explain(error, debug=DEBUG in typed)
    return (say_what_is_lost() and 1) or code


def _run(words: list[str], default_verb: str | None, program: str) -> None:
    interrupts.raise_again()
    check_start(words)
    command = command_of(program, words)
    if default_verb and not (words and words[0] in VERBS):
        words = [default_verb, *words]
    words = words or ["--help"]
    parser = typer.main.get_command(app)
    with parser.make_context(printable(program), words, obj=command) as context:
        parser.invoke(context)


@app.callback(epilog=EPILOG)
def kit() -> None:
    """Remove transformer blocks from a language model and see what each choice costs and wins."""


for command in COMMANDS:
    app.command(epilog=MORE.get(command, "") + EPILOG)(command)
