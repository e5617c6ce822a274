"""Tasks as people see them: each in a few words, and what they consist of as the axes of charts.

A `TaskMDP` may name its own tasks (`task_name`, `task_quantity`), and these names take precedence. For any other
environment, a task is shown with its keys and values, whatever its space is made of.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from maml_rl.envs.batched import BatchedTaskEnv, TaskEnv, TaskMDP
from maml_rl.errors import one_line
from maml_rl.tasks import Task, TaskVectorEnv, make

_MOST_ITEMS = 4  # of a list
_MOST_KEYS = 8  # of a dict
_LONGEST = 40  # characters of a text
_MOST_CATEGORIES = 12  # on one axis
_MOST_COMPONENTS = 12  # with more, one that explains much would be found by chance
_MOST_CHARTS = 6
_TASKS_PER_COMPONENT = 5  # from which on the share that a component explains is shown
_JITTER = 0.12  # of the distance between two values


def task_quantity(env: gymnasium.Env[Any, Any] | TaskVectorEnv) -> str:
    """What the numbers of an environment's tasks are, with their unit."""
    mdp = _mdp(env)
    return mdp.task_quantity if mdp else "task"


def task_names(env: gymnasium.Env[Any, Any] | TaskVectorEnv, tasks: Sequence[Task]) -> list[str]:
    """Each task in a few words; where two would have the same, with its place in front."""
    mdp = _mdp(env)
    names = [(mdp and mdp.task_name(task)) or task_text(task) for task in tasks]
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{i}: {name}" for i, name in enumerate(names, start=1)]


def quantity_of(env_id: str) -> str:
    """What the numbers of the tasks of a registered environment are, with their unit."""
    with closing(make(env_id)) as env:
        return task_quantity(env)


def _mdp(env: gymnasium.Env[Any, Any] | TaskVectorEnv) -> TaskMDP | None:
    base = env.unwrapped
    return base.mdp if isinstance(base, (TaskEnv, BatchedTaskEnv)) else None


def task_text(task: Task, quantity: str = "task") -> str:
    """A task, or its JSON value, in a few words: `payload 2.35, motors (1, 0.8), broken false`, or `task 0.3, -0.2`.

    Args:
        task: The task.
        quantity: What its numbers are; where it names the task's number, the name is taken.
    """
    name, named = _legend(quantity)
    if isinstance(task, (int, np.integer)) and int(task) in named:
        return f"{name} {named[int(task)]}"
    text = _text(task)
    if text.startswith("(") and not isinstance(task, str):
        text = text[1:-1]
    return text if isinstance(task, dict) and task else f"task {text}"


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (dict, list, tuple)) and not value:
        return "none"
    if isinstance(value, dict):
        return f"({_joined([f'{_short(key)} {_text(one)}' for key, one in value.items()], _MOST_KEYS)})"
    if isinstance(value, (list, tuple)):
        return _text(value[0]) if len(value) == 1 else f"({_joined([_text(one) for one in value], _MOST_ITEMS)})"
    if value is None or isinstance(value, (bool, np.bool_)):
        return "none" if value is None else str(bool(value)).lower()
    if isinstance(value, (int, np.integer)):
        return str(value)
    if isinstance(value, (float, np.floating)):
        number = float(value)
        return f"{number:.0f}" if 1000 <= abs(number) < 1e6 else f"{number:.3g}"
    return _short(value)


def _joined(parts: Sequence[str], most: int) -> str:
    if len(parts) <= most:
        return ", ".join(parts)
    return f"{', '.join(parts[: most - 1])}, … {len(parts)} in all"


def _short(value: Any) -> str:
    text = " ".join(value.split()) if isinstance(value, str) else one_line(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def are_places(tasks: Sequence[Any], quantity: str) -> bool:
    """Whether tasks, as JSON values, are places in the plane: two numbers that are a goal."""
    return quantity.startswith("goal") and all(
        isinstance(task, list) and len(task) == 2 and all(map(_is_number, task)) for task in tasks
    )


class Component(NamedTuple):
    """One number or category of each of M tasks, as the axis of a chart."""

    name: str
    places: NDArray[np.float64]  # [M]   on the axis; next to each other where values are few
    ticks: list[float] | None = None  # of the axis, where values are few
    tick_names: list[str] | None = None
    explained: float | None = None  # share of the variance of the return between tasks, of several and enough tasks
    is_category: bool = False  # whether its values have no order
    is_rank: bool = False  # whether it is the place of each task among them, from the lowest return to the highest

    @property
    def label(self) -> str:
        """What the axis says."""
        return f"rank of the {self.name}" if self.is_rank else self.name

    @property
    def explanation(self) -> str:
        """The share that it explains, in words; nothing if it is the only one."""
        return "" if self.explained is None else f"explains {100 * self.explained:.0f} % of the variance"


def components(tasks: Sequence[Any], returns: Sequence[float], quantity: str) -> list[Component]:
    """The axes against which the return of tasks is drawn; those that explain most of it come first.

    Components that do not vary are left out, and so are texts of too many kinds. If there are none, or more than could
    be compared without finding one by chance, tasks are drawn in the order of their returns.

    Args:
        tasks: M tasks as JSON values.
        returns: Mean return of each, by which components are ordered.
        quantity: What the numbers of a task are.

    Returns:
        From one to six.
    """
    quantity, values_named = _legend(quantity)
    names = dict(enumerate("xy")) if are_places(tasks, quantity) else {}
    found = [
        (f"{quantity} {names[i]}" if names else path or quantity, values)
        for i, (path, values) in enumerate(_leaves(tasks, "", quantity))
    ]
    varying = [(name, values) for name, values in found if len({_text(value) for value in values}) > 1]
    axes = [(_component(name, values, values_named), values) for name, values in varying or found[:1]]
    drawn = [(axis, values) for axis, values in axes if axis is not None]
    if len(drawn) == 1:
        return [drawn[0][0]]
    if not 0 < len(drawn) <= _MOST_COMPONENTS:
        return [Component("task", _ranks(np.asarray(returns)), is_rank=True)]
    shares = [axis._replace(explained=_explained(values, np.asarray(returns))) for axis, values in drawn]
    ordered = sorted(shares, key=lambda axis: -(axis.explained or 0.0))[:_MOST_CHARTS]
    if len(tasks) < _TASKS_PER_COMPONENT * len(drawn):  # the largest of several shares of few tasks is mostly chance
        return [axis._replace(explained=None) for axis in ordered]
    return ordered


def _leaves(values: Sequence[Any], path: str, quantity: str) -> Iterator[tuple[str, list[Any]]]:
    """The components of tasks of one form, by their path within the tasks."""
    first = values[0]
    if isinstance(first, dict) and all(isinstance(value, dict) and value.keys() == first.keys() for value in values):
        for key in first:
            yield from _leaves([value[key] for value in values], f"{path}.{key}" if path else str(key), quantity)
    elif isinstance(first, list) and all(isinstance(value, list) and len(value) == len(first) for value in values):
        for i in range(len(first)):
            inner = path if len(first) == 1 else f"{path or quantity}[{i}]"
            yield from _leaves([value[i] for value in values], inner, quantity)
    else:
        yield path, list(values)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300  # neither inf nor nan


def _legend(quantity: str) -> tuple[str, dict[int, str]]:
    """A quantity such as `direction (0 backward, 1 forward)` without the names of its values, and these."""
    found = re.fullmatch(r"(.*) \((\d+ [\w ]+(?:, \d+ [\w ]+)*)\)", quantity)
    if found is None:
        return quantity, {}
    pairs = (part.split(" ", 1) for part in found[2].split(", "))
    return found[1], {int(value): name for value, name in pairs}


def _component(name: str, values: Sequence[Any], named: Mapping[int, str]) -> Component | None:
    """The axis of one number or category; None for more categories than an axis has room for.

    Args:
        name: What the axis says.
        values: Those of the tasks.
        named: Names of whole numbers; none where they are numbers.
    """
    if not all(map(_is_number, values)):
        kinds = sorted({_text(value) for value in values})
        if len(kinds) > _MOST_CATEGORIES:
            return None
        places = np.array([float(kinds.index(_text(value))) for value in values])
        return Component(name, _apart(places, 1.0), [float(i) for i in range(len(kinds))], kinds, is_category=True)
    places = np.array(values, np.float64)
    different = np.unique(places)
    gap = float(np.diff(different).min()) if len(different) > 1 else 1.0
    is_finite_set = np.array_equal(places, places.round()) or 2 * len(different) <= len(places)
    if len(different) > _MOST_CATEGORIES or np.ptp(places) > 2 * _MOST_CATEGORIES * gap or not is_finite_set:
        return Component(name, places)
    ticks = different.tolist()
    return Component(name, _apart(places, gap), ticks, [named.get(value) or _text(value) for value in ticks])


def _apart(places: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Equal places moved a little apart: points next to each other, not on top of each other."""
    moved: NDArray[np.float64] = places + gap * np.linspace(-_JITTER, _JITTER, len(places))
    return moved


def _ranks(returns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Place of each task from the lowest return to the highest: 1, 2, ..., `[M]`."""
    places = np.empty(len(returns))
    places[np.argsort(returns)] = np.arange(1, len(returns) + 1)
    return places


def _explained(values: Sequence[Any], returns: NDArray[np.float64]) -> float:
    """Share of the variance of returns that a component explains, at least 0.

    It is the adjusted R² of a parabola in a number, or of a mean for each category.
    """
    if all(map(_is_number, values)):
        numbers = np.array(values, np.float64)
        scaled = (numbers - numbers.mean()) / (numbers.std() or 1.0)
        predictors = np.stack([np.ones_like(scaled), scaled, scaled**2], axis=1)
    else:
        texts = [_text(value) for value in values]
        predictors = np.array([[float(text == kind) for kind in sorted(set(texts))] for text in texts])
    rank, spread = int(np.linalg.matrix_rank(predictors)), float(np.square(returns - returns.mean()).sum())
    if len(values) <= rank or not np.isfinite(spread) or spread == 0.0:
        return 0.0
    left = returns - predictors @ np.linalg.lstsq(predictors, returns)[0]
    return max(0.0, 1.0 - float(np.square(left).sum()) / spread * (len(values) - 1) / (len(values) - rank))
