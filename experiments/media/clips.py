"""Animated clips in TensorBoard: a robot before and after adaptation, while its policy is being trained."""

import sys
from collections.abc import Mapping

import numpy as np

from maml_rl.config import RLEvaluation, require
from maml_rl.errors import InputError, NonFiniteError
from maml_rl.experiments.media.filming import film, spread
from maml_rl.experiments.media.rendering import Drawing, frame_times, side_by_side, to_gif
from maml_rl.experiments.runs.run_log import Clip
from maml_rl.learner import AnyLearner
from maml_rl.reinforcement import RLLearner, rl_learner
from maml_rl.run import Run
from maml_rl.tasks import evaluation_tasks

_TASKS = 2  # held-out tasks that a clip shows, one above the other
_SIZE = (320, 200)  # pixels of each picture
_SECONDS = 6.0  # of simulated time, at most


class Clips:
    """Makes a clip of the policy every few iterations. If it cannot, it says so once and stops.

    It is a `maml_rl.experiments.runs.training.Watch`. Its random draws depend only on the point in the run, so the
    training is the same as without clips.

    Args:
        learner: The learner of the training, whose environments it uses between iterations.
        every: Iterations between clips; no clips if 0.

    Raises:
        InputError: If `every` is negative, or the learner is not one of reinforcement learning.
    """

    def __init__(self, learner: AnyLearner, every: int) -> None:
        require("render_every", every, every >= 0, "at least 0")
        self._learner, self._every = rl_learner(learner), every

    def __call__(self, run: Run) -> Mapping[str, Clip]:
        """The clip of a run's policy, if one is due after this many iterations, by its name in TensorBoard."""
        if not self._every or run.state.iteration % self._every:
            return {}
        try:
            return {"adaptation": _clip(self._learner, run)}
        except (InputError, NonFiniteError) as error:
            print(f"no clips for TensorBoard: {error}", file=sys.stderr, flush=True)
            self._every = 0
            return {}


def _clip(learner: RLLearner, run: Run) -> Clip:
    meta, evaluation = learner.config.meta, learner.config.evaluation
    # Many tasks, to choose the lowest and the highest from if a task is a number.
    tasks = evaluation_tasks(learner.task_space, max(_TASKS, evaluation.tasks), evaluation.seed)
    indices = spread(tasks, _TASKS)
    config = RLEvaluation(
        gradient_steps=meta.inner_steps, episodes=meta.episodes, later_lr_factor=1.0, seed=evaluation.seed
    )
    recording = film(learner, run.state, [tasks[m] for m in indices], config, indices)
    _, frames_per_second = frame_times(recording)
    steps = sorted({0, meta.inner_steps})
    with Drawing(recording, *_SIZE) as drawing:
        frames = np.concatenate([side_by_side(drawing, m, steps) for m in range(len(indices))], axis=1)
    frames = frames[: round(_SECONDS * frames_per_second) : 2]  # every second one, for half the size
    return Clip(to_gif(frames, frames_per_second / 2), frames.shape[2], frames.shape[1])
