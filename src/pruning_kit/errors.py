"""User errors: what the person at the terminal can mend.

    PruningKitError
    ├── PlanError          a set of blocks that cannot be read or removed
    │   ├── TooManyPlansError   more plans than were allowed for
    │   └── NoGainError         a recovery that makes a model no better
    ├── WindowError        a context, stride or text length that gives no windows
    ├── CorpusError        a text that cannot be found, read or scored
    ├── ModelError         a model that cannot be found or loaded
    │   └── ArchitectureError   a model whose blocks the kit cannot drive
    ├── DeviceError        a device, number format, threads or batch that this machine lacks
    ├── TimingError        a latency measurement that cannot be made or read
    ├── ExportError        a folder that a pruned model cannot be written to
    ├── VerificationError  a pruned model that fails its own checks
    └── RunError           a run folder that cannot be written, resumed or read

Message form: what could not be done: the value given, the fact it collides with. What to do.
The command line prints the message without a traceback and exits with code 2.
"""

import sys
import textwrap


class PruningKitError(ValueError):
    """Base of all errors caused by input, environment or data rather than by the kit."""


class PlanError(PruningKitError):
    """A set of blocks that cannot be read or removed."""


class TooManyPlansError(PlanError):
    """More plans than were allowed for, in numbers for who knows how to ask for fewer."""

    def __init__(self, n_blocks: int, count: int | None, limit: int, calls: int | None = None):
        """Say it.

        Args:
            n_blocks: of the model.
            count: plans that were asked for; None for more than any run holds.
            limit: plans that are allowed.
            calls: block calls for each window, where they were counted.
        """
        self.n_blocks, self.count, self.limit, self.calls = n_blocks, count, limit, calls
        work = "" if calls is None else f", in {calls:,} block calls for each window"
        super().__init__(
            f"cannot measure all that was asked for of {n_blocks} blocks: that is more than "
            f"{limit:,} plans, and a sweep holds no more. Choose fewer."
            if count is None
            else f"cannot measure {count:,} plans of {n_blocks} blocks: that is more than "
            f"{limit:,}{work}. Choose fewer, or raise max_plans to {count}."
        )


class NoGainError(PlanError):
    """A recovery that makes a pruned model no better than what it starts from."""


class WindowError(PruningKitError):
    """A context, stride or text length that gives no windows."""


class CorpusError(PruningKitError):
    """A text that cannot be found, read or scored."""


class ModelError(PruningKitError):
    """A model that cannot be found or loaded."""


class ArchitectureError(ModelError):
    """A model whose blocks the kit cannot drive."""


class DeviceError(PruningKitError):
    """A device, number format, number of threads or batch that this machine lacks."""


class TimingError(PruningKitError):
    """A latency measurement that cannot be made or read."""


class ExportError(PruningKitError):
    """A folder that a pruned model cannot be written to."""


class VerificationError(PruningKitError):
    """A pruned model that fails its own checks."""


class RunError(PruningKitError):
    """A run folder that cannot be written, resumed or read."""


def first_line(error: BaseException) -> str:
    """What another library's exception says, as part of a sentence: never empty, no full stop."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if not lines:
        return type(error).__name__
    said = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    if isinstance(error, KeyError):  # says nothing but the key
        said = f"KeyError: {said}"
    return textwrap.shorten(said, 200, placeholder=" …").rstrip(".")


def in_words(error: BaseException) -> str | None:
    """What a person can mend, in a sentence or two; None for a mistake of the kit itself."""
    if isinstance(error, PruningKitError):
        return str(error)
    match error:
        case ModuleNotFoundError() if error.name and not error.name.startswith("pruning_kit"):
            return (
                f"cannot go on: the package {error.name!r} is not installed for "
                f"{sys.executable}. Install what the kit needs: pip install -r requirements.txt."
            )
        case UnicodeError():
            fact = f"a text cannot be read or written ({first_line(error)})"
        case OSError():
            where = f": {error.filename!r}" if error.filename is not None else ""
            fact = f"{error.strerror or first_line(error)}{where}"
        case MemoryError():
            fact = "the memory is full, even if only for what was asked for at once"
        case RecursionError():
            fact = "an input is nested too deeply"
        case OverflowError():
            fact = f"a number is too large ({first_line(error)})"
        case RuntimeError() if _is_full_memory(error):
            return in_words(MemoryError())
        case _:
            return None
    return f"cannot go on: {fact}. Mend that; with --debug you see where it happened."


def _is_full_memory(error: RuntimeError) -> bool:
    """Whether torch, which may not be imported here, found no memory on a GPU or the host."""
    return type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
