"""Where adaptation helps: its gain for each number or category of a task, with intervals.

A mean over all tasks does not show whether a policy adapts to a payload, to a broken motor, or only to one of them.
Here tasks are grouped by one component at a time: by its values if each has a few tasks, otherwise into thirds from the
lowest to the highest. The other components vary freely within each group.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maml_rl.config import RLConfig
from maml_rl.experiments.media.charts import Axis, Chart, Series
from maml_rl.experiments.media.labels import counted, number, steps_label
from maml_rl.experiments.media.task_display import Component, are_places, components, task_text
from maml_rl.experiments.runs.evaluations import Evaluation
from maml_rl.experiments.runs.text import text_table
from maml_rl.statistics import Mean, mean_with_interval, one_way

_FEWEST = 3  # tasks of a group
_LEVEL = 0.05  # of the test whether a gain depends on a component, for all components together


class Group(NamedTuple):
    """Tasks that are alike in one component."""

    label: str  # its value, or the lowest and the highest
    members: NDArray[np.int64]  # indices of the tasks
    before: float  # mean return
    after: float
    gain: Mean  # of each task's return by adaptation

    @property
    def verdict(self) -> str:
        """Whether adaptation helps these tasks, as far as the interval shows."""
        if self.gain.low > 0:
            return "helps"
        return "hurts" if self.gain.high < 0 else "no clear change"


class ComponentGain(NamedTuple):
    """What adaptation gains by one component of the tasks."""

    component: Component
    groups: list[Group]
    p_value: float  # of an analysis of variance: the probability that gains differ as much by chance
    depends: bool  # whether it is below the level, shared among all components

    @property
    def statement(self) -> str:
        """Whether the gain depends on the component, in a sentence."""
        name, chance = self.component.name, "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        if not self.depends:
            return f"{name}: no sign that the gain depends on it ({chance})"
        best, least = (pick(self.groups, key=lambda group: group.gain.value).label for pick in (max, min))
        return f"{name}: the gain depends on it, most at {best}, least at {least} ({chance})"


def steps_of_gain(evaluation: Evaluation) -> int:
    """Gradient steps after which the gain is measured: those that the run was trained for, at least one."""
    assert isinstance(evaluation.config, RLConfig)
    return min(max(1, evaluation.config.meta.inner_steps), evaluation.gradient_steps)


def component_gains(evaluation: Evaluation, task_quantity: str) -> list[ComponentGain]:
    """What adaptation gains by each component of the tasks; those that explain most of the gain come first.

    Empty if tasks have no distinguishable components, are goals in the plane or are too few for groups, or if the
    policy takes no gradient step.

    Args:
        evaluation: An evaluation of a policy.
        task_quantity: What the numbers of a task are.
    """
    curve = evaluation.curves[0]
    is_policy = isinstance(evaluation.config, RLConfig) and evaluation.gradient_steps > 0 and len(curve.tasks) > 0
    if not is_policy or are_places(curve.tasks, task_quantity) or not np.isfinite(curve.values).all():
        return []
    before, after = curve.values[0], curve.values[steps_of_gain(evaluation)]
    axes = components(curve.tasks, (after - before).tolist(), task_quantity)
    found = []
    for axis in axes:
        groups = [Group(label, m, *_means(before[m], after[m])) for label, m in _grouped(axis)]
        if len(groups) > 1 and not axis.is_rank:
            p_value = one_way([(after - before)[group.members] for group in groups])
            found.append(ComponentGain(axis, groups, p_value, p_value < _LEVEL / len(axes)))
    return found


def _means(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[float, float, Mean]:
    return float(before.mean()), float(after.mean()), mean_with_interval(after - before)


def _grouped(axis: Component) -> list[tuple[str, NDArray[np.int64]]]:
    """Labels and members of the groups of tasks by one component, each of at least `_FEWEST` tasks."""
    if axis.ticks is None or axis.tick_names is None:
        names = [f"{place:.3g}" for place in axis.places]
    else:
        nearest = np.abs(axis.places[:, None] - np.array(axis.ticks)).argmin(1)
        by_value = [(name, np.flatnonzero(nearest == i)) for i, name in enumerate(axis.tick_names)]
        large = [(name, members) for name, members in by_value if len(members) >= _FEWEST]
        if axis.is_category or len(large) == len(by_value):
            return large
        names = [axis.tick_names[i] for i in nearest]
    thirds = np.array_split(np.argsort(axis.places, kind="stable"), 3)
    if min(map(len, thirds)) < _FEWEST:
        return []
    return [(f"{names[members[0]]} to {names[members[-1]]}", members) for members in thirds]


def gains_rows(gains: list[ComponentGain]) -> list[list[str]]:
    """A table of what adaptation gains, the first row its head."""
    rows = [["part of the task", "values", "tasks", "before", "after", "gain", "95 % interval", "adaptation"]]
    for one in gains:
        for i, group in enumerate(one.groups):
            gain = group.gain
            cells = [f"{value:.1f}" for value in (group.before, group.after, gain.value)]
            interval = f"[{gain.low:.1f}, {gain.high:.1f}]"
            name = "" if i else one.component.name
            rows.append([name, group.label, str(len(group.members)), *cells, interval, group.verdict])
    return rows


def gains_text(evaluation: Evaluation, task_quantity: str) -> str:
    """What adaptation gains by each part of a task that has several, for a terminal; empty where there is nothing."""
    gains = component_gains(evaluation, task_quantity)
    if len(gains) < 2:
        return ""
    title = f"where adaptation helps, {steps_label(steps_of_gain(evaluation))}"
    return "\n".join([title, "", text_table(gains_rows(gains)), "", *(one.statement for one in gains)])


def gain_charts(evaluation: Evaluation, gains: list[ComponentGain], task_quantity: str) -> list[Chart]:
    """The gain of each task against each component, with the means of groups and their intervals."""
    curve, step = evaluation.curves[0], steps_of_gain(evaluation)
    gained = (curve.values[step] - curve.values[0]).tolist()
    titles = [
        f"{task_text(task, task_quantity)}: gain {number(curve.quantity, gain)}"
        for task, gain in zip(curve.tasks, gained, strict=True)
    ]
    charts = []
    for component, groups, *_ in gains:
        middles = [float(component.places[group.members].mean()) for group in groups]
        mean, low, high = ([getattr(group.gain, name) for group in groups] for name in ("value", "low", "high"))
        ends = [float(component.places.min()), float(component.places.max())]
        series = [
            Series("no gain", "before", ends, [0.0, 0.0], dashed=True),
            Series("a task", "later", component.places.tolist(), gained, line=False, marks="point", titles=titles),
            Series("mean of a group", "after", middles, mean, low, high, marks="point"),
        ]
        subtitle = f"{steps_label(step)}; with 95 % intervals over the tasks of each of {counted(len(groups), 'group')}"
        axis = Axis(component.label, component.ticks, component.tick_names)
        charts.append(Chart(f"Gain by {component.name}", subtitle, axis, Axis("gain in mean return"), series))
    return charts
