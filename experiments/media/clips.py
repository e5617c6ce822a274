"""Animated clips in TensorBoard: a robot before and after adaptation, while its policy is being trained."""

import sys

import numpy as np

from maml_rl.config import require
from maml_rl.errors import InputError, NonFiniteError
from maml_rl.evaluation import EvaluationConfig
from maml_rl.experiments.media.filming import record, spread
from maml_rl.experiments.media.rendering import Drawing, frame_times, side_by_side, to_gif
from maml_rl.experiments.runs.run import Run
from maml_rl.experiments.runs.run_log import Clip
from maml_rl.parallel import TaskThreads
from maml_rl.processes import Processes
from maml_rl.tasks import TaskVectorEnv, evaluation_tasks, task_space

_TASKS = 2  # held-out tasks that a clip shows, one above the other
_SIZE = (320, 200)  # pixels of each picture
_SECONDS = 6.0  # of simulated time, at most


class Clips:
    """Makes a clip of the policy every few iterations; where it cannot, says so once and makes no more.

    What it draws at random depends on the place in the run alone and touches nothing of the training.

    Args:
        envs: The environments of the training, of which only the task space is used.
        every: Iterations from one clip to the next; none if 0.
        threads: Threads that share the tasks.
        processes: Processes of an environment that is not batched.

    Raises:
        InputError: If `every` is negative.
    """

    def __init__(self, envs: TaskVectorEnv, every: int, threads: TaskThreads, processes: Processes) -> None:
        require("render_every", every, every >= 0, "at least 0")
        self._space, self._every = task_space(envs), every
        self._threads, self._processes = threads, processes

    def after(self, run: Run) -> Clip | None:
        """The clip of a run's policy, if one is due after this many iterations."""
        if not self._every or run.progress.iteration % self._every:
            return None
        try:
            return self._clip(run)
        except (InputError, NonFiniteError) as error:
            print(f"no clips for TensorBoard: {error}", file=sys.stderr, flush=True)
            self._every = 0
            return None

    def _clip(self, run: Run) -> Clip:
        meta, evaluation = run.config.meta, run.config.evaluation
        # Many tasks to choose the lowest and the highest of, where a task is a number.
        tasks = evaluation_tasks(self._space, max(_TASKS, evaluation.tasks), evaluation.seed)
        chosen = [tasks[index] for index in spread(tasks, _TASKS)]
        config = EvaluationConfig(
            gradient_steps=meta.inner_steps, episodes=meta.episodes, later_lr_factor=1.0, seed=evaluation.seed
        )
        recording = record(run, chosen, config, self._threads, self._processes)
        _, frames_per_second = frame_times(recording)
        steps = sorted({0, meta.inner_steps})
        with Drawing(recording, *_SIZE) as drawing:
            frames = np.concatenate([side_by_side(drawing, m, steps) for m in range(len(chosen))], axis=1)
        frames = frames[: round(_SECONDS * frames_per_second) : 2]  # every second one, for half the size
        return Clip(to_gif(frames, frames_per_second / 2), frames.shape[2], frames.shape[1])
