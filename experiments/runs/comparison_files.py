"""A comparison as text, and as the files that a directory of `results/` keeps of it."""

import csv
import io
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from maml_rl.checkpoint import write_json
from maml_rl.errors import InputError
from maml_rl.experiments.media.plots import draw_comparison
from maml_rl.experiments.paper.published import PaperReturn
from maml_rl.experiments.runs.evaluations import aligned
from maml_rl.experiments.runs.provenance import Hardware
from maml_rl.experiments.runs.records import read_record
from maml_rl.experiments.runs.run import TaskSet, env_steps_text, file_of

COMPARISON = "comparison.json"


class IntervalRecord(TypedDict):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


class ComparedRun(TypedDict):
    """A run of a comparison."""

    directory: str
    seed: int
    iterations: int
    env_steps: int
    seconds: float
    machines: list[Hardware]
    command: str
    inner_lr: list[float]
    task_returns: list[list[float]]


class PaperRecord(TypedDict):
    """The paper's mean return, with its standard error over tasks."""

    mean: float
    standard_error: float


class ComparedMethod(TypedDict):
    """Runs that differ by their seed only, with values by gradient step."""

    label: str
    method: str
    mean_return: list[IntervalRecord]
    interquartile_mean: list[IntervalRecord]
    interval_over: str  # seeds and tasks, or tasks: of these very runs, not of other seeds
    paper: list[PaperRecord]
    runs: list[ComparedRun]


class ComparisonRecord(TypedDict):
    """A comparison as JSON values: `comparison.json`."""

    env_id: str
    task: str
    gradient_steps: int
    task_set: TaskSet
    num_tasks: int
    episodes: int
    seed: int
    tasks: list[Any]
    strata: list[int] | None  # of each task, where they are all there are
    methods: list[ComparedMethod]


def write_comparison(record: dict[str, Any], out: Path) -> list[Path]:
    """Writes a comparison as JSON, csv and picture, and returns the files: `comparison-paper.*` on the paper's tasks.

    Args:
        record: What `maml_rl.experiments.runs.comparison.Comparison` records.
        out: Directory, which is made if need be.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / file_of(COMPARISON, record["task_set"])
    files = [path, path.with_suffix(".csv"), path.with_suffix(".png")]
    write_json(files[0], record)
    files[1].write_text(csv_text(record))
    draw_comparison(record, files[2])
    return files


def read_comparison(path: Path) -> dict[str, Any]:
    """The record of a comparison (`ComparisonRecord`).

    Raises:
        InputError: If the file is damaged.
        FileNotFoundError: If there is none.
    """
    remedy = "remove it, or compare the runs again with maml-rl compare"
    record: dict[str, Any] = read_record(path, ComparisonRecord, remedy)
    most = record["gradient_steps"] + 1
    for group in record["methods"]:
        count = len(group["mean_return"])
        if not (1 <= count <= most and count == len(group["interquartile_mean"]) and group["runs"]):
            raise InputError(
                f"{path} is damaged ({group['label'][:60]!r} should have a run, and values for 0 to {most - 1} "
                f"gradient steps): {remedy}"
            )
    return record


def stored_runs(comparison: Path) -> set[str]:
    """Directories of the runs that a stored comparison is of; none if there is none, or it cannot be read."""
    try:
        return runs_of(read_comparison(comparison))
    except (OSError, InputError):
        return set()


def runs_of(record: dict[str, Any]) -> set[str]:
    """Directories of the runs of a comparison."""
    return {run["directory"] for group in record["methods"] for run in group["runs"]}


def table(record: dict[str, Any]) -> str:
    """Mean and interquartile mean by gradient step, with 95 % intervals, and the paper's mean below, if it has one.

    `remarks` says what must be known to read it.
    """
    steps = range(record["gradient_steps"] + 1)
    rows = [["", "seeds", "interval over", "env steps", *(f"{step} step{'' if step == 1 else 's'}" for step in steps)]]
    for group in record["methods"]:
        env_steps = float(np.mean([run["env_steps"] for run in group["runs"]]))
        lines = {
            group["label"]: [show(interval) for interval in group["mean_return"]],
            "  interquartile": [show(interval) for interval in group["interquartile_mean"]],
        }
        if group["paper"]:
            lines["  paper"] = [f"{paper['mean']:.1f}" for paper in group["paper"]]
        for name, cells in lines.items():
            about = [str(len(group["runs"])), group["interval_over"], env_steps_text(env_steps)]
            about = about if name == group["label"] else [""] * len(about)
            rows.append([name, *about, *cells, *["-"] * (len(steps) - len(cells))])
    width = max(len(row[0]) for row in rows)
    return aligned([[row[0].ljust(width), *row[1:]] for row in rows])


def remarks(record: dict[str, Any]) -> list[str]:
    """What must be known to read the table: what its intervals cover, and on which tasks the paper measured."""
    lines = ["[95 % interval]"]
    if any(group["interval_over"] == "tasks" for group in record["methods"]):
        lines[0] += ": with one seed or two over tasks alone, of these very runs and not of other seeds"
    if record["task_set"] == "held-out" and any(group["paper"] for group in record["methods"]):
        lines.append("paper: on its own 40 tasks, which are others; --tasks paper compares on those")
    return lines


def show(interval: dict[str, float]) -> str:
    """A value with its interval."""
    return f"{interval['value']:.1f} [{interval['low']:.1f}, {interval['high']:.1f}]"


def csv_text(record: dict[str, Any]) -> str:
    """A row for each method and gradient step."""
    file = io.StringIO()
    statistics = ("mean_return", "interquartile_mean")
    columns = [f"{statistic}{suffix}" for statistic in statistics for suffix in ("", "_low", "_high")]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        [
            *("env_id", "tasks", "method", "label", "seeds", "interval_over", "gradient_steps"),
            *columns,
            *(f"paper_{f}" for f in PaperReturn._fields),
        ]
    )
    for group in record["methods"]:
        for step in range(len(group["mean_return"])):
            values = [value for statistic in statistics for value in group[statistic][step].values()]
            paper = group["paper"][step].values() if step < len(group["paper"]) else ["", ""]
            about = [group["method"], group["label"], len(group["runs"]), group["interval_over"], step]
            writer.writerow([record["env_id"], record["task_set"], *about, *values, *paper])
    return file.getvalue()
