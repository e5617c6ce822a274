"""Records: JSON objects whose fields and types are declared, checked when they are read.

A declaration is a dataclass or a NamedTuple, which is created from the object, or a TypedDict, which leaves the object
unchanged.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

from maml_rl.errors import InputError, one_line
from maml_rl.json_values import RESTORE, read_json

Record = TypeVar("Record")

_PLAIN = {str: "text", int: "an integer", float: "a number", bool: "true or false", NoneType: "null"}


def read_typed(path: Path, hint: Any, remedy: str = RESTORE) -> Any:
    """What a JSON file holds, as a type hint declares it.

    Args:
        path: The file.
        hint: A kind of record, or a hint such as `list[Kind]`.
        remedy: What to do if the file is damaged, for the message.

    Raises:
        InputError: If the file is damaged, or holds something else.
        OSError: If it cannot be read.
    """
    value = read_json(path, remedy)
    try:
        return _value(hint, value, "")
    except (TypeError, InputError) as error:
        raise InputError(f"{path} is damaged ({error}): {remedy}") from error


def from_json(kind: type[Record], record: Any) -> Record:
    """A dataclass, NamedTuple or TypedDict from a JSON object, such as `dataclasses.asdict` makes.

    An integer counts as a number; a truth value counts as neither. A TypedDict may have fields that are not declared.

    Raises:
        TypeError: If a field is missing or unknown, or its value is of another type than declared; names the field.
        InputError: If a dataclass refuses a value.
    """
    made: Record = _object(kind, record, "")
    return made


class _Declared(NamedTuple):
    """Fields of a kind of record."""

    hints: Mapping[str, Any]
    required: frozenset[str]
    closed: bool  # whether there can be no others


@cache
def _declared(kind: Any) -> _Declared:
    hints = get_type_hints(kind)
    if is_typeddict(kind):
        return _Declared(hints, kind.__required_keys__, closed=False)
    if is_dataclass(kind):
        optional = {f.name for f in fields(kind) if f.default is not MISSING or f.default_factory is not MISSING}
        hints = {f.name: hints[f.name] for f in fields(kind)}
    else:
        optional = set(kind._field_defaults)
    return _Declared(hints, frozenset(hints.keys() - optional), closed=True)


def _object(kind: Any, raw: Any, place: str) -> Any:
    if not isinstance(raw, dict):
        raise _unexpected(place, "an object", raw)
    declared, prefix = _declared(kind), f"{place}." if place else ""
    for name in sorted(declared.required - raw.keys()):
        raise TypeError(f"{prefix}{name} is missing")
    for name in sorted(raw.keys() - declared.hints.keys()) if declared.closed else ():
        raise TypeError(f"{one_line(prefix + name)[:60]} is unknown")
    values = {n: _value(declared.hints[n], v, prefix + n) for n, v in raw.items() if n in declared.hints}
    return raw if is_typeddict(kind) else kind(**values)


def _value(hint: Any, raw: Any, place: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return raw
    if origin in (Union, UnionType):
        return _one_of(arguments, raw, place)
    if origin is Literal:
        if not any(type(raw) is type(choice) and raw == choice for choice in arguments):
            raise _unexpected(place, f"one of {', '.join(map(str, arguments))}", raw)
        return raw
    if origin in (list, tuple):
        return _items(origin, arguments, raw, place)
    if origin in (dict, Mapping):
        if not isinstance(raw, dict):
            raise _unexpected(place, "an object", raw)
        return {name: _value(arguments[1], value, f"{place}.{name[:40]}") for name, value in raw.items()}
    if hint in _PLAIN:
        if not (type(raw) is hint or (hint is float and type(raw) is int)):
            raise _unexpected(place, _PLAIN[hint], raw)
        return raw
    return _object(hint, raw, place)


def _one_of(hints: tuple[Any, ...], raw: Any, place: str) -> Any:
    """The value by one of several hints that accepts it; if none does, the first one's error."""
    if raw is None and NoneType in hints:
        return None
    first, *others = (hint for hint in hints if hint is not NoneType)
    for hint in others:
        try:
            return _value(hint, raw, place)
        except TypeError:
            continue
    return _value(first, raw, place)


def _items(kind: type[Any], hints: tuple[Any, ...], raw: Any, place: str) -> Any:
    if not isinstance(raw, (list, tuple)):
        raise _unexpected(place, "a list", raw)
    if kind is list or hints[1:] == (...,):
        hints = hints[:1] * len(raw)
    if len(hints) != len(raw):
        raise _unexpected(place, f"{len(hints)} values", raw)
    return kind(_value(hint, value, f"{place}[{i}]") for i, (hint, value) in enumerate(zip(hints, raw, strict=True)))


def _unexpected(place: str, expected: str, raw: Any) -> TypeError:
    found = one_line(raw)
    return TypeError(f"{place or 'it'} should be {expected}, is {found if len(found) <= 60 else found[:57] + '...'}")
