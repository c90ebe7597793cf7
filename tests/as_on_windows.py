"""The command line without what only POSIX systems have, for a process of its own.

All is loaded first: the libraries have forms of their own for Windows, which do not run here.
"""

import os
import pkgutil
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import torch
from transformers import GPT2LMHeadModel, GPT2Tokenizer  # noqa: F401

import pruning_kit
from pruning_kit.cli import app

POSIX_MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")
POSIX_CALLS = (
    *(
        "chown",
        "fork",
        "forkpty",
        "getegid",
        "geteuid",
        "getgid",
        "getloadavg",
        "getpgid",
        "getuid",
    ),
    *(
        "killpg",
        "mkfifo",
        "nice",
        "sched_getaffinity",
        "setsid",
        "sync",
        "uname",
        "wait",
    ),
)


def open_without_folders(path, flags, *args, _open=os.open, **options):
    """As Windows, which opens no folder."""
    if Path(path).is_dir():
        raise PermissionError(13, "Permission denied", os.fspath(path))
    return _open(path, flags, *args, **options)


def main() -> int:
    """Run a command of the kit; its exit code."""
    torch.set_num_threads(1)
    warnings.filterwarnings("error", category=EncodingWarning, module="pruning_kit")
    for module in pkgutil.walk_packages(pruning_kit.__path__, "pruning_kit."):
        if module.name != "pruning_kit.__main__":
            with suppress(ModuleNotFoundError):  # of what only GPUs need
                import_module(module.name)
    sys.platform = "win32"
    for name in POSIX_MODULES:
        sys.modules[name] = None
    for name in POSIX_CALLS:
        if hasattr(os, name):
            delattr(os, name)
    os.open = open_without_folders
    return app.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
