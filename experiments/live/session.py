"""A live run: it adapts to any task of its space while you watch its robots.

What is computed is here; how it is shown, in a browser through MuJoCo's Studio, is in `studio.py`.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from gymnasium import spaces

from maml_rl.config import RLMeta
from maml_rl.envs.mujoco.scenes import Subject, has_bodies, subject
from maml_rl.errors import InputError
from maml_rl.evaluation import SeededTasks, task_returns
from maml_rl.experiments.media.filming import Stage, filmed
from maml_rl.experiments.media.recording import Recording
from maml_rl.experiments.media.task_display import task_names, task_quantity
from maml_rl.experiments.runs.evaluations import stored_validation
from maml_rl.machine import THIS_MACHINE, Machine
from maml_rl.reinforcement import Counted
from maml_rl.run import load_run, overridden
from maml_rl.tasks import Task, make


def not_shown(env_id: str) -> str:
    """What to do with an environment that the page cannot show."""
    return (
        f"maml-rl view shows navigation and environments with a MuJoCo model, not {env_id}: maml-rl visualize shows "
        "any environment"
    )


class Session:
    """A run that stays loaded, to be adapted to one task after the other.

    Args:
        directory: The run.
        gradient_steps: Gradient steps; those of the run's evaluation if None.
        episodes: Episodes for each gradient step; those of the run's evaluation if None.
        seed: Seed of everything random. Every adaptation draws the same numbers, so that tasks can be compared.
        machine: What may be used of the machine. None of it changes the result.

    Raises:
        InputError: If the run cannot be used, or its environment is neither in MuJoCo nor navigation.
    """

    def __init__(
        self,
        directory: Path,
        gradient_steps: int | None = None,
        episodes: int | None = None,
        seed: int = 0,
        machine: Machine = THIS_MACHINE,
    ) -> None:
        self.run = load_run(directory)
        self._evaluation, self._validation = self.run.rl_config.evaluation, stored_validation(directory, self.run)
        self.config = overridden(self._evaluation, gradient_steps=gradient_steps, episodes=episodes, seed=seed)
        env_id = self.run.rl_config.env_id
        with closing(make(env_id)) as env:
            shown = subject(env)
        if shown is None:
            raise InputError(not_shown(env_id))
        self.subject: Subject = shown
        self._learner = self.run.open_rl(machine, self.config.episodes)

    @property
    def task_space(self) -> spaces.Space[Any]:
        """p(T)."""
        return self._learner.task_space

    @property
    def task_quantity(self) -> str:
        """What the numbers of a task are."""
        return task_quantity(self._learner.envs)

    def task_name(self, task: Task) -> str:
        """A task in a few words."""
        return task_names(self._learner.envs, [task])[0]

    def _settings(self, report: Callable[[int], None]) -> RLMeta:
        """Settings of the inner update. The step size of a run that was trained without one is chosen once."""
        if not self.config.gradient_steps:
            return self._learner.config.meta
        envs = Counted(self._learner.envs, lambda _: report(0))
        given = (self.run.state, self._evaluation, envs, self._validation)
        meta, self._validation = self._learner.with_step_size(*given)
        return meta

    def adapt(self, task: Task, report: Callable[[int], None]) -> Recording:
        """Adapts to a task, and records an episode after 0, 1, ... gradient steps.

        Args:
            task: The task.
            report: Called with the number of stages that are done, `gradient_steps + 1` at the end; what it raises
                ends the adaptation.

        Raises:
            NonFiniteError: If the adaptation diverges.
        """
        learner, state, meta = self._learner, self.run.state, self._settings(report)

        def stages() -> Iterator[Stage]:
            for done, (params, sampled) in enumerate(learner.adaptation(state, [task], self.config, meta), start=1):
                yield Stage(params, task_returns(sampled))
                report(done)

        of_bodies = has_bodies(self.subject)
        return filmed(learner, state, SeededTasks([task]), stages(), self.config, meta, of_bodies)

    def close(self) -> None:
        """Closes the environments."""
        self._learner.close()


class ShownAdaptation(NamedTuple):
    """What is watched: an adaptation that has finished."""

    task: Task
    recording: Recording
    seconds: float  # that it took


class _SupersededError(Exception):
    """Another task was requested in the meantime."""


class Adapting:
    """Adapts a session to the task that was requested last, in a separate thread.

    Args:
        session: The session.
        say: Takes a line about each adaptation that has finished.

    Attributes:
        task: The task that was requested last.
        shown: The last adaptation that has finished; None before the first.
        problem: Why the last one failed, or an empty text.
        done, total: How far the current one has come; they are equal while there is none.
    """

    def __init__(self, session: Session, say: Callable[[str], None]) -> None:
        self._session, self._say = session, say
        self._pool = ThreadPoolExecutor(1)
        self._asked = 0
        self.task: Task = None
        self.shown: ShownAdaptation | None = None
        self.problem = ""
        self.done = self.total = session.config.gradient_steps + 1

    def ask(self, task: Task) -> None:
        """Adapts to a task; an unfinished adaptation ends."""
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
            self.shown = ShownAdaptation(task, recording, time.perf_counter() - started)
            self._say(_line(self.shown))
        except _SupersededError:
            return
        except Exception as error:  # nothing else reports it; other tasks can follow one that diverges
            self.problem = next(iter(str(error).splitlines()), type(error).__name__)
            self._say(f"{self._session.task_name(task)}: {self.problem}")
        if number == self._asked:
            self.done = self.total


def _line(shown: ShownAdaptation) -> str:
    (name,) = shown.recording.task_names
    returns = ", ".join(f"{value:.1f}" for value in shown.recording.mean_returns[:, 0])
    steps = f"0 to {shown.recording.gradient_steps}" if shown.recording.gradient_steps else "0"
    return f"{name}: mean return {returns} after {steps} gradient steps ({shown.seconds:.1f} s)"
