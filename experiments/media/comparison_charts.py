"""Charts of a comparison of methods."""

from collections.abc import Sequence
from dataclasses import astuple
from itertools import cycle

import numpy as np

from maml_rl.experiments.media.charts import Axis, Chart, Series, with_band
from maml_rl.experiments.media.labels import counted, paper_label, value_axis
from maml_rl.experiments.runs.comparison_files import Comparison, Method
from maml_rl.experiments.runs.evaluation_tables import tasks_named
from maml_rl.learner import QUANTITIES

_COLOURS = {"maml": "after", "pretrained": "method-2", "oracle": "goal", "random": "random", "maml-oracle": "method-1"}
_OTHERS = ("method-3", "later", "paper-result")


def methods_chart(comparison: Comparison, condition: str = "") -> Chart:
    """Mean of each method by gradient step with its 95 % interval, and the paper's in the same colour, dashed.

    Intervals are over seeds and tasks, or over tasks alone if there are only one or two seeds. A method has the same
    colour in every picture; others of the same name, with other settings, have the next free ones. A method that takes
    no gradient steps, such as the oracle, is a level line.
    """
    steps, scale, series = range(comparison.gradient_steps + 1), QUANTITIES[comparison.quantity].scale, []
    for method, colour in zip(comparison.methods, method_colours(comparison), strict=True):
        label = f"{method.label}, {counted(len(method.runs), 'seed')}"
        series.append(_series(comparison, method, condition, steps)._replace(label=label, colour=colour))
        curve = method.curve(condition)
        paper = {point.gradient_steps: scale * point.value for point in curve.paper}
        if len(paper) == len(curve.mean) == 1:
            paper = dict.fromkeys(steps, *paper.values())
        if paper:
            series.append(Series("", colour, list(paper), list(paper.values()), dashed=True, marks="hollow"))
    if any(method.curve(condition).paper for method in comparison.methods):
        label = paper_label(comparison.task_set, comparison.strata)
        series.append(Series(label, "before", [], [], dashed=True, marks="hollow"))
    tasks = tasks_named(comparison.task_set, comparison.num_tasks, comparison.strata)
    title = ", ".join(filter(None, [comparison.name, tasks, condition]))
    axis = Axis("gradient steps", list(steps), [str(step) for step in steps])
    subtitle = "shaded: 95 % interval, with one or two seeds over tasks only"
    return Chart(title, subtitle, axis, value_axis(comparison.quantity), series)


def method_colours(comparison: Comparison) -> list[str]:
    """The colour of each method, a key of `COLOURS`."""
    own, others = dict(_COLOURS), cycle(_OTHERS)
    return [own.pop(method.method, "") or next(others) for method in comparison.methods]


def other_methods(comparison: Comparison, condition: str, method: str, steps: Sequence[int]) -> list[Series]:
    """Methods of a comparison to show next to a run of one of them; the run has its own random policy."""
    others = [other for other in comparison.methods if other.method not in (method, "random")]
    return [_series(comparison, other, condition, steps) for other in others]


def _series(comparison: Comparison, method: Method, condition: str, steps: Sequence[int]) -> Series:
    """A method's mean, at the steps where it is finite; one value alone holds for all steps."""
    estimates = method.curve(condition).mean
    values = np.array([astuple(estimate) for estimate in estimates], np.float64)  # None is nan
    values = np.repeat(values, len(steps), axis=0) if len(values) == 1 else values[: len(steps)]
    colour = _COLOURS.get(method.method, _OTHERS[0])
    return with_band(method.label, colour, QUANTITIES[comparison.quantity].scale * values)
