"""The compiled functions of `tiles.cpp`: compiled where they run, loaded once, called by name."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from pruning_kit.machine import processor, user_cache
from pruning_kit.machine.devices import dtype_name

SOURCE = Path(__file__).with_name("tiles.cpp")
OPTIONS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
FLAGS = frozenset({"amx_tile", "amx_bf16", "avx512f", "avx512bw", "avx512dq", "avx512_bf16"})
"""What the processor must offer, by the names of /proc/cpuinfo."""
COMPILER_SECONDS = 120
N_TERMS = {torch.bfloat16: 1, torch.float32: 3}
"""Numbers in bfloat16 that one is the sum of, for each format that can be computed."""


class UnavailableError(Exception):
    """Why the units cannot be used here, in words for a kernel's note."""


def is_offered() -> bool:
    """Whether the processor has the units, the system names them and the user leaves them on.

    oneDNN's own setting is heeded, so that a lesser processor can be imitated.
    """
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    return processor.flags() >= FLAGS and ("AMX" in allowed or allowed in ("ALL", "DEFAULT"))


def call(name: str, dtype: torch.dtype, *arguments: Tensor | int) -> None:
    """Call a function of `tiles.cpp` on all of PyTorch's threads."""
    with record_function(name):
        function(name, dtype)(*map(_for_c, arguments), _for_c(torch.get_num_threads()))


def function(name: str, dtype: torch.dtype) -> Any:
    """A function of `tiles.cpp` for numbers of this format."""
    return getattr(load(), f"{name}_{dtype_name(dtype)}")


def _for_c(argument: Tensor | int) -> ctypes.c_void_p | ctypes.c_long:
    if isinstance(argument, Tensor):
        assert argument.is_cpu and argument.is_contiguous()
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_long(argument)


@cache
def load() -> ctypes.CDLL:
    """The functions of `tiles.cpp`, with leave from the system to use the tiles.

    Raises:
        UnavailableError: if they cannot be compiled or loaded, or the system denies the tiles.
    """
    try:
        file = user_cache.folder("kernels") / f"amx-{_identity()}.so"
        if not file.is_file():
            _compile(file)
        user_cache.refuse_foreign(file)
        library = ctypes.CDLL(str(file))
        for dtype in N_TERMS:
            groups = getattr(library, f"amx_groups_{dtype_name(dtype)}")
            groups.argtypes, groups.restype = [ctypes.c_long, ctypes.c_long], ctypes.c_long
        library.amx_allowed.restype = ctypes.c_bool
    except (OSError, AttributeError) as error:
        raise UnavailableError(f"it could not be kept or loaded ({error})") from error
    if not library.amx_allowed():
        raise UnavailableError("the system denies its use")
    return library


def _identity() -> str:
    """A hash of all that the compiled file depends on; homes may be shared by unlike machines."""
    parts = [SOURCE.read_bytes(), " ".join([*OPTIONS, *sorted(processor.flags())]).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _compiler() -> list[str]:
    """The command that starts the C++ compiler: CXX where it is set."""
    asked = shlex.split(os.environ.get("CXX", ""))
    names = asked[:1] or ["c++", "g++", "clang++"]
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None and asked:
        raise UnavailableError(f"it is compiled on first use, and CXX={names[0]} is not there")
    if found is None:
        raise UnavailableError("it is compiled on first use, and there is no C++ compiler")
    return [found, *asked[1:]]


def _compile(target: Path) -> None:
    """Compile to a file of another name first: other processes see it whole or not at all."""
    compiler = _compiler()
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        unfinished = Path(folder) / target.name
        try:
            done = subprocess.run(
                [*compiler, *OPTIONS, str(SOURCE), "-o", str(unfinished)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                env=os.environ | {"LC_ALL": "C"},
                timeout=COMPILER_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(
                f"{compiler[0]} had not compiled it after {COMPILER_SECONDS} s"
            ) from error
        if done.returncode != 0:
            raise UnavailableError(
                f"{compiler[0]} could not compile it ({_first_complaint(done.stderr)})"
            )
        unfinished.chmod(0o700)
        with unfinished.open("rb") as stream:
            os.fsync(stream.fileno())
        unfinished.replace(target)


def _first_complaint(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = (line for line in lines if "error:" in line or "cannot find" in line)
    return next(telling, lines[-1] if lines else "it gave no reason")
