"""Figure 4 of Finn, Abbeel, Levine 2017: 2D navigation, return by gradient step and paths before and after adaptation.

The runs that it needs are trained, compared and evaluated by

    python -m maml_rl.experiments.paper.train_runs navigation

or, with your own runs, by `maml-rl compare --tasks paper RUN [RUN ...]` and

    python -m maml_rl.experiments.paper.figure4 --paths MAML_RUN PRETRAINED_RUN

Returns are on the paper's own 40 tasks, paths on held-out ones. These commands leave files in `results/navigation`,
from which the figure is drawn again by

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
from maml_rl.experiments.media.charts import draw_chart, save_figure
from maml_rl.experiments.media.comparison_charts import methods_chart
from maml_rl.experiments.media.plots import first_episodes, paths_chart
from maml_rl.experiments.runs.comparison import evaluated_run
from maml_rl.experiments.runs.comparison_files import COMPARISON, read_comparison
from maml_rl.experiments.runs.evaluations import file_of
from maml_rl.experiments.runs.trust import check_runs
from maml_rl.json_types import read_typed
from maml_rl.json_values import json_text
from maml_rl.run import load_run

RESULTS = Path("results")
PATHS = "navigation/paths.json"
FIGURE = "navigation/figure4.png"


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
        evaluation = evaluated_run(run, load_run(run))
        episodes = first_episodes(evaluation, run, evaluation.gradient_steps)
        record["tasks"] = evaluation.curves[0].tasks[: len(episodes[0])]
        paths = [[np.round(path, 4).astype(float).tolist() for path in step] for step in episodes]
        record[name] = {"run": run.as_posix(), "paths": paths}
    path = results / PATHS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json_text(record) + "\n")


def draw_figure4(results: Path = RESULTS) -> Path:
    """Draws the figure from files, and returns where it is."""
    comparison = read_comparison(results / "navigation" / file_of(COMPARISON, "paper"))
    paths: dict[str, Any] = read_typed(results / PATHS, PathsRecord, "make it again with --paths")
    figure = Figure(figsize=(14, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, *others = figure.subplots(1, 3)
    draw_chart(left, methods_chart(comparison))
    for axes, name in zip(others, ("maml", "pretrained"), strict=True):
        _draw_paths(axes, name, paths)
    save_figure(figure, results / FIGURE)
    return results / FIGURE


def _draw_paths(axes: Axes, name: str, record: dict[str, Any]) -> None:
    steps = record[name]["paths"]
    if not steps or any(len(step) != len(record["tasks"]) for step in steps):
        raise InputError(f"{PATHS} is damaged (it should have a path of each task): make it again with --paths")
    title = f"{name}, before and after {len(steps) - 1} steps"
    draw_chart(axes, paths_chart(record["tasks"], steps[0], steps[-1], title))
    axes.set(xlim=(-0.8, 0.8), ylim=(-0.8, 0.8))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paths", nargs=2, type=Path, metavar="RUN", help="evaluate these runs for their paths first")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.paths:
            check_runs(chosen.paths)
            write_paths(*chosen.paths)
        print(draw_figure4())
    except (InputError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
