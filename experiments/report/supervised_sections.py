"""What a report says of a supervised run: a few tasks by gradient step, errors or accuracies over many, training."""

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, cycle
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from maml_rl.experiments.media.plots import steps_label
from maml_rl.experiments.paper.published_supervised import method, paper_values
from maml_rl.experiments.report.charts import Axes, Series, chart, thinned
from maml_rl.experiments.report.page import Fact, Section, asset, table, text
from maml_rl.experiments.report.sections import training_time
from maml_rl.experiments.runs.run import METRICS
from maml_rl.experiments.runs.supervised_evaluations import Evaluation, Evaluations
from maml_rl.experiments.runs.supervised_run import SupervisedConfig
from maml_rl.seeding import Phase
from maml_rl.supervised.adaptation import predictions
from maml_rl.supervised.config import MethodConfig
from maml_rl.supervised.tasks import Sinusoid, TaskBatch

_COLOURS = ("after", "method-1", "method-2", "goal", "later")
_MOST_QUERIES = 20  # query images shown of a task
_MOST_WAYS = 26  # that a letter stands for
_ERROR = ("mean squared error", "", 1.0, 3)  # quantity, unit, scale and digits of regression


def lead(evaluations: Evaluations) -> str:
    """What adaptation brings, in a sentence."""
    first = evaluations.evaluations[0]
    means = [_value(first, value) for value in first.values.mean(1)]
    kind = "Accuracy" if first.is_classification else "Mean squared error"
    said = f"{kind} on {evaluations.config.tasks} held-out tasks: <b>{means[0]}</b> before adaptation"
    if len(means) > 1:
        examples = f"{first.shots} example{'' if first.shots == 1 else 's'}"
        if first.is_classification:
            examples += f" of each of {evaluations.run.config.tasks.ways} classes"
        said += f", <b>{means[1]}</b> after one gradient step on {examples}"
    if len(means) > 2:
        said += f", {means[-1]} after {len(means) - 1}"
    return said + "."


def facts(evaluations: Evaluations) -> list[Fact]:
    """Figures of the run."""
    run = evaluations.run
    return [
        Fact(method(run.config), "method"),
        Fact(f"{run.progress.iteration:,}", "meta-iterations"),
        training_time(run.progress.seconds),
        Fact(str(run.config.seed), "seed"),
    ]


def examples(evaluations: Evaluations, tasks: TaskBatch) -> list[Section]:
    """A few tasks by gradient step; nothing where their inputs can be neither plotted nor seen.

    Args:
        evaluations: Evaluations of the run, which is on the CPU.
        tasks: The tasks, on the CPU.
    """
    run, steps = evaluations.run, evaluations.config.gradient_steps
    settings = replace(run.config.method, inner_lr=evaluations.inner_lr(evaluations.evaluations[0].shots))
    if run.config.tasks.is_classification:
        drawn = [_classified(evaluations, settings, _task(tasks, m)) for m in range(len(tasks.support_x))]
        explanation = (
            "Images that the network learns from, one row a task, and below them images that it has not seen, with the "
            "class that it takes each for and how sure it is of that."
        )
        body = "".join(f"<h3>Task {m + 1}</h3>{one}" for m, one in enumerate(drawn))
    elif tasks.support_x.shape[2:] == tasks.support_y.shape[2:] == (1,):
        drawn = [_fitted(evaluations, settings, _task(tasks, m), m) for m in range(len(tasks.support_x))]
        explanation = "The function that the network is after so many gradient steps on the points; cut at the frame."
        body = f'<div class="grid">{"".join(drawn)}</div>'
    else:
        return []
    slider = f"""<div class="controls"><label class="steps"><span>Gradient steps</span>
<input id="steps" type="range" min="0" max="{steps}" value="{min(1, steps)}" step="1">
<output id="steps-value" for="steps"></output></label></div>
<p class="hint">Keys: <kbd>←</kbd> <kbd>→</kbd> and <kbd>0</kbd> to <kbd>{min(9, steps)}</kbd> choose the gradient
steps.</p>"""
    return [Section("Watch it adapt", f"<p>{explanation}</p>{slider}{body}", asset("stepper.js"))]


def _task(tasks: TaskBatch, m: int) -> TaskBatch:
    return TaskBatch(*(values[m : m + 1] for values in tasks))


def _fitted(evaluations: Evaluations, settings: MethodConfig, task: TaskBatch, index: int) -> str:
    """A regression task: its points, its function where it is known, and the network's by gradient step."""
    run, steps = evaluations.run, evaluations.config.gradient_steps
    support = [values[0, :, 0].tolist() for values in (task.support_x, task.support_y)]
    query = [values[0, :, 0].tolist() for values in (task.query_x, task.query_y)]
    low, high = min(chain(support[0], query[0])), max(chain(support[0], query[0]))
    if run.config.tasks.family == "sinusoid":
        low, high = -5.0, 5.0
    x = torch.linspace(low, high, 100)
    series = []
    if run.config.tasks.family == "sinusoid":
        place = (evaluations.config.seed, Phase.EVALUATION, [index])
        amplitude, shift = (float(value[0]) for value in Sinusoid().parameters(*place))
        truth = (amplitude * torch.sin(x - shift)).tolist()
        series.append(Series("truth", "goal", x.tolist(), truth))
    else:
        series.append(Series("held-out points", "goal", query[0], query[1], line=False, marks="hollow"))
    heights = np.concatenate([support[1], query[1], series[0].y])
    margin = 0.4 * float(np.ptp(heights)) + 1e-6
    fits = predictions(run.network, settings, run.state.meta, task, x[:, None], steps)[..., 0]
    for step, fit in enumerate(np.clip(fits, heights.min() - margin, heights.max() + margin)):
        label, there = "network" if step == 0 else "", np.isfinite(fit)
        series.append(Series(label, "after", x.numpy()[there].tolist(), np.round(fit[there], 4).tolist(), step=step))
    series.append(Series("points to learn from", "random", support[0], support[1], line=False, marks="point"))
    return chart(f"Task {index + 1}", "", Axes("x"), Axes("y"), series)


def _classified(evaluations: Evaluations, settings: MethodConfig, task: TaskBatch) -> str:
    """A classification task: its images, and what the network takes the query images for by gradient step."""
    run, steps = evaluations.run, evaluations.config.gradient_steps
    scores = predictions(run.network, settings, run.state.meta, task, task.query_x[0], steps)
    sure = torch.from_numpy(scores).softmax(-1).numpy()  # [steps + 1, queries, ways]
    labels = task.query_y[0].tolist()
    chosen = np.linspace(0, len(labels) - 1, min(_MOST_QUERIES, len(labels))).astype(int).tolist()
    inverted = run.config.tasks.family == "omniglot"  # ink is 1
    learned = "".join(
        f"<div>{_picture(image, inverted)}{_letter(label)}</div>"
        for image, label in zip(task.support_x[0].numpy(), task.support_y[0].tolist(), strict=True)
    )
    asked = ""
    for i in chosen:
        said = ""
        for step, of_step in enumerate(sure):
            answer = int(of_step[i].argmax())
            right = answer == labels[i] and bool(np.isfinite(of_step[i]).all())
            said += (
                f'<div data-step="{step}" class="{"right" if right else "wrong"}">{"✓" if right else "✗"} '
                f"{_letter(answer)} {100 * of_step[i, answer]:.0f} %</div>"
            )
        asked += f"<div>{_picture(task.query_x[0, i].numpy(), inverted)}{said}</div>"
    return f'<div class="examples">{learned}</div><div class="examples">{asked}</div>'


def _letter(label: int) -> str:
    return chr(ord("A") + label) if label < _MOST_WAYS else str(label + 1)


def _picture(image: NDArray[np.float32], inverted: bool) -> str:
    """An image `[channels, height, width]` from 0 to 1."""
    values = np.round(255 * np.clip(1 - image if inverted else image, 0, 1)).astype(np.uint8)
    content = io.BytesIO()
    picture = Image.fromarray(values[0]) if len(values) == 1 else Image.fromarray(values.transpose(1, 2, 0))
    picture.save(content, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}">'


def results(evaluations: Evaluations) -> Section:
    """Error or accuracy by gradient step, and each task's."""
    first = evaluations.evaluations[0]
    steps = range(evaluations.config.gradient_steps + 1)
    quantity, unit, scale, digits = ("accuracy", ", %", 100.0, 2) if first.is_classification else _ERROR
    series, rows = [], [[quantity + unit, *(f"{step} step{'' if step == 1 else 's'}" for step in steps)]]
    for evaluation, colour in zip(evaluations.evaluations, cycle(_COLOURS), strict=False):
        label, mean, half = _label(evaluation), evaluation.values.mean(1), evaluation.half_interval()
        series += _curve(label, colour, scale * mean, scale * half)
        cells = [
            f'{_value(evaluation, m)}<span class="muted"> ± {scale * h:.{digits}f}</span>'
            for m, h in zip(mean, half, strict=True)
        ]
        rows.append([text(label), *cells])
        paper = paper_values(evaluations.run.config, evaluation.shots)
        known = [step for step in steps if step in paper]
        if known and evaluation.batch_norm in (None, "transductive"):
            values = [scale * paper[step].value for step in known]
            series.append(
                Series(
                    f"{label}, paper", "paper-result", known, values, dashed=True, line=len(known) > 1, marks="hollow"
                )
            )
            shown = {step: f"{scale * paper[step].value:.3g}" for step in known}
            rows.append([f"{text(label)}, paper", *(shown.get(step, "–") for step in steps)])  # noqa: RUF001
    for (name, others), colour in zip(evaluations.beside.items(), ("method-3", "random"), strict=False):
        mean = others[0].values.mean(1)
        series += _curve(f"{name}, {_label(others[0])}", colour, scale * mean, scale * others[0].half_interval())
    axis = Axes("gradient steps", list(steps), [str(step) for step in steps])
    subtitle = f"mean over {evaluations.config.tasks} tasks, with 95 % intervals"
    by_step = chart(f"{quantity.capitalize()} by gradient step", subtitle, axis, Axes(quantity + unit), series)
    charts = by_step + _by_task(first, quantity, unit, scale)
    return Section("What a gradient step brings", f'<div class="grid">{charts}</div>{table(rows)}')


def _label(evaluation: Evaluation) -> str:
    return f"{evaluation.shots}-shot" + (f", {evaluation.batch_norm} BN" if evaluation.batch_norm else "")


def _curve(label: str, colour: str, mean: NDArray[np.float64], half: NDArray[np.float64]) -> list[Series]:
    """The steps at which the mean is finite."""
    steps = np.flatnonzero(np.isfinite(mean) & np.isfinite(half))
    if not len(steps):
        return []
    low, high = mean[steps] - half[steps], mean[steps] + half[steps]
    return [Series(label, colour, steps.tolist(), mean[steps].tolist(), low.tolist(), high.tolist(), marks="point")]


def _by_task(evaluation: Evaluation, quantity: str, unit: str, scale: float) -> str:
    """All tasks in order, before and after gradient steps: how many are hard, and how hard are they?"""
    last = len(evaluation.values) - 1
    shown = sorted({0, min(1, last), last})
    series = []
    for step, colour in zip(shown, ("before", "after", "later"), strict=False):
        values = scale * np.sort(evaluation.values[step])
        values = values[np.isfinite(values)]
        share = 100 * (np.arange(len(values)) + 0.5) / len(evaluation.values[step])
        series.append(Series(steps_label(step), colour, thinned(share.tolist()), thinned(values.tolist())))
    subtitle = f"{_label(evaluation)}: so many % of the tasks have at most this {quantity}"
    return chart(f"{quantity.capitalize()} by task", subtitle, Axes("% of the tasks"), Axes(quantity + unit), series)


def training(config: SupervisedConfig, name: Literal["accuracy", "loss"], log: Sequence[dict[str, float]]) -> Section:
    """Learning curve.

    Args:
        config: The run.
        name: The quantity that its log shows.
        log: Rows of the log.
    """
    if not log:
        return Section("Training", f'<p class="muted">{METRICS} has no rows.</p>')
    scale, quantity = (100.0, "accuracy, %") if name == "accuracy" else (1.0, "mean loss")
    iterations = thinned([row["iteration"] for row in log])
    series = [
        Series(f"{when} adaptation", when, iterations, thinned([scale * row[f"{name}/{when}"] for row in log]))
        for when in ("before", "after")
    ]
    subtitle = f"mean over the {config.method.meta_batch_size} training tasks of each meta-iteration"
    body = chart("Learning curve", subtitle, Axes("meta-iterations"), Axes(quantity), series)
    return Section("Training", f'<div class="grid">{body}</div>')


def _value(evaluation: Evaluation, value: float) -> str:
    return f"{100 * value:.1f} %" if evaluation.is_classification else f"{value:.3f}"
