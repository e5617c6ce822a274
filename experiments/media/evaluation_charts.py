"""Charts of an evaluation: what a gradient step gains, and which tasks are hard."""

from collections.abc import Iterator, Sequence
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from maml_rl.config import RLEvaluation
from maml_rl.experiments.media.charts import OF_STEPS, Axis, Chart, Series, thinned, with_band
from maml_rl.experiments.media.comparison_charts import other_methods
from maml_rl.experiments.media.labels import counted, number, paper_label, steps_label, value_axis
from maml_rl.experiments.media.task_display import are_places, components, task_text
from maml_rl.experiments.runs.comparison_files import Comparison
from maml_rl.experiments.runs.evaluation_tables import tasks_named
from maml_rl.experiments.runs.evaluations import Evaluation
from maml_rl.learner import QUANTITIES, RANDOM, THIS_RUN, Curve

_OF_CURVES = ("after", "method-1", "method-2", "method-3", "goal", "later")
_LEVELS = 5  # of colours of tasks in the plane


def step_chart(evaluation: Evaluation, comparison: Comparison | None = None) -> Chart:
    """The quantity that a run is evaluated by after each number of gradient steps, next to what it is compared with.

    Args:
        evaluation: The run's evaluation.
        comparison: What `maml-rl compare` found of other methods on the same problem.
    """
    first, steps = evaluation.curves[0], range(evaluation.gradient_steps + 1)
    series = [*_curves(evaluation)]
    if comparison and first.condition in comparison.conditions:
        series += other_methods(comparison, first.condition, evaluation.config.method, steps)
    tasks = tasks_named(evaluation.task_set, first.values.shape[1], first.strata)
    subtitle = f"with 95 % intervals over {tasks}"
    axis = Axis("gradient steps", list(steps), [str(step) for step in steps])
    return Chart(f"{first.quantity.capitalize()} by gradient step", subtitle, axis, value_axis(first.quantity), series)


def _curves(evaluation: Evaluation) -> Iterator[Series]:
    """The evaluation's curves, with the paper's where it has any; of baselines those under the first condition."""
    first, scale, colours = evaluation.curves[0], evaluation.quantity.scale, cycle(_OF_CURVES)
    others = [curve for curve in evaluation.under(first.condition) if curve.of != THIS_RUN]
    for curve in [*evaluation.main_curves(), *others]:
        colour = "random" if curve.of == RANDOM else next(colours)
        values = scale * np.array([(mean.value, mean.low, mean.high) for mean in curve.means()])
        label = curve.condition if curve.of == THIS_RUN and curve.condition else curve.name
        yield with_band(label, colour, values)
        found = evaluation.published(curve) if curve.of == THIS_RUN else {}
        paper = {step: scale * value.value for step, value in found.items() if step <= curve.gradient_steps}
        if paper:
            label, means = paper_label(evaluation.task_set, curve.strata, curve.condition), [*paper.values()]
            yield Series(label, "paper-result", list(paper), means, line=len(paper) > 1, dashed=True, marks="hollow")


def episodes_charts(evaluation: Evaluation) -> list[Chart]:
    """The return by number of episodes that a gradient step uses, a line for each number of gradient steps.

    None where only one number was evaluated.
    """
    numbers = evaluation.settings.episodes_used if isinstance(evaluation.settings, RLEvaluation) else None
    if numbers is None or len(numbers) < 2:
        return []
    means, series = [curve.means() for curve in evaluation.main_curves()], []
    for step, colour in zip(range(evaluation.gradient_steps + 1), cycle(("before", *_OF_CURVES)), strict=False):
        values = np.array([(of[step].value, of[step].low, of[step].high) for of in means])
        series.append(with_band(steps_label(step), colour, values))
    first = evaluation.curves[0]
    quantity, tasks = first.quantity, tasks_named(evaluation.task_set, evaluation.settings.tasks, first.strata)
    axis = Axis("episodes that a gradient step uses", list(range(len(numbers))), [str(number) for number in numbers])
    subtitle = f"with 95 % intervals over {tasks}, the same for each number"
    return [Chart(f"{quantity.capitalize()} by episodes used", subtitle, axis, value_axis(quantity), series)]


def task_charts(evaluation: Evaluation, task_quantity: str) -> list[Chart]:
    """Each task's value: which tasks are hard?

    Tasks with values are drawn against their components, goals in the plane at their places, and others in the
    order of their values.

    Args:
        evaluation: The run's evaluation.
        task_quantity: What the numbers of a task are.
    """
    curve, settings = evaluation.curves[0], evaluation.settings
    last, name = curve.gradient_steps, curve.quantity.capitalize()
    shown = sorted({0, min(1, last), last})
    if not curve.tasks:
        return [_in_order(curve, shown)]
    if are_places(curve.tasks, task_quantity):
        return [_map(curve, step) for step in shown]
    assert isinstance(settings, RLEvaluation)  # the only kind whose tasks have values
    subtitle, charts = f"each point is the mean of {counted(settings.episodes, 'episode')}", []
    for component in components(curve.tasks, curve.values[min(1, last)].tolist(), task_quantity):
        said = f"{subtitle}; it {component.explanation}" if component.explanation else subtitle
        axis = Axis(component.label, component.ticks, component.tick_names)
        series = _at(component.places, curve, shown, task_quantity)
        charts.append(Chart(f"{name} by {component.name}", said, axis, value_axis(curve.quantity), series))
    return charts


def _scaled(curve: Curve) -> NDArray[np.float64]:
    """Values in the unit of the quantity, `[S + 1, M]`."""
    return QUANTITIES[curve.quantity].scale * curve.values


def _at(places: NDArray[np.float64], curve: Curve, steps: Sequence[int], task_quantity: str) -> list[Series]:
    """Values of tasks at these places of an axis after some gradient steps."""
    names, series = [task_text(task, task_quantity) for task in curve.tasks], []
    for step, colour in zip(steps, OF_STEPS, strict=False):
        label, values = steps_label(step), _scaled(curve)[step].tolist()
        titles = [f"{name}, {label}: {number(curve.quantity, v)}" for name, v in zip(names, values, strict=True)]
        marks = "point" if step else "hollow"
        series.append(Series(label, colour, places.tolist(), values, line=False, marks=marks, titles=titles))
    return series


def _in_order(curve: Curve, steps: Sequence[int]) -> Chart:
    """All tasks in order, before and after gradient steps: how many are hard, and how hard are they?"""
    series = []
    for step, colour in zip(steps, OF_STEPS, strict=False):
        values = np.sort(_scaled(curve)[step])
        values = values[np.isfinite(values)]
        share = 100 * (np.arange(len(values)) + 0.5) / len(curve.values[step])
        series.append(Series(steps_label(step), colour, thinned(share.tolist()), thinned(values.tolist())))
    subtitle = f"{curve.condition}: % of the tasks that have at most this {curve.quantity}"
    axis = value_axis(curve.quantity)
    axes = Axis("% of the tasks"), axis._replace(label=axis.label.removeprefix("mean "))
    return Chart(f"{curve.quantity.capitalize()} by task", subtitle, *axes, series)


def _map(curve: Curve, step: int) -> Chart:
    """Tasks in the plane, whose colour is their value, on one scale for all gradient steps."""
    bins = np.linspace(np.min(_scaled(curve)), np.max(_scaled(curve)), _LEVELS + 1)
    series, values = [], _scaled(curve)[step]
    level = np.clip(np.digitize(values, bins) - 1, 0, _LEVELS - 1)
    for i in range(_LEVELS):
        members = np.flatnonzero(level == i)
        x, y = np.reshape(curve.tasks, (-1, 2))[members].T
        low, high, *numbers = (number(curve.quantity, value) for value in (bins[i], bins[i + 1], *values[members]))
        titles = [f"task {a:.2f}, {b:.2f}: {shown}" for a, b, shown in zip(x, y, numbers, strict=True)]
        label, colour = f"{low} to {high}", f"level-{i + 1}"
        series.append(Series(label, colour, x.tolist(), y.tolist(), line=False, marks="point", titles=titles))
    title = f"{curve.quantity.capitalize()} by task, {steps_label(step)}"
    subtitle = f"each point is a task, its colour the mean {curve.quantity}"
    return Chart(title, subtitle, Axis("x"), Axis("y"), series, is_square=True)
