"""Task distributions of other libraries' environments as Spaces: drawn tasks and numbered tasks.

`DrawnTasks` keeps each task exactly as it was drawn, in value and in type. `encode` writes a task as JSON, and `decode`
reads the same task back. `maml_rl.envs.adapters` uses both kinds.
"""

import json
from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import cached_property
from math import isfinite
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import Error
from gymnasium.spaces.utils import flatdim, flatten, flatten_space
from numpy.typing import NDArray

AnyTask = Any

_EXAMPLES = 10  # tasks of a Space that are drawn when it is built
_MORE_EXAMPLES = 100  # tasks that a typed task is compared with
_TYPE = "__type__"  # key of a JSON object that stands for a value JSON cannot express
_KNOWN = "None, Booleans, numbers, texts, lists, tuples, dicts, and NumPy's arrays and scalars in native byte order"


class DrawnTasks(spaces.Space[AnyTask]):
    """p(T) of an environment that draws its tasks: an element is a task as it was drawn, in value and in type.

    Tasks may differ in form. They may consist of None, Booleans, numbers, texts, lists, tuples, dicts, and NumPy's
    arrays and scalars, nested in any way. `gymnasium.spaces.flatten` makes an array of a task if all its parts are
    numbers and every task has numbers in the same places.

    Args:
        draw: A task as a function of a seed.
        seed: Seed of the samples.

    Attributes:
        examples: The tasks of the seeds 0, 1, ..., 9.

    Raises:
        TypeError: If a task has a part of another type.
        ValueError: If equal seeds draw different tasks.
    """

    def __init__(self, draw: Callable[[int], AnyTask], seed: int | None = None) -> None:
        super().__init__(seed=seed)
        self._draw = draw
        self.examples = [self._drawn(number) for number in range(_EXAMPLES)]
        if not same(self.examples, [self._drawn(number) for number in range(_EXAMPLES)]):
            raise ValueError(
                "equal seeds draw different tasks: the environment has to draw them from self.np_random, which its "
                "seed(seed) has to seed if there is one, or from the global generators of NumPy or Python"
            )

    def _drawn(self, seed: int) -> AnyTask:
        task = self._draw(seed)
        encode(task)
        return deepcopy(task)  # the environment may keep its own, and change it

    def sample(self, mask: Any = None, probability: Any = None) -> AnyTask:
        """A task, drawn by the environment with a seed from this space's generator.

        Raises:
            gymnasium.error.Error: If a mask is given; there is none for this space.
            TypeError: If a part of the task has an unsupported type.
        """
        if mask is not None or probability is not None:
            raise Error(f"{self}.sample takes no mask, got {mask if probability is None else probability}")
        return self._drawn(int(self.np_random.integers(2**31)))

    def contains(self, x: Any) -> bool:
        """Whether x consists of supported types. Only the environment can say more about its tasks."""
        try:
            encode(x)
        except TypeError:
            return False
        return True

    def to_jsonable(self, sample_n: Iterable[AnyTask]) -> list[Any]:
        """Tasks as JSON values that keep their types; see `encode`."""
        return [encode(task) for task in sample_n]

    def from_jsonable(self, sample_n: list[Any]) -> list[AnyTask]:
        """The tasks that `to_jsonable` turned into JSON values, with their types; see `decode`."""
        return [decode(value) for value in sample_n]

    def read(self, value: Any) -> AnyTask:
        """A task that a user wrote as plain JSON, such as `[4, 0.3]`, converted to the types of drawn tasks.

        Raises:
            ValueError: If no drawn task has this form.
        """
        fitting = []
        for example in (*self.examples, *map(self._drawn, range(_EXAMPLES, _MORE_EXAMPLES))):
            try:
                task = _like(example, value)
            except (OverflowError, TypeError, ValueError):
                continue
            if same(task, value):  # Python's own types throughout: 1 is not read as 1.0
                return task
            fitting.append(task)
        if not fitting:
            raise ValueError(f"none of {_MORE_EXAMPLES} tasks that were drawn has the form of {value!r}")
        return fitting[0]

    @cached_property
    def places(self) -> list[tuple[Any, ...]]:
        """Place of each number in a task, by key and index.

        Raises:
            ValueError: If a task has other parts than numbers, or tasks have numbers in different places.
        """
        first, *others = ({place: None for place, _ in _numbers(task)} for task in self.examples)
        for task, found in zip(self.examples[1:], others, strict=True):
            if found.keys() != first.keys():
                raise ValueError(self._misplaced(task))
        return list(first)

    def _misplaced(self, task: AnyTask) -> str:
        return f"tasks have numbers in different places, as {shown(self.examples[0])} and {shown(task)} have"

    @property
    def is_np_flattenable(self) -> bool:
        """Whether the tasks flatten to arrays of one size."""
        try:
            return bool(self.places)
        except ValueError:
            return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DrawnTasks) and same(self.examples, other.examples)

    def __repr__(self) -> str:
        return f"DrawnTasks({self.examples[0]!r}, ...)"


class IndexedTasks(spaces.Discrete):
    """p(T) of an environment that numbers its tasks, uniform over the indices.

    Args:
        indices: The indices, each one more than the last.
        tasks: The environment's own tasks by index. Equality of two spaces includes them, as task 3 has to be the same
            task in every process.
        seed: Seed of the samples.

    Raises:
        ValueError: If there is no index, or there are gaps.
    """

    def __init__(self, indices: list[int], tasks: Any = None, seed: int | None = None) -> None:
        if not indices or indices != list(range(indices[0], indices[0] + len(indices))):
            raise ValueError(f"the indices of tasks have to be whole numbers in a row, got {indices}")
        super().__init__(len(indices), seed=seed, start=indices[0])
        try:
            self.kept = _text(tasks)
        except TypeError:  # objects of a class of the environment, which cannot be compared
            self.kept = ""

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and self.kept == getattr(other, "kept", None)


def encode(task: AnyTask) -> Any:
    """A task as JSON values that keep its types.

    Values that JSON can express stay as they are: null, true, 1, 1.5, "text", [1, 2], {"name": 1}. Everything else is
    an object with the key `__type__`, such as {"__type__": "tuple", "items": [1, 2]}.

    Raises:
        TypeError: If a part has a type that `DrawnTasks` does not support.
    """
    kind = type(task)
    if task is None or kind in (bool, int, str) or (kind is float and isfinite(task)):
        return task
    if kind is float:
        return {_TYPE: "float", "value": repr(task)}
    if kind is list:
        return [encode(item) for item in task]
    if kind is tuple:
        return {_TYPE: "tuple", "items": [encode(item) for item in task]}
    if kind is dict and _TYPE not in task and all(type(key) is str for key in task):
        return {key: encode(value) for key, value in task.items()}
    if kind is dict:
        return {_TYPE: "dict", "items": [[encode(key), encode(value)] for key, value in task.items()]}
    if kind is np.str_:
        return {_TYPE: "str_", "value": str(task)}
    if kind is np.bytes_:
        return {_TYPE: "bytes_", "value": bytes(task).hex()}
    if (kind is np.ndarray or isinstance(task, np.generic)) and task.dtype.kind not in "OVT" and task.dtype.isnative:
        return _encoded_array(task, "array" if kind is np.ndarray else "scalar")
    raise TypeError(f"tasks have to consist of {_KNOWN}, got {shown(task)}, of type {kind.__name__}")


def _encoded_array(array: NDArray[Any] | np.generic, kind: str) -> dict[str, Any]:
    described = {_TYPE: kind, "dtype": array.dtype.str, "shape": list(array.shape)}
    if array.dtype.kind == "U" or (array.dtype.kind in "biuf" and array.dtype.itemsize <= 8):
        return {**described, "values": encode(array.tolist())}
    return {**described, "bytes": array.tobytes().hex()}


def decode(value: Any) -> AnyTask:
    """The task that `encode` turned into JSON values.

    Raises:
        KeyError, TypeError, ValueError: If the value does not come from `encode`.
    """
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _TYPE not in value:
        return {key: decode(item) for key, item in value.items()}
    if value[_TYPE] not in _DECODERS:
        raise ValueError(f"there is no type {value[_TYPE]!r}")
    return _DECODERS[value[_TYPE]](value)


def _decoded_array(value: dict[str, Any]) -> NDArray[Any]:
    dtype = np.dtype(value["dtype"])
    if "bytes" in value:
        array = np.frombuffer(bytes.fromhex(value["bytes"]), dtype)
    else:
        array = np.array(decode(value["values"]), dtype)
    return array.reshape(value["shape"]).copy()


_DECODERS: dict[str, Callable[[dict[str, Any]], AnyTask]] = {
    "float": lambda value: float(value["value"]),
    "tuple": lambda value: tuple(decode(item) for item in value["items"]),
    "dict": lambda value: {decode(key): decode(item) for key, item in value["items"]},
    "str_": lambda value: np.str_(value["value"]),
    "bytes_": lambda value: np.bytes_(bytes.fromhex(value["value"])),
    "array": _decoded_array,
    "scalar": lambda value: _decoded_array(value)[()],
}


def shown(value: Any) -> str:
    """A value in one line, for messages."""
    return " ".join(repr(value).split())


def same(a: AnyTask, b: AnyTask) -> bool:
    """Whether two tasks are equal in value and in type: 1, 1.0 and True all differ."""
    return _text(a) == _text(b)


def _text(task: AnyTask) -> str:
    return json.dumps(encode(task))


def _like(example: AnyTask, value: Any) -> AnyTask:
    """A plain JSON value with the types of an example; raises ValueError or TypeError if it has another form."""
    if isinstance(example, dict) and isinstance(value, dict) and {str(key) for key in example} == value.keys():
        return {key: _like(part, value[str(key)]) for key, part in example.items()}
    if isinstance(example, (list, tuple)) and isinstance(value, list):
        return type(example)(_like(part, item) for part, item in zip(example, value, strict=True))
    if type(example) is np.str_ and type(value) is str:
        return np.str_(value)
    if isinstance(example, (np.ndarray, np.generic)):
        return _array_like(example, value)
    if type(example) is float and type(value) is int:
        return float(value)
    if type(example) is type(value) and not isinstance(value, (dict, list)):
        return value
    raise ValueError(f"{value!r} is not like {example!r}")


def _array_like(example: NDArray[Any] | np.generic, value: Any) -> NDArray[Any] | np.generic:
    given, kind = np.asarray(value), example.dtype.kind
    array = given.astype(example.dtype)
    # A float may be written without a point. No fraction is cut off, no text, and no number that is too large.
    alike = np.can_cast(given.dtype, example.dtype, "same_kind") and (given.dtype.kind == "b") == (kind == "b")
    if given.shape != example.shape or not alike or (kind in "biuU" and not np.array_equal(array, given)):
        raise ValueError(f"{value!r} is not like {example!r}")
    return array if isinstance(example, np.ndarray) else array[()]


def _numbers(task: AnyTask, place: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], float]]:
    """Each number of a task with its place, by key and index; raises ValueError if there is anything else in it."""
    if isinstance(task, dict):
        parts: Iterable[tuple[Any, Any]] = sorted(task.items(), key=lambda item: repr(item[0]))
    elif isinstance(task, (list, tuple)) or (isinstance(task, np.ndarray) and task.ndim):
        parts = enumerate(task)
    elif isinstance(task, (bool, int, float, np.ndarray, np.generic)) and np.asarray(task).dtype.kind in "biuf":
        return [(place, float(task))]
    else:
        raise ValueError(f"{shown(task)} is no number")
    return [number for key, part in parts for number in _numbers(part, (*place, key))]


@flatdim.register
def _(space: DrawnTasks) -> int:
    return len(space.places)


@flatten_space.register
def _(space: DrawnTasks) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (len(space.places),), np.float64)


@flatten.register
def _(space: DrawnTasks, x: AnyTask) -> NDArray[np.float64]:
    numbers = dict(_numbers(x))
    if numbers.keys() != set(space.places):
        raise ValueError(space._misplaced(x))
    return np.array([numbers[place] for place in space.places], np.float64)
