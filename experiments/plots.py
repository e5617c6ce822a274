"""Pictures: how a run learned and what a gradient step brings, and how it compares with other methods."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.evaluate import Evaluations
from experiments.paper import paper_returns
from experiments.run import METRICS, method
from maml_rl.tasks import Task

_BEFORE, _AFTER, _PAPER, _RANDOM = "#7f7f7f", "#1f77b4", "#d62728", "#bcbd22"
_TRAJECTORIES = 4  # tasks whose episodes are drawn


def draw_adaptation(evaluations: Evaluations, run_directory: Path, path: Path) -> None:
    """Draws learning curve, return by gradient step, and behaviour before and after adaptation into a PNG file."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3)
    _learning_curve(left, run_directory / METRICS, evaluations.run.config.meta.inner_steps)
    _return_by_step(middle, evaluations)
    if evaluations.trained.episodes[0][0].shape[1] == 2 and _numbers(evaluations.trained.tasks[0]).size == 2:
        _paths(right, evaluations)
    else:
        _return_by_task(right, evaluations)
    figure.suptitle(f"{evaluations.run.config.env_id}, {evaluations.run.progress.env_steps / 1e6:.1f} M env steps")
    figure.savefig(path, dpi=120)


def draw_comparison(record: dict[str, Any], path: Path) -> None:
    """Draws a comparison, as `experiments.compare` records it, into a PNG file."""
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    return_by_method(figure.subplots(), record)
    figure.savefig(path, dpi=120)


def return_by_method(axes: Axes, record: dict[str, Any]) -> None:
    """Mean return of each method by gradient step with its 95 % interval, and the paper's in the same colour, dashed.

    A method that takes no gradient steps, such as the oracle, is a level line.
    """
    last = record["gradient_steps"]
    axes.set(title=record["task"], xlabel="gradient steps", ylabel="mean return", xticks=range(last + 1))
    for i, group in enumerate(record["methods"]):
        colour = f"C{i}"
        steps, values, low, high = _levelled(group["mean_return"], ("value", "low", "high"), last)
        axes.plot(steps, values, "o-", color=colour, label=group["label"])
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        if group["paper"]:
            steps, values = _levelled(group["paper"], ("mean",), last)
            axes.plot(steps, values, "s--", color=colour, fillstyle="none", alpha=0.8)
    axes.plot([], [], "s--", color="black", fillstyle="none", label="paper")
    axes.legend(frameon=False)


def _levelled(values: list[dict[str, float]], names: tuple[str, ...], last: int) -> list[list[float]]:
    """Gradient steps and named values at them; one value alone holds for all steps."""
    shown = values if len(values) > 1 else values * (last + 1)
    return [list(range(len(shown))), *([value[name] for value in shown] for name in names)]


def _learning_curve(axes: Axes, metrics: Path, inner_steps: int) -> None:
    axes.set(title="Training", xlabel="million env steps", ylabel="mean return")
    rows: list[dict[str, str]] = []
    if metrics.exists():
        with metrics.open(newline="") as file:
            rows = list(csv.DictReader(file))
    if not rows:
        axes.text(0.5, 0.5, f"{metrics.name} has no rows", ha="center", transform=axes.transAxes)
        return
    env_steps = [float(row["sampling/env_steps"]) / 1e6 for row in rows]
    for step, colour in {0: _BEFORE, inner_steps: _AFTER}.items():
        label = f"after {_steps(step)}" if step else "before adaptation"
        axes.plot(env_steps, [float(row[f"return/after_{step}_steps"]) for row in rows], color=colour, label=label)
    axes.legend(frameon=False)


def _steps(count: int) -> str:
    return f"{count} gradient step{'' if count == 1 else 's'}"


def _return_by_step(axes: Axes, evaluations: Evaluations) -> None:
    axes.set(title="Held-out tasks", xlabel="gradient steps", ylabel="mean return")
    seed = evaluations.config.seed
    for label, evaluation, colour in (
        ("this run", evaluations.trained, _AFTER),
        ("random policy", evaluations.random, _RANDOM),
    ):
        means = evaluation.means(seed)
        steps = np.arange(len(means))
        axes.plot(steps, [m.value for m in means], "o-", color=colour, label=label)
        axes.fill_between(steps, [m.low for m in means], [m.high for m in means], color=colour, alpha=0.2, linewidth=0)
    config = evaluations.run.config
    paper = paper_returns(config.env_id, method(config))
    shown = [step for step in paper if step <= evaluations.config.gradient_steps]
    if shown:
        axes.plot(shown, [paper[step].mean for step in shown], "s--", color=_PAPER, label="paper")
    axes.set_xticks(range(evaluations.config.gradient_steps + 1))
    axes.legend(frameon=False)


def _paths(axes: Axes, evaluations: Evaluations) -> None:
    """Paths in the plane of the first episodes of a few tasks."""
    last = min(1, evaluations.config.gradient_steps)
    axes.set(title=f"Paths before and after {_steps(last)}", xlabel="x", ylabel="y", aspect="equal")
    colours = [f"C{i}" for i in range(_TRAJECTORIES)]
    for task, colour, i in zip(evaluations.trained.tasks, colours, range(_TRAJECTORIES), strict=False):
        before, after = evaluations.trained.episodes[0][i], evaluations.trained.episodes[last][i]
        axes.plot(*before.T, color=colour, alpha=0.35, linewidth=0.8)
        axes.plot(*after.T, color=colour, linewidth=1.6)
        axes.plot(*_numbers(task), marker="*", markersize=13, color=colour, markeredgecolor="black", linestyle="none")
    axes.plot(0, 0, "ko", markersize=4)
    axes.text(0.02, 0.02, "thin: before, thick: after, star: goal", transform=axes.transAxes, fontsize=8)


def _numbers(task: Task) -> NDArray[np.float64]:
    """What a task consists of, in order."""
    values = task.values() if isinstance(task, dict) else [task]
    return np.concatenate([np.asarray(value, dtype=np.float64).reshape(-1) for value in values])


def _return_by_task(axes: Axes, evaluations: Evaluations) -> None:
    """Return of each task against its value: which tasks are hard."""
    axes.set(title="Return by task", xlabel="task", ylabel="mean return")
    values = np.array([_numbers(task)[0] for task in evaluations.trained.tasks])
    jitter: float | NDArray[np.float64] = 0.0
    if np.array_equal(values, values.round()):  # a finite set of tasks: points beside each other, not on top
        jitter = np.linspace(-0.08, 0.08, len(values))
        axes.set_xticks(np.unique(values))
    axes.plot(values + jitter, evaluations.trained.returns[0], "o", color=_BEFORE, label="before adaptation")
    for step in sorted({min(1, evaluations.config.gradient_steps), evaluations.config.gradient_steps} - {0}):
        label = f"after {_steps(step)}"
        axes.plot(
            values + jitter,
            evaluations.trained.returns[step],
            "o",
            fillstyle="full" if step == 1 else "none",
            color=_AFTER,
            label=label,
        )
    axes.legend(frameon=False)
