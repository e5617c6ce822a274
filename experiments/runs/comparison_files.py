"""A comparison of runs: its contents, its files in a directory of `results/`, and its table."""

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maml_rl.checkpoint import write_atomically, write_json
from maml_rl.errors import InputError
from maml_rl.experiments.runs.evaluation_tables import paper_remark, published_text, tasks_named
from maml_rl.experiments.runs.evaluations import EvaluatedTasks, file_of
from maml_rl.experiments.runs.provenance import Hardware
from maml_rl.experiments.runs.text import env_steps_text, text_table
from maml_rl.json_types import read_typed
from maml_rl.learner import QUANTITIES, Quantity
from maml_rl.statistics import FEWEST_SEEDS, Interval, interquartile_mean, interval, mean

COMPARISON = "comparison.json"
_STATISTICS = ("mean", "interquartile_mean")


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval; None stands for a value that is not finite."""

    value: float | None
    low: float | None
    high: float | None

    def text(self, quantity: Quantity) -> str:
        """The value with its interval, as tables have it."""
        value, low, high = ("-" if x is None else quantity.text(x) for x in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


def interval_over(seeds: int) -> str:
    """What the interval of a method with so many seeds covers."""
    return "seeds and tasks" if seeds >= FEWEST_SEEDS else "tasks"


@dataclass(frozen=True)
class PaperPoint:
    """The paper's value after so many gradient steps; see `maml_rl.experiments.paper.published.PublishedValue`."""

    gradient_steps: int
    value: float
    error: float | None


@dataclass(frozen=True)
class MethodCurve:
    """A method's results under one condition, by gradient step; an oracle's may end earlier than those of others."""

    condition: str  # "" where there is one only
    mean: list[Estimate]
    interquartile_mean: list[Estimate]
    paper: list[PaperPoint]


def curve_of(
    condition: str,
    values: NDArray[np.float64],
    strata: Sequence[int] | None = None,
    paper: Sequence[PaperPoint] = (),
) -> MethodCurve:
    """Mean and interquartile mean of a method under a condition.

    Args:
        condition: The condition.
        values: Its results by seed, gradient step and task, `[N, S + 1, M]`.
        strata: See `maml_rl.statistics.interval`.
        paper: What the paper has.
    """
    means, middle_means = (
        [_estimate(interval(values[:, step], of, strata)) for step in range(values.shape[1])]
        for of in (mean, interquartile_mean)
    )
    return MethodCurve(condition, means, middle_means, list(paper))


def _estimate(found: Interval) -> Estimate:
    return Estimate(*(value if math.isfinite(value) else None for value in found))


@dataclass(frozen=True)
class ComparedRun:
    """A run of a comparison, with its own values by condition."""

    directory: str
    seed: int
    iterations: int
    env_steps: int
    seconds: float
    machines: list[Hardware]
    command: str
    inner_lr: dict[str, list[float]]  # of each gradient step; empty where step sizes are learned
    values: dict[str, list[list[float | None]]]  # by gradient step and task


@dataclass(frozen=True)
class Method:
    """Runs that differ only in their seed."""

    label: str
    method: str
    interval_over: str  # seeds and tasks, or tasks: it then says nothing about other seeds
    curves: list[MethodCurve]
    runs: list[ComparedRun]

    def curve(self, condition: str) -> MethodCurve:
        """The curve under a condition."""
        return next(curve for curve in self.curves if curve.condition == condition)


@dataclass(frozen=True)
class Comparison:
    """Methods on the same tasks: `comparison.json`."""

    problem: str
    name: str  # short, of the problem
    quantity: str  # a key of `maml_rl.learner.QUANTITIES`
    conditions: list[str]
    gradient_steps: int
    task_set: EvaluatedTasks
    num_tasks: int
    episodes: int | None  # of each task by gradient step, in reinforcement learning
    seed: int  # of the tasks
    tasks: list[Any]
    strata: list[int] | None  # of each task, where these are all the tasks there are
    methods: list[Method]

    @property
    def directories(self) -> set[str]:
        """Directories of all runs."""
        return {run.directory for method in self.methods for run in method.runs}


def write_comparison(comparison: Comparison, out: Path, draw: Callable[[Comparison, Path], None]) -> list[Path]:
    """Writes a comparison as JSON, csv and picture, and returns the files: `comparison-paper.*` on the paper's tasks.

    Args:
        comparison: The comparison.
        out: Directory; created if it does not exist.
        draw: Draws it into a file.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / file_of(COMPARISON, comparison.task_set)
    files = [path, path.with_suffix(".csv"), path.with_suffix(".png")]
    draw(comparison, files[2])  # first, so that a picture that cannot be drawn leaves the others as they were
    write_json(files[0], asdict(comparison))
    write_atomically(files[1], csv_text(comparison).encode())
    return files


def read_comparison(path: Path) -> Comparison:
    """A comparison as it was stored.

    Raises:
        InputError: If the file is damaged.
        FileNotFoundError: If there is none.
    """
    remedy = "remove it, or compare the runs again with maml-rl compare"
    comparison: Comparison = read_typed(path, Comparison, remedy)
    if damage := next(_damage(comparison), None):
        raise InputError(f"{path} is damaged ({damage}): {remedy}")
    return comparison


def _damage(comparison: Comparison) -> Iterator[str]:
    """What is wrong with a comparison whose fields have their types."""
    if comparison.quantity not in QUANTITIES or not comparison.conditions:
        yield "it should have conditions and a known quantity"
    steps, longest = comparison.gradient_steps + 1, 0
    for method in comparison.methods:
        lengths = {len(curve.mean) for curve in method.curves} | {len(c.interquartile_mean) for c in method.curves}
        of_all = [curve.condition for curve in method.curves] == comparison.conditions
        if not (of_all and len(lengths) == 1 and 1 <= min(lengths) <= steps and method.runs):
            needs = f"a run, and for each condition values for 0 to {str(steps - 1)[:20]} gradient steps"
            yield f"{method.label[:60]!r} should have {needs}"
        longest = max(longest, *lengths, 0)
    if longest != steps:
        yield f"a method should have values for all of its {str(steps - 1)[:20]} gradient steps"


def stored_runs(path: Path) -> set[str]:
    """Directories of the runs in a stored comparison; empty if there is none, or it cannot be read."""
    try:
        return read_comparison(path).directories
    except (OSError, InputError):
        return set()


def comparison_heading(comparison: Comparison) -> str:
    """What was compared, in one line."""
    unit = QUANTITIES[comparison.quantity].unit
    tasks = tasks_named(comparison.task_set, comparison.num_tasks, comparison.strata)
    count = comparison.episodes
    episodes = f", {count} episode{'' if count == 1 else 's'} each" if count else ""
    return f"{comparison.problem}: mean {comparison.quantity}{f', {unit}' if unit else ''} on {tasks}{episodes}"


def comparison_table(comparison: Comparison) -> str:
    """Mean and interquartile mean by gradient step, with 95 % intervals, and the paper's mean below, if it has one.

    There is a table for each condition. `comparison_remarks` says what must be known to read it.
    """
    tables = []
    for condition in comparison.conditions:
        rows = _rows(comparison, condition)
        width = max(len(row[0]) for row in rows)
        text = text_table([[row[0].ljust(width), *row[1:]] for row in rows])
        tables.append(f"{condition}\n\n{text}" if condition else text)
    return "\n\n".join(tables)


def _rows(comparison: Comparison, condition: str) -> list[list[str]]:
    steps, quantity = range(comparison.gradient_steps + 1), QUANTITIES[comparison.quantity]
    has_env_steps = any(run.env_steps for method in comparison.methods for run in method.runs)
    length = "env steps" if has_env_steps else "iterations"
    rows = [["", "seeds", "interval over", length, *(f"{step} step{'' if step == 1 else 's'}" for step in steps)]]
    for method in comparison.methods:
        curve, runs = method.curve(condition), method.runs
        trained = fmean(run.env_steps if has_env_steps else run.iterations for run in runs)
        about = [str(len(runs)), method.interval_over, env_steps_text(trained) if has_env_steps else f"{trained:,.0f}"]
        rows.append([method.label, *about, *_filled([mean.text(quantity) for mean in curve.mean], steps)])
        middle = [mean.text(quantity) for mean in curve.interquartile_mean]
        rows.append(["  interquartile", "", "", "", *_filled(middle, steps)])
        if curve.paper:
            rows.append(["  paper", "", "", "", *paper_cells(comparison, curve)])
    return rows


def paper_cells(comparison: Comparison, curve: MethodCurve) -> list[str]:
    """The paper's values for each number of gradient steps, and a dash where it has none."""
    texts = {p.gradient_steps: published_text(QUANTITIES[comparison.quantity], p.value) for p in curve.paper}
    return [texts.get(step, "-") for step in range(comparison.gradient_steps + 1)]


def _filled(cells: list[str], steps: Sequence[int]) -> list[str]:
    return [*cells, *["-"] * (len(steps) - len(cells))]


def comparison_remarks(comparison: Comparison) -> list[str]:
    """Notes for reading the table: what its intervals cover, and on which tasks the paper measured."""
    lines = ["[95 % interval]"]
    if any(method.interval_over == "tasks" for method in comparison.methods):
        lines[0] += ": with one or two seeds, over tasks only: it says nothing about other seeds"
    has_paper = any(curve.paper for method in comparison.methods for curve in method.curves)
    if comparison.task_set == "held-out" and comparison.episodes and has_paper:
        lines.append(f"{paper_remark(comparison.strata)}; --tasks paper compares on those")
    if any(method.method.startswith("rl2") for method in comparison.methods):
        lines.append("rl2: its first, second, ... episode of a task, without gradient steps")
    return lines


def csv_text(comparison: Comparison) -> str:
    """A row for each condition, method and gradient step."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    about = ("problem", "tasks", "quantity", "condition", "method", "label", "seeds", "interval_over", "gradient_steps")
    columns = [f"{statistic}{suffix}" for statistic in _STATISTICS for suffix in ("", "_low", "_high")]
    writer.writerow([*about, *columns, "paper", "paper_error"])
    for condition in comparison.conditions:
        for method in comparison.methods:
            curve = method.curve(condition)
            paper = {point.gradient_steps: (point.value, point.error) for point in curve.paper}
            of_method = [method.method, method.label, len(method.runs), method.interval_over]
            of_all = [comparison.problem, comparison.task_set, comparison.quantity, condition]
            for step, estimates in enumerate(zip(curve.mean, curve.interquartile_mean, strict=True)):
                values = [value for estimate in estimates for value in asdict(estimate).values()]
                writer.writerow([*of_all, *of_method, step, *values, *paper.get(step, ("", ""))])
    return file.getvalue()
