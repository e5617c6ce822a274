"""Pictures of runs of either kind: how one learned and adapts, and how several compare.

What a picture shows depends on the evaluation: tasks with values are drawn against their
returns, goals in the plane with paths to them, and sinusoids with their fits (Figures 2 to 5 of Finn, Abbeel, Levine
2017).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maml_rl.config import RLConfig, RLEvaluation
from maml_rl.experiments.media.charts import Axis, Chart, Series, draw_charts
from maml_rl.experiments.media.comparison_charts import methods_chart
from maml_rl.experiments.media.evaluation_charts import episodes_charts, step_chart, task_charts
from maml_rl.experiments.media.fits import sinusoid_charts
from maml_rl.experiments.media.labels import steps_label
from maml_rl.experiments.media.learning_curves import training_charts
from maml_rl.experiments.media.recording import Recording, in_the_plane
from maml_rl.experiments.media.seed_curves import seeds_chart
from maml_rl.experiments.media.task_display import are_places, quantity_of
from maml_rl.experiments.runs.comparison_files import Comparison
from maml_rl.experiments.runs.evaluations import Evaluation
from maml_rl.experiments.runs.text import env_steps_text
from maml_rl.reinforcement import rl_learner
from maml_rl.run import load_run
from maml_rl.supervised.settings import SupervisedConfig
from maml_rl.tasks import admit_beyond, task_space

_TRAJECTORIES = 4  # tasks whose paths are drawn


def draw_evaluation(evaluation: Evaluation, directory: Path, path: Path, recording: Recording | None = None) -> None:
    """Draws learning curve, the quantity by gradient step, and what single tasks show.

    Args:
        evaluation: The evaluation.
        directory: The run.
        path: The file, whose suffix is one of `FIGURES`.
        recording: Episodes of the run, for their paths; the evaluation's own are sampled again if None.
    """
    config = evaluation.config
    charts = [training_charts(evaluation, directory)[0], step_chart(evaluation), *episodes_charts(evaluation)]
    if isinstance(config, SupervisedConfig) and config.tasks.family == "sinusoid" and not config.tasks.observe_task:
        charts += sinusoid_charts(evaluation, directory)
    else:
        quantity = _task_quantity(config, recording)
        charts += _path_charts(evaluation, directory, quantity, recording) or task_charts(evaluation, quantity)
    taken = f"{evaluation.iteration:,} meta-iterations"
    if evaluation.env_steps:
        taken = f"{env_steps_text(evaluation.env_steps)} env steps"
    draw_charts(charts, path, f"{evaluation.problem}, {taken}")


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Draws a comparison, a chart for each condition."""
    draw_charts([methods_chart(comparison, condition) for condition in comparison.conditions], path)


def draw_comparison_figure(comparison: Comparison, path: Path) -> None:
    """Draws learning curves over seeds and a comparison by gradient step, for a paper."""
    charts = [seeds_chart(comparison), *(methods_chart(comparison, condition) for condition in comparison.conditions)]
    draw_charts(charts, path)


def _task_quantity(config: RLConfig | SupervisedConfig, recording: Recording | None) -> str:
    """What the numbers of a task are."""
    if recording is not None or isinstance(config, SupervisedConfig):
        return recording.task_quantity if recording else "task"
    return quantity_of(config.env_id)


def _path_charts(evaluation: Evaluation, directory: Path, quantity: str, recording: Recording | None) -> list[Chart]:
    """Paths to the goals of a few tasks before and after a gradient step; none if tasks are not goals in the plane."""
    goals: Sequence[Any] = evaluation.curves[0].tasks[:_TRAJECTORIES]
    if not goals or not are_places(goals, quantity):
        return []
    after = min(1, evaluation.gradient_steps)
    if recording is None:
        episodes: Any = first_episodes(evaluation, directory, after)
    else:
        goals, after = recording.tasks[:_TRAJECTORIES], min(1, recording.gradient_steps)
        episodes = [[recording.episode(m, step) for m in range(len(goals))] for step in (0, after)]
    if np.shape(episodes[0][0])[1] != 2 or (recording and not in_the_plane(recording)):
        return []
    return [paths_chart(goals, episodes[0], episodes[-1], f"Paths before and {steps_label(after)}")]


def first_episodes(evaluation: Evaluation, directory: Path, gradient_steps: int) -> list[list[NDArray[np.float32]]]:
    """Observations `[n, obs]` of the first episodes of an evaluation's first few tasks, by gradient step and task.

    An evaluation stores values only, so they are sampled again, with the same noise: that of the same indices.

    Args:
        evaluation: An evaluation of tasks that are numbers.
        directory: The run.
        gradient_steps: How many, at most those of the evaluation.
    """
    first, run, settings = evaluation.curves[0], load_run(directory), evaluation.settings
    assert isinstance(run.config, RLConfig)
    assert isinstance(settings, RLEvaluation)
    meta = replace(run.config.meta, inner_lr=first.inner_lr[0]) if first.inner_lr else run.config.meta
    goals = first.tasks[:_TRAJECTORIES]
    few = replace(settings, tasks=max(2, len(goals)), gradient_steps=gradient_steps)
    with run.open(evaluation=few) as opened:
        learner, episodes = rl_learner(opened), []
        admit_beyond(learner.envs)
        tasks = [np.asarray(goal, task_space(learner.envs).dtype) for goal in goals]
        for _, sampled in learner.adaptation(run.state, tasks, few, meta, range(len(tasks))):
            lengths = sampled.mask[:, 0].sum(-1).long()
            episodes.append([o[:n].cpu().numpy() for o, n in zip(sampled.observations[:, 0], lengths, strict=True)])
    return episodes


def paths_chart(goals: Sequence[Any], before: Sequence[ArrayLike], after: Sequence[ArrayLike], title: str) -> Chart:
    """Goals in the plane with the path `[n, 2]` of an episode before and of one after adaptation."""
    series = []
    for m, (goal, *paths) in enumerate(zip(goals, before, after, strict=True)):
        colour = f"task-{m % 4 + 1}"
        for path, faint in zip(paths, (True, False), strict=True):
            x, y = np.transpose(path).tolist()
            series.append(Series("", colour, x, y, faint=faint))
        series.append(Series("", colour, goal[:1], goal[1:], line=False, marks="goal"))
    return Chart(title, "faint: before, strong: after, star: goal", Axis("x"), Axis("y"), series, is_square=True)
