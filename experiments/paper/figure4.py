"""Figure 4 of Finn, Abbeel, Levine 2017: 2D navigation, return by gradient step and paths before and after adaptation.

What it needs is trained, compared and evaluated by

    python -m maml_rl.experiments.paper.train_runs navigation

or, with your own runs, by `maml-rl compare --tasks paper RUN [RUN ...]` and

    python -m maml_rl.experiments.paper.figure4 --paths MAML_RUN PRETRAINED_RUN

Returns are on the paper's own 40 tasks, paths on held-out ones. From what these commands leave in `results/navigation`
the figure is drawn again by

    python -m maml_rl.experiments.paper.figure4
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from maml_rl.errors import InputError
from maml_rl.experiments.media.plots import return_by_method
from maml_rl.experiments.runs.comparison_files import COMPARISON, read_comparison
from maml_rl.experiments.runs.evaluations import Overrides, evaluate
from maml_rl.experiments.runs.records import read_record
from maml_rl.experiments.runs.run import file_of
from maml_rl.experiments.runs.trust import check_runs
from maml_rl.json_values import json_text

RESULTS = Path("results")
PATHS = "navigation/paths.json"
FIGURE = "navigation/figure4.png"
_TASKS = 4  # held-out tasks whose paths are drawn, the first of the run's evaluation


class RunPaths(TypedDict):
    """Paths of a run."""

    run: str
    paths: list[list[list[tuple[float, float]]]]  # [gradient steps + 1, tasks, time steps, 2]


class PathsRecord(TypedDict):
    """The file of paths."""

    tasks: list[tuple[float, float]]
    maml: RunPaths
    pretrained: RunPaths


def write_paths(maml: Path, pretrained: Path, results: Path = RESULTS) -> None:
    """Writes the first episode of a few held-out tasks after each gradient step, of two runs on navigation."""
    record: dict[str, Any] = {}
    for name, run in (("maml", maml), ("pretrained", pretrained)):
        evaluations = evaluate(run, Overrides(tasks=_TASKS))
        record["tasks"] = np.asarray(evaluations.trained.tasks).tolist()
        paths = [[np.round(path, 4).astype(float).tolist() for path in step] for step in evaluations.trained.episodes]
        record[name] = {"run": run.as_posix(), "paths": paths}
    path = results / PATHS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json_text(record) + "\n")


def draw(results: Path = RESULTS) -> Path:
    """Draws the figure from files, and returns where it is."""
    comparison = read_comparison(results / "navigation" / file_of(COMPARISON, "paper"))
    paths: dict[str, Any] = read_record(results / PATHS, PathsRecord, "make it again with --paths")
    figure = Figure(figsize=(14, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, *others = figure.subplots(1, 3)
    return_by_method(left, comparison)
    for axes, name in zip(others, ("maml", "pretrained"), strict=True):
        _draw_paths(axes, name, paths)
    figure.savefig(results / FIGURE, dpi=120)
    return results / FIGURE


def _draw_paths(axes: Axes, name: str, record: dict[str, Any]) -> None:
    steps = record[name]["paths"]
    if not steps or any(len(step) != len(record["tasks"]) for step in steps):
        raise InputError(f"{PATHS} is damaged (it should have a path of each task): make it again with --paths")
    axes.set(title=f"{name}, before and after {len(steps) - 1} steps", xlabel="x", ylabel="y", aspect="equal")
    axes.set(xlim=(-0.8, 0.8), ylim=(-0.8, 0.8))
    for i, goal in enumerate(record["tasks"]):
        axes.plot(*np.transpose(steps[0][i]), color=f"C{i}", alpha=0.35, linewidth=0.8)
        axes.plot(*np.transpose(steps[-1][i]), color=f"C{i}", linewidth=1.6)
        axes.plot(*goal, marker="*", markersize=13, color=f"C{i}", markeredgecolor="black", linestyle="none")
    axes.plot(0, 0, "ko", markersize=4)
    axes.text(0.02, 0.02, "thin: before, thick: after, star: goal", transform=axes.transAxes, fontsize=8)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", nargs=2, type=Path, metavar="RUN", help="evaluate these runs for their paths first")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.paths:
            check_runs(chosen.paths)
            write_paths(*chosen.paths)
        print(draw())
    except (InputError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
