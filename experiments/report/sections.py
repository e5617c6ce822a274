"""What a report says about a run of either kind: what adaptation gains, by step and by task, training and settings."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from maml_rl.config import RLEvaluation, RunConfig
from maml_rl.experiments.media.charts import Chart, Series
from maml_rl.experiments.media.component_gains import component_gains, gain_charts, gains_rows, steps_of_gain
from maml_rl.experiments.media.evaluation_charts import episodes_charts, step_chart, task_charts
from maml_rl.experiments.media.labels import counted, minus, steps_label
from maml_rl.experiments.media.learning_curves import training_charts
from maml_rl.experiments.report.page import Fact, Section, html_table, text
from maml_rl.experiments.report.svg import svg_figure
from maml_rl.experiments.runs.comparison_files import Comparison
from maml_rl.experiments.runs.evaluation_tables import published_text, tasks_named
from maml_rl.experiments.runs.evaluations import Evaluation
from maml_rl.experiments.runs.provenance import cores_text, flat, trained_on, training_command
from maml_rl.experiments.runs.text import duration, env_steps_text
from maml_rl.learner import Quantity
from maml_rl.supervised.settings import SupervisedConfig

_METHODS = {"maml": "MAML", "maml-oracle": "MAML, task observed", "promp": "ProMP", "cavia": "CAVIA"}
_MISSING = "–"  # noqa: RUF001


def lead(evaluation: Evaluation) -> str:
    """What adaptation gains, in a sentence."""
    first, unit = evaluation.curves[0], f"&nbsp;{evaluation.quantity.unit}" if evaluation.quantity.unit else ""
    means = [minus(evaluation.quantity.text(mean.value)) + unit for mean in first.means()]
    tasks = tasks_named(evaluation.task_set, first.values.shape[1], first.strata)
    said = f"Mean {first.quantity} on {tasks}: <b>{means[0]}</b> before adaptation"
    if len(means) > 1:
        said += f", <b>{means[1]}</b> after one gradient step on {_adapted_to(evaluation)}"
    if len(means) > 2:
        said += f", {means[-1]} after {len(means) - 1}"
    return said + "."


def _adapted_to(evaluation: Evaluation) -> str:
    """What the gradient steps of an evaluation's first curve are taken on."""
    settings, config = evaluation.settings, evaluation.config
    if isinstance(settings, RLEvaluation):
        return counted(settings.step_episodes, "episode")
    assert isinstance(config, SupervisedConfig)
    examples = counted(int(evaluation.curves[0].condition.partition("-shot")[0]), "example")
    return f"{examples} of each of {config.tasks.ways} classes" if config.tasks.is_classification else examples


def facts(evaluation: Evaluation) -> list[Fact]:
    """Figures of the run."""
    config = evaluation.config
    env_steps = [Fact(env_steps_text(evaluation.env_steps), "env steps")] if evaluation.env_steps else []
    return [
        Fact(_METHODS.get(config.method, config.method), "method"),
        *env_steps,
        Fact(f"{evaluation.iteration:,}", "meta-iterations"),
        Fact(duration(evaluation.seconds), "training time"),
        Fact(str(config.seed), "seed"),
    ]


def results(evaluation: Evaluation, comparison: Comparison | None, task_quantity: str) -> Section:
    """The quantity by gradient step and by task.

    Args:
        evaluation: The run's evaluation.
        comparison: What `maml-rl compare` found of other methods on the same problem.
        task_quantity: What the numbers of a task are.
    """
    by_step, steps = step_chart(evaluation, comparison), range(evaluation.gradient_steps + 1)
    rows = [[by_step.y.label, *(counted(step, "step") for step in steps)]]
    rows += [_row(one, steps, evaluation.quantity) for one in by_step.series]
    charts = [by_step, *episodes_charts(evaluation), *task_charts(evaluation, task_quantity)]
    body = f"{_settings_note(evaluation)}{_grid(charts)}{html_table(rows)}"
    return Section("What a gradient step gains", body)


def _row(one: Series, steps: Sequence[int], quantity: Quantity) -> list[str]:
    """Cells of a table: a name, and the value at each gradient step with its interval; of the paper's without."""
    cells = dict.fromkeys(steps, _MISSING)
    for i, step in enumerate(one.x):
        cells[int(step)] = minus(published_text(quantity, one.y[i] / quantity.scale))
        if one.low is not None and one.high is not None:
            value, low, high = (minus(quantity.text(y[i] / quantity.scale)) for y in (one.y, one.low, one.high))
            cells[int(step)] = f'{value}<span class="muted"> [{low}, {high}]</span>'
    return [text(one.label), *cells.values()]


def _settings_note(evaluation: Evaluation) -> str:
    """How the evaluation was made, if not with the run's own settings."""
    own, made = asdict(evaluation.config.evaluation), asdict(evaluation.settings)
    others = [
        f"{name.replace('_', ' ')} {_plain(value)} instead of {_plain(own[name])}"
        for name, value in made.items()
        if value != own[name]
    ]
    if not others:
        return ""
    return f'<p class="note">Evaluated with settings other than the run\'s own: {text(", ".join(others))}.</p>'


def where_it_helps(evaluation: Evaluation, task_quantity: str) -> list[Section]:
    """What adaptation gains by each part of the task; empty if there is none to group tasks by.

    Args:
        evaluation: The run's evaluation.
        task_quantity: What the numbers of a task are.
    """
    gains = component_gains(evaluation, task_quantity)
    if not gains:
        return []
    rows = [[text(name), text(values), *map(minus, cells)] for name, values, *cells in gains_rows(gains)]
    said = "".join(f"<li>{text(one.statement)}</li>" for one in gains)
    note = (
        f"<p>The gain of a task is its mean return {steps_label(steps_of_gain(evaluation))}, minus that before. Tasks "
        "are grouped by one part at a time, while the others vary. Adaptation helps a group if the 95 % interval of "
        "its mean gain is above 0.</p>"
    )
    body = f"{note}<ul>{said}</ul>{_grid(gain_charts(evaluation, gains, task_quantity))}{html_table(rows)}"
    return [Section("Where adaptation helps", body)]


def training(evaluation: Evaluation, directory: Path) -> Section:
    """Learning curve, and how far the inner update moves the policy."""
    return Section("Training", _grid(training_charts(evaluation, directory)))


def _grid(charts: Sequence[Chart]) -> str:
    return f'<div class="grid">{"".join(map(svg_figure, charts))}</div>'


def settings(config: RunConfig, directory: Path) -> Section:
    """Every setting of a run, and how to train it again."""
    values = flat(asdict(config))
    rows = "".join(f"<tr><td>{text(name)}</td><td>{text(_plain(value))}</td></tr>" for name, value in values.items())
    machines = "".join(
        f"<li>from iteration {machine['from_iteration']} on: {text(machine['processor'])}, {cores_text(machine)}, "
        f"PyTorch {text(machine['torch'])}, MuJoCo {text(machine['mujoco'])}</li>"
        for machine in trained_on(directory)
    )
    body = f"<p>Train it again: <code>{text(training_command(config))}</code></p>"
    if machines:
        body += f'<p>Trained on:</p><ul class="muted">{machines}</ul>'
    body += '<details><summary>All settings</summary><div class="columns"><table class="settings"><tbody>'
    return Section("Configuration", f"{body}{rows}</tbody></table></div></details>")


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
