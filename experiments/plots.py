"""Pictures: how a run learned and what a gradient step brings, and how it compares with other methods."""

import csv
import io
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.evaluate import Evaluations
from experiments.paper import paper_returns
from experiments.run import METRICS, RunConfig, method
from maml_rl.checkpoint import write_atomically
from maml_rl.tasks import Task

_BEFORE, _AFTER, _PAPER, _RANDOM = "#7f7f7f", "#1f77b4", "#d62728", "#bcbd22"
_METHODS = {"maml": "C0", "pretrained": "C1", "oracle": "C2", "random": "C3", "maml-oracle": "C4"}
_TRAJECTORIES = 4  # tasks whose episodes are drawn
FIGURES = (".png", ".pdf", ".svg")
"""Endings of the files that a figure may go to."""

TaskPaths = tuple[Any, NDArray[np.floating], NDArray[np.floating]]
"""A task of two numbers, and the paths in the plane `[n, 2]` of an episode before and one after adaptation."""


def draw_adaptation(evaluations: Evaluations, run_directory: Path, path: Path) -> None:
    """Draws learning curve, return by gradient step, and behaviour before and after adaptation; see `draw_figure`."""
    trained, paths = evaluations.trained, []
    if trained.episodes[0][0].shape[1] == 2 and all(numbers(task).size == 2 for task in trained.tasks):
        after = min(1, evaluations.config.gradient_steps)
        paths = list(zip(trained.tasks, trained.episodes[0], trained.episodes[after], strict=True))
    draw_figure(evaluations.record(), evaluations.run.config, run_directory, paths, path)


def draw_figure(
    evaluation: dict[str, Any], config: RunConfig, run_directory: Path, paths: Sequence[TaskPaths], path: Path
) -> None:
    """Draws learning curve, return by gradient step, and behaviour before and after adaptation.

    Args:
        evaluation: The record of `experiments.evaluate.Evaluations`.
        config: The run.
        run_directory: Its directory.
        paths: Paths in the plane, of which a few are drawn; the return of each task instead if there are none.
        path: The file, whose ending is one of `FIGURES`.
    """
    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    _learning_curve(left, run_directory / METRICS, config.meta.inner_steps)
    _return_by_step(middle, evaluation, config)
    if paths:
        _paths(right, paths, min(1, evaluation["gradient_steps"][-1]))
    else:
        _return_by_task(right, evaluation)
    figure.suptitle(f"{config.env_id}, {evaluation['env_steps'] / 1e6:.1f} M env steps")
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure into a file whose ending is one of `FIGURES`; the same figure is the same file."""
    content = io.BytesIO()
    # Neither the date nor a random salt.
    metadata = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}.get(path.suffix)
    with rc_context({"svg.hashsalt": "maml-rl", "svg.fonttype": "none"}):
        figure.savefig(content, format=path.suffix[1:], dpi=120, metadata=metadata)
    write_atomically(path, content.getvalue())


def draw_comparison(record: dict[str, Any], path: Path) -> None:
    """Draws a comparison, as `experiments.compare` records it, into a PNG file."""
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    return_by_method(figure.subplots(), record)
    figure.savefig(path, dpi=120)


def return_by_method(axes: Axes, record: dict[str, Any]) -> None:
    """Mean return of each method by gradient step with its 95 % interval, and the paper's in the same colour, dashed.

    A method has the same colour in every picture; further ones of the same name, of other settings, have the next free
    ones. A method that takes no gradient steps, such as the oracle, is a level line.
    """
    last = record["gradient_steps"]
    axes.set(title=record["task"], xlabel="gradient steps", ylabel="mean return", xticks=range(last + 1))
    own, others = dict(_METHODS), count(len(_METHODS))
    for group in record["methods"]:
        colour = own.pop(group["method"], None) or f"C{next(others)}"
        steps, values, low, high = levelled(group["mean_return"], ("value", "low", "high"), last)
        axes.plot(steps, values, "o-", color=colour, label=group["label"])
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        if group["paper"]:
            steps, values = levelled(group["paper"], ("mean",), last)
            axes.plot(steps, values, "s--", color=colour, fillstyle="none", alpha=0.8)
    axes.plot([], [], "s--", color="black", fillstyle="none", label="paper")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)


def levelled(values: list[dict[str, float]], names: tuple[str, ...], last: int) -> list[list[float]]:
    """Gradient steps and named values at them; one value alone holds for all steps."""
    shown = values if len(values) > 1 else values * (last + 1)
    return [list(range(len(shown))), *([value[name] for value in shown] for name in names)]


def _learning_curve(axes: Axes, metrics: Path, inner_steps: int) -> None:
    axes.set(title="Training", xlabel="million env steps", ylabel="mean return")
    env_steps, returns = read_learning_curve(metrics, inner_steps)
    if not env_steps:
        axes.text(0.5, 0.5, f"{metrics.name} has no rows", ha="center", transform=axes.transAxes)
        return
    for (step, values), colour in zip(returns.items(), (_BEFORE, _AFTER), strict=False):
        axes.plot(env_steps, values, color=colour, label=steps_label(step))
    axes.legend(frameon=False)


def read_learning_curve(metrics: Path, inner_steps: int) -> tuple[list[float], dict[int, list[float]]]:
    """Million env steps by iteration, and mean return in training before and after adaptation by gradient steps.

    Empty lists if there is no such file.
    """
    env_steps = [value / 1e6 for value in read_metric(metrics, "sampling/env_steps")]
    return env_steps, {step: read_metric(metrics, f"return/after_{step}_steps") for step in (0, inner_steps)}


def read_metric(metrics: Path, name: str) -> list[float]:
    """One quantity by iteration; an empty list if there is no such file or quantity."""
    return [float(row[name]) for row in read_log(metrics) if name in row]


def read_log(metrics: Path) -> list[dict[str, str]]:
    """Rows of a run's log, without a last one that was cut off; none if there is no log."""
    if not metrics.exists():
        return []
    with metrics.open(newline="") as file:
        return [row for row in csv.DictReader(file) if all(row.values())]


def steps_label(count: int) -> str:
    """A number of gradient steps as people read it."""
    return f"after {_steps(count)}" if count else "before adaptation"


def _steps(count: int) -> str:
    return f"{count} gradient step{'' if count == 1 else 's'}"


def _return_by_step(axes: Axes, evaluation: dict[str, Any], config: RunConfig) -> None:
    axes.set(title="Held-out tasks", xlabel="gradient steps", ylabel="mean return")
    steps = evaluation["gradient_steps"]
    for label, prefix, colour in (("this run", "", _AFTER), ("random policy", "random_", _RANDOM)):
        low, high = np.transpose(evaluation[f"{prefix}interval_95"])
        axes.plot(steps, evaluation[f"{prefix}mean_return"], "o-", color=colour, label=label)
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    paper = paper_returns(config.env_id, method(config))
    shown = [step for step in paper if step <= steps[-1]]
    if shown:
        axes.plot(shown, [paper[step].mean for step in shown], "s--", color=_PAPER, label="paper")
    axes.set_xticks(steps)
    axes.legend(frameon=False)


def _paths(axes: Axes, paths: Sequence[TaskPaths], steps: int) -> None:
    """Paths in the plane of the first episodes of a few tasks."""
    axes.set(title=f"Paths before and after {_steps(steps)}", xlabel="x", ylabel="y", aspect="equal")
    for i, (task, before, after) in enumerate(paths[:_TRAJECTORIES]):
        colour = f"C{i}"
        axes.plot(*before.T, color=colour, alpha=0.35, linewidth=0.8)
        axes.plot(*after.T, color=colour, linewidth=1.6)
        axes.plot(*numbers(task), marker="*", markersize=13, color=colour, markeredgecolor="black", linestyle="none")
    axes.plot(0, 0, "ko", markersize=4)
    axes.text(0.02, 0.02, "thin: before, thick: after, star: goal", transform=axes.transAxes, fontsize=8)


def numbers(task: Task) -> NDArray[np.float64]:
    """The numbers that a task, or its JSON value, consists of, in order; none for a text, or where there is nothing."""
    if isinstance(task, (dict, list, tuple)):
        parts = [numbers(value) for value in (task.values() if isinstance(task, dict) else task)]
        return np.concatenate(parts) if parts else np.zeros(0)
    if task is None or isinstance(task, str):
        return np.zeros(0)
    return np.asarray(task, dtype=np.float64).reshape(-1)


def _return_by_task(axes: Axes, evaluation: dict[str, Any]) -> None:
    """Return of each task against its value: which tasks are hard."""
    axes.set(title="Return by task", xlabel="task", ylabel="mean return")
    first, last = [numbers(task)[:1] for task in evaluation["tasks"]], evaluation["gradient_steps"][-1]
    # Tasks without a number are drawn in their order.
    values = np.concatenate(first) if all(map(len, first)) else np.arange(1, len(first) + 1)
    jitter: float | NDArray[np.float64] = 0.0
    if np.array_equal(values, values.round()):  # a finite set of tasks: points beside each other, not on top
        jitter = np.linspace(-0.08, 0.08, len(values))
        axes.set_xticks(np.unique(values))
    axes.plot(values + jitter, evaluation["task_returns"][0], "o", color=_BEFORE, label="before adaptation")
    for step in sorted({min(1, last), last} - {0}):
        returns, fill = evaluation["task_returns"][step], "full" if step == 1 else "none"
        axes.plot(values + jitter, returns, "o", fillstyle=fill, color=_AFTER, label=steps_label(step))
    axes.legend(frameon=False)
