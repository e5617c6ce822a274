"""A run, live: it adapts to any task of its space on the spot, while its robots are watched.

What is computed is here; how it is shown, in a browser through MuJoCo's Studio, is in `studio.py`.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
from gymnasium import spaces

from maml_rl.config import MetaConfig
from maml_rl.envs.mujoco.mdp import MujocoMDP
from maml_rl.envs.navigation import Navigation2D
from maml_rl.errors import InputError
from maml_rl.evaluation import adaptation, task_returns, with_step_size
from maml_rl.experiments.media.filming import Stage, recorded
from maml_rl.experiments.media.recording import Recording
from maml_rl.experiments.media.task_display import task_names
from maml_rl.experiments.runs.evaluations import chosen_step_size
from maml_rl.experiments.runs.run import load_config, load_run, make_envs, overridden
from maml_rl.parallel import threads_for, usable_device
from maml_rl.processes import ALL_CORES, Processes
from maml_rl.tasks import Task, TaskVectorEnv, task_space


def is_shown(env: gymnasium.Env[Any, Any] | TaskVectorEnv) -> bool:
    """Whether the page can show what an environment does."""
    return isinstance(getattr(env.unwrapped, "mdp", None), (MujocoMDP, Navigation2D))


def not_shown(env_id: str) -> str:
    """What to do with an environment that the page cannot show."""
    return f"maml-rl view shows robots in MuJoCo and navigation, not {env_id}: maml-rl visualize shows any environment"


class Session:
    """A run that stays loaded, to be adapted to one task after the other.

    Args:
        directory: The run.
        gradient_steps: Gradient steps; those of the run's evaluation if None.
        episodes: Episodes for each gradient step; those of the run's evaluation if None.
        seed: Seed of everything random. Every adaptation draws the same, so that tasks can be compared.
        device: Where the policy and its updates are computed.
        threads: Threads that the updates may use.
        processes: Processes of an environment that is not batched.

    Raises:
        InputError: If the run cannot be used, or its environment is neither a robot in MuJoCo nor navigation.
    """

    def __init__(
        self,
        directory: Path,
        gradient_steps: int | None = None,
        episodes: int | None = None,
        seed: int = 0,
        device: str = "cpu",
        threads: int | None = None,
        processes: Processes = ALL_CORES,
    ) -> None:
        torch_device = usable_device(device)
        self._threads = threads_for(torch_device, threads)
        config, progress, _ = load_config(directory)
        self.config = overridden(config.evaluation, gradient_steps=gradient_steps, episodes=episodes, seed=seed)
        self._evaluation, self._meta = config.evaluation, config.meta
        inner_lr = chosen_step_size(directory, config, progress)
        if inner_lr is not None:
            self._meta = replace(self._meta, inner_lr=inner_lr)
        self._validated = inner_lr is not None or config.meta.inner_steps > 0 or self.config.gradient_steps == 0
        self._envs = make_envs(config, self.config.episodes, processes)
        try:
            self.run = load_run(directory, self._envs)
            if not is_shown(self._envs):
                raise InputError(not_shown(config.env_id))
        except InputError:
            self._envs.close()
            raise
        self.mdp: MujocoMDP | Navigation2D = self._envs.unwrapped.mdp  # type: ignore[attr-defined]
        theta = {name: value.to(torch_device) for name, value in self.run.theta.items()}
        self.run = self.run._replace(policy=self.run.policy.to(torch_device), theta=theta)

    @property
    def task_space(self) -> spaces.Space[Any]:
        """p(T)."""
        return task_space(self._envs)

    def task_name(self, task: Task) -> str:
        """A task in a few words."""
        return task_names(self._envs, [task])[0]

    def _settings(self, report: Callable[[int], None]) -> MetaConfig:
        """Settings of the inner update; of a run that has no step size of its own, it is chosen once."""
        if not self._validated:
            run = self.run
            given = (run.policy, run.theta, self._envs, self._meta, self._evaluation, self._threads)
            self._meta, _ = with_step_size(*given, before_each=lambda: report(0))
            self._validated = True
        return self._meta

    def adapt(self, task: Task, report: Callable[[int], None]) -> Recording:
        """Adapts to a task, and records an episode after 0, 1, ... gradient steps.

        Args:
            task: The task.
            report: Called with the number of stages that are done, `gradient_steps + 1` at the end; what it raises
                ends the adaptation.

        Raises:
            NonFiniteError: If the adaptation diverges.
        """
        run, config = self.run, self.config
        meta = self._settings(report)

        def stages() -> Iterator[Stage]:
            steps = adaptation(run.policy, run.theta, self._envs, [task], meta, config, self._threads)
            for done, (params, sampled) in enumerate(steps, start=1):
                yield Stage(params, task_returns(sampled))
                report(done)

        return recorded(run, [task], stages(), config, meta.inner_lr)

    def close(self) -> None:
        """Closes the environments."""
        self._envs.close()


class Shown(NamedTuple):
    """What is watched: an adaptation that has finished."""

    task: Task
    recording: Recording
    seconds: float  # that it took


class _SupersededError(Exception):
    """Another task was asked for in the meantime."""


class Adapting:
    """Adapts a session in a thread of its own, to the task that was asked for last.

    Args:
        session: The session.
        say: Takes a line about each adaptation that has finished.

    Attributes:
        task: The task that was asked for last.
        shown: The last adaptation that has finished; None before the first.
        problem: Why the last one failed, or an empty text.
        done, total: How far the current one has come; they are equal while there is none.
    """

    def __init__(self, session: Session, say: Callable[[str], None]) -> None:
        self._session, self._say = session, say
        self._pool = ThreadPoolExecutor(1)
        self._asked = 0
        self.task: Task = None
        self.shown: Shown | None = None
        self.problem = ""
        self.done = self.total = session.config.gradient_steps + 1

    def ask(self, task: Task) -> None:
        """Adapts to a task, in place of one that is not finished."""
        self._asked += 1
        self.task, self.done, self.problem = task, 0, ""
        self._pool.submit(self._adapt, task, self._asked)

    def close(self) -> None:
        """Ends the adaptation, after at most a gradient step."""
        self._asked += 1
        self._pool.shutdown()

    def _adapt(self, task: Task, number: int) -> None:
        started = time.perf_counter()

        def report(done: int) -> None:
            if number != self._asked:
                raise _SupersededError
            self.done = min(done, self.total - 1)  # the last stage is done when its recording is shown

        try:
            report(0)
            recording = self._session.adapt(task, report)
            self.shown = Shown(task, recording, time.perf_counter() - started)
            self._say(_line(self.shown))
        except _SupersededError:
            return
        except Exception as error:  # a thread has nobody else to tell; a task that diverges leaves the others
            self.problem = next(iter(str(error).splitlines()), type(error).__name__)
            self._say(f"{self._session.task_name(task)}: {self.problem}")
        if number == self._asked:
            self.done = self.total


def _line(shown: Shown) -> str:
    (name,) = shown.recording.task_names
    returns = ", ".join(f"{value:.1f}" for value in shown.recording.mean_returns[:, 0])
    steps = f"0 to {shown.recording.gradient_steps}" if shown.recording.gradient_steps else "0"
    return f"{name}: mean return {returns} after {steps} gradient steps ({shown.seconds:.1f} s)"
