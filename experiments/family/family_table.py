"""The comparison of the family as a file, a table and a picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maml_rl.checkpoint import write_json
from maml_rl.errors import InputError
from maml_rl.experiments.family.measuring import GradientQuality, MeasuredRun, Times
from maml_rl.experiments.family.variants import MAML, METHODS
from maml_rl.experiments.media.charts import COLOURS, Axis, Chart, Series, draw_charts
from maml_rl.experiments.runs.text import env_steps_text, markdown_table
from maml_rl.json_types import read_typed
from maml_rl.statistics import Mean, mean_with_interval

REMEDY = "remove it, and compare again"
_STEPS = 4  # returns of a row: after 0, 1, 2, 3 gradient steps
_CURVES_OF_A_CHART = 4


class CeilingPoint(NamedTuple):
    """What a planner returns after random episodes, as many as a method has seen after a number of gradient steps."""

    episodes: int
    value: float  # mean over the held-out tasks
    standard_error: float


class FamilyComparison(NamedTuple):
    """All that was measured on a problem."""

    problem: str
    env_id: str
    iterations: int
    tasks: int  # held-out
    episodes: int  # of each task for each gradient step
    runs: list[MeasuredRun]
    times: dict[str, Times]  # of an iteration, by method; measured in turns in one session
    gradients: dict[str, GradientQuality]  # by method, of those that have MAML's network
    ceiling: list[CeilingPoint]  # after 0, 1, 2, 3 gradient steps; none where no planner is known


def read_family(path: Path) -> FamilyComparison:
    """A comparison as it was stored.

    Raises:
        InputError: If the file is damaged.
    """
    comparison: FamilyComparison = read_typed(path, FamilyComparison, REMEDY)
    unknown = {run.method for run in comparison.runs} - METHODS.keys()
    if unknown:
        raise InputError(f"{path} has runs of {', '.join(sorted(unknown))}, which are not methods here: {REMEDY}")
    if not comparison.runs or any(len(run.returns) != _STEPS or not run.curve for run in comparison.runs):
        raise InputError(f"{path} is damaged (a run has no curve, or not {_STEPS} returns): {REMEDY}")
    return comparison


def merged(stored: FamilyComparison, new: FamilyComparison) -> FamilyComparison:
    """A comparison with the runs of a stored one that it does not have itself.

    Raises:
        InputError: If their runs had another length or other held-out tasks.
    """
    for name in ("problem", "env_id", "iterations", "tasks", "episodes"):
        if getattr(stored, name) != getattr(new, name):
            raise InputError(
                f"the existing comparison has {name} {getattr(stored, name)}, this one {getattr(new, name)}: "
                "give another --out"
            )
    runs = {(run.method, run.seed): run for run in [*stored.runs, *new.runs]}
    order = list(METHODS)
    in_order = sorted(runs.values(), key=lambda run: (order.index(run.method), run.seed))
    return new._replace(runs=in_order, times=stored.times | new.times, gradients=stored.gradients | new.gradients)


def write_family(comparison: FamilyComparison, out: Path) -> list[Path]:
    """Writes a comparison and its picture; returns the files."""
    out.mkdir(parents=True, exist_ok=True)
    stored, picture = (out / f"{comparison.problem}{ending}" for ending in (".json", ".png"))
    record = comparison._asdict()
    record["runs"] = [run._asdict() for run in comparison.runs]
    record["times"] = {method: times._asdict() for method, times in comparison.times.items()}
    record["gradients"] = {method: quality._asdict() for method, quality in comparison.gradients.items()}
    record["ceiling"] = [point._asdict() for point in comparison.ceiling]
    write_json(stored, record)
    draw_charts(learning_charts(comparison), picture, comparison.problem)
    return [stored, picture]


def by_method(comparison: FamilyComparison) -> dict[str, list[MeasuredRun]]:
    """Runs of each method, in the order of `METHODS`."""
    found = {method: [run for run in comparison.runs if run.method == method] for method in METHODS}
    return {method: runs for method, runs in found.items() if runs}


def paired_gains(runs: Sequence[MeasuredRun], baseline: Sequence[MeasuredRun]) -> NDArray[np.float64]:
    """By how much the return after one gradient step exceeds that of the baseline's run of the same seed, `[n]`."""
    theirs = {run.seed: run.returns[1] for run in baseline}
    return np.array([run.returns[1] - theirs[run.seed] for run in runs if run.seed in theirs])


def family_table(comparison: FamilyComparison) -> str:
    """The comparison as Markdown: a row for each method, and one for the planner."""
    methods = by_method(comparison)
    rows = [
        [
            "method",
            "seeds",
            "env steps",
            "0",
            "1 gradient step",
            "2",
            "3",
            "against MAML",
            "noise",
            "iteration",
            "update",
        ],
    ]
    for method, member in METHODS.items():
        if method in methods or method in comparison.times or method in comparison.gradients:
            returns = _return_cells(methods.get(method, []), methods.get(MAML, []))
            noise = _noise_cell(comparison.gradients.get(method))
            rows.append([member.label, *returns, noise, *_time_cells(comparison.times, method)])
    if comparison.ceiling:
        points = [f"{point.value:.2f}" for point in comparison.ceiling]
        rows.append(["planner on random episodes", "", "", *points])
    return markdown_table(rows)


def _return_cells(runs: Sequence[MeasuredRun], baseline: Sequence[MeasuredRun]) -> list[str]:
    """Seeds, env steps, returns after 0, 1, 2, 3 gradient steps, and the difference from the baseline."""
    if not runs:
        return ["0", *["-"] * (_STEPS + 2)]
    returns = np.array([run.returns for run in runs])  # [seeds, 4]
    means = [f"{value:.2f}" for value in returns.mean(0)]
    means[1] = f"**{interval_text(returns[:, 1])}**"
    gained = paired_gains(runs, baseline)
    against = interval_text(gained, sign=True) if runs[0].method != MAML and len(gained) else "-"
    return [str(len(runs)), env_steps_text(float(np.mean([run.env_steps for run in runs]))), *means, against]


def _noise_cell(quality: GradientQuality | None) -> str:
    """Noise of the meta-gradient as a multiple of its signal."""
    if quality is None:
        return "-"
    return f"{quality.noise / quality.signal:.1f}" if quality.signal > 0 else "no signal"


def _time_cells(times: Mapping[str, Times], method: str) -> list[str]:
    """Time of an iteration and of its update: MAML's in seconds, the others' as ratios to it."""
    if method not in times:
        return ["-", "-"]
    of = times[method]
    if method == MAML:
        return [f"{of.sampling_seconds + of.update_seconds:.2f} s", f"{of.update_seconds:.2f} s"]
    return [f"x {of.iteration_ratio:.2f}", f"x {of.update_ratio:.2f}"]


def interval_text(values: NDArray[np.float64], sign: bool = False) -> str:
    """Mean over seeds and half of its 95 % interval (Student's); of one seed the value alone."""
    plus = "+" if sign else ""
    if len(values) < 2:
        return f"{values.mean():{plus}.2f}"
    over_seeds = mean_with_interval(values)
    return f"{over_seeds.value:{plus}.2f} ± {over_seeds.high - over_seeds.value:.2f}"


def learning_charts(comparison: FamilyComparison) -> list[Chart]:
    """Return after the inner steps on training tasks by env steps, with intervals over seeds.

    A few methods in each chart, with MAML in all of them.
    """
    methods = by_method(comparison)
    others = [method for method in methods if method != MAML]
    count = max(1, math.ceil(len(others) / _CURVES_OF_A_CHART))
    charts = []
    for part in np.array_split(others, count):
        shown = [*([MAML] if MAML in methods else []), *map(str, part)]
        series = [_series(methods[method], METHODS[method].label, i) for i, method in enumerate(shown)]
        subtitle = "training tasks; shaded: 95 % over seeds"
        charts.append(Chart("", subtitle, Axis("million env steps"), Axis("mean return"), series))
    return charts


_COLOURS = ("before", "after", "method-2", "goal", "method-1", "paper-result")


def _series(runs: Sequence[MeasuredRun], label: str, place: int) -> Series:
    curves = np.array([run.curve for run in runs])  # [seeds, points]
    points = curves.shape[1]
    env_steps = float(np.mean([run.env_steps for run in runs])) / 1e6
    x = [env_steps * (i + 0.5) / points for i in range(points)]
    colour = _COLOURS[place]
    assert colour in COLOURS
    if len(runs) < 2:
        return Series(label, colour, x, curves[0].tolist())
    means: list[Mean] = [mean_with_interval(values) for values in curves.T]
    mean, low, high = ([getattr(m, name) for m in means] for name in ("value", "low", "high"))
    return Series(label, colour, x, mean, low, high)
