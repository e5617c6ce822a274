"""Learning curves of methods over their seeds, with Student's intervals."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maml_rl.experiments.media.charts import Axis, Chart, Series, thinned
from maml_rl.experiments.media.comparison_charts import method_colours
from maml_rl.experiments.media.labels import counted, in_env_steps, value_axis
from maml_rl.experiments.media.learning_curves import read_log
from maml_rl.experiments.runs.comparison_files import Comparison, Method
from maml_rl.experiments.runs.rl2_files import is_rl2
from maml_rl.learner import QUANTITIES
from maml_rl.run import METRICS, load_run
from maml_rl.statistics import FEWEST_SEEDS, mean_with_interval

_POINTS = 100  # of each curve


def seeds_chart(comparison: Comparison) -> Chart:
    """What each method reaches after the gradient steps of training, by env steps or else by meta-iterations.

    A curve is the mean over seeds, and its band is Student's 95 % interval over them, from three seeds on. It ends with
    the shortest of its runs. The values are those of training tasks, from the logs.

    Raises:
        InputError: If a log is damaged.
    """
    is_return, scale = comparison.quantity == "return", QUANTITIES[comparison.quantity].scale
    found = [(method, *_of_method(method, comparison.quantity)) for method in comparison.methods]
    longest = max((x[-1] for _, x, _ in found if len(x)), default=0.0)
    unit = in_env_steps([], longest)[1] if is_return else "meta-iterations"
    series = []
    for colour, (method, x, values) in zip(method_colours(comparison), found, strict=True):
        if len(x):
            label = f"{method.label}, {counted(len(values), 'seed')}"
            places = in_env_steps(x.tolist(), longest)[0] if is_return else x.tolist()
            series.append(_series(label, colour, places, scale * values))
    subtitle = "training tasks; shaded: Student's 95 % interval over seeds, from three on"
    return Chart("Learning curves", subtitle, Axis(unit), value_axis(comparison.quantity), series)


def _of_method(method: Method, quantity: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points at which a method's runs are compared, `[n]`, and what each had reached there, `[seeds, n]`."""
    curves = [curve for run in method.runs if (curve := _of_run(Path(run.directory), quantity))]
    if not curves:
        return np.empty(0), np.empty((0, 0))
    first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    grid = np.linspace(first, last, min(_POINTS, max(len(x) for x, _ in curves)))
    return grid, np.stack([np.interp(grid, x, y) for x, y in curves])


def _of_run(directory: Path, quantity: str) -> tuple[list[float], list[float]] | None:
    """A run's learning curve after the gradient steps of training; None if it has no log, or a log without rows."""
    if is_rl2(directory):
        return None
    steps = load_run(directory).config.meta.inner_steps
    by, column = "iteration", f"{'accuracy' if quantity == 'accuracy' else 'loss'}/{'after' if steps else 'before'}"
    if quantity == "return":
        by, column = "sampling/env_steps", f"return/after_{steps}_steps"
    rows = read_log(directory / METRICS, by, column)
    return (thinned([row[by] for row in rows]), thinned([row[column] for row in rows])) if rows else None


def _series(label: str, colour: str, x: Sequence[float], values: NDArray[np.float64]) -> Series:
    if len(values) < FEWEST_SEEDS:
        return Series(label, colour, x, values.mean(0).tolist())
    means = [mean_with_interval(at) for at in values.T]
    mean, low, high = ([getattr(one, name) for one in means] for name in ("value", "low", "high"))
    return Series(label, colour, x, mean, low, high)
