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

from maml_rl.checkpoint import write_atomically
from maml_rl.errors import InputError
from maml_rl.experiments.media.task_display import Component, are_places, components, explanation
from maml_rl.experiments.paper.published import paper_returns
from maml_rl.experiments.runs.evaluations import Evaluations
from maml_rl.experiments.runs.run import METRICS, RunConfig, TaskSet, env_steps_text, method
from maml_rl.json_values import read_text

_BEFORE, _AFTER, _PAPER, _RANDOM = "#7f7f7f", "#1f77b4", "#d62728", "#bcbd22"
_METHODS = {"maml": "C0", "pretrained": "C1", "oracle": "C2", "random": "C3", "maml-oracle": "C4"}
_TRAJECTORIES = 4  # tasks whose episodes are drawn
_GRIDS = {1: (3, 1), 2: (2, 2), 3: (3, 2), 4: (3, 2), 5: (3, 3), 6: (3, 3)}  # columns and rows, by charts of tasks
_LETTERS = 36  # that stand next to each other under an axis
FIGURES = (".png", ".pdf", ".svg")
"""Endings of the files that a figure may go to."""

TaskPaths = tuple[Any, NDArray[np.floating], NDArray[np.floating]]
"""A task of two numbers, and the paths in the plane `[n, 2]` of an episode before and one after adaptation."""


def draw_adaptation(evaluations: Evaluations, run_directory: Path, path: Path) -> None:
    """Draws learning curve, return by gradient step, and behaviour before and after adaptation; see `draw_figure`."""
    trained, record, paths = evaluations.trained, evaluations.record(), []
    if trained.episodes[0][0].shape[1] == 2 and are_places(record["tasks"], evaluations.task_quantity):
        after = min(1, evaluations.config.gradient_steps)
        paths = list(zip(record["tasks"], trained.episodes[0], trained.episodes[after], strict=True))
    draw_figure(record, evaluations.run.config, run_directory, paths, path, evaluations.task_quantity)


def draw_figure(
    evaluation: dict[str, Any],
    config: RunConfig,
    run_directory: Path,
    paths: Sequence[TaskPaths],
    path: Path,
    task_quantity: str = "task",
) -> None:
    """Draws learning curve, return by gradient step, and behaviour before and after adaptation.

    Args:
        evaluation: The record of `maml_rl.experiments.runs.evaluations.Evaluations`.
        config: The run.
        run_directory: Its directory.
        paths: Paths in the plane, of which a few are drawn; the return of each task instead if there are none.
        path: The file, whose ending is one of `FIGURES`.
        task_quantity: What the numbers of a task are.
    """
    last = evaluation["gradient_steps"][-1]
    shown = components(evaluation["tasks"], evaluation["task_returns"][min(1, last)], task_quantity)
    columns, rows = _GRIDS[1 if paths else max(1, len(shown))]
    figure = Figure(figsize=(13 * columns / 3, 4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns).ravel()
    _learning_curve(panels[0], run_directory / METRICS, config.meta.inner_steps)
    _return_by_step(panels[1], evaluation, config)
    if paths:
        _paths(panels[2], paths, min(1, last))
    else:
        _returns_by_task(figure, panels[2:], evaluation, shown)
    figure.suptitle(f"{config.env_id}, {env_steps_text(evaluation['env_steps'])} env steps")
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
    """Draws a comparison, as `maml_rl.experiments.runs.comparison` records it, into a PNG file."""
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    return_by_method(figure.subplots(), record)
    figure.savefig(path, dpi=120)


def return_by_method(axes: Axes, record: dict[str, Any]) -> None:
    """Mean return of each method by gradient step with its 95 % interval, and the paper's in the same colour, dashed.

    The title says what intervals are over: seeds and tasks, or tasks alone where there are only one or two seeds. A
    method has the same colour in every picture; others of the same name, with other settings, have the next free ones.
    A method that takes no gradient steps, such as the oracle, is a level line.
    """
    last = record["gradient_steps"]
    axes.set_title(f"{record['task']}, {tasks_label(record['task_set'])}\n", loc="center")
    axes.set_title("shaded: 95 % interval, of one seed or two over tasks alone", loc="left", fontsize="small")
    axes.set(xlabel="gradient steps", ylabel="mean return", xticks=range(last + 1))
    own, others = dict(_METHODS), count(len(_METHODS))
    for group in record["methods"]:
        colour = own.pop(group["method"], None) or f"C{next(others)}"
        steps, values, low, high = levelled(group["mean_return"], ("value", "low", "high"), last)
        seeds = len(group["runs"])
        label = f"{group['label']}, {seeds} seed{'' if seeds == 1 else 's'}"
        axes.plot(steps, values, "o-", color=colour, label=label)
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        if group["paper"]:
            steps, values = levelled(group["paper"], ("mean",), last)
            axes.plot(steps, values, "s--", color=colour, fillstyle="none", alpha=0.8)
    if any(group["paper"] for group in record["methods"]):
        axes.plot([], [], "s--", color="black", fillstyle="none", label=paper_label(record["task_set"]))
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, fontsize="small")


def tasks_label(task_set: TaskSet) -> str:
    """The tasks of an evaluation, as pictures name them."""
    return "held-out tasks" if task_set == "held-out" else "the paper's tasks"


def paper_label(task_set: TaskSet) -> str:
    """The paper's returns, next to others on such tasks."""
    return "paper, on other tasks" if task_set == "held-out" else "paper"


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
    axes.locator_params(axis="x", nbins=5)
    for (step, values), colour in zip(returns.items(), (_BEFORE, _AFTER), strict=False):
        axes.plot(env_steps, values, color=colour, label=steps_label(step))
    axes.legend(frameon=False)


def read_learning_curve(metrics: Path, inner_steps: int) -> tuple[list[float], dict[int, list[float]]]:
    """Million env steps by iteration, and mean return in training before and after adaptation by gradient steps.

    Empty lists if there is no such file.
    """
    returns = {step: f"return/after_{step}_steps" for step in (0, inner_steps)}
    rows = read_log(metrics, "sampling/env_steps", *returns.values())
    env_steps = [row["sampling/env_steps"] / 1e6 for row in rows]
    return env_steps, {step: [row[name] for row in rows] for step, name in returns.items()}


def read_metric(metrics: Path, name: str) -> list[float]:
    """One quantity by iteration; an empty list if there is no such file or quantity."""
    return [row[name] for row in read_log(metrics) if name in row]


def read_log(metrics: Path, *columns: str) -> list[dict[str, float]]:
    """Rows of a run's log, without a last one that was cut off; none if there is no log.

    Args:
        metrics: The file.
        columns: Quantities that it has to have.

    Raises:
        InputError: If it is damaged.
    """
    if not metrics.exists():
        return []
    remedy = "restore it from a copy, or remove it"
    text = read_text(metrics, remedy)
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise InputError(f"{metrics} is damaged ({error}): {remedy}") from error
    log = [_numbers_of(row) for row in rows]
    whole = [row for row in log if row is not None]
    if None in log[:-1] or any(name not in row for row in whole[:1] for name in columns):
        raise InputError(f"{metrics} is damaged (it should have rows of numbers, with the columns of a run): {remedy}")
    return whole


def _numbers_of(row: dict[str, str]) -> dict[str, float] | None:
    """The quantities of a row; None if it is not whole."""
    try:
        return {name: float(value) for name, value in row.items()}
    except (TypeError, ValueError):
        return None


def steps_label(count: int) -> str:
    """A number of gradient steps as people read it."""
    return f"after {_steps(count)}" if count else "before adaptation"


def _steps(count: int) -> str:
    return f"{count} gradient step{'' if count == 1 else 's'}"


def _return_by_step(axes: Axes, evaluation: dict[str, Any], config: RunConfig) -> None:
    title = tasks_label(evaluation["task_set"]).capitalize()
    axes.set(title=title, xlabel="gradient steps", ylabel="mean return")
    steps = evaluation["gradient_steps"]
    for label, prefix, colour in (("this run", "", _AFTER), ("random policy", "random_", _RANDOM)):
        low, high = np.transpose(evaluation[f"{prefix}interval_95"])
        axes.plot(steps, evaluation[f"{prefix}mean_return"], "o-", color=colour, label=label)
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    paper = paper_returns(config.env_id, method(config))
    shown = [step for step in paper if step <= steps[-1]]
    if shown:
        label = paper_label(evaluation["task_set"])
        axes.plot(shown, [paper[step].mean for step in shown], "s--", color=_PAPER, label=label)
    axes.set_xticks(steps)
    axes.legend(frameon=False)


def _paths(axes: Axes, paths: Sequence[TaskPaths], steps: int) -> None:
    """Paths in the plane of the first episodes of a few tasks."""
    axes.set(title=f"Paths before and after {_steps(steps)}", xlabel="x", ylabel="y", aspect="equal")
    for i, (task, before, after) in enumerate(paths[:_TRAJECTORIES]):
        colour = f"C{i}"
        axes.plot(*before.T, color=colour, alpha=0.35, linewidth=0.8)
        axes.plot(*after.T, color=colour, linewidth=1.6)
        axes.plot(*task, marker="*", markersize=13, color=colour, markeredgecolor="black", linestyle="none")
    axes.plot(0, 0, "ko", markersize=4)
    axes.text(0.02, 0.02, "thin: before, thick: after, star: goal", transform=axes.transAxes, fontsize=8)


def _returns_by_task(
    figure: Figure, panels: Sequence[Axes], evaluation: dict[str, Any], shown: Sequence[Component]
) -> None:
    """Return of each task against each component of the task, or in its order if there are none: which are hard?"""
    for axes, component in zip(panels, shown, strict=False):
        share = f" ({explanation(component)})" if explanation(component) else ""
        axes.set(title=f"Return by {component.name}", xlabel=f"{component.name}{share}", ylabel="mean return")
        if component.ticks is not None:
            rotation = 0 if sum(map(len, component.tick_names or ())) <= _LETTERS else 20
            axes.set_xticks(component.ticks, component.tick_names, rotation=rotation)
        _by_task(axes, evaluation, component.places)
    if not shown:
        panels[0].set(title="Return by task", xlabel="rank of the task", ylabel="mean return")
        _by_task(panels[0], evaluation, ranks(evaluation))
    if len(shown) <= 1:
        panels[0].legend(frameon=False)
    else:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    for axes in panels[max(1, len(shown)) :]:
        axes.set_axis_off()


def _by_task(axes: Axes, evaluation: dict[str, Any], places: NDArray[np.float64]) -> None:
    last = evaluation["gradient_steps"][-1]
    axes.plot(places, evaluation["task_returns"][0], "o", color=_BEFORE, label="before adaptation")
    for step in sorted({min(1, last), last} - {0}):
        returns, fill = evaluation["task_returns"][step], "full" if step == 1 else "none"
        axes.plot(places, returns, "o", fillstyle=fill, color=_AFTER, label=steps_label(step))


def ranks(evaluation: dict[str, Any]) -> NDArray[np.float64]:
    """Place of each task, from the hardest to the easiest after the first gradient step: 1, 2, ..., `[M]`."""
    order = np.argsort(evaluation["task_returns"][min(1, evaluation["gradient_steps"][-1])])
    places = np.empty(len(order))
    places[order] = np.arange(1, len(order) + 1)
    return places
