"""The house: imports point downwards, one door to the AMX units, and no module without end."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "pruning_kit"
MOST_LINES = 350
REASON = re.compile(r"^(?:// )?Longer than 350 lines: \S", re.MULTILINE)


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """The contracts of `pyproject.toml`, held against the sources in `root/src`."""
    lint = "import sys; from importlinter.cli import lint_imports_command as c; sys.exit(c())"
    return subprocess.run(
        [sys.executable, "-c", lint, "--no-cache"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root / "src"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_point_downwards():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "statement", "complaint"),
    [
        (
            "errors.py",
            "from pruning_kit.cli import console",
            "pruning_kit.errors is not allowed to import pruning_kit.cli",
        ),
        (
            "kernels/linear.py",
            "from pruning_kit.kernels import amx",
            "pruning_kit.kernels.linear -> pruning_kit.kernels.amx",
        ),
    ],
)
def test_an_import_inside_a_function_is_held_to_them_too(tmp_path, module, statement, complaint):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    package = tmp_path / "src" / "pruning_kit"
    only_python = shutil.ignore_patterns("demo", "data", "templates", "__pycache__")
    shutil.copytree(PACKAGE, package, ignore=only_python)
    with (package / module).open("a", encoding="utf-8") as source:
        source.write(f"\n\ndef late():\n    {statement}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert complaint in done.stdout


@pytest.mark.parametrize("layer", ["findings", "speed", "intervals", "walk", "kernels"])
def test_numbers_name_no_option_of_the_command_line(layer):
    sources = sorted((PACKAGE / layer).rglob("*.py"))
    assert sources
    named = {
        f"{path.relative_to(PACKAGE)}: {option}"
        for path in sources
        for option in re.findall(r"--[a-z][a-z-]*", path.read_text(encoding="utf-8"))
    }
    assert named == set()


def opening(path: Path) -> str:
    """What a file says of itself: the docstring of a module, the first comment of other sources."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return ast.get_docstring(ast.parse(text)) or ""
    return text.partition("\n\n")[0]


def test_a_module_of_more_than_350_lines_says_why():
    sources = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".cpp")]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    unexplained = {
        path.relative_to(PACKAGE).as_posix(): lines
        for path, lines in lengths.items()
        if lines > MOST_LINES and not REASON.search(opening(path))
    }
    assert unexplained == {}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_a_module_says_what_it_is(path):
    assert opening(path)
