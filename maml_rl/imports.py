"""Imports the user's own functions and classes by name."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from maml_rl.errors import InputError, one_line, reason


def import_named(setting: str, name: str, kind: Literal["function", "class"] = "function") -> Callable[..., Any]:
    """The function or class that a setting names as `module:name`.

    Args:
        setting: Name of the setting, for messages.
        name: Its value.
        kind: What it should name, for messages.

    Raises:
        InputError: If it cannot be imported or called; names the setting.
    """
    module, _, attribute = name.partition(":")
    try:
        found = import_module(module)
        function = getattr(found, attribute, None)
    except Exception as error:  # the user's module may raise anything
        raise InputError(f"{setting} {name!r} cannot be imported ({_why(module, error, kind)}") from error
    if function is None:
        source = Path(getattr(found, "__file__", None) or module).name
        raise InputError(f"{setting} {name!r}: {source} has no {kind} {attribute}: give module:{kind}")
    if not callable(function):
        raise InputError(f"{setting} {name!r} is not a {kind} but {one_line(function)}: give module:{kind}")
    result: Callable[..., Any] = function
    return result


def _why(module: str, error: Exception, kind: str) -> str:
    first = module.partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and error.name == first and not module.endswith(".py"):
        return f"no module {first}): run in the directory that holds {first}.py, or put that directory on PYTHONPATH"
    return f"{reason(error)}): give module:{kind}"
