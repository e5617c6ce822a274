"""A process of `maml_rl.processes`, which holds a few sub-environments and steps them one after the other.

Nothing in this module imports PyTorch, so neither do the processes, unless the environment does.
"""

import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from numbers import Real
from pickle import PicklingError
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from maml_rl.errors import reason
from maml_rl.requirements import time_limit

REASON, TRACEBACK = "reason", "traceback"
"""Entries of `info` that hold an exception's."""
NOWHERE = -1
"""What `Shared.at` says of a process that is in none of its sub-environments."""

Infos = list[tuple[int, dict[str, Any]]]
"""The `info` of the sub-environments that have any, by row."""


class Shared:
    """Arrays shared by the owner and all processes, with one row per sub-environment.

    Args:
        env: A sub-environment, for its spaces.
        rows: Number of sub-environments.
        processes: Number of processes.
        context: How the processes start.
    """

    def __init__(self, env: "gymnasium.Env[Any, Any]", rows: int, processes: int, context: BaseContext) -> None:
        seen, acted = env.observation_space, env.action_space
        kinds: dict[str, tuple[tuple[int, ...], Any]] = {
            "observations": ((rows, *(seen.shape or ())), seen.dtype),
            "actions": ((rows, *(acted.shape or ())), acted.dtype),
            "rewards": ((rows,), np.float64),
            "terminated": ((rows,), np.bool_),
            "truncated": ((rows,), np.bool_),
            "at": ((processes,), np.int64),
        }
        self._memory = {
            name: (context.RawArray("b", max(int(np.prod(shape)) * np.dtype(dtype).itemsize, 1)), shape, dtype)
            for name, (shape, dtype) in kinds.items()
        }

    def arrays(self) -> "SharedArrays":
        """The arrays, as this process sees them."""
        return SharedArrays(
            **{
                name: np.frombuffer(memory, dtype, count=int(np.prod(shape))).reshape(shape)
                for name, (memory, shape, dtype) in self._memory.items()
            }
        )


class SharedArrays(NamedTuple):
    """See `Shared`."""

    observations: NDArray[Any]  # [N, ...]
    actions: NDArray[Any]  # [N, ...]
    rewards: NDArray[np.float64]  # [N]
    terminated: NDArray[np.bool_]  # [N]
    truncated: NDArray[np.bool_]  # [N]
    at: NDArray[np.int64]  # [processes]   row of the sub-environment that each is in, or `NOWHERE`


class WorkerEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One episode for sampling: idle after its end, without data that cannot go through a pipe.

    After its end, a step costs nothing and leaves the environment alone: the last observation and flags stay, and the
    reward is 0. Only numbers in `info` are passed on. An exception ends the episode, and `info` holds its traceback,
    because the exception itself might not be picklable.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.task = getattr(env.unwrapped, "task", None)
        self._observation = np.zeros(self.observation_space.shape or (), self.observation_space.dtype)
        self._flags = (False, True)  # terminated, truncated: nothing runs before its reset

    @property
    def task_space(self) -> Any:
        """p(T); None if the environment has no `task_space` or no `task`."""
        base = self.env.unwrapped
        return getattr(base, "task_space", None) if hasattr(base, "task") else None

    @property
    def max_episode_steps(self) -> int | None:
        """Time limit of the environment."""
        return time_limit(self.env)

    @property
    def body_poses(self) -> NDArray[np.float64]:
        """Place and quaternion of each of MuJoCo's bodies but the world, one after the other, `[7 (nbody - 1)]`."""
        data: Any = self.env.unwrapped.data  # type: ignore[attr-defined]
        poses: NDArray[np.float64] = np.concatenate([data.xpos[1:], data.xquat[1:]], axis=1).ravel()
        return poses

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode with the assigned task."""
        try:
            self.env.unwrapped.task = self.task  # type: ignore[attr-defined]
            observation, info = self.env.reset(seed=seed, options=options)
            self._observation = self._checked(observation)
        except Exception as error:
            self._flags = (False, True)
            return self._observation, failure(error)
        self._flags = (False, False)
        return self._observation, _numbers(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes one step, if the episode has not ended."""
        if any(self._flags):
            return self._observation, 0.0, *self._flags, {}
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
            self._observation, earned = self._checked(observation), float(reward)
        except Exception as error:
            self._flags = (False, True)
            return self._observation, 0.0, *self._flags, failure(error)
        self._flags = (bool(terminated), bool(truncated))
        return self._observation, earned, *self._flags, _numbers(info)

    def _checked(self, observation: Any) -> Any:
        shape = self.observation_space.shape
        if np.shape(observation) != shape:
            raise ValueError(f"an observation has shape {np.shape(observation)}, observation_space has {shape}")
        return np.asarray(observation, self.observation_space.dtype)


class Job(NamedTuple):
    """Settings that a process receives when it starts."""

    process: int  # its index
    rows: range  # its sub-environments'
    make: Callable[[], WorkerEnv]
    shared: Shared


def work(job: Job, pipe: "Connection[Any, Any]", end_of_owner: "Connection[Any, Any]") -> None:
    """What a process does: it reports that it has started, then whether it could make its environments, then serves.

    If it ends before the first report, it was importing the main module or what its arguments need.
    """
    end_of_owner.close()  # a copy, which would keep this process from noticing that the owner has ended
    pipe.send(None)
    envs: list[WorkerEnv] = []
    try:
        try:
            for _ in job.rows:
                envs.append(job.make())
        except Exception as error:
            pipe.send(failure(error))
            return
        pipe.send(None)
        served = _Served(job, envs)
        while (asked := pipe.recv())[0] != "close":
            _send(pipe, served.answer(*asked))
    except EOFError:  # the owner has ended
        return
    finally:
        for env in envs:
            env.close()


def _send(pipe: "Connection[Any, Any]", answer: Any) -> None:
    """Sends an answer, or why it cannot be sent."""
    try:
        pipe.send(answer)
    except (PicklingError, TypeError, AttributeError) as error:
        pipe.send(failure(error))


class _Served:
    """The sub-environments of a process, and its answers to requests."""

    def __init__(self, job: Job, envs: list[WorkerEnv]) -> None:
        self._job, self._envs, self._shared = job, envs, job.shared.arrays()
        self._calls: dict[str, Callable[..., Any]] = {
            "reset": self._reset,
            "step": self._step,
            "call": self._call,
            "set": self._set,
        }

    def answer(self, call: str, arguments: tuple[Any, ...]) -> Any:
        """The answer to a call, or a `failure` if the call fails."""
        try:
            found = self._calls[call](*arguments)
        except Exception as error:
            found = failure(error)
        self._shared.at[self._job.process] = NOWHERE  # not reached if the process ends during the call
        return found

    def _reset(self, seeds: list[int | None], wanted: list[bool], options: dict[str, Any] | None) -> Infos:
        found = []
        for row, env, seed, is_wanted in zip(self._job.rows, self._envs, seeds, wanted, strict=True):
            if is_wanted:
                self._shared.at[self._job.process] = row
                self._shared.observations[row], info = env.reset(seed=seed, options=options)
                found.append((row, info))
        return [(row, info) for row, info in found if info]

    def _step(self) -> Infos:
        shared, found = self._shared, []
        for row, env in zip(self._job.rows, self._envs, strict=True):
            shared.at[self._job.process] = row
            action = shared.actions[row].copy() if shared.actions.ndim > 1 else shared.actions[row]
            shared.observations[row], shared.rewards[row], terminated, truncated, info = env.step(action)
            shared.terminated[row], shared.truncated[row] = terminated, truncated
            found.append((row, info))
        return [(row, info) for row, info in found if info]

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        values = [env.get_wrapper_attr(name) for env in self._envs]
        return [value(*args, **kwargs) if callable(value) else value for value in values]

    def _set(self, name: str, values: list[Any]) -> None:
        for env, value in zip(self._envs, values, strict=True):
            env.set_wrapper_attr(name, value)


def failure(error: Exception) -> dict[str, str]:
    """An exception as text for another process, because it need not be picklable."""
    return {REASON: reason(error), TRACEBACK: "".join(traceback.format_exception(error))}


def _numbers(info: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in info.items() if isinstance(value, (Real, np.bool_))}
