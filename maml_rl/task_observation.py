"""The task as part of the observation: what the paper's oracle observes (Finn, Abbeel, Levine 2017, section 5.3).

Nothing in this module imports PyTorch, because processes that run an environment import it.
"""

from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from maml_rl.errors import InputError, one_line
from maml_rl.observations import OBSERVATION, TASK, Part, Parts, Rows, observation_parts

_Array = NDArray[Any]


class TaskObservation(gymnasium.Wrapper[_Array, Any, Any, Any], RecordConstructorArgs):
    """An environment whose observation ends with the task of the episode, `gymnasium.spaces.flatten(task_space, task)`.

    The observation itself is flattened first. A Box of shape (n,) and a task of d numbers make one of shape (n + d,); a
    task of a Discrete(k) is k numbers, one of which is 1. The floating type stays.

    Args:
        env: An environment whose unwrapped form has `task_space` and `task`.

    Raises:
        InputError: If there is no task_space, observations are not in a Box, or tasks cannot be flattened to numbers.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self.observation_space = _extended(env.observation_space, getattr(env.unwrapped, "task_space", None))
        self._flat_task: _Array = np.zeros(0)

    @property
    def task_space(self) -> spaces.Space[Any]:
        """p(T)."""
        space: spaces.Space[Any] = self.env.unwrapped.task_space  # type: ignore[attr-defined]
        return space

    @property
    def task(self) -> Any:
        """The task that the next `reset` begins."""
        return self.env.unwrapped.task  # type: ignore[attr-defined]

    @task.setter
    def task(self, task: Any) -> None:
        self.env.unwrapped.task = task  # type: ignore[attr-defined]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[_Array, dict[str, Any]]:
        """Begins an episode with the assigned task, which stays in its observations to the end."""
        self._flat_task = spaces.flatten(self.task_space, self.task)  # type: ignore[assignment]
        observation, info = self.env.reset(seed=seed, options=options)
        return self._extend(observation), info

    def step(self, action: Any) -> tuple[_Array, Any, bool, bool, dict[str, Any]]:
        """Takes one step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._extend(observation), reward, terminated, truncated, info

    def _extend(self, observation: Any) -> _Array:
        return np.concatenate([np.ravel(observation), self._flat_task]).astype(self.observation_space.dtype, copy=False)


class VectorTaskObservation(VectorWrapper[_Array, Any, Any, Any, Any]):
    """`TaskObservation` of all sub-environments of a batch at once.

    Args:
        env: A vector environment with `task_space`, whose `get_attr("task")` gives the task that each
            sub-environment's next `reset` begins, and whose autoreset is disabled.

    Raises:
        InputError: If it resets itself, has no task_space, observations are not in a Box, or tasks cannot be flattened
            to numbers.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        if env.metadata.get("autoreset_mode") is not AutoresetMode.DISABLED:
            raise InputError(f"{one_line(env)} resets itself: wrap each sub-environment in TaskObservation instead")
        self.task_space: spaces.Space[Any] = getattr(env.unwrapped, "task_space", None)  # type: ignore[assignment]
        self.single_observation_space = _extended(env.single_observation_space, self.task_space)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        size = int(np.prod(env.single_observation_space.shape or ()))
        self._observations = np.zeros(self.observation_space.shape or (), self.observation_space.dtype)
        # Views of its two parts: a task is written at a reset and stays while every step replaces what is observed.
        self._observed, self._tasks = self._observations[:, :size], self._observations[:, size:]

    @cached_property
    def groups(self) -> list["VectorEnv[Any, Any, Any]"]:
        """The batch's groups of sub-environments, for sampling at the same time; only this one if it has none."""
        offered = getattr(self.env, "groups", [self.env])
        return [self if group is self.env else VectorTaskObservation(group) for group in offered]

    @property
    def task(self) -> list[Any]:
        """The task of each sub-environment that its next `reset` begins."""
        return list(self.get_attr("task"))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """One value for each sub-environment."""
        values: tuple[Any, ...] = self.env.unwrapped.get_attr(name)  # type: ignore[attr-defined]
        return values

    def set_attr(self, name: str, values: Any) -> None:
        """Assigns an attribute such as `task`: a list with one for each sub-environment, or one for all."""
        self.env.unwrapped.set_attr(name, values)  # type: ignore[attr-defined]

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[_Array, dict[str, Any]]:
        """Begins an episode with the assigned task in every sub-environment, or in those of `options["reset_mask"]`."""
        observations, info = self.env.reset(seed=seed, options=options)
        tasks = self.task
        rows = np.flatnonzero((options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_)))
        for row in rows:
            self._tasks[row] = spaces.flatten(self.task_space, tasks[row])
        return self._extend(observations), info

    def step(self, actions: Any) -> tuple[_Array, Any, Any, Any, dict[str, Any]]:
        """Steps the sub-environments."""
        observations, *result = self.env.step(actions)
        return self._extend(observations), *result

    def _extend(self, observations: Any) -> _Array:
        self._observed[:] = observations.reshape(self.num_envs, -1)
        return self._observations.copy()


def _extended(observation_space: spaces.Space[Any], task_space: Any) -> Rows:
    """Space of an observation with the flattened task after it."""
    if not isinstance(task_space, spaces.Space):
        raise InputError(f"there is no task to observe: the environment's task_space is {one_line(task_space)}")
    if not isinstance(observation_space, spaces.Box):
        raise InputError(f"observations must be in a Box for a task to be appended, got {one_line(observation_space)}")
    flat: spaces.Space[Any]
    try:
        flat = spaces.flatten_space(task_space)
    except NotImplementedError:  # a custom Space
        flat = task_space
    except ValueError as error:  # tasks that are not numbers, or not always as many
        raise InputError(
            f"a task of {one_line(task_space)} cannot be observed: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(flat, spaces.Box):
        raise InputError(
            f"a task of {one_line(task_space)} cannot be observed: gymnasium.spaces.flatten does not give an array"
        )
    dtype = np.dtype(observation_space.dtype)
    if not np.issubdtype(dtype, np.floating):
        dtype = np.result_type(dtype, flat.dtype)
    low = np.concatenate([np.ravel(observation_space.low), flat.low]).astype(dtype)
    high = np.concatenate([np.ravel(observation_space.high), flat.high]).astype(dtype)
    return Rows(_with_task(observation_space, Part(TASK, flat.shape)), spaces.Box(low, high, dtype=dtype.type))


def _with_task(observation_space: spaces.Box, task: Part) -> Parts:
    """Parts of an observation and of the task after it: all have names, by which a network gets them."""
    named = tuple(part._replace(name=part.name or OBSERVATION) for part in observation_parts(observation_space))
    if any(part.name == task.name for part in named):
        raise InputError(
            f"observations already have a part named {task.name}, the name of the task that is appended: rename it"
        )
    return (*named, task)
