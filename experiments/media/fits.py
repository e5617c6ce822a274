"""What networks do with single tasks of a supervised evaluation; sinusoids as Figure 2 of Finn, Abbeel, Levine 2017."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maml_rl.experiments.media.charts import OF_STEPS, Axis, Chart, Series
from maml_rl.experiments.media.labels import steps_label
from maml_rl.experiments.runs.evaluations import Evaluation
from maml_rl.run import load_run, with_data
from maml_rl.seeding import Phase
from maml_rl.supervised.adaptation import predictions
from maml_rl.supervised.settings import SupervisedConfig, SupervisedEvaluation
from maml_rl.supervised.supervised_learner import SupervisedLearner, open_supervised
from maml_rl.supervised.task_batches import Sinusoid, TaskBatch
from maml_rl.types import State

_DRAWN = ((0, 10), (1, 10), (2, 5), (3, 5))  # held-out tasks whose fits are drawn, and their shots
_POINTS = 100  # of a curve


class HeldOut(NamedTuple):
    """A supervised run with the tasks of its evaluation, on the CPU."""

    learner: SupervisedLearner
    state: State
    evaluation: Evaluation
    gradient_steps: int

    @property
    def shots(self) -> int:
        """Support examples of a task, or of each of its classes, in the evaluation's first curve."""
        settings = self.evaluation.settings
        assert isinstance(settings, SupervisedEvaluation)
        return (settings.shots or (self.learner.config.tasks.shots,))[0]

    def task(self, index: int, shots: int) -> TaskBatch:
        """A task of the evaluation, M = 1, by its index there."""
        settings = self.evaluation.settings
        assert isinstance(settings, SupervisedEvaluation)
        tasks = self.learner.held_out(settings, shots, index + 1)
        return TaskBatch(*(examples[index:] for examples in tasks))

    def outputs(self, task: TaskBatch, shots: int, x: Tensor) -> NDArray[np.float64]:
        """The network's outputs for inputs `[n, ...]` of a task after 0, 1, ..., S gradient steps, `[S + 1, n, ...]`.

        The step size is the evaluation's for this number of shots.
        """
        curves = self.evaluation.main_curves()
        curve = next((curve for curve in curves if curve.condition.startswith(f"{shots}-shot")), curves[0])
        meta = self.learner.config.meta
        settings = replace(meta, inner_lr=curve.inner_lr[0]) if curve.inner_lr else meta
        return predictions(self.learner.network, settings, self.state.meta, task, x, self.gradient_steps)

    def fit_chart(self, index: int, shots: int, title: str, steps: Sequence[int] | None = None) -> Chart:
        """What the network does with a regression task of one input and one output.

        Args:
            index: Index of the task in the evaluation.
            shots: Its support examples.
            title: Title of the chart.
            steps: After which gradient steps the function is drawn; all of them, for a slider to choose one, if None.
        """
        task = self.task(index, shots)
        support, query = (
            (x[0, :, 0].tolist(), y[0, :, 0].tolist())
            for x, y in ((task.support_x, task.support_y), (task.query_x, task.query_y))
        )
        x = np.linspace(min(support[0] + query[0]), max(support[0] + query[0]), _POINTS)
        target = Series("held-out points", "goal", *query, line=False, marks="hollow")
        if self.learner.config.tasks.family == "sinusoid":
            amplitude, shift = Sinusoid().parameters(self.evaluation.settings.seed, Phase.EVALUATION, [index])
            x = np.linspace(-5.0, 5.0, _POINTS)
            target = Series("truth", "goal", x.tolist(), (amplitude * np.sin(x - shift)).tolist())
        heights = np.array([*target.y, *support[1]])
        margin = 0.4 * float(np.ptp(heights)) + 1e-6
        values = self.outputs(task, shots, torch.from_numpy(x).float()[:, None])[..., 0]
        values = np.clip(values, heights.min() - margin, heights.max() + margin)
        drawn = []
        for step, function in enumerate(values):
            there = np.isfinite(function)
            x_y = x[there].round(4).tolist(), function[there].round(4).tolist()
            if steps is None:
                drawn.append(Series("" if step else "network", "after", *x_y, step=step))
            elif step in steps:
                drawn.append(Series(steps_label(step), OF_STEPS[steps.index(step)], *x_y, dashed=step == 0))
        points = Series("points to learn from", "random", *support, line=False, marks="point")
        return Chart(title, "", Axis("x"), Axis("y"), [target, *drawn, points])


def open_held_out(
    evaluation: Evaluation, directory: Path, data: str | None = None, gradient_steps: int | None = None
) -> HeldOut:
    """Opens a supervised run for its single tasks.

    Args:
        evaluation: Its evaluation.
        directory: The run.
        data: Directory of the images; that of the run if None.
        gradient_steps: Gradient steps; those of the evaluation if None.

    Raises:
        InputError: If the run or its data cannot be used.
    """
    run = load_run(directory)
    config = run.config if data is None else with_data(run.config, data, directory)
    assert isinstance(config, SupervisedConfig)
    steps = evaluation.gradient_steps if gradient_steps is None else gradient_steps
    return HeldOut(open_supervised(config, for_training=False), run.state, evaluation, steps)


def sinusoid_charts(evaluation: Evaluation, directory: Path) -> list[Chart]:
    """Fits of a few of the held-out sinusoids, before adaptation, after a gradient step and after the last."""
    opened, last = open_held_out(evaluation, directory), evaluation.gradient_steps
    steps = sorted({0, min(1, last), last})
    return [opened.fit_chart(i, shots, f"Held-out sinusoid, K = {shots}", steps) for i, shots in _DRAWN]
