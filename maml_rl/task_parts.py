"""A task as readable JSON values, and its parts, each of which can be varied separately."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

Keys = tuple[Any, ...]
"""Where a part is: the keys and indices that lead to it."""

_ELEMENTS = 8  # of an array; a larger one is a part as a whole
_WHOLE = (spaces.Graph, spaces.Sequence, spaces.OneOf)  # whose entries depend on each other


def plain(task: Any) -> Any:
    """A task as JSON values for people, without its types: a tuple becomes a list."""
    if isinstance(task, dict):
        return {str(name): plain(value) for name, value in task.items()}
    if isinstance(task, (list, tuple)):
        return [plain(value) for value in task]
    if isinstance(task, np.ndarray):
        return plain(task.tolist())
    if isinstance(task, np.floating):
        return float(task)
    if isinstance(task, np.generic):
        return plain(task.item())
    return task if task is None or isinstance(task, (bool, int, float, str)) else str(task)


def plain_text(task: Any) -> str:
    """A task in one line, as messages show it and people type it."""
    return json.dumps(plain(task))


def parts(
    space: spaces.Space[Any] | None, task: Any, name: str = "task", keys: Keys = ()
) -> Iterator[tuple[str, Keys]]:
    """Name and keys of each part: values of dicts, entries of tuples and lists, elements of small arrays.

    Args:
        space: The space of the task; None or a custom Space if only the task itself shows its parts.
        task: A task.
        name: What to call it.
        keys: Where it is.
    """
    if isinstance(task, Mapping):
        for key, value in task.items():
            inner = space.spaces.get(key) if isinstance(space, spaces.Dict) else None
            yield from parts(inner, value, f"{name}[{key!r}]", (*keys, key))
    elif isinstance(task, (list, tuple)) and not isinstance(space, _WHOLE):
        for index, value in enumerate(task):
            inner = space[index] if isinstance(space, spaces.Tuple) else None
            yield from parts(inner, value, f"{name}[{index}]", (*keys, index))
    elif isinstance(task, np.ndarray) and 1 < task.size <= _ELEMENTS and not isinstance(space, _WHOLE):
        for place in np.ndindex(task.shape):
            yield f"{name}[{', '.join(map(str, place))}]", (*keys, place)
    else:
        yield name, keys


def without_bounds(space: spaces.Space[Any]) -> spaces.Space[Any]:
    """A space of tasks of the same form whose real numbers are unbounded: a `Box` of them loses its bounds.

    Integers, choices and custom Spaces keep their elements.
    """
    if type(space) is spaces.Box and np.issubdtype(space.dtype, np.floating):
        return spaces.Box(-np.inf, np.inf, space.shape, space.dtype)
    if type(space) is spaces.Dict:
        return spaces.Dict({key: without_bounds(inner) for key, inner in space.items()})
    if type(space) is spaces.Tuple:
        return spaces.Tuple([without_bounds(inner) for inner in space])
    return space


def part(task: Any, keys: Keys) -> Any:
    """The part of a task under these keys.

    Raises:
        LookupError: If there is none.
    """
    for key in keys:
        task = task[key]
    return task


def with_part(task: Any, keys: Keys, value: Any) -> Any:
    """A copy of a task with another value under these keys."""
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(task, np.ndarray):
        array = task.copy()
        array[key] = value
        return array
    changed = with_part(task[key], rest, value)
    if isinstance(task, Mapping):
        return {**task, key: changed}
    return type(task)([*task[:key], changed, *task[key + 1 :]])


def varied(space: spaces.Space[Any], task: Any, other: Any, places: Iterable[Keys]) -> Any | None:
    """A task with these parts of another one; None if it has no such parts, or they do not make a task together."""
    try:
        for keys in places:
            task = with_part(task, keys, part(other, keys))
    except (LookupError, TypeError):  # tasks of other keys, lengths or kinds
        return None
    return task if space.contains(task) else None
