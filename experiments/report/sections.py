"""What a report says of a run besides its recorded episodes: returns, tasks, training and settings."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maml_rl.experiments.media.plots import levelled, paper_label, ranks, read_learning_curve, read_metric, steps_label
from maml_rl.experiments.media.recording import Recording, in_the_plane
from maml_rl.experiments.media.task_display import are_places, components, explanation, task_text
from maml_rl.experiments.paper.published import paper_returns
from maml_rl.experiments.report.charts import Axes, Series, chart, thinned
from maml_rl.experiments.report.page import Fact, Section, table, text
from maml_rl.experiments.runs.evaluations import duration, settings_of
from maml_rl.experiments.runs.provenance import flat, trained_on, training_command
from maml_rl.experiments.runs.run import METRICS, Progress, RunConfig, env_steps_text, method
from maml_rl.experiments.runs.supervised_run import SupervisedConfig

_METHOD_COLOURS = ("method-1", "method-2", "method-3")

_METHODS = {
    "maml": "MAML",
    "maml-oracle": "MAML, task observed",
    "pretrained": "pretrained",
    "oracle": "oracle",
    "random": "random",
}


class Reported(NamedTuple):
    """A run and what is known of it."""

    directory: Path
    config: RunConfig
    progress: Progress
    evaluation: dict[str, Any]  # the record of `maml_rl.experiments.runs.evaluations.Evaluations`
    comparison: dict[str, Any] | None = None  # the record of `maml_rl.experiments.runs.comparison.Comparison`
    task_quantity: str = "task"  # what the numbers of a task are


def lead(run: Reported) -> str:
    """What adaptation brings, in a sentence."""
    evaluation = run.evaluation
    means = [_number(value) for value in evaluation["mean_return"]]
    tasks, episodes = evaluation["num_tasks"], evaluation["episodes"]
    said = f"Mean return on {tasks} held-out tasks: <b>{means[0]}</b> before adaptation"
    if len(means) > 1:
        said += f", <b>{means[1]}</b> after one gradient step on {episodes} episodes"
    if len(means) > 2:
        said += f", {means[-1]} after {len(means) - 1}"
    return said + "."


def facts(run: Reported) -> list[Fact]:
    """Figures of the run."""
    progress, config = run.progress, run.config
    return [
        Fact(_METHODS[method(config)], "method"),
        Fact(env_steps_text(progress.env_steps), "env steps"),
        Fact(str(progress.iteration), "meta-iterations"),
        training_time(progress.seconds),
        Fact(str(config.seed), "seed"),
    ]


def returns(run: Reported) -> Section:
    """Return by gradient step and return by task."""
    by_step = _by_step(run)
    charts = [chart(*by_step), *_by_task(run)]
    rows = [["mean return", *(f"{step} step{'' if step == 1 else 's'}" for step in run.evaluation["gradient_steps"])]]
    count = len(run.evaluation["gradient_steps"])
    for one in by_step[-1]:
        cells = []
        for i, value in enumerate(one.y):
            interval = ""
            if one.low is not None and one.high is not None:
                interval = f" [{_number(one.low[i])}, {_number(one.high[i])}]"
            cells.append(f'{_number(value)}<span class="muted">{interval}</span>')
        rows.append([text(one.label), *cells, *["–"] * (count - len(cells))])  # noqa: RUF001
    body = f'{_settings_note(run)}<div class="grid">{"".join(charts)}</div>{table(rows)}'
    return Section("What a gradient step brings", body)


def _settings_note(run: Reported) -> str:
    """How the evaluation was made, if not with the run's own settings."""
    own = asdict(run.config.evaluation)
    made = settings_of(run.evaluation, run.config.evaluation)._asdict()
    others = [
        f"{name.replace('_', ' ')} {value:g} instead of {own[name]:g}"
        for name, value in made.items()
        if value != own[name]
    ]
    if not others:
        return ""
    return f'<p class="note">Evaluated with other settings than the run\'s own: {", ".join(others)}.</p>'


def _by_step(run: Reported) -> tuple[str, str, Axes, Axes, list[Series]]:
    """The chart of return by gradient step."""
    evaluation, steps = run.evaluation, run.evaluation["gradient_steps"]
    low, high = zip(*evaluation["interval_95"], strict=True)
    random_low, random_high = zip(*evaluation["random_interval_95"], strict=True)
    series = [
        Series("this run", "after", steps, evaluation["mean_return"], low, high, marks="point"),
    ]
    paper = [step for step in paper_returns(run.config.env_id, method(run.config)) if step <= steps[-1]]
    if paper:
        means = [paper_returns(run.config.env_id, method(run.config))[step].mean for step in paper]
        series.append(
            Series(paper_label(evaluation["task_set"]), "paper-result", paper, means, dashed=True, marks="hollow")
        )
    others = [m for m in (run.comparison or {}).get("methods", ()) if m["method"] not in (method(run.config), "random")]
    for other, colour in zip(others, _METHOD_COLOURS, strict=False):
        x, value, lower, upper = levelled(other["mean_return"], ("value", "low", "high"), steps[-1])
        series.append(Series(other["label"], colour, x, value, lower, upper, marks="point"))
    random = evaluation["random_mean_return"]
    series.append(Series("random policy", "random", steps, random, random_low, random_high, marks="point"))
    axis = Axes("gradient steps", steps, [str(step) for step in steps])
    title = f"with 95 % intervals over {evaluation['num_tasks']} tasks"
    return "Return by gradient step", title, axis, Axes("mean return"), series


def _by_task(run: Reported) -> list[str]:
    """Charts of each task's return: which tasks are hard?"""
    evaluation, quantity = run.evaluation, run.task_quantity
    tasks, last = evaluation["tasks"], evaluation["gradient_steps"][-1]
    if are_places(tasks, quantity):
        return [_map(run, tasks, step) for step in sorted({0, min(1, last), last})]
    subtitle = f"each point is the mean of {evaluation['episodes']} episodes"
    shown = components(tasks, evaluation["task_returns"][min(1, last)], quantity)
    if not shown:
        series = _tasks_at(ranks(evaluation), evaluation)
        return [chart("Return by task", subtitle, Axes("rank of the task"), Axes("mean return"), series)]
    return [
        chart(
            f"Return by {component.name}",
            f"{subtitle}; it {explanation(component)}" if explanation(component) else subtitle,
            Axes(component.name, component.ticks, component.tick_names),
            Axes("mean return"),
            _tasks_at(component.places, evaluation),
        )
        for component in shown
    ]


def _tasks_at(places: NDArray[np.float64], evaluation: dict[str, Any]) -> list[Series]:
    """Returns of tasks at these places of an axis, before adaptation, after a gradient step and after the last."""
    names, last = [task_text(task) for task in evaluation["tasks"]], evaluation["gradient_steps"][-1]
    kinds = {last: ("later", "point"), min(1, last): ("after", "point"), 0: ("before", "hollow")}  # the last one counts
    series = []
    for step, (colour, mark) in sorted(kinds.items()):
        values = evaluation["task_returns"][step]
        titles = [f"{name}, {steps_label(step)}: {_number(value)}" for name, value in zip(names, values, strict=True)]
        series.append(Series(steps_label(step), colour, places.tolist(), values, line=False, marks=mark, titles=titles))
    return series


def _map(run: Reported, tasks: list[list[float]], step: int) -> str:
    """Tasks in the plane, whose colour tells the return, on one scale for all gradient steps."""
    evaluation = run.evaluation
    bins = np.linspace(np.min(evaluation["task_returns"]), np.max(evaluation["task_returns"]), 6)
    series = []
    values = np.array(evaluation["task_returns"][step])
    level = np.clip(np.digitize(values, bins) - 1, 0, 4)
    for i in range(5):
        members = np.flatnonzero(level == i)
        x, y = np.reshape(tasks, (-1, 2))[members].T
        titles = [f"task {a:.2f}, {b:.2f}: {_number(v)}" for a, b, v in zip(x, y, values[members], strict=True)]
        label = f"{_number(bins[i])} to {_number(bins[i + 1])}"
        series.append(Series(label, f"level-{i + 1}", x.tolist(), y.tolist(), line=False, marks="point", titles=titles))
    title = f"Return by task, {steps_label(step)}"
    return chart(title, "each point is a task, its colour the mean return", Axes("x"), Axes("y"), series, square=True)


def paths(recording: Recording) -> list[Section]:
    """Paths in the plane of all recorded tasks, by gradient step; nothing where tasks are no goals in the plane."""
    if not in_the_plane(recording):
        return []
    charts = []
    for step in range(recording.gradient_steps + 1):
        series = []
        for m, name in enumerate(recording.task_names):
            x, y = recording.episode(m, step).T.tolist()
            goal, colour = recording.tasks[m], f"task-{m % 4 + 1}"
            series.append(Series("", colour, x, y))
            series.append(Series(name, colour, goal[:1], goal[1:], line=False, marks="goal", titles=[name]))
        charts.append(chart(_capital(steps_label(step)), "", Axes("x"), Axes("y"), series, square=True))
    explanation = "<p>The path of one episode of each recorded task, with its goal, by gradient step.</p>"
    return [Section("Paths to the goals", f'{explanation}<div class="grid">{"".join(charts)}</div>')]


def training(run: Reported) -> Section:
    """Learning curve, and how far the inner update moves the policy."""
    path = run.directory / METRICS
    env_steps, curves = read_learning_curve(path, run.config.meta.inner_steps)
    if not env_steps:
        return Section("Training", f'<p class="muted">{METRICS} has no rows.</p>')
    series = [
        Series(steps_label(step), colour, thinned(env_steps), thinned(values))
        for (step, values), colour in zip(curves.items(), ("before", "after"), strict=False)
    ]
    subtitle = "mean return of the training tasks in each meta-iteration"
    x_axis = Axes("million env steps")
    body = chart("Learning curve", subtitle, x_axis, Axes("mean return"), series)
    moved = read_metric(path, "inner/kl")
    if moved:
        subtitle = "mean KL divergence of the policy before from that after the gradient steps of training"
        series = [Series("", "after", thinned(env_steps), thinned(moved))]
        body += chart("How far adaptation moves the policy", subtitle, x_axis, Axes("nats"), series)
    return Section("Training", f'<div class="grid">{body}</div>')


def settings(config: RunConfig | SupervisedConfig, directory: Path) -> Section:
    """Every setting of a run, and how to train it again."""
    values = flat(asdict(config))
    rows = "".join(f"<tr><td>{text(name)}</td><td>{text(_plain(value))}</td></tr>" for name, value in values.items())
    machines = "".join(
        f"<li>from iteration {machine['from_iteration']} on: {text(machine['processor'])}, {machine['cores']} cores, "
        f"PyTorch {text(machine['torch'])}, MuJoCo {text(machine['mujoco'])}</li>"
        for machine in trained_on(directory)
    )
    body = f"<p>Train it again: <code>{text(training_command(config))}</code></p>"
    if machines:
        body += f'<p>Trained on:</p><ul class="muted">{machines}</ul>'
    body += '<details><summary>All settings</summary><div class="columns"><table class="settings"><tbody>'
    return Section("Configuration", f"{body}{rows}</tbody></table></div></details>")


def training_time(seconds: float) -> Fact:
    """How long a training took."""
    return Fact(duration(seconds), "training time")


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def _capital(label: str) -> str:
    return label[:1].upper() + label[1:]


def _number(value: float) -> str:
    return f"{value:.1f}".replace("-", "−")  # noqa: RUF001, a minus as wide as a plus
