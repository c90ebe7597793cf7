"""Options: those of the settings, as these describe themselves, and the few others."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

from pruning_kit import bounds
from pruning_kit.bounds import MOST_PLANS, Range, Setting, settings_of
from pruning_kit.cli import request
from pruning_kit.errors import PlanError, PruningKitError, RunError, TimingError
from pruning_kit.inputs.hub_text import WHERE, HubText
from pruning_kit.pruning.distillation.settings import TRAINING, DistillationSettings
from pruning_kit.search.named import forms
from pruning_kit.search.sized import MOST_MINUTES
from pruning_kit.speed.protocol import SPEED, LatencyProtocol
from pruning_kit.sweeps.settings import HOW, RESULT, WHAT, SweepSettings, WorkbenchSettings

GROUPS = ("", TRAINING, WHAT, WHERE, HOW, SPEED, RESULT)
"""In their order."""
SPELLINGS = {
    "bridges": ("--bridges/--no-bridges",),
    "bos": ("--bos/--no-bos",),
    "save_results": ("--save_results", "--save-results"),
}
"""Of options that are not spelled like their settings."""

TARGETS = ("size", "ratio", "max_params", "max_latency", "max_ppl_increase")
"""How far a model is shrunk."""
SAID = re.compile(r"`([a-z_]+(=None)?)`")
Kind = TypeVar("Kind")


def option(said: Setting, *spelled: str, several: bool = False) -> Any:
    """An option of the command line, whose number is checked where it is read.

    Args:
        said: what is said of it.
        spelled: how it is written; by default as the parameter is called.
        several: whether it is numbers with commas between them.
    """

    def read(param: typer.CallbackParam, value: Any) -> Any:
        if several:
            value = _read_numbers(value, param.opts[0], said.error)
        if said.allowed:
            said.allowed.check(param.opts[0], value, said.error)
        return value

    return typer.Option(*spelled, help=said.help, rich_help_panel=said.group, callback=read)


def _read_numbers(text: str | None, option: str, error: type[PruningKitError]) -> tuple[int, ...]:
    """The whole numbers of an option; none where it was not given.

    Raises:
        PruningKitError: of the kind `error`, if one is no number.
    """
    try:
        return tuple(map(int, text.split(","))) if text is not None else ()
    except ValueError:
        raise error(
            f"cannot read {option} {text!r:.60}: write whole numbers, such as 2,4,8."
        ) from None


def option_of(kind: type, name: str) -> Any:
    """The option of a field of settings."""
    said, hint = settings_of(kind)[name], get_type_hints(kind)[name]
    called = said.name or name
    flag = (f"--{called.replace('_', '-')}",) * (hint is bool)
    return option(said, *SPELLINGS.get(name, flag), several=_several(hint) is int)


def _several(hint: Any) -> type | None:
    """What a field holds several of: numbers in one option, or texts, each behind its own."""
    return get_args(hint)[0] if get_origin(hint) is tuple else None


def with_settings(*kinds: type) -> Callable[[Kind], Kind]:
    """Give a command the options of all settings that have a group, for its `**typed`."""

    def give(command: Any) -> Any:
        own = inspect.signature(command, eval_str=True)
        found = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
        found += [parameter for kind in kinds for parameter in _parameters(kind)]
        found = [p.replace(kind=p.KEYWORD_ONLY) for p in found]
        command.__signature__ = own.replace(parameters=sorted(found, key=_group))
        return command

    return give


def _parameters(kind: type) -> Iterator[inspect.Parameter]:
    """A parameter for each field of settings that has a group."""
    hints, default = get_type_hints(kind), kind()
    for name, said in settings_of(kind).items():
        if said.group:
            several = _several(hints[name])
            hint: Any = hints[name] if several is None else str | None
            hint = list[str] | None if several is str else hint
            yield inspect.Parameter(
                said.name or name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None if several else getattr(default, name),
                annotation=Annotated[hint, option_of(kind, name)],
            )


def _group(parameter: inspect.Parameter) -> int:
    (said,) = getattr(parameter.annotation, "__metadata__", (None,))
    return GROUPS.index((said and said.rich_help_panel) or "")


def settings_from(kind: type[Kind], typed: Mapping[str, Any], **others: Any) -> Kind:
    """Settings from the options of the same names, and others."""
    hints = get_type_hints(kind)
    for name, said in settings_of(kind).items():
        if (called := said.name or name) in typed:
            value = typed[called]
            others[name] = tuple(value or ()) if _several(hints[name]) else value
    return kind(**others)


def sweep_settings(typed: Mapping[str, Any], **others: Any) -> SweepSettings:
    """What a run is asked for by the options that were typed, and others."""
    return settings_from(
        SweepSettings,
        typed,
        hub_text=settings_from(HubText, typed),
        distillation=settings_from(DistillationSettings, typed),
        **others,
    )


def spell_settings(sentence: str) -> str:
    """A sentence of the library, in which settings stand as `select_on`, for who types options."""
    return SAID.sub(lambda match: OPTIONS.get(match[1], match[0]), sentence)


def _first_spelling(name: str, said: Setting) -> str:
    spelled = SPELLINGS.get(name, (f"--{(said.name or name).replace('_', '-')}",))
    return spelled[0].partition("/")[0]


def _own(help: str, group: str, *spelled: str) -> Any:
    return option(Setting(help, group), *spelled)


OPTIONS = {
    "timing=None": "--no-speed",
    **{name: f"--{name.replace('_', '-')}" for name in TARGETS},
    "minutes": "--minutes",
    "keep_text": "--keep-text",
    "bridges=None": "--bridge left out",
    "gguf": "--gguf",
    "save_dtype": "--save-dtype",
} | {
    name: _first_spelling(name, said)
    for kind in (SweepSettings, HubText, LatencyProtocol, DistillationSettings)
    for name, said in settings_of(kind).items()
    if said.group
}
"""Of each setting that an error may name."""

Model = Annotated[str | None, option_of(WorkbenchSettings, "model")]
CalibrateOn = Annotated[str | None, option_of(WorkbenchSettings, "calibrate_on")]
Device = Annotated[str, option_of(WorkbenchSettings, "device")]
OutFolder = Annotated[Path, _own("The model folder to write; it must not exist yet.", "", "--out")]
RunsFolder = Annotated[
    Path | None,
    _own(
        "The folder of what is measured. Default: DIR-run, beside the model folder.", "", "--output"
    ),
]
Resume = Annotated[bool, _own("Go on with a stopped command.", "", "--resume")]
_SAVED_FORMAT = "Number format of the saved weights; by default that of the base model's."
SavedFormat = Annotated[str | None, _own(_SAVED_FORMAT, "", "--save-dtype", "--dtype")]
SaveDtype = Annotated[str | None, _own(_SAVED_FORMAT, "", "--save-dtype")]
"""The same where `--dtype` is the format to compute in."""
Gguf = Annotated[
    str | None,
    _own("Also write a GGUF for llama.cpp beside the folder: f32, f16 or q8_0.", "", "--gguf"),
]
PushToHub = Annotated[
    str | None,
    _own(
        "Also make a repository of this name on the Hugging Face Hub of the folder; private.",
        "",
        "--push-to-hub",
    ),
]
Public = Annotated[bool, _own("Let everybody read what --push-to-hub makes.", "", "--public")]
Mode = Annotated[
    request.Mode | None,
    _own(
        "baseline: the whole model; sequential: each block alone; combinatorial: every set of two "
        "or more.",
        WHAT,
    ),
]
Try = Annotated[
    list[str] | None,
    _own("What else to measure, see below; may be repeated.", WHAT, "--try"),
]
MaxRemoved = Annotated[
    int | None,
    option(
        Setting(
            "Largest number of removed blocks, for --mode combinatorial.",
            WHAT,
            PlanError,
            Range(1, 10_000),
        )
    ),
]
SearchMinutes = Annotated[
    int | None,
    option(
        Setting(
            "Minutes for each search of --try, turned once into a number of evaluations.",
            WHAT,
            PlanError,
            Range(1, MOST_MINUTES),
        )
    ),
]
MaxParams = Annotated[
    float | None,
    _own(
        "Millions of parameters that may stay, such as 60: how many blocks go in a search of --try "
        "that names no number.",
        WHAT,
    ),
]
MaxLatency = Annotated[
    float | None,
    _own("The same by milliseconds end to end, such as 300, by a timing before the search.", WHAT),
]
MaxPlans = Annotated[
    int, option(Setting("Refuse more plans than this.", WHAT, PlanError, Range(1, MOST_PLANS)))
]
Top = Annotated[
    int | None,
    option(
        Setting(
            "Distil the best so many plans of each size too, by bridged cost.",
            WHAT,
            PlanError,
            Range(1, 1000),
        )
    ),
]
Tokens = Annotated[
    str | None, _own("Tokens that each of them learns from, such as 2M. Default: 500k.", WHAT)
]
Speed = Annotated[
    bool, _own("Time the models; the other options here say how.", SPEED, "--speed/--no-speed")
]
Compiled = Annotated[bool, _own("Time with torch.compile.", SPEED, "--compile")]
CudaGraphs = Annotated[bool, _own("Time with CUDA graphs.", SPEED, "--cuda-graphs")]


def ways_to_choose() -> str:
    """What `--try` reads, for the end of a command's help."""
    ways = [f"  [bold]{form}[/]\n      {help}" for form, help in forms().items()]
    return "\n".join(["[bold]Ways to choose[/], for --try:", *ways])


def refuse_untimed(ctx: typer.Context) -> None:
    """Refuse to be asked for timings and for none.

    Raises:
        TimingError: naming the option.
    """
    for param in ctx.command.params:
        about_speed = getattr(param, "rich_help_panel", None) == SPEED and param.name != "speed"
        if about_speed and _is_typed(ctx, param.name or ""):
            raise TimingError(
                f"cannot use {param.opts[0]} together with --no-speed: one asks for timings, the "
                "other for none. Leave one out."
            )


def refuse_unbridged(ctx: typer.Context) -> None:
    """Refuse to be told how to fit bridges and asked for none.

    Raises:
        PlanError: naming the option.
    """
    for name in ("calibrate_on", "device"):
        if _is_typed(ctx, name):
            raise PlanError(
                f"cannot use --{name.replace('_', '-')} without --bridge or --refit: it says how "
                "bridges are fitted. Give both, or neither."
            )


def _is_typed(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def execution(compiled: bool, cuda_graphs: bool) -> str:
    """The execution that --compile and --cuda-graphs ask for.

    Raises:
        TimingError: if they are given together.
    """
    if compiled and cuda_graphs:
        raise TimingError(
            "cannot time with --compile and --cuda-graphs at once: CUDA graphs replay the compiled "
            "step already. Give one of them."
        )
    return "cuda-graph" if cuda_graphs else "compile" if compiled else "eager"


def parameter_limit(millions: float | None) -> int | None:
    """The number of parameters that `--max-params` means.

    Raises:
        RunError: if the number given can only be a count.
    """
    if millions is None:
        return None
    if not abs(millions) < bounds.BUDGETS["--max-params"].most:
        raise RunError(
            f"cannot choose under --max-params {millions:.15g}: the unit is millions of "
            f"parameters. Write --max-params {_in_millions(millions)}."
        )
    return round(millions * 1e6)


def _in_millions(count: float) -> str:
    """An example for who wrote a count: `7 for 7,000,000 of them`."""
    count = abs(count) if math.isfinite(count) else 60e6
    return f"{count / 1e6:g} for {count:,.0f} of them"
