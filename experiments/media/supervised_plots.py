"""Pictures of supervised runs: Figures 2 and 3 of Finn, Abbeel, Levine 2017, and accuracy by gradient step."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from maml_rl.experiments.media.plots import read_log, save_figure
from maml_rl.experiments.paper.published_supervised import paper_values
from maml_rl.experiments.runs.run import METRICS
from maml_rl.experiments.runs.supervised_evaluations import Evaluation, Evaluations
from maml_rl.seeding import Phase
from maml_rl.supervised.adaptation import predictions
from maml_rl.supervised.tasks import Sinusoid

_BEFORE, _AFTER, _PAPER, _TRUTH = "#7f7f7f", "#1f77b4", "#d62728", "#2ca02c"
_FITS = ((0, 10), (1, 10), (2, 5), (3, 5))  # tasks whose fits are drawn, and their shots


def draw(evaluations: Evaluations, directory: Path, path: Path) -> None:
    """Draws how a run learned and adapts into a file whose ending is one of `FIGURES`.

    Args:
        evaluations: Evaluations of the run.
        directory: The run.
        path: The file.
    """
    config = evaluations.run.config
    fits = config.tasks.family == "sinusoid" and not config.tasks.observe_task
    figure = Figure(figsize=(13, 8 if fits else 4), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subfigures(2 if fits else 1, 1, squeeze=False)[:, 0]
    left, right = rows[-1].subplots(1, 2)
    _learning_curve(left, directory / METRICS)
    _by_step(right, evaluations)
    if fits:
        for axes, (index, shots) in zip(rows[0].subplots(1, len(_FITS), sharey=True), _FITS, strict=True):
            _fit(axes, evaluations, index, shots)
    method = config.method
    figure.suptitle(
        f"{config.tasks.family}, {evaluations.run.progress.iteration} iterations of {method.meta_batch_size} tasks"
    )
    save_figure(figure, path)


def learning_curve(metrics: Path) -> tuple[Literal["accuracy", "loss"], list[dict[str, float]]]:
    """The quantity that a run's log shows before and after adaptation, and the log's rows; none if there is no log.

    Raises:
        InputError: If the log is damaged.
    """
    rows = read_log(metrics)
    name: Literal["accuracy", "loss"] = "accuracy" if rows and "accuracy/after" in rows[0] else "loss"
    return name, read_log(metrics, "iteration", f"{name}/before", f"{name}/after")


def _learning_curve(axes: Axes, metrics: Path) -> None:
    axes.set(title="Training", xlabel="meta-iterations")
    name, rows = learning_curve(metrics)
    if not rows:
        axes.text(0.5, 0.5, f"{metrics.name} has no rows", ha="center", transform=axes.transAxes)
        return
    axes.set_ylabel(name if name == "accuracy" else "squared error")
    iterations = [row["iteration"] for row in rows]
    for when, colour in (("before", _BEFORE), ("after", _AFTER)):
        values = [row[f"{name}/{when}"] for row in rows]
        axes.plot(iterations, values, color=colour, linewidth=0.8, label=f"{when} adaptation")
    if name == "loss":
        axes.set_yscale("log")
    axes.legend(frameon=False)


def _by_step(axes: Axes, evaluations: Evaluations) -> None:
    """Figure 3: mean over held-out tasks by gradient step."""
    is_classification = evaluations.evaluations[0].is_classification
    axes.set(title=f"{evaluations.config.tasks} held-out tasks", xlabel="gradient steps")
    axes.set_ylabel("accuracy" if is_classification else "squared error")
    for i, evaluation in enumerate(evaluations.evaluations):
        mode = f", {evaluation.batch_norm} BN" if evaluation.batch_norm else ""
        _curve(axes, evaluation, f"{evaluation.shots}-shot{mode}", f"C{i}", "o-")
        paper = paper_values(evaluations.run.config, evaluation.shots)
        shown = {step: paper[step].value for step in paper if step <= evaluations.config.gradient_steps}
        if shown and evaluation.batch_norm in (None, "transductive"):
            label = f"{evaluation.shots}-shot, paper"
            axes.plot(list(shown), list(shown.values()), "s", color=f"C{i}", fillstyle="none", label=label)
    for style, (name, others) in zip(("^--", "v:"), evaluations.beside.items(), strict=False):
        for i, evaluation in enumerate(others):
            _curve(axes, evaluation, f"{evaluation.shots}-shot, {name}", f"C{i}", style)
    if not is_classification:
        axes.set_yscale("log")
    axes.set_xticks(range(evaluations.config.gradient_steps + 1))
    axes.legend(
        frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0)
    )  # beside the curves, not on them


def _curve(axes: Axes, evaluation: Evaluation, label: str, colour: str, style: str) -> None:
    means, half = evaluation.values.mean(1), evaluation.half_interval()
    axes.plot(range(len(means)), means, style, color=colour, label=label, markersize=4, linewidth=1)
    axes.fill_between(range(len(means)), means - half, means + half, color=colour, alpha=0.15, linewidth=0)


def _fit(axes: Axes, evaluations: Evaluations, index: int, shots: int) -> None:
    """Figure 2: the function before and after gradient steps on one held-out sinusoid."""
    run, config = evaluations.run, evaluations.config
    source, x = Sinusoid(shots), torch.linspace(-5, 5, 200)[:, None]
    task = source.batch(config.seed, Phase.EVALUATION, [index])
    amplitude, shift = (float(value[0]) for value in source.parameters(config.seed, Phase.EVALUATION, [index]))
    method = replace(run.config.method, inner_lr=evaluations.inner_lr(shots))
    cpu = run.to(torch.device("cpu"))
    fits = predictions(cpu.network, method, cpu.state.meta, task, x, config.gradient_steps)[..., 0]
    axes.plot(x, amplitude * np.sin(x.numpy() - shift), color=_TRUTH, label="truth")
    axes.plot(x, fits[0], ":", color=_BEFORE, label="before")
    if config.gradient_steps:
        axes.plot(x, fits[1], "--", color=_AFTER, linewidth=1, label="1 step")
    if config.gradient_steps > 1:
        axes.plot(x, fits[-1], color=_AFTER, label=f"{config.gradient_steps} steps")
    axes.plot(task.support_x[0], task.support_y[0], "^", color="black", markersize=5, label="support")
    axes.set(title=f"held-out sinusoid, K = {shots}", xlabel="x")
    axes.legend(frameon=False, fontsize=7)
