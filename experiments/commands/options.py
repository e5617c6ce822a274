"""Reads the options of a command: tyro parses dataclasses and shows their docstrings in `--help`."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from maml_rl.config import RunConfig
from maml_rl.errors import InputError
from maml_rl.experiments.commands.messages import in_one_line, with_option
from maml_rl.experiments.runs.tracker_options import Tracking
from maml_rl.machine import THIS_MACHINE, Machine

Options = TypeVar("Options")

_EPISODES = ("episodes", "episodes_used", "later_lr_factor", "record", "render_every", "video")
_PROCESSES = ("processes", "start_method", "report_hang_after")
OF_ONE_KIND: Mapping[str, tuple[str, ...]] = {
    "reinforcement": (*_EPISODES, *_PROCESSES),
    "supervised": ("shots", "data"),
}
"""Options that only one kind of learning has, by the name of that kind."""

_RULE = "Rule of the meta-step. For the options of another rule: maml-rl train PRESET --meta.step RULE --help"


@dataclass(frozen=True)
class Trust:
    """Whose code a command may run."""

    trust_module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Allow the import of a module that a run names, which runs its code. Repeat the option for several modules.
    Modules that you have trained with or named here are remembered."""


NO_OTHERS = Trust()
GivenMachine = Annotated[Machine, tyro.conf.OmitArgPrefixes]
GivenTrust = Annotated[Trust, tyro.conf.arg(name="")]
GivenTracking = Annotated[Tracking, tyro.conf.arg(name="")]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of every command that works on a run."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Directory of the run, or hub:owner/name on the Hugging Face Hub."""
    trust: GivenTrust = NO_OTHERS
    machine: GivenMachine = THIS_MACHINE


def parse(
    kind: type[Options],
    arguments: Sequence[str],
    prog: str,
    default: Options | None = None,
    description: str | None = None,
    without: Sequence[str] = (),
    remark: str = "",
) -> Options:
    """Options of a command; `--help` prints them and ends the process.

    Args:
        kind: A dataclass of options.
        arguments: What the user typed.
        prog: The command, for the help and for messages.
        default: Values of the options that are not given; those of the dataclass if None.
        description: Description in the help; the docstring of the dataclass if None.
        without: Names of options that the command does not have here.
        remark: Text that a message adds after options that do not exist.

    Raises:
        InputError: If they cannot be parsed, or a value is outside its range. The message is one line instead of tyro's
            box.
    """
    message = io.StringIO()
    settings: dict[str, Any] = {"prog": prog, "description": description, "registry": _registry(without)}
    if default is not None:
        settings["default"] = default
    try:
        with contextlib.redirect_stderr(message):
            options: Options = tyro.cli(kind, args=list(arguments), **settings)
            return options
    except InputError as error:
        raise InputError(with_option(str(error), "", arguments)) from None
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(f"{in_one_line(message.getvalue(), arguments, remark)} (see {prog} --help)") from None


def has_option(option: str, arguments: Sequence[str]) -> bool:
    """Whether an option is among the arguments."""
    return any(argument.partition("=")[0] == option for argument in arguments)


def value_of(option: str, arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """The last value of an option, None if it has none, and the arguments without the option and its values."""
    value, others, rest = None, [], iter(arguments)
    for argument in rest:
        name, equals, attached = argument.partition("=")
        given = (attached if equals else next(rest, None)) if name == option else None
        if given is None:
            others.append(argument)
        else:
            value = given
    return value, others


def joined(option: str, arguments: Sequence[str]) -> list[str]:
    """Arguments with an option and its value merged into one, since a value such as -0.3,0.2 begins like an option."""
    value, others = value_of(option, arguments)
    return others if value is None else [*others, f"{option}={value}"]


def check_directory(out: Path | None) -> None:
    """Checks that a directory that a user gave can hold files.

    Raises:
        InputError: If it is a file.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: give a directory")


class ChosenTasks(NamedTuple):
    """What `--tasks` asks for."""

    task_set: Literal["held-out", "paper"] = "held-out"  # if no file lists the tasks
    file: Path | None = None  # a JSON file that lists them
    number: int | None = None  # of held-out tasks; the run's own if None


def chosen_tasks(value: str | None, numbers: bool = False) -> ChosenTasks:
    """Reads a value of `--tasks`: `paper`, a file that ends in .json or, where `numbers` are allowed, a number.

    Raises:
        InputError: If it is none of these.
    """
    if value is None:
        return ChosenTasks()
    if value == "paper":
        return ChosenTasks("paper")
    if value.endswith(".json"):
        return ChosenTasks(file=Path(value))
    with contextlib.suppress(ValueError):
        if numbers:
            return ChosenTasks(number=int(value))
    expected = "a number, paper" if numbers else "paper"
    raise InputError(f"--tasks: expected {expected} or a file .json, got {value!r}")


def refuse_other_kinds(run: Path, config: RunConfig, options: Any) -> None:
    """Refuses options that the run's kind of learning does not have.

    Raises:
        InputError: If one was given; names the kind.
    """
    others = {name for kind, names in OF_ONE_KIND.items() if kind != config.kind for name in names}
    for name in _given(options):
        if name in others:
            kind = f"a run of {config.kind} learning"
            raise InputError(f"{run} is {kind}, which has no --{name.replace('_', '-')}: leave it out")


def _given(options: Any) -> Iterator[str]:
    """Names of the options that do not have their default value."""
    for field in fields(options):
        value = getattr(options, field.name)
        if is_dataclass(value):
            yield from _given(value)
        elif field.default is not MISSING and value != field.default:
            yield field.name


def _registry(without: Sequence[str]) -> ConstructorRegistry:
    """Rules that turn dataclasses of settings into options. The dataclasses do not depend on the command line."""
    registry = ConstructorRegistry()
    registry.primitive_rule(_optional)
    rules: dict[type, tuple[str, ...]] = {}  # of each dataclass that is one choice of several, the names of all

    @registry.struct_rule
    def _settings(info: StructTypeInfo) -> StructConstructorSpec | None:
        if not is_dataclass(info.type) or _SEEN in info.markers:
            return None  # to tyro's own rule, which is asked next
        spec = ConstructorRegistry.get_struct_spec(replace(info, markers=(*info.markers, _SEEN)))
        if not isinstance(spec, StructConstructorSpec):
            return None
        return replace(spec, fields=tuple(_option(info.type, f, rules) for f in spec.fields if f.name not in without))

    return registry


_SEEN = object()


def _option(owner: type, field: StructFieldSpec, rules: dict[type, tuple[str, ...]]) -> StructFieldSpec:
    """A field as an option; for a choice between dataclasses, the chosen one, named by its `rule`."""
    described = replace(field, helptext=lambda: _one_paragraph(field))
    if field.default is None:  # its help says what happens then
        return replace(described, type=_annotated(field.type, tyro.conf.arg(help_behavior_hint="(optional)")))
    if field.name == "rule":
        choice: Any = Literal[rules[owner]]
        return replace(described, type=_annotated(choice, tyro.conf.arg(name="", help=_RULE)))
    if is_dataclass(field.default):
        chosen, metadata = type(field.default), getattr(field.type, "__metadata__", ())
        stripped = get_args(field.type)[0] if metadata else field.type
        rules[chosen] = tuple(one.rule for one in get_args(stripped) if hasattr(one, "rule"))
        return replace(field, type=_annotated(chosen, *metadata))
    return described


def _annotated(hint: Any, *metadata: Any) -> Any:
    return Annotated[(hint, *metadata)] if metadata else hint


def _one_paragraph(field: StructFieldSpec) -> str | None:
    text = field.helptext() if callable(field.helptext) else field.helptext
    return None if text is None else " ".join(text.split())


def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """An option that may be None, which the help shows as its type and not as {None}|INT."""
    alternatives = get_args(info.type)
    if get_origin(info.type) not in (Union, UnionType) or len(alternatives) != 2 or alternatives[1] is not type(None):
        return None
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(alternatives[0], info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    return replace(
        spec,
        instance_from_str=lambda texts: None if texts == ["None"] else spec.instance_from_str(texts),
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else spec.str_from_instance(value),
    )
