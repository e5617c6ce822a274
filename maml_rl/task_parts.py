"""A task as JSON values for people, and its parts: what of it can be varied while the rest stays."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

Path = tuple[Any, ...]
"""Where a part is: the keys and indices that lead to it."""

_ELEMENTS = 8  # of an array; a larger one is a part as a whole
_WHOLE = (spaces.Graph, spaces.Sequence, spaces.OneOf)  # whose entries depend on each other


def plain(task: Any) -> Any:
    """A task as JSON values for people, which do not keep its types: a tuple is a list, any scalar a number or text."""
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
    """A task in one line, as messages show it and as `maml-rl adapt --task` reads it."""
    return json.dumps(plain(task))


def parts(
    space: spaces.Space[Any] | None, task: Any, name: str = "task", path: Path = ()
) -> Iterator[tuple[str, Path]]:
    """Name and path of each part: values of dicts, entries of tuples and lists, elements of small arrays.

    Args:
        space: The space of the task; None, or one that is no kind of Gymnasium's, if the task alone says what it is.
        task: A task.
        name: What to call it.
        path: Where it is.
    """
    if isinstance(task, Mapping):
        for key, value in task.items():
            inner = space.spaces.get(key) if isinstance(space, spaces.Dict) else None
            yield from parts(inner, value, f"{name}[{key!r}]", (*path, key))
    elif isinstance(task, (list, tuple)) and not isinstance(space, _WHOLE):
        for index, value in enumerate(task):
            inner = space[index] if isinstance(space, spaces.Tuple) else None
            yield from parts(inner, value, f"{name}[{index}]", (*path, index))
    elif isinstance(task, np.ndarray) and 1 < task.size <= _ELEMENTS and not isinstance(space, _WHOLE):
        for place in np.ndindex(task.shape):
            yield f"{name}[{', '.join(map(str, place))}]", (*path, place)
    else:
        yield name, path


def part(task: Any, path: Path) -> Any:
    """The part of a task at a path.

    Raises:
        LookupError: If it has none there.
    """
    for key in path:
        task = task[key]
    return task


def with_part(task: Any, path: Path, value: Any) -> Any:
    """A copy of a task with another value at a path."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(task, np.ndarray):
        array = task.copy()
        array[key] = value
        return array
    changed = with_part(task[key], rest, value)
    if isinstance(task, Mapping):
        return {**task, key: changed}
    return type(task)([*task[:key], changed, *task[key + 1 :]])


def varied(space: spaces.Space[Any], task: Any, other: Any, paths: Iterable[Path]) -> Any | None:
    """A task with these parts of another one; None if it has no such parts, or they make no task together."""
    try:
        for path in paths:
            task = with_part(task, path, part(other, path))
    except (LookupError, TypeError):  # tasks of other keys, lengths or kinds
        return None
    return task if space.contains(task) else None
