"""The house rules that reading alone would not keep: options, documents and versions agree."""

import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import typer

from pruning_kit import bounds
from pruning_kit.bounds import settings_of
from pruning_kit.cli.app import VERBS, app
from pruning_kit.cli.options import spell_settings
from pruning_kit.errors import DeviceError, TimingError, WindowError
from pruning_kit.inputs.hub_text import HubText
from pruning_kit.search.named import SEARCHES, forms, parse
from pruning_kit.speed.protocol import LatencyProtocol
from pruning_kit.sweeps import sweep as sweep_module
from pruning_kit.sweeps.settings import SweepSettings

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PARSER = typer.main.get_command(app)


def parsed(verb: str, words: list[str]) -> typer.Context:
    """The options of a verb as the command line reads them; nothing is carried out."""
    return PARSER.commands[verb].make_context(verb, words, obj="typed")


# Options are made from settings

OFFERED = [
    (kind, name)
    for kind in (SweepSettings, HubText, LatencyProtocol)
    for name, said in settings_of(kind).items()
    if said.group
]
SAMPLES = {int: "3", float: "0.5", str: "word", Path: "somewhere", tuple: "2,4", Literal: "eager"}
SPELLED_OTHERWISE = {"bos": "--bos", "bridges": "--no-bridges", "save_results": "--save_results"}


class AskedError(Exception):
    """Carries what a sweep was asked for to the test, before it begins: its settings."""


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the command line makes of some options: the settings of the sweep."""
    monkeypatch.chdir(tmp_path)

    def start(settings, *_):
        raise AskedError(settings)

    def made(*words: str) -> SweepSettings:
        with monkeypatch.context() as patch, pytest.raises(AskedError) as error:
            patch.setattr(sweep_module, "start", start)
            with parsed("sweep", ["--mode", "baseline", *words]) as context:
                PARSER.commands["sweep"].invoke(context)
        return error.value.args[0]

    return made


def part_of(settings: SweepSettings, kind: type) -> object:
    """The part of a sweep's settings that is of a kind."""
    parts = (settings, settings.hub_text, settings.timing)
    return next(part for part in parts if isinstance(part, kind))


def words_for(kind: type, name: str) -> list[str]:
    """What to type to set a field to something else than its default."""
    hint, called = get_type_hints(kind)[name], settings_of(kind)[name].name or name
    option = SPELLED_OTHERWISE.get(name, f"--{called.replace('_', '-')}")
    origins = {get_origin(part) or part for part in (hint, *get_args(hint))}
    samples = [SAMPLES[origin] for origin in origins if origin in SAMPLES]
    return [option] if bool in origins else [option, samples[0]]


@pytest.mark.parametrize(("kind", "name"), OFFERED)
def test_an_offered_setting_is_an_option_that_reaches_it_with_its_default_and_its_help(
    asked, kind, name
):
    words, default = words_for(kind, name), getattr(kind(), name)
    assert getattr(part_of(asked(), kind), name) == default
    assert getattr(part_of(asked(*words), kind), name) not in (default, None)
    (option,) = [
        p for p in PARSER.commands["sweep"].params if words[0] in p.opts + p.secondary_opts
    ]
    assert (option.default or None) == (default or None)
    assert option.help == settings_of(kind)[name].help


def test_settings_that_are_not_offered_are_few():
    known = {(kind, name) for kind, name in OFFERED}
    of = {kind: {f.name for f in fields(kind) if (kind, f.name) not in known} for kind, _ in known}
    assert of == {
        SweepSettings: {
            *("hub_text", "timing", "command"),  # made of others; what was typed
            "distillation",  # of the command recover
        },
        HubText: set(),
        LatencyProtocol: {
            *("end_to_end_tokens", "min_rounds", "warmup_rounds", "seed"),  # for the library
            *(
                "threads",
                "execution",
            ),  # set by --threads of the sweep, by --compile and --cuda-graphs
        },
    }


def test_options_that_set_more_than_one_field_or_a_field_in_part(asked):
    assert asked("--threads", "2").timing.threads == 2
    assert asked("--compile").timing.execution == "compile"
    assert asked("--cuda-graphs").timing.execution == "cuda-graph"
    assert asked("--no-speed").timing is None
    assert asked().command == "typed"


def test_settings_that_cannot_be_are_errors_of_their_own_kinds_in_both_words():
    for kind, name, error in (
        (SweepSettings, "max_windows", WindowError),
        (SweepSettings, "threads", DeviceError),
        (SweepSettings, "batch_size", DeviceError),
        (LatencyProtocol, "new_tokens", TimingError),
        (LatencyProtocol, "batches", TimingError),
    ):
        allowed = settings_of(kind)[name].allowed
        value = (0,) if name == "batches" else 0
        with pytest.raises(error, match=f"cannot use {name} 0: it needs to be {allowed}."):
            bounds.check(kind(**{name: value}))
        option = words_for(kind, name)[0]
        with pytest.raises(error, match=f"cannot use {option} 0: it needs to be {allowed}."):
            parsed("sweep", [option, "0"])


LIBRARY = ("machine", "inputs", "plans", "walk", "search", "kernels", "pruning", "runs", "sweeps")
SOURCE = Path(sweep_module.__file__).parent.parent


def test_errors_of_the_library_name_settings_which_the_command_line_spells_as_options():
    files = [path for name in LIBRARY for path in (SOURCE / name).rglob("*.py")]
    names = set()
    for path in files:
        for text in re.findall(r'^\s*(?:[\w ]+ )?f?"([^"].*)"', path.read_text(), re.M):
            assert not re.search(r"--(?!porcelain|output is given)[a-z]", text), (path, text)
            names |= set(re.findall(r"`([a-z_]+(?:=None)?)`", text)) - {"none"}
    assert names >= {"output", "resume", "select_on", "max_windows", "column"}
    for name in names:
        assert spell_settings(f"Leave out `{name}`.").startswith("Leave out --")
    assert spell_settings("cannot read `nothing`, use `column`") == (
        "cannot read `nothing`, use --text-column"
    )


def test_every_search_is_shown_by_the_help():
    shown = " ".join(PARSER.commands["sweep"].epilog.split())
    for search in SEARCHES.values():
        assert f"[bold]{search.form}[/] {search.help}" in shown


def test_the_words_that_help_shows_are_read():
    for form in forms():
        for word in re.split(r", | or ", form):
            assert parse(word)


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
    known = {"--debug", "--help"}
    for verb in VERBS:
        for parameter in PARSER.commands[verb].params:
            known |= {*parameter.opts, *parameter.secondary_opts}
    for script in [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "training").glob("*.py")]:
        known |= set(re.findall(r'"(--[a-z-]+)"', script.read_text(encoding="utf-8")))
    return known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_an_option_of_the_documents_is_one_of_the_kits(page):
    other_programs = ("pip ", "torchrun ", "git ", "lm_eval ")
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
