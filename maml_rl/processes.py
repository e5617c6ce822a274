"""An environment without a batched form: one process for each sub-environment, by Gymnasium's `AsyncVectorEnv`.

Nothing in this module imports PyTorch, so neither do the processes, unless the environment does.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_all_start_methods
from multiprocessing.connection import Connection, wait
from numbers import Real
from pathlib import Path
from time import monotonic
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import _async_worker

from maml_rl.config import StartMethod
from maml_rl.errors import InputError, WorkerError, reason
from maml_rl.requirements import time_limit
from maml_rl.task_parts import plain_text
from maml_rl.waiting import REPORT_AFTER, report_times, report_waiting, reporting_waits

Wrap = Callable[[gymnasium.Env[Any, Any]], gymnasium.Env[Any, Any]]
_REASON, _TRACEBACK = "reason", "traceback"  # entries of `info` that hold an exception's
_LOOK_SECONDS = 1.0  # between looks at whether all processes are alive, while one takes long to answer
_GRACE_SECONDS = 5.0  # for a process to finish its step and close its environment, before it is killed


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Processes:
    """Processes of an environment without a batched form: how many, and how they start. Neither changes a result.

    `spawn` begins each with a fresh interpreter, which imports Gymnasium and the environment, and nothing else: no
    state of PyTorch, of OpenMP, of a GPU or of a lock is inherited that could hang or break the environment. It is the
    default because it is right for every environment; it takes about a second. `fork` copies this process instead,
    which is immediate. The processes start before this package's threads do, so it is safe for an environment that
    itself uses none of PyTorch, OpenMP or a GPU.
    """

    count: int | None = None
    """Number of processes; as many as cores if None."""
    start_method: StartMethod = "spawn"
    """How they start: spawn or fork."""
    report_hang_after: float = REPORT_AFTER
    """Seconds after which stderr names an environment that has not come back, with its process and task, and again each
    time that the wait has doubled; inf for never."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        if self.count is not None and self.count < 1:
            raise InputError(f"processes must be at least 1, got {self.count}")
        if self.start_method not in get_all_start_methods():
            known = ", ".join(get_all_start_methods())
            raise InputError(f"start_method must be one of {known} on this system, got {self.start_method!r}")
        if not self.report_hang_after > 0:
            raise InputError(f"report_hang_after must be above 0, got {self.report_hang_after}")


ALL_CORES = Processes()


class WorkerEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One episode as sampling needs it: idle after its end, and without what a pipe between processes cannot carry.

    After its end a step costs nothing and leaves the environment alone: the last observation and flags stay, the
    reward is 0. Of `info` only numbers pass. An exception ends the episode, and `info` holds its traceback, because the
    exception itself might not be picklable.
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

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode with the assigned task."""
        try:
            self.env.unwrapped.task = self.task  # type: ignore[attr-defined]
            observation, info = self.env.reset(seed=seed, options=options)
            self._observation = self._checked(observation)
        except Exception as error:
            self._flags = (False, True)
            return self._observation, _failure(error)
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
            return self._observation, 0.0, *self._flags, _failure(error)
        self._flags = (bool(terminated), bool(truncated))
        return self._observation, earned, *self._flags, _numbers(info)

    def _checked(self, observation: Any) -> Any:
        shape = self.observation_space.shape
        if np.shape(observation) != shape:
            raise ValueError(f"an observation has shape {np.shape(observation)}, observation_space has {shape}")
        return np.asarray(observation, self.observation_space.dtype)


class ProcessVectorEnv(AsyncVectorEnv[Any, Any]):
    """Sub-environments in a process each, which end with this one, and whose failures name their task.

    Autoreset is disabled: a finished sub-environment stays idle until its reset.

    Args:
        spec: The environment as registered.
        num_envs: Number of sub-environments and processes.
        processes: How the processes start, and when one that does not answer is reported. Their count is `num_envs`.
        wrappers: What each environment is wrapped in, the innermost first.
        settings: Keyword arguments of the environment.

    Attributes:
        task_space: p(T); None if the environment has no `task_space` or no `task`.
        max_episode_steps: Time limit of the environment, or None.

    Raises:
        InputError: If `task_space` is not the same in all processes.
        WorkerError: By every method, if the environment raises an exception, or if a process ends.
    """

    def __init__(
        self, spec: EnvSpec, num_envs: int, processes: Processes, wrappers: Sequence[Wrap] = (), **settings: Any
    ) -> None:
        self.parent_pipes, self.processes = [], []  # so that closing works however far the start came
        self._tasks: list[Any] = []
        self._name, self._report_hang_after = spec.id, processes.report_hang_after
        make = partial(_make, spec, settings, wrappers, os.getpid(), processes.report_hang_after)
        method = processes.start_method
        try:
            with self._reporting():
                super().__init__([make] * num_envs, context=method, worker=_work, autoreset_mode=AutoresetMode.DISABLED)
            self.task_space, *others = self.call("task_space")
            # A Space that defines no equality equals only itself, so it cannot be compared.
            if deepcopy(self.task_space) == self.task_space and any(other != self.task_space for other in others):
                raise InputError(
                    f"the processes of {spec.id} have different tasks: they must not depend on random numbers that are "
                    "drawn when the environment is imported or built, except with a fixed seed"
                )
            self.max_episode_steps = self.call("max_episode_steps")[0]
        except BaseException:
            self.close_extras()
            raise
        self.spec = deepcopy(spec)
        self.spec.kwargs.update(settings)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Values of an attribute, or of a method's call, of each sub-environment."""
        with self._reporting():
            return super().call(name, *args, **kwargs)

    def set_attr(self, name: str, values: Any) -> None:
        """Sets an attribute of the sub-environments: a list with one for each, or one for all."""
        if name == "task":
            self._tasks = list(values) if isinstance(values, (list, tuple)) else [values] * self.num_envs
        with self._reporting():
            super().set_attr(name, values)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode in each sub-environment, or in those of `options["reset_mask"]`."""
        with self._reporting():
            observations, infos = super().reset(seed=seed, options=options)
        self._raise_failure(infos)
        return observations, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps the sub-environments whose episode is running."""
        with self._reporting():
            *result, infos = super().step(actions)
        self._raise_failure(infos)
        return (*result, infos)

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Ends the processes: each closes its environment after the step it is in, or is killed if that takes long.

        Args:
            timeout: Seconds to wait for that; None for the usual ones.
            terminate: Whether not to wait.
        """
        end = monotonic() + (0.0 if terminate else _GRACE_SECONDS if timeout is None else timeout)
        for pipe in self.parent_pipes:
            with suppress(OSError):  # the process has ended
                pipe.send(("close", None))
        for process in self.processes:
            if process.pid is None:  # its start has failed
                continue
            process.join(max(0.0, end - monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in self.parent_pipes:
            pipe.close()

    def _check_spaces(self) -> None:
        """Gymnasium's first question to the processes, once they have started and made their environments."""
        # Each process answers twice before it serves (`_work`): when it has started, and when it has made its
        # environment. So a death before the first answer is blamed on what starting imports, with the script's name.
        ended = None
        try:
            script = self._script()
            self._await_answers(f"its start, which imports {script}" if script else "its start")
        except EOFError as error:
            ended = error
        for index, (pipe, process) in enumerate(zip(self.parent_pipes, self.processes, strict=True)):
            try:
                if pipe.poll():
                    pipe.recv()
            except (EOFError, ConnectionError):
                process.join()
                raise WorkerError(f"{self._place(index)} {_end(process.exitcode or 0)}{self._cause()}") from None
        if ended:
            raise ended
        self._await_answers("making its environment")
        for index, pipe in enumerate(self.parent_pipes):
            if failure := pipe.recv():
                raise WorkerError(f"{self._place(index)} raised {failure[_REASON]}", failure[_TRACEBACK])
        super()._check_spaces()  # type: ignore[no-untyped-call]

    def _poll_pipe_envs(self, timeout: float | None = None) -> bool:
        """Waits for the answers to a call, before Gymnasium receives them."""
        if timeout is None:
            self._await_answers(self._state.value)
            return True
        return bool(super()._poll_pipe_envs(timeout))

    def _await_answers(self, call: str) -> None:
        """Waits until every process has answered, and reports those that take long.

        Raises:
            EOFError: If a process has ended instead.
        """
        begun = monotonic()
        times = report_times(self._report_hang_after)
        due = next(times)
        for pipe in self.parent_pipes:
            while not pipe.poll(min(max(begun + due - monotonic(), 0.0), _LOOK_SECONDS)):
                silent = [index for index, other in enumerate(self.parent_pipes) if not other.poll()]
                # Code 0 is a failure only of a process that has not answered; of the others the answer is read first.
                if any(p.exitcode or (p.exitcode == 0 and i in silent) for i, p in enumerate(self.processes)):
                    raise EOFError("a process has ended")
                if silent and monotonic() >= begun + due:
                    others = f" and {len(silent) - 1} more have" if len(silent) > 1 else " has"
                    report_waiting(f"{self._place(silent[0])}{others} not come back from {call}", due)
                    due = next(times)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turns the broken pipe of a process that has ended into an error that names it and its task."""
        try:
            yield
        except (EOFError, ConnectionError) as error:
            ended = wait([process.sentinel for process in self.processes], timeout=_GRACE_SECONDS)
            for index, process in enumerate(self.processes):
                if process.sentinel in ended:
                    process.join()
                    raise WorkerError(f"{self._place(index)} {_end(process.exitcode or 0)}") from error
            raise

    def _raise_failure(self, infos: dict[str, Any]) -> None:
        for index, trace in enumerate(infos.get(_TRACEBACK, ())):
            if isinstance(trace, str):
                raise WorkerError(f"{self._place(index)} raised {infos[_REASON][index]}", trace)

    def _cause(self) -> str:
        """Why a process may have ended before it started to work."""
        script = self._script()
        if not script:
            return " before it made its environment"
        return (
            f" while it imported {script}, as every spawned process does first: "
            'put what the script does under if __name__ == "__main__":'
        )

    def _script(self) -> str | None:
        """The script at work, if every process imports it before it begins."""
        file = getattr(sys.modules["__main__"], "__file__", None) or ""
        return Path(file).name if self.context == "spawn" and file.endswith(".py") else None

    def _place(self, index: int) -> str:
        task = plain_text(self._tasks[index]) if self._tasks else "none yet"
        return f"process {index} of {self._name} (task {task})"


def _work(index: int, make: Callable[[], Any], pipe: "Connection[Any, Any]", *others: Any) -> None:
    """What a process does: it reports that it has started, then whether it could make its environment, and serves.

    If it ends before the first report, it was importing the main module or what its arguments need.
    """
    pipe.send(None)
    try:
        env = make()
    except Exception as error:
        pipe.send(_failure(error))
        return
    pipe.send(None)
    _async_worker(index, lambda: env, pipe, *others)


def _make(
    spec: EnvSpec, settings: dict[str, Any], wrappers: Sequence[Wrap], owner: int, report_hang_after: float
) -> WorkerEnv:
    """A sub-environment, in its process or, for its spaces, in the owner of the processes."""
    if os.getpid() == owner:
        with reporting_waits(f"{spec.id} has not been made", report_hang_after):
            return _worker_env(spec, settings, wrappers)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the owner then closes the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the handler that a fork copies
    return _worker_env(spec, settings, wrappers)


def _worker_env(spec: EnvSpec, settings: dict[str, Any], wrappers: Sequence[Wrap]) -> WorkerEnv:
    env = gymnasium.make(spec, disable_env_checker=True, **settings)
    for wrap in wrappers:
        env = wrap(env)
    return WorkerEnv(env)


def _failure(error: Exception) -> dict[str, str]:
    """An exception as text for another process, because it need not be picklable."""
    return {_REASON: reason(error), _TRACEBACK: "".join(traceback.format_exception(error))}


def _numbers(info: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in info.items() if isinstance(value, (Real, np.bool_))}


def _end(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exited with code {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"was killed by {name}" + (" (is there enough memory?)" if name == "SIGKILL" else "")
