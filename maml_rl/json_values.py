"""Reads text and JSON from files that may be damaged or hostile, or rejects them with one line that names the file.

Every JSON file and JSON text of this package is read here. The content is plain: text is Unicode, numbers are finite,
and nothing is nested deeper or has more digits than the records of this package. The fields of a record and their types
are checked by `maml_rl.json_types`.
"""

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn

from maml_rl.errors import InputError

RESTORE = "restore it from a copy"
_NUMBERS = re.compile(r"(?<=\[)\n[^][{}\"]+\n *(?=\])")  # between the brackets of a list without text
_DEEPEST = 32  # levels of objects and arrays; the records of this package have fewer than 10
_MOST_DIGITS = 100  # of an integer, which then is a finite float too


def read_text(path: Path, remedy: str = RESTORE) -> str:
    """The text of a file.

    Args:
        path: The file.
        remedy: What to do if it is damaged, for the message.

    Raises:
        InputError: If it is not UTF-8.
        OSError: If it cannot be read.
    """
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is damaged (it should be UTF-8 text: {error}): {remedy}") from error


def read_json(path: Path, remedy: str = RESTORE) -> Any:
    """The JSON value in a file.

    Args:
        path: The file.
        remedy: What to do if it is damaged, for the message.

    Raises:
        InputError: If it holds no JSON, see `parse_json`.
        OSError: If it cannot be read.
    """
    text = read_text(path, remedy)
    try:
        return parse_json(text)
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): {remedy}") from error


def parse_json(text: str) -> Any:
    """A JSON value of text and finite numbers.

    Raises:
        ValueError: If it is none, in one line.
    """
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_constant)
    except RecursionError:
        raise ValueError(f"JSON should not be nested deeper than {_DEEPEST} levels") from None
    waiting = [(value, 1)]
    while waiting:
        part, depth = waiting.pop()
        if isinstance(part, str):
            _check_text(part)
        elif isinstance(part, (dict, list)):
            if depth > _DEEPEST:
                raise ValueError(f"JSON should not be nested deeper than {_DEEPEST} levels")
            parts = [*part, *part.values()] if isinstance(part, dict) else part
            waiting += [(inner, depth + 1) for inner in parts]
    return value


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON values as text; a number that is not finite, for which JSON has no form, is null.

    With an indent, every value is on its own line, except that a list of numbers is on one line.
    """
    text = json.dumps(_with_nulls(value), indent=indent, allow_nan=False)
    return text if indent is None else _NUMBERS.sub(lambda found: " ".join(found[0].split()), text)


def _with_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_nulls(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_nulls(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"text should be Unicode, there is half a character in {ascii(text)[:60]}") from None


def _integer(digits: str) -> int:
    if (count := len(digits.lstrip("-"))) > _MOST_DIGITS:
        raise ValueError(f"an integer should have at most {_MOST_DIGITS} digits, one has {count}")
    return int(digits)


def _float(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"numbers should be finite, one is {digits[:40]}")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"numbers should be finite, one is {name}")
