"""Tasks as users give them: typed in a command or in the live view, drawn, or listed in a file."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from maml_rl.envs.drawn_tasks import DrawnTasks
from maml_rl.errors import InputError, one_line, reason
from maml_rl.json_values import json_text, parse_json, read_json
from maml_rl.seeding import Draw, Phase, Purpose
from maml_rl.task_parts import plain, plain_text, without_bounds
from maml_rl.tasks import Task, TaskVectorEnv, admit_beyond, assign_tasks, sample_tasks, task_space


def chosen_task(space: spaces.Space[Any], task: Task | str | None, seed: int) -> Task:
    """A task as a user gives it: an element of the space, its text as `read_task` takes it, or None to draw one.

    Raises:
        InputError: If it cannot be read, or is not in the space.
    """
    if task is None:
        return sample_tasks(space, 1, Draw(seed, Phase.EVALUATION).integers(Purpose.TASKS, 1)[0])[0]
    if isinstance(task, str):
        return read_task(space, task)
    if not space.contains(task):
        raise InputError(f"task {one_line(task)} is not in the task space, {one_line(space)}")
    return task


def read_task(space: spaces.Space[Any], text: str) -> Task:
    """A task that a user typed: `1.5`, `0.3,-0.2`, `1`, or any JSON value, such as `{"mass": 2.0}` for a Dict.

    Args:
        space: p(T).
        text: Its JSON form; the brackets around numbers may be left out.

    Raises:
        InputError: If it cannot be read, or is not in the space.
    """
    example = json_text(plain(sample_tasks(space, 1, 0)[0]))
    values: list[Any] = []
    for form in (text, f"[{text}]"):
        with suppress(ValueError):
            values.append(parse_json(form))
    if isinstance(space, spaces.Text) and not (values and isinstance(values[0], str)):
        values = [text]  # the quotes of JSON may be left out too
    if not values:
        raise InputError(f"task {one_line(text)[:200]} cannot be read: give it as JSON, for example {example}")
    tasks = _elements(space, values[0])
    if not tasks:
        found = f"task {text} is not in the task space, {one_line(space)}{_wrong_part(space, values[0])}"
        raise InputError(f"{found}: give one such as {example}")
    return tasks[0]


def read_tasks(space: spaces.Space[Any], values: Sequence[Any], name: str) -> list[Task]:
    """Tasks to evaluate on from their JSON values. Their real numbers may be outside the bounds of p(T).

    Args:
        space: p(T).
        values: The JSON values, as `plain` makes them from tasks.
        name: Where they come from, for the message.

    Raises:
        InputError: If one does not have the form of a task.
    """
    wide, tasks = without_bounds(space), []
    for number, value in enumerate(values, start=1):
        found = _elements(wide, value)
        if not found:
            example = json_text(plain(sample_tasks(space, 1, 0)[0]))
            raise InputError(
                f"{name}: task {number}, {json_text(value)[:200]}, does not have the form of the task space, "
                f"{one_line(space)}{_wrong_part(wide, value)}: give one such as {example}"
            )
        tasks += found
    return tasks


def usable_tasks(envs: TaskVectorEnv, values: Sequence[Any], path: Path, env_id: str) -> list[Task]:
    """Tasks of a file, with each of which the environment has taken a step; says how many are outside p(T).

    Args:
        envs: A single sub-environment, which then admits tasks outside p(T).
        values: What `task_list` has read.
        path: The file, for the messages.
        env_id: The environment, for the messages.

    Raises:
        InputError: If one does not have the form of a task, or the environment fails with it.
    """
    space = task_space(envs)
    tasks = read_tasks(space, values, str(path))
    admit_beyond(envs)
    for number, task in enumerate(tasks, start=1):
        try:
            assign_tasks(envs, [task])
            envs.reset(seed=0)
            envs.step(envs.action_space.sample())
        except Exception as error:  # the author's code may raise anything
            raise InputError(
                f"{path}: {env_id} cannot take a step with task {number}, {plain_text(task)} ({reason(error)})"
            ) from error
    if outside := sum(not space.contains(task) for task in tasks):
        print(f"{outside} of {len(tasks)} tasks are outside the task space of the training", file=sys.stderr)
    return tasks


def task_list(path: Path) -> list[Any]:
    """The JSON values of a file with a list of tasks.

    Raises:
        InputError: If there is no such file, or it does not hold a list of two or more.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}: give a JSON file with a list of tasks")
    values = read_json(path, "give a JSON file with a list of tasks")
    if not isinstance(values, list) or len(values) < 2:
        found = f"a list of {len(values)}" if isinstance(values, list) else json_text(values)[:60]
        raise InputError(f"{path} should be a list of two or more tasks as JSON values, is {found}")
    return values


def _elements(space: spaces.Space[Any], value: Any) -> list[Any]:
    """The element of a space that a JSON value stands for; empty if it stands for none."""
    elements = []
    with suppress(AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError):
        elements.append(_element(space, value))
    return [element for element in elements if space.contains(element)]


def _wrong_part(space: spaces.Space[Any], value: Any) -> str:
    """What is wrong in the value of a Dict, for the message; empty for another space."""
    if not isinstance(space, spaces.Dict) or not isinstance(value, dict):
        return ""
    missing = ", ".join(key for key in space if key not in value)
    unknown = ", ".join(key for key in value if key not in space.spaces)
    if missing or unknown:
        return "".join(f"; {names} {what}" for names, what in ((missing, "missing"), (unknown, "unknown")) if names)
    wrong = next((key for key, part in space.items() if not _elements(part, value[key])), None)
    if wrong is None:
        return ""
    inner = _wrong_part(space[wrong], value[wrong])
    return f"; {wrong} {json_text(value[wrong])} is not in {one_line(space[wrong])}{inner}"


def _element(space: spaces.Space[Any], value: Any) -> Any:
    """The element of a space that `plain` turns into this JSON value."""
    if isinstance(space, DrawnTasks):
        return space.read(value)
    if isinstance(space, spaces.Dict):
        if value.keys() != space.keys():
            raise ValueError(f"expected the keys {list(space.keys())}, got {value}")  # none is ignored
        return {name: _element(part, value[name]) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_element(part, item) for part, item in zip(space, value, strict=True))
    if isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        numbers = np.asarray(value)
        if numbers.dtype.kind not in ("iu" if np.issubdtype(space.dtype, np.integer) else "iuf"):
            raise ValueError(f"expected numbers of type {space.dtype}, got {value}")  # no fraction is cut off
        element: Any = numbers.astype(space.dtype).reshape(space.shape)
        return element[()] if isinstance(space, spaces.Discrete) else element
    if isinstance(space, spaces.OneOf):
        index, item = value
        return np.int64(index), _element(space.spaces[index], item)
    if isinstance(space, spaces.Graph):
        nodes, edges, links = value
        value = {"nodes": [nodes]} | ({"edges": [edges], "edge_links": links} if edges is not None else {})
    elif isinstance(space, spaces.Sequence) and not space.stack:
        return tuple(_element(space.feature_space, item) for item in value)
    return space.from_jsonable([value])[0]
