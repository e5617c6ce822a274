"""Task-distributed environments that step many sub-environments at once.

A `TaskMDP` defines one family of Markov decision processes in NumPy, over a batch of rows. `BatchedTaskEnv` makes a
`gymnasium.vector.VectorEnv` of it, and `TaskEnv` a `gymnasium.Env`, which is a batch of one: both run the same code.

Both follow the convention for task distributions: `task_space` is p(T), `task` the current task, and a task that is
assigned takes effect at the next `reset`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from importlib import import_module
from numbers import Integral
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Dict, Discrete
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

Array = NDArray[Any]


class TaskMDP(ABC):
    """A family of Markov decision processes that differ by their task, over a batch of n rows.

    Methods are pure functions of arrays whose first axis is the batch; a row never looks at another row. A state is a
    vector, so that a batch of states is one array `[n, S]`. Tasks are elements of `task_space`, stacked: `[n, 1]` for
    `Box(0, 2, (1,))`, `[n]` for `Discrete(2)`. Those of a `Dict` are a structured array `[n]`, whose fields are its
    parts: for `Dict(mass=Box(0, 2, (1,)), joint=Discrete(6))`, `tasks["mass"]` is `[n, 1]` and `tasks["joint"]` `[n]`.

    Attributes:
        observation_space: Space of one observation.
        action_space: Space of one action.
        task_space: p(T), a Space whose elements are arrays or integers, or a `Dict` of such spaces.
        render_fps: Control steps per second of simulated time; only rendering uses it.
        task_quantity: What the numbers of a task mean, with their unit, as text. If it begins with "goal", tasks of
            two numbers are drawn as points in the plane.
    """

    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    task_space: gymnasium.Space[Any]
    render_fps: int = 30
    task_quantity: str = "task"

    @abstractmethod
    def initial(self, generators: Sequence[np.random.Generator]) -> Array:
        """First states `[n, S]`; row i draws from `generators[i]` only."""

    def initial_for(self, generators: Sequence[np.random.Generator], tasks: Array) -> Array:
        """First states `[n, S]` of episodes with these tasks. By default, those of `initial`."""
        return self.initial(generators)

    @abstractmethod
    def transition(self, states: Array, actions: Array, tasks: Array) -> Array:
        """Next states `[n, S]`."""

    @abstractmethod
    def observation(self, states: Array) -> Array:
        """Observations `[n, ...]` of `observation_space`."""

    @abstractmethod
    def reward_terms(self, states: Array, actions: Array, next_states: Array, tasks: Array) -> Mapping[str, Array]:
        """Named terms `[n]` whose sum is the reward; each also goes into `info` under its name."""

    def terminated(self, states: Array, tasks: Array) -> Array:
        """Whether the process ends in these states, `[n]` bool. By default, it never does."""
        return np.zeros(len(states), dtype=np.bool_)

    def groups(self) -> Sequence["TaskMDP"]:
        """Equal MDPs that a sampler steps at the same time, each in its own thread with part of a batch.

        By default, only the MDP itself. If `transition` takes most of the time and releases the interpreter lock,
        return two with half of the threads each: the policy of one then runs during the physics of the other.
        """
        return [self]

    def close(self) -> None:  # noqa: B027, nothing to free unless overridden
        """Frees what drawing has allocated."""

    def poses(self, states: Array) -> Array:
        """What `render` needs to draw these states, `[n, P]`. By default, the states themselves."""
        return states

    def task_name(self, task: Any) -> str | None:
        """A task in a few words, with its unit. By default None, and the numbers of the task are shown."""
        return None

    def render(self, pose: Array, task: Any) -> Array:
        """Picture `[height, width, 3]` uint8 of one pose `[P]`."""
        raise NotImplementedError(f"{type(self).__name__} does not draw: override TaskMDP.render")


def _build(mdp: "TaskMDP | str", settings: dict[str, Any]) -> TaskMDP:
    """The MDP itself, or one made from `module:Class` and settings, which is how a registration names it."""
    if isinstance(mdp, str):
        module, _, name = mdp.partition(":")
        built = getattr(import_module(module), name)(**settings)
        assert isinstance(built, TaskMDP)
        return built
    if settings:
        raise TypeError(f"settings {sorted(settings)} need an MDP named as 'module:Class', got the object {mdp!r}")
    return mdp


class BatchedTaskEnv(VectorEnv[Array, Array, Array]):
    """Many sub-environments of one `TaskMDP`, each with its own task, stepped together.

    Autoreset is disabled: a finished sub-environment keeps its last observation and flags, earns 0 and takes no time
    until `reset`, which takes `options={"reset_mask": mask}` to reset some of them. `info` holds each reward term. A
    step that ends an episode because its state is no longer finite earns 0.

    Until a task is assigned, sub-environment i has the i-th sample of a copy of `task_space` seeded with 0. Assign with
    `set_attr("task", task)` for one task everywhere or `set_attr("task", [task, ...])` with one for each. Tasks have to
    be in `admitted`, which is `task_space` until a wider Space is assigned, to evaluate beyond p(T).

    Args:
        mdp: The MDP, or `module:Class` with its keyword arguments in `settings`.
        num_envs: Number of sub-environments.
        max_episode_steps: Time limit, after which an episode is truncated; None for none.
        render_mode: `"rgb_array"` or None.
        settings: Keyword arguments for an MDP given by name.

    Raises:
        TypeError: If the elements of a space are neither arrays nor integers.
    """

    def __init__(
        self,
        mdp: TaskMDP | str,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        self.mdp = _build(mdp, settings)
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode
        self.metadata = {
            "autoreset_mode": AutoresetMode.DISABLED,
            "render_modes": ["rgb_array"],
            "render_fps": self.mdp.render_fps,
        }
        self.single_observation_space = self.mdp.observation_space
        self.single_action_space = self.mdp.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.task_space = self.admitted = self.mdp.task_space

        space = deepcopy(self.task_space)
        space.seed(0)
        self._next_tasks = stacked_tasks(space, [space.sample() for _ in range(num_envs)])
        self._tasks = self._next_tasks.copy()
        self.generators = [seeding.np_random()[0] for _ in range(num_envs)]
        self._states: Array | None = None
        self._observations = np.zeros(
            (num_envs, *_shape(self.single_observation_space)), _dtype(self.single_observation_space)
        )
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._terminated = np.zeros(num_envs, dtype=np.bool_)
        self._truncated = np.ones(num_envs, dtype=np.bool_)  # nothing runs before its reset

    @cached_property
    def groups(self) -> list["BatchedTaskEnv"]:
        """Environments of `mdp.groups()`, together as large as this one, or this one alone.

        If there are several, they have their own states: their episodes leave those of this environment alone.
        """
        mdps = self.mdp.groups()[: self.num_envs]
        if len(mdps) == 1:
            return [self]
        bounds = [self.num_envs * i // len(mdps) for i in range(len(mdps) + 1)]
        return [
            BatchedTaskEnv(mdp, end - start, self.max_episode_steps)
            for mdp, start, end in zip(mdps, bounds[:-1], bounds[1:], strict=True)
        ]

    @property
    def task(self) -> list[Any]:
        """The task of each sub-environment, as of its next `reset`."""
        return [_element(self.task_space, task) for task in self._next_tasks]

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """One value for each sub-environment, as Gymnasium's vector environments return it."""
        return tuple(self.task) if name == "task" else (getattr(self.mdp, name),) * self.num_envs

    def set_attr(self, name: str, values: Any) -> None:
        """Assigns `task`, one for all sub-environments or a list with one for each, from the next `reset` on.

        Raises:
            AttributeError: For any other name.
            ValueError: If the number of tasks is not `num_envs`, or one is not in `admitted`.
        """
        if name != "task":
            raise AttributeError(f"only 'task' can be set, got {name!r}")
        tasks = list(values) if isinstance(values, (list, tuple)) else [values] * self.num_envs
        if len(tasks) != self.num_envs:
            raise ValueError(f"expected one task or {self.num_envs} of them, got {len(tasks)}")
        for task in tasks:
            if not self.admitted.contains(task):
                raise ValueError(f"task {task!r} is not in the task space {self.task_space}")
        self._next_tasks = stacked_tasks(self.task_space, tasks)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begins an episode with the assigned task in every sub-environment, or in those of `options["reset_mask"]`.

        Args:
            seed: One seed for each sub-environment, or an int s for s, s + 1, ...; generators continue if None.
            options: May hold `reset_mask`, a bool array `[num_envs]`.

        Returns:
            Observations `[num_envs, ...]`, unchanged where nothing was reset, and an empty dict.

        Raises:
            ValueError: If the number of seeds is not `num_envs`, or `reset_mask` has another shape or no True value; or
                if the MDP's observations are not one for each row.
        """
        if seed is None or isinstance(seed, Integral):
            seeds: Sequence[int | None] = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)  # type: ignore[arg-type]  # mypy does not take an int for an Integral
        if len(seeds) != self.num_envs:
            raise ValueError(f"expected one seed or {self.num_envs} of them, got {len(seeds)}")
        mask = np.ones(self.num_envs, dtype=np.bool_)
        if options is not None and "reset_mask" in options:
            mask = np.asarray(options["reset_mask"], dtype=np.bool_)
            if mask.shape != (self.num_envs,) or not mask.any():
                raise ValueError(f"reset_mask must have shape ({self.num_envs},) and a True value, got {mask}")
        rows = np.flatnonzero(mask)
        for i, row_seed in enumerate(seeds):
            if mask[i] and row_seed is not None:
                self.generators[i] = seeding.np_random(row_seed)[0]
        states = self.mdp.initial_for([self.generators[i] for i in rows], self._next_tasks[rows])
        if self._states is None:
            self._states = np.zeros((self.num_envs, states.shape[1]))
        self._states[rows] = states
        self._tasks[rows] = self._next_tasks[rows]
        self._observations[rows] = self._observed(states)
        self._steps[rows] = 0
        self._terminated[rows] = self._truncated[rows] = False
        return self._observations.copy(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Steps the sub-environments whose episode is running.

        Args:
            actions: One of `single_action_space` for each sub-environment, `[num_envs, ...]`.

        Returns:
            Observations `[num_envs, ...]`, rewards `[num_envs]` float64, whether each episode has terminated and
            whether it has been truncated, `[num_envs]` bool, and the reward's terms by name, `[num_envs]` each; no
            terms once all episodes have ended.

        Raises:
            RuntimeError: Before the first `reset`.
            ValueError: If actions have another shape, are not finite or, where they are Discrete, not in their space;
                or if the MDP's observations, ends or rewards are not one for each row.
        """
        if self._states is None:
            raise RuntimeError("call reset before step")
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ValueError(f"expected actions of shape {self.action_space.shape}, got {actions.shape}")
        running = ~(self._terminated | self._truncated)
        if not running.any():
            return (*self._arrays(np.zeros(self.num_envs)), {})
        # While all run, a slice takes views and copies nothing. The states are therefore replaced last.
        rows: Any = slice(None) if running.all() else np.flatnonzero(running)
        states, tasks, actions = self._states[rows], self._tasks[rows], self._usable(actions[rows])
        next_states = self.mdp.transition(states, actions, tasks)
        self._observations[rows] = self._observed(next_states)
        self._steps[rows] += 1
        self._terminated[rows] = self._one_a_row("terminated", self.mdp.terminated(next_states, tasks), states)
        if self.max_episode_steps is not None:
            self._truncated[rows] = self._steps[rows] >= self.max_episode_steps

        infos: dict[str, Any] = {}
        rewards = np.zeros(self.num_envs)
        lost = self._terminated[rows] & ~np.isfinite(next_states).all(axis=1)
        for name, values in self.mdp.reward_terms(states, actions, next_states, tasks).items():
            infos[name], infos[f"_{name}"] = np.zeros(self.num_envs), running
            infos[name][rows] = np.where(lost, 0.0, self._one_a_row(f"reward_terms: {name}", values, states))
            rewards += infos[name]
        self._states[rows] = next_states
        return (*self._arrays(rewards), infos)

    def _usable(self, actions: Array) -> Array:
        """Actions of running sub-environments, checked to be finite, or integers of a Discrete space."""
        if not np.isfinite(actions).all():
            raise ValueError("actions must be finite")
        if not isinstance(self.single_action_space, Discrete):
            return actions
        first, count = self.single_action_space.start, self.single_action_space.n
        outside = np.setdiff1d(actions, np.arange(first, first + count))
        if outside.size:
            raise ValueError(f"expected actions of {self.single_action_space}, got {outside}")
        return actions.astype(np.int64)

    def _arrays(self, rewards: Array) -> tuple[Array, Array, Array, Array]:
        """What `step` returns, without the reward's terms."""
        return self._observations.copy(), rewards, self._terminated.copy(), self._truncated.copy()

    def _observed(self, states: Array) -> Array:
        return self._one_a_row(
            "observation", self.mdp.observation(states), states, _shape(self.single_observation_space)
        )

    def _one_a_row(self, name: str, values: Any, states: Array, shape: tuple[int, ...] = ()) -> Array:
        """The values, checked to be one for each row: NumPy would broadcast another shape over all rows."""
        array, expected = np.asarray(values), (len(states), *shape)
        if array.shape != expected:
            raise ValueError(
                f"{type(self.mdp).__name__}, {name}: expected one value for each row, shape {expected}, got "
                f"{array.shape}; is an axis=1 missing?"
            )
        return array

    def state(self, index: int) -> Array:
        """State vector `[S]` of one sub-environment.

        Raises:
            RuntimeError: Before the first `reset`.
        """
        if self._states is None:
            raise RuntimeError("call reset before state")
        state: Array = self._states[index].copy()
        return state

    def poses(self) -> Array:
        """What `mdp.render` needs to draw each sub-environment, `[num_envs, P]`.

        Raises:
            RuntimeError: Before the first `reset`.
        """
        if self._states is None:
            raise RuntimeError("call reset before poses")
        return self.mdp.poses(self._states).copy()

    def render(self) -> tuple[Array, ...] | None:
        """One picture for each sub-environment in mode `rgb_array`, else None."""
        if self.render_mode is None:
            return None
        return tuple(
            self.mdp.render(pose, _element(self.task_space, task))
            for pose, task in zip(self.poses(), self._tasks, strict=True)
        )

    def close_extras(self, **kwargs: Any) -> None:
        """Frees what drawing has allocated."""
        self.mdp.close()


class TaskEnv(gymnasium.Env[Array, Array]):
    """One environment of a `TaskMDP`: a `BatchedTaskEnv` of one row; the time limit is Gymnasium's wrapper.

    Args:
        mdp: The MDP, or `module:Class` with its keyword arguments in `settings`.
        render_mode: `"rgb_array"` or None.
        settings: Keyword arguments for an MDP given by name.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 (as Gymnasium declares it)

    def __init__(self, mdp: TaskMDP | str, render_mode: str | None = None, **settings: Any) -> None:
        self._batch = BatchedTaskEnv(mdp, num_envs=1, render_mode=render_mode, **settings)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self._batch.mdp.render_fps}
        self.mdp = self._batch.mdp
        self.observation_space = self._batch.single_observation_space
        self.action_space = self._batch.single_action_space
        self.task_space = self._batch.task_space
        self.render_mode = render_mode

    @property
    def task(self) -> Any:
        """The task, as of the next `reset`."""
        return self._batch.task[0]

    @task.setter
    def task(self, task: Any) -> None:
        self._batch.set_attr("task", [task])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begins an episode with the assigned task."""
        super().reset(seed=seed)
        self._batch.generators[0] = self.np_random
        observations, _ = self._batch.reset()
        return observations[0], {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Takes one step; `info` holds each reward term."""
        observations, rewards, terminated, _, infos = self._batch.step(np.asarray(action)[None])
        info = {name: float(values[0]) for name, values in infos.items() if not name.startswith("_")}
        return observations[0], float(rewards[0]), bool(terminated[0]), False, info

    def render(self) -> Any:
        """Picture `[height, width, 3]` in mode `rgb_array`, else None."""
        frames = self._batch.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Frees what drawing has allocated."""
        self._batch.close()


def stacked_tasks(space: gymnasium.Space[Any], tasks: Sequence[Any]) -> Array:
    """Elements of a task space as the array that a `TaskMDP` works with.

    Raises:
        TypeError: If the elements are neither arrays nor integers, nor dicts of them.
    """
    if not isinstance(space, Dict):
        _shape(space)
        return np.stack([np.asarray(task) for task in tasks])
    array = np.empty(len(tasks), _field("", space)[1])
    for key, part in space.spaces.items():
        array[key] = stacked_tasks(part, [task[key] for task in tasks])
    return array


def _field(key: str, space: gymnasium.Space[Any]) -> Any:
    """Field of a structured array, as NumPy declares it, that holds elements of a space."""
    if isinstance(space, Dict):
        return key, [_field(name, part) for name, part in space.spaces.items()]
    return key, _dtype(space), _shape(space)


def _element(space: gymnasium.Space[Any], task: Array) -> Any:
    """The element of a task space that a row of `stacked_tasks` holds."""
    if isinstance(space, Dict):
        return {key: _element(part, task[key]) for key, part in space.spaces.items()}
    return task.copy() if _shape(space) else task[()]


def _shape(space: gymnasium.Space[Any]) -> tuple[int, ...]:
    if space.shape is None:
        raise TypeError(f"a batched environment needs spaces whose elements are arrays or integers, not {space}")
    return space.shape


def _dtype(space: gymnasium.Space[Any]) -> np.dtype[Any]:
    return np.dtype(space.dtype)
