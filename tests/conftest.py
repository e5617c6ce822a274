"""Fixtures for the whole suite, and a check for readers of JSON files."""

import gc
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import maml_rl.envs  # noqa: F401, before any test imports MuJoCo: it chooses the OpenGL that MuJoCo then loads
from maml_rl.errors import InputError

torch.set_num_threads(1)  # the package's own threads share the work; more would only compete

# The many imported modules never become garbage, and searching them often would take a twentieth of the time.
gc.set_threshold(700, 10, 200)

# A suite started in the background ignores Ctrl-C, and so would the commands that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory):
    """Keeps the state that commands store out of the home directory of whoever runs the tests."""
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    yield
    os.environ.pop("XDG_STATE_HOME")
    if before is not None:
        os.environ["XDG_STATE_HOME"] = before


_DEEP, _LONG = "[" * 100_000, "9" * 5_000
HOSTILE = {
    "nested": _DEEP.encode(),
    "nested and closed": (_DEEP + "]" * 100_000).encode(),
    "nested objects": ('{"a":' * 100_000).encode(),
    "nested somewhat": ("[" * 500 + "]" * 500).encode(),
    "an integer of many digits": _LONG.encode(),
    "a float of many digits": f"{_LONG}.0".encode(),
    "a large float": b"1e999",
    "NaN": b"NaN",
    "Infinity": b"[-Infinity]",
    "null": b"null",
    "true": b"true",
    "a number": b"1",
    "text": b'"text"',
    "half a character": b'{"env_id": "\\ud800"}',
    "an array": b"[]",
    "an array of null": b"[null]",
    "an object": b"{}",
    "an object of null": b'{"env_id": null, "tasks": null, "methods": null}',
    "not UTF-8": b'{"env_id": "\xff\xfe"}',
    "UTF-16": '{"env_id": "a"}'.encode("utf-16"),
    "NUL": b'{"env_id": "\x00"}',
    "nothing": b"",
    "half": b'{"env_id": "a", ',
}
_OTHERS = (None, True, -1, 10**30, -1e300, "", [], [[None]], {"a": 1})


@pytest.fixture(scope="session")
def hostile_content() -> dict[str, bytes]:
    """Contents of files that no reader of JSON expects, by name."""
    return HOSTILE


@pytest.fixture(scope="session")
def check_reader() -> Callable[..., None]:
    """Checks that a reader accepts a valid file and refuses any other with a one-line error."""
    return _check_reader


def _check_reader(
    path: Path, example: Any, read: Callable[[Path], object], readable: Sequence[bytes] = (), *, whole: bool = True
) -> None:
    """Checks a reader on hostile files, and on every change of a value in a file.

    Args:
        path: The file.
        example: What it may hold, as JSON values.
        read: Reads it, and uses what was read.
        readable: Hostile contents that the reader accepts.
        whole: Whether hostile contents also replace the whole file.
    """
    path.write_text(json.dumps(example))
    read(path)
    for name, content in HOSTILE.items() if whole else ():
        if content not in readable:
            path.write_bytes(content)
            assert _is_refused(read, path), name
    for place in _places(example):
        changes = [_with_value(example, place, value) for value in _OTHERS]
        for changed in [*changes, _without(example, place)] if place else changes:
            path.write_text(json.dumps(changed))
            _is_refused(read, path)


def _is_refused(read: Callable[[Path], object], path: Path) -> bool:
    """Whether a file is refused. The refusal must be a one-line error that names the file."""
    try:
        read(path)
    except InputError as refusal:
        message = str(refusal)
        assert "\n" not in message
        assert len(message) < 2_000
        assert path.stem in message
        return True
    return False


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value; only the first and the last item of a list."""
    yield place
    inner = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, part in inner if isinstance(value, dict) else [*inner[:1], *inner[1:][-1:]]:
        yield from _places(part, (*place, key))


def _with_value(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """A JSON value with another one at a place."""
    if not place:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[place[0]] = _with_value(value[place[0]], place[1:], new)
    return changed


def _without(value: Any, place: tuple[Any, ...]) -> Any:
    """A JSON value without the entry at a place."""
    changed = dict(value) if isinstance(value, dict) else list(value)
    if len(place) == 1:
        del changed[place[0]]
    else:
        changed[place[0]] = _without(value[place[0]], place[1:])
    return changed
