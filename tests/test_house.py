"""The house rules that reading alone would not keep: options, documents and versions agree."""

import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from pruning_kit.cli.app import VERBS, app
from pruning_kit.cli.choice import Choice, Mode
from pruning_kit.inputs.corpora import HubText
from pruning_kit.speed.workload import LatencyProtocol
from pruning_kit.sweeps import sweep as sweep_module
from pruning_kit.sweeps.settings import SweepSettings

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BASELINE = "--mode baseline"
PARSER = typer.main.get_command(app)


def parsed(verb: str, words: list[str]) -> typer.Context:
    """The options of a verb as the command line reads them; nothing is carried out."""
    return PARSER.commands[verb].make_context(verb, words, obj="typed")


# Options against settings


class AskedError(Exception):
    """Carries what a sweep was asked for to the test, before it begins: settings and choice."""


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the command line makes of some options: the settings of the sweep and its choice."""
    monkeypatch.chdir(tmp_path)

    def start(settings, _proposer, _observer, _ranks, check):
        raise AskedError(settings, check.__self__)

    def made(words: str) -> tuple[SweepSettings, Choice]:
        with monkeypatch.context() as patch, pytest.raises(AskedError) as error:
            patch.setattr(sweep_module, "start", start)
            context = parsed("sweep", shlex.split(words))
            with context:
                PARSER.commands["sweep"].invoke(context)
        return error.value.args

    return made


SWEEP = {
    "model": "--model demo",
    "dataset": "--dataset demo",
    "hub_text": "--dataset-config c --dataset-split s --text-column t",
    "select_on": "--select-on calibration",
    "context": "--context 64",
    "stride": "--stride 32",
    "max_windows": "--max-windows 2",
    "bos": "--bos",
    "device": "--device cpu",
    "dtype": "--dtype bfloat16",
    "attention": "--attention eager",
    "batch_size": "--batch-size 3",
    "threads": "--threads 2",
    "timing": "--no-speed",
    "samples": "--samples",
    "output": "--output somewhere",
    "resume": "--resume",
    "save_results": "--save_results",
}
CHOICE = {
    "mode": "--mode sequential",
    "plans": "--plans 1+3",
    "shapley_permutations": "--plans shapley:2",
    "sizes": "--mode combinatorial --sizes 2,3",
    "max_removed": "--mode combinatorial --max-removed 2",
    "strategies": "--strategies first",
    "ratios": "--strategies first --ratios 0.25",
    "seed": "--seed 7",
    "max_plans": "--max-plans 9",
}
TIMING = {
    "prompt_tokens": "--prompt-tokens 5",
    "batch_size": "--batch 2",
    "new_tokens": "--new-tokens 3",
    "target": "--latency-target 0.1",
    "budget_s": "--latency-budget 3",
    "threads": "--threads 2",
    "mode": "--compile",
    "per_plan": "--per-plan",
    "batches": "--batch-sweep 2,4",
}
FOR_THE_LIBRARY = {
    SweepSettings: {"command"},  # the words that were typed
    Choice: set(),
    LatencyProtocol: {"end_to_end_tokens", "min_rounds", "warmup_rounds", "seed"},
}
OF_A_SWEEP = {
    SweepSettings: (SWEEP, lambda asked: asked[0]),
    Choice: (CHOICE, lambda asked: asked[1]),
    LatencyProtocol: (TIMING, lambda asked: asked[0].timing),
}
kinds = pytest.mark.parametrize("kind", OF_A_SWEEP, ids=lambda kind: kind.__name__)


@kinds
def test_every_setting_is_reached_by_an_option_or_is_for_the_library(kind):
    options, _ = OF_A_SWEEP[kind]
    assert {field.name for field in fields(kind)} == set(options) | FOR_THE_LIBRARY[kind]


@kinds
def test_an_option_changes_the_setting_it_is_said_to_reach(asked, kind):
    options, part = OF_A_SWEEP[kind]
    before = part(asked(BASELINE))
    for name, words in options.items():
        found = part(asked(words if "--mode " in words else f"{BASELINE} {words}"))
        assert getattr(found, name, None) != getattr(before, name), words


def test_every_option_of_a_sweep_reaches_a_setting():
    reaching = {word for options, _ in OF_A_SWEEP.values() for word in options.values()}
    given = set(" ".join(reaching).split())
    unused = [
        parameter.opts[0]
        for parameter in PARSER.commands["sweep"].params
        if not {*parameter.opts, *parameter.secondary_opts} & given
    ]
    assert unused == ["--cuda-graphs"]  # another value of what --compile reaches


def test_defaults_of_the_command_line_are_those_of_the_settings(asked):
    (found, choice), default = asked(BASELINE), SweepSettings()
    differing = {
        field.name
        for field in fields(SweepSettings)
        if getattr(found, field.name) != getattr(default, field.name)
    }
    assert differing == {"hub_text", "timing", "command"}
    assert choice == Choice(mode=Mode.BASELINE)
    assert found.hub_text == HubText()
    assert found.timing == LatencyProtocol()
    assert found.command == "typed"


# Documents against the command line

PROGRAMS = {"pruning-kit": None, "python main.py": "sweep"}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z_-]*")


def code_of(page: Path) -> list[str]:
    """Lines of code of a page, and spans between backticks."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    plain = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^ {4}(\S.*)$", plain, re.MULTILINE)
    return [*"\n".join(fenced).splitlines(), *indented, *re.findall(r"`([^`\n]+)`", plain)]


def commands_of(page: Path) -> list[tuple[str, list[str]]]:
    """Verb and words of each whole command of the kit."""
    found = []
    for line in code_of(page):
        for program, default_verb in PROGRAMS.items():
            if line.startswith(f"{program} "):
                words = shlex.split(line.removeprefix(program), comments=True)
                named = words[0] in VERBS or default_verb is None
                verb, *rest = words if named else [default_verb, *words]
                found.append((verb, rest))
    return found


COMMANDS = [(page.name, verb, words) for page in PAGES for verb, words in commands_of(page)]


@pytest.mark.parametrize(
    ("verb", "words"),
    [command[1:] for command in COMMANDS],
    ids=[f"{page} {verb} {' '.join(words)}" for page, verb, words in COMMANDS],
)
def test_a_command_of_the_documents_is_one_that_the_kit_takes(verb, words):
    assert verb in VERBS
    if words and words != ["…"]:
        parsed(verb, words)


def options_known() -> set[str]:
    """Every option of the kit, and of the scripts that the documents tell to run."""
    known = {"--debug"}
    for verb in VERBS:
        for parameter in PARSER.commands[verb].params:
            known |= {*parameter.opts, *parameter.secondary_opts}
    for script in [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "training").glob("*.py")]:
        known |= set(re.findall(r'"(--[a-z-]+)"', script.read_text(encoding="utf-8")))
    return known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_an_option_of_the_documents_is_one_of_the_kits(page):
    other_programs = ("pip ", "torchrun ", "git ")
    ours = [code for code in code_of(page) if not code.startswith(other_programs)]
    named = {option for code in ours for option in OPTION.findall(code)}
    assert named <= options_known()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_file_or_target_that_the_documents_name_is_there(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"`make ([a-z0-9-]+)`", text)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [name for name in targets if f"\n{name}:" not in makefile] == []
    modules = re.findall(r"python -m ((?:benchmarks|training|tests)[\w.]*)", text)
    missing = [name for name in modules if not (ROOT / f"{name.replace('.', '/')}.py").exists()]
    assert missing == []
    paths = re.findall(r"`((?:src|tests|docs|benchmarks|training)/[\w/.-]+)`", text)
    assert [path for path in paths if "X" not in path and not (ROOT / path).exists()] == []


def test_the_changelog_begins_with_the_version_of_the_package():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    top = re.search(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert top is not None and top[1] == project["version"]
