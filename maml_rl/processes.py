"""Runs an environment without a batched form in processes, with a few sub-environments in each.

Nothing in this module imports PyTorch, so neither do the processes, unless the environment does.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess, current_process
from pathlib import Path
from time import monotonic
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import CloudpickleWrapper, batch_space
from numpy.typing import NDArray

from maml_rl.config import ENVS_PER_PROCESS, StartMethod
from maml_rl.errors import InputError, WorkerError
from maml_rl.process_worker import NOWHERE, REASON, TRACEBACK, Infos, Job, Shared, WorkerEnv, work
from maml_rl.task_parts import plain_text
from maml_rl.waiting import REPORT_AFTER, report_times, report_waiting, reporting_waits

Wrap = Callable[[gymnasium.Env[Any, Any]], gymnasium.Env[Any, Any]]
_KNOWN = ("reset", "step")  # calls that a user of environments knows
_LOOK_SECONDS = 1.0  # between checks that all processes are alive, while one takes long to answer
_GRACE_SECONDS = 5.0  # for a process to finish its step and close its environment, before it is killed


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Processes:
    """Number and start method of processes for an environment without a batched form. Neither changes a result.

    `spawn` starts each in a fresh interpreter, which imports Gymnasium and the environment, and nothing else. It
    inherits no state of PyTorch, OpenMP, a GPU or a lock that could hang or break the environment. It is the default
    because it works for every environment; it takes about a second. `fork` copies this process instead, which is
    immediate. The processes start before this package's threads do, so `fork` is safe for an environment that itself
    uses neither PyTorch nor OpenMP nor a GPU.
    """

    count: int | None = None
    """Number of processes; as many as cores if None."""
    start_method: StartMethod = "spawn"
    """How they start: spawn or fork."""
    report_hang_after: float = REPORT_AFTER
    """Seconds after which stderr names an environment that has not come back, with its process and task, and again each
    time that the wait has doubled; inf for never."""
    envs_each: int = ENVS_PER_PROCESS
    """Sub-environments in each process, at most; 1 for an environment of which a process can hold only one."""

    def __post_init__(self) -> None:
        """Raises InputError for a value outside its range."""
        if self.count is not None and self.count < 1:
            raise InputError(f"processes must be at least 1, got {self.count}")
        if self.envs_each < 1:
            raise InputError(f"envs_per_process must be at least 1, got {self.envs_each}")
        if self.start_method not in get_all_start_methods():
            known = ", ".join(get_all_start_methods())
            raise InputError(f"start_method must be one of {known} on this system, got {self.start_method!r}")
        if not self.report_hang_after > 0:
            raise InputError(f"report_hang_after must be above 0, got {self.report_hang_after}")


ALL_CORES = Processes()


class ProcessVectorEnv(VectorEnv[Any, Any, NDArray[Any]]):
    """Sub-environments in processes. The processes end with this one, and their failures name the task.

    A process steps its sub-environments one after the other, all of them between two evaluations of the policy.
    Observations, actions and rewards are in memory that all processes share. Autoreset is disabled: a finished
    sub-environment stays idle until its reset.

    Args:
        spec: The environment as registered.
        num_envs: Number of sub-environments.
        processes: Number of processes, at most one for each sub-environment, how they start, and when one that does
            not answer is reported.
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
        self.parent_pipes: list[Connection[Any, Any]] = []  # so that closing works however far the start got
        self.processes: list[BaseProcess] = []
        self._tasks: list[Any] = []
        self._name, self._report_hang_after = spec.id, processes.report_hang_after
        self._method = processes.start_method
        make = partial(_make, spec, settings, wrappers, os.getpid(), processes.report_hang_after)
        count = min(processes.count or available_cores(), num_envs)
        self._rows = [range(p * num_envs // count, (p + 1) * num_envs // count) for p in range(count)]
        try:
            with self._reporting():
                self._start(make, num_envs)
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

    def _start(self, make: Callable[[], WorkerEnv], num_envs: int) -> None:
        """Starts the processes, and waits until each has made its environments."""
        if getattr(current_process(), "_inheriting", False):  # this script is being imported: its starter reports it
            raise SystemExit(1)
        context, one = get_context(self._method), make()
        try:
            self.num_envs, self.render_mode = num_envs, one.render_mode
            self.metadata = dict(one.metadata) | {"autoreset_mode": AutoresetMode.DISABLED}
            self.single_observation_space, self.single_action_space = one.observation_space, one.action_space
            shared = Shared(one, num_envs, len(self._rows), context)
        finally:
            one.close()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._shared = shared.arrays()
        self._shared.at[:] = NOWHERE
        for index, rows in enumerate(self._rows):
            ours, theirs = context.Pipe()
            job = Job(index, rows, CloudpickleWrapper(make), shared)
            process = context.Process(target=work, args=(job, theirs, ours), daemon=True)  # type: ignore[attr-defined]
            self.parent_pipes.append(ours)
            self.processes.append(process)
            process.start()
            theirs.close()
        self._await_environments()

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Values of an attribute, or of a method's call, of each sub-environment."""
        return tuple(
            value for values in self._asked("call", [(name, args, kwargs)] * len(self._rows)) for value in values
        )

    def render(self) -> tuple[Any, ...]:
        """A picture of each sub-environment."""
        return self.call("render")

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Values of an attribute of each sub-environment."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Sets an attribute of the sub-environments: a list with one for each, or one for all."""
        of_each = list(values) if isinstance(values, (list, tuple)) else [values] * self.num_envs
        if len(of_each) != self.num_envs:
            raise ValueError(f"expected {self.num_envs} values of {name}, got {len(of_each)}")
        if name == "task":
            self._tasks = of_each
        self._asked("set", [(name, of_each[rows.start : rows.stop]) for rows in self._rows])

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode in each sub-environment, or in those of `options["reset_mask"]`."""
        if seed is None or isinstance(seed, int):
            seed = [None if seed is None else seed + row for row in range(self.num_envs)]
        others = dict(options or {})
        mask = np.asarray(others.pop("reset_mask", np.ones(self.num_envs, np.bool_)))
        if len(seed) != self.num_envs or mask.shape != (self.num_envs,):
            raise ValueError(f"expected {self.num_envs} seeds and values of reset_mask, got {len(seed)}, {mask.shape}")
        given = others if options is not None else None
        infos = self._infos(
            self._asked(
                "reset",
                [(seed[rows.start : rows.stop], mask[rows.start : rows.stop].tolist(), given) for rows in self._rows],
            )
        )
        return self._shared.observations.copy(), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Steps the sub-environments whose episode is running."""
        self._shared.actions[:] = actions
        infos = self._infos(self._asked("step", [()] * len(self._rows)))
        shared = self._shared
        returned = (shared.observations, shared.rewards, shared.terminated, shared.truncated)
        return (*(array.copy() for array in returned), infos)  # type: ignore[return-value]

    def _asked(self, call: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The processes' answers to a call.

        Raises:
            WorkerError: If one of them fails, or has ended.
        """
        with self._reporting():
            for pipe, given in zip(self.parent_pipes, arguments, strict=True):
                pipe.send((call, given))
            self._await_answers(call if call in _KNOWN else "a call")
            answers = [pipe.recv() for pipe in self.parent_pipes]
        for index, answer in enumerate(answers):
            if isinstance(answer, dict):
                raise WorkerError(f"{self._place(index)} raised {answer[REASON]}", answer[TRACEBACK])
        return answers

    def _infos(self, answers: Sequence[Infos]) -> dict[str, Any]:
        """The sub-environments' `info`, in the form that vector environments use.

        Raises:
            WorkerError: If one of them has failed.
        """
        infos: dict[str, Any] = {}
        for index, of_process in enumerate(answers):
            for row, info in of_process:
                if TRACEBACK in info:
                    raise WorkerError(f"{self._place(index, row)} raised {info[REASON]}", info[TRACEBACK])
                infos = self._add_info(infos, info, row)
        return infos

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Ends the processes: each closes its environment after its current step, or is killed if that takes too long.

        Args:
            timeout: Seconds to wait for that; None for the default.
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

    def _await_environments(self) -> None:
        """Waits until the processes have started and made their environments.

        Each answers twice before it serves (`work`): when it has started, and when it has made its environments. So if
        a process ends before the first answer, the error blames what starting imports, and names the script.
        """
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
            if answer := pipe.recv():
                raise WorkerError(f"{self._place(index)} raised {answer[REASON]}", answer[TRACEBACK])

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
        """The running script, if every process imports it before it begins."""
        file = getattr(sys.modules["__main__"], "__file__", None) or ""
        return Path(file).name if self._method == "spawn" and file.endswith(".py") else None

    def _place(self, index: int, row: int = NOWHERE) -> str:
        """A process, and the task of the sub-environment that it is in, or was in when it ended, if it was in one."""
        rows, row = self._rows[index], int(self._shared.at[index]) if row == NOWHERE else row
        task = (
            f"task {plain_text(self._tasks[rows.start if row == NOWHERE else row])}" if self._tasks else "no task yet"
        )
        others = f", or another of {len(rows)}" if self._tasks and row == NOWHERE and len(rows) > 1 else ""
        return f"process {index} of {self._name} ({task}{others})"


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


def _end(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exited with code {exit_code}"
    name = signal.Signals(-exit_code).name
    return f"was killed by {name}" + (" (is there enough memory?)" if name == "SIGKILL" else "")
