"""Environments written for other libraries, with other conventions for tasks, `reset` and `step`.

There are two conventions for tasks. They are *drawn* in pytorch-maml-rl, learn2learn, garage, ProMP and varibad:
`sample_tasks(n)` or `sample_task()` makes tasks, and `set_task(task)` or `reset_task(task)` takes one. Tasks are
*indexed* in PEARL, rlkit and MACAW: an environment makes a list of tasks when it is built, and `reset_task(index)` or
`set_task_idx(index)` takes one of them. Register such a class as an environment with `task_space` and `task`::

    gymnasium.register(
        "promp/PointEnv-v0",
        entry_point="maml_rl.envs.adapters:SampledTaskEnv",
        max_episode_steps=100,
        kwargs={"env": "meta_policy_search.envs.point_envs.point_env_2d:MetaPointEnv"},
    )
"""

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property
from importlib import import_module
from inspect import Parameter, signature
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
from gymnasium import spaces

from maml_rl.envs.drawn_tasks import AnyTask, DrawnTasks, IndexedTasks, same, shown

Convention = Literal["drawn", "indexed"]

_INDEX = re.compile(r"(\w+_)?(i|id|idx|index)", re.IGNORECASE)  # parameters that stand for a task's index
_COUNTS, _LISTS = ("num_tasks", "n_tasks"), ("tasks", "goals")  # attributes that show how many tasks there are


class SampledTaskEnv(gymnasium.Env[Any, Any]):
    """An environment of another library, with its task distribution as a Space and Gymnasium's `reset` and `step`.

    The environment gets drawn tasks back exactly as it drew them, in value and in type (`DrawnTasks`). Indexed
    ones are integers, in a Discrete.

    Its own `reset` and `step` may be Gymnasium's or those of Gym before 0.26, which return the observation alone and
    four values; there `info["TimeLimit.truncated"]` distinguishes a time limit from an end. Its spaces may be Gym's.
    The method that sets a task may itself call `reset`.

    It is built with the global generators of NumPy and Python seeded, so that it has the same list of tasks each time.

    Args:
        env: The environment's class, or `module:Class`, which is imported when it is needed.
        convention: Whether tasks are drawn or indexed. If None they are indexed where there is `get_all_task_idx` or
            `set_task_idx`, or where the parameter of `reset_task` is named as an index is.
        task_count: Number of indexed tasks. If None the environment has to say it: by `get_all_task_idx`, else by
            `num_tasks`, `n_tasks`, or the length of `tasks` or `goals`. A number means that tasks are indexed.
        settings: Keyword arguments of that class.

    Raises:
        TypeError: If the environment does not have what its convention needs, tasks have parts of an unknown type, or
            spaces are neither a Box nor Discrete.
        ValueError: If equal seeds draw different tasks, or the environment has different tasks each time it is built.
    """

    def __init__(
        self,
        env: str | Callable[..., Any],
        *,
        convention: Convention | None = None,
        task_count: int | None = None,
        **settings: Any,
    ) -> None:
        self.env = _build(env, settings)
        self._generators = _Generators(self.env)
        self.observation_space = _space(self.env.observation_space)
        self.action_space = _space(self.env.action_space)
        self.metadata = {"render_modes": [], **getattr(self.env, "metadata", {})}
        self.render_mode = settings.get("render_mode")
        self.task_space: DrawnTasks | IndexedTasks
        self.task: AnyTask
        """The task that the next `reset` begins."""
        if _is_indexed(self.env, convention, task_count):
            self._set_task = _setter(self.env, "set_task_idx", "reset_task", "set_task")
            self.task_space = _indexed_tasks(self.env, _build(env, settings), task_count)
            self.task = int(self.task_space.start)
        else:
            self._set_task = _setter(self.env, "set_task", "reset_task")
            self.task_space = DrawnTasks(TaskSampler(env, settings))
            self.task = self.task_space.examples[0]
            self._try(self.task)

    def _try(self, task: AnyTask) -> None:
        try:
            with self._generators.at_work():
                self._set_task(deepcopy(task))
        except Exception as error:
            raise TypeError(
                f"{self.env!r} draws the task {shown(task)}, and its {self._set_task.__name__} does not take it "
                f"({type(error).__name__}: {error}): if it takes an index, give task_count=..."
            ) from error

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode with the assigned task."""
        super().reset(seed=seed)
        task = int(self.task) if isinstance(self.task_space, IndexedTasks) else deepcopy(self.task)
        arguments = {"seed": seed, "options": options}
        with self._generators.at_work(seed):
            self._set_task(task)
            result = self.env.reset(
                **{name: value for name, value in arguments.items() if _accepts(self.env.reset, name)}
            )
        if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict):
            return self._observed(result[0]), result[1]
        return self._observed(result), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes one step.

        Raises:
            ValueError: If the environment's `step` returns neither four nor five values.
        """
        with self._generators.at_work():
            result = self.env.step(action)
        if not isinstance(result, tuple) or len(result) not in (4, 5):
            raise ValueError(
                f"step of {self.env!r} has to return (observation, reward, done, info) or (observation, reward, "
                f"terminated, truncated, info), got {type(result).__name__}"
            )
        observation, reward, *flags, info = result
        if len(flags) == 1:
            limited = bool(info.get("TimeLimit.truncated", False))
            flags = [flags[0] and not limited, flags[0] and limited]
        terminated, truncated = map(bool, flags)
        return self._observed(observation), float(np.asarray(reward).item()), terminated, truncated, info

    def _observed(self, observation: Any) -> Any:
        return np.array(observation, self.observation_space.dtype)

    def render(self) -> Any:
        """What the environment draws."""
        return self.env.render()

    def close(self) -> None:
        """Closes the environment."""
        if hasattr(self.env, "close"):
            self.env.close()


class TaskSampler:
    """Draws a task as a function of a seed, from a separate environment in which no episode runs.

    Copies share that environment. It is not pickled: an unpickled sampler makes a new one.
    """

    def __init__(self, env: str | Callable[..., Any], settings: dict[str, Any]) -> None:
        self._arguments = (env, settings)

    @cached_property
    def _env(self) -> Any:
        return _build(*self._arguments)

    @cached_property
    def _generators(self) -> "_Generators":
        return _Generators(self._env)

    def __call__(self, seed: int) -> AnyTask:
        """The task that this seed draws.

        Raises:
            TypeError: If the environment draws none.
        """
        with self._generators.at_work(seed):
            if several := _attribute(self._env, "sample_tasks"):
                drawn = several(1)
                tasks = [] if isinstance(drawn, (dict, str)) else list(drawn)
                if len(tasks) != 1:
                    raise TypeError(f"sample_tasks(1) of {self._env!r} has to return a list of one, got {shown(drawn)}")
                return tasks[0]
            if one := _attribute(self._env, "sample_task"):
                return one()
            if _draws_at_reset(self._env):
                return self._drawn_at_reset()
        raise TypeError(
            f"{self._env!r} draws no tasks: it needs sample_tasks(n), sample_task(), or get_task() and a "
            "reset_task(task=None) that draws one; if its reset_task takes an index, give task_count=..."
        )

    def _drawn_at_reset(self) -> AnyTask:
        reset_task, get_task = _attribute(self._env, "reset_task"), _attribute(self._env, "get_task")
        reset_task(None)
        task = deepcopy(get_task())
        reset_task(deepcopy(task))
        if not same(task, get_task()):
            raise TypeError(
                f"get_task of {self._env!r} returned {shown(task)} and, after reset_task with that, "
                f"{shown(get_task())}: it has to return what reset_task takes"
            )
        return task

    def __deepcopy__(self, memo: dict[int, Any]) -> "TaskSampler":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return TaskSampler, self._arguments


def _build(env: str | Callable[..., Any], settings: dict[str, Any]) -> Any:
    """An environment, built with the global generators seeded, which stay as they were outside."""
    outside = _global_state()
    _seed_globally(0)
    try:
        if isinstance(env, str):
            module, _, name = env.partition(":")
            env = getattr(import_module(module), name)
        return env(**settings)  # type: ignore[operator]
    finally:
        _set_global_state(outside)


def _attribute(env: Any, name: str) -> Any:
    """An attribute of an environment, or of the one that it wraps; None if there is none."""
    return getattr(env, name, getattr(getattr(env, "unwrapped", None), name, None))


def _is_indexed(env: Any, convention: Convention | None, task_count: int | None) -> bool:
    """Whether an environment takes tasks by their index: as given, else as its methods suggest."""
    if convention not in (None, *get_args(Convention)):
        raise ValueError(f"convention must be one of {', '.join(get_args(Convention))}, got {convention!r}")
    if convention == "drawn" and task_count is not None:
        raise ValueError("task_count is the number of indexed tasks: leave it out where convention is 'drawn'")
    if convention is not None or task_count is not None:
        return convention != "drawn"
    if _attribute(env, "get_all_task_idx") or _attribute(env, "set_task_idx"):
        return True
    reset_task = _attribute(env, "reset_task")
    return reset_task is not None and _INDEX.fullmatch(next(iter(signature(reset_task).parameters), "")) is not None


def _setter(env: Any, *names: str) -> Callable[[AnyTask], Any]:
    """The first of these methods that an environment has."""
    for name in names:
        method = _attribute(env, name)
        if callable(method):
            return method  # type: ignore[no-any-return]
    raise TypeError(f"{env!r} has none of {', '.join(names)}: it takes no task")


def _draws_at_reset(env: Any) -> bool:
    """Whether `reset_task(None)` draws a task and `get_task` gives it, as in varibad's own example."""
    reset_task, get_task = _attribute(env, "reset_task"), _attribute(env, "get_task")
    if reset_task is None or get_task is None:
        return False
    first = next(iter(signature(reset_task).parameters.values()), None)
    return first is not None and first.default is None


def _indexed_tasks(env: Any, again: Any, count: int | None) -> IndexedTasks:
    """p(T) of an environment that numbers its tasks; `again` is a second one, built in the same way.

    Raises:
        TypeError: If the number of tasks is not clear.
        ValueError: If the two have different tasks.
    """
    first, second = (IndexedTasks(_indices(one, count), _kept(one)) for one in (env, again))
    if first != second:
        raise ValueError(
            f"{env!r} has other tasks each time it is built: its __init__ has to draw them from the global generators "
            "of NumPy or Python, or from one with a fixed seed"
        )
    return first


def _kept(env: Any) -> dict[str, Any]:
    """Lists of tasks that an environment keeps."""
    return {name: tasks for name in _LISTS if isinstance(tasks := _attribute(env, name), (list, tuple, np.ndarray))}


def _indices(env: Any, count: int | None) -> list[int]:
    """Indices of an environment's tasks."""
    if count is not None:
        if count < 1:
            raise ValueError(f"task_count must be at least 1, got {count}")
        return list(range(count))
    if all_indices := _attribute(env, "get_all_task_idx"):
        found = list(all_indices())
        if all(isinstance(index, (int, np.integer)) for index in found):
            return [int(index) for index in found]
        raise TypeError(
            f"get_all_task_idx of {env!r} returns {shown(found)}, which are no indices: give task_count=..."
        )
    counts = {f"len({name})": len(tasks) for name, tasks in _kept(env).items()}
    for name in _COUNTS:
        number = _attribute(env, name)
        if number is not None:
            counts[name] = int(number() if callable(number) else number)
    if len(set(counts.values())) != 1:
        listed = ", ".join(f"{name} is {number}" for name, number in counts.items())
        known = f"get_all_task_idx, {', '.join(_COUNTS + _LISTS)}"
        reason = f"contradicts itself: {listed}" if counts else f"has none of {known}"
        raise TypeError(f"how many tasks {env!r} has is not clear, as it {reason}: give task_count=...")
    return list(range(next(iter(counts.values()))))


def _space(space: Any) -> spaces.Space[Any]:
    """A space of Gymnasium for one of Gym."""
    if isinstance(space, spaces.Space):
        return space
    if hasattr(space, "low") and hasattr(space, "high"):
        return spaces.Box(space.low, space.high, space.shape, space.dtype.type)
    if hasattr(space, "n"):
        return spaces.Discrete(int(space.n), start=int(getattr(space, "start", 0)))
    raise TypeError(f"observations and actions have to be in a Box or Discrete, got {space!r}")


def _accepts(function: Callable[..., Any], name: str) -> bool:
    parameters = signature(function).parameters
    return name in parameters or any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())


class _Generators:
    """The generators that an environment of these libraries draws from: its own, and Python's and NumPy's global ones.

    The environment uses the global ones as if it were alone in the process: their state is restored afterwards.
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        self._state = random.Random().getstate(), np.random.RandomState().get_state()

    @contextmanager
    def at_work(self, seed: int | None = None) -> Iterator[None]:
        """Context in which the environment runs, with all of its generators seeded; without a seed they continue."""
        outside = _global_state()
        if seed is None:
            _set_global_state(self._state)
        else:
            self._seed(seed)
        try:
            yield
        finally:
            self._state = _global_state()
            _set_global_state(outside)

    def _seed(self, seed: int) -> None:
        if isinstance(self._env, gymnasium.Env):
            self._env.unwrapped.np_random = np.random.default_rng(seed)
        seeding = _attribute(self._env, "seed")
        if callable(seeding):  # of Gym before 0.26; in others a number may have this name
            seeding(seed)
        _seed_globally(seed)


def _seed_globally(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002, what these libraries use


def _global_state() -> tuple[Any, Any]:
    return random.getstate(), np.random.get_state()  # noqa: NPY002


def _set_global_state(state: tuple[Any, Any]) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])  # noqa: NPY002
