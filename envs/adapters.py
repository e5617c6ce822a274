"""Environments written for other libraries, which draw tasks by `sample_tasks(n)` and take one by `set_task`.

learn2learn, garage, ProMP and pytorch-maml-rl define their tasks so, with `reset_task` as the second name. Register one
of theirs, by its class, as an environment that follows the convention `task_space` and `task`:

    gymnasium.register(
        "promp/PointEnv-v0",
        entry_point="envs.adapters:SampledTaskEnv",
        max_episode_steps=100,
        kwargs={"env": "meta_policy_search.envs.point_envs.point_env_2d:MetaPointEnv"},
    )
"""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from inspect import Parameter, signature
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

Task = Any


class SampledTaskEnv(gymnasium.Env[Any, Any]):
    """An environment of another library, with its task distribution as a Space and today's `reset` and `step`.

    Its own `reset` and `step` may be Gymnasium's or those of Gym before 0.26, which return the observation alone and
    four values; there `info["TimeLimit.truncated"]` tells a time limit from an end. Its spaces may be Gym's.

    Args:
        env: The environment's class, or `module:Class`, which is imported when it is needed.
        settings: Keyword arguments of that class.

    Raises:
        TypeError: If the environment has no `sample_tasks`, neither `set_task` nor `reset_task`, tasks that are no
            numbers, arrays, or dicts of them, or spaces other than a Box or Discrete.
        ValueError: If equal seeds do not draw equal tasks.
    """

    def __init__(self, env: str | Callable[..., Any], **settings: Any) -> None:
        self.env = _build(env, settings)
        self._generators = _Generators(self.env)
        self.observation_space = _space(self.env.observation_space)
        self.action_space = _space(self.env.action_space)
        self.metadata = {"render_modes": [], **getattr(self.env, "metadata", {})}
        self.render_mode = settings.get("render_mode")
        setters = [getattr(self.env, name, None) for name in ("set_task", "reset_task")]
        self._set_task = next((setter for setter in setters if callable(setter)), None)
        if self._set_task is None:
            raise TypeError(f"{self.env!r} has neither set_task nor reset_task: it takes no task")
        draw = TaskSampler(env, settings)
        example = draw(0)
        if _plain(example) != _plain(draw(0)):
            raise ValueError(
                f"equal seeds draw different tasks from {self.env!r}: its sample_tasks has to draw from self.np_random "
                "or from the global generators of NumPy or Python"
            )
        self._example = example
        self.task_space = SampledDict(example, draw) if isinstance(example, Mapping) else SampledBox(example, draw)
        self.task = self.task_space.element(example)
        """The task that the next `reset` begins."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode with the assigned task."""
        super().reset(seed=seed)
        assert self._set_task is not None
        with self._generators.at_work(seed):
            self._set_task(_like(self._example, self.task))
            modern = _accepts(self.env.reset, "seed")
            result = self.env.reset(seed=seed, options=options) if modern else self.env.reset()
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
    """Draws a task as a function of a seed, from an environment of its own, which no episode runs in.

    Copies share that environment, and a pickled sampler leaves it behind: where it arrives, another one is made.
    """

    def __init__(self, env: str | Callable[..., Any], settings: dict[str, Any]) -> None:
        self._arguments = (env, settings)

    @cached_property
    def _env(self) -> Any:
        return _build(*self._arguments)

    @cached_property
    def _generators(self) -> "_Generators":
        return _Generators(self._env)

    def __call__(self, seed: int) -> Task:
        """The task that this seed draws."""
        if not hasattr(self._env, "sample_tasks"):
            raise TypeError(f"{self._env!r} has no sample_tasks: it draws no tasks")
        with self._generators.at_work(seed):
            return self._env.sample_tasks(1)[0]

    def __deepcopy__(self, memo: dict[int, Any]) -> "TaskSampler":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return TaskSampler, self._arguments


class SampledBox(spaces.Box):
    """p(T) of tasks that are numbers or arrays, as an environment of another library draws them.

    Args:
        example: A task, for shape and type.
        draw: A task as a function of a seed.
    """

    def __init__(self, example: Task, draw: Callable[[int], Task]) -> None:
        self._draw = draw
        leaf = _leaf(example)
        super().__init__(leaf.low, leaf.high, leaf.shape, leaf.dtype.type)

    def sample(self, mask: Any = None, probability: Any = None) -> Any:
        """A task, drawn by the environment with a seed from this space's generator."""
        return self.element(self._draw(int(self.np_random.integers(2**31))))

    def element(self, task: Task) -> Any:
        """A task as this space has it."""
        return np.asarray(task, self.dtype)


class SampledDict(spaces.Dict):
    """p(T) of tasks that are dicts of numbers or arrays, as an environment of another library draws them.

    Args:
        example: A task, for its keys, and for shape and type of each value.
        draw: A task as a function of a seed.
    """

    def __init__(self, example: Mapping[str, Any], draw: Callable[[int], Task]) -> None:
        self._draw = draw
        super().__init__({name: _leaf(value) for name, value in example.items()})

    def sample(self, mask: Any = None, probability: Any = None) -> Any:
        """A task, drawn by the environment with a seed from this space's generator."""
        return self.element(self._draw(int(self.np_random.integers(2**31))))

    def element(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """A task as this space has it."""
        known = {name: np.asarray(value, self[name].dtype) for name, value in task.items() if name in self.spaces}
        return {**task, **known}


def _build(env: str | Callable[..., Any], settings: dict[str, Any]) -> Any:
    if isinstance(env, str):
        module, _, name = env.partition(":")
        env = getattr(import_module(module), name)
    return env(**settings)  # type: ignore[operator]


def _leaf(value: Any) -> spaces.Box:
    """Space of all numbers, or arrays, of the shape and type of an example."""
    array = np.asarray(value)
    if array.dtype.kind == "f":
        return spaces.Box(-np.inf, np.inf, array.shape, array.dtype.type)
    if array.dtype.kind in "iub":
        kind = np.dtype(np.int8 if array.dtype.kind == "b" else array.dtype)
        return spaces.Box(np.iinfo(kind).min, np.iinfo(kind).max, array.shape, kind.type)
    raise TypeError(f"tasks have to be numbers, arrays, or dicts of these, got {value!r}")


def _like(example: Any, task: Any) -> Any:
    """A task of the Space in the form in which the environment draws its own: dict, float, integer, list, array."""
    if isinstance(example, Mapping):
        return {name: _like(example[name], value) for name, value in task.items()}
    if isinstance(example, np.ndarray):
        return np.array(task, example.dtype)
    if isinstance(example, (list, tuple)):
        return type(example)(np.asarray(task).tolist())
    return type(example)(np.asarray(task).item())


def _plain(task: Any) -> Any:
    """A task as JSON values."""
    if isinstance(task, Mapping):
        return {name: _plain(value) for name, value in task.items()}
    return np.asarray(task).tolist()


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

    It has the global ones as if it were alone in the process, which has its own while the environment does not run.
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        self._state = random.Random().getstate(), np.random.RandomState().get_state()

    @contextmanager
    def at_work(self, seed: int | None = None) -> Iterator[None]:
        """While the environment runs; all of its generators begin anew with a seed, or else go on."""
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
        if callable(getattr(self._env, "seed", None)):  # of Gym before 0.26
            self._env.seed(seed)
        elif isinstance(self._env, gymnasium.Env):
            self._env.unwrapped.np_random = np.random.default_rng(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002, what these libraries use


def _global_state() -> tuple[Any, Any]:
    return random.getstate(), np.random.get_state()  # noqa: NPY002


def _set_global_state(state: tuple[Any, Any]) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])  # noqa: NPY002
