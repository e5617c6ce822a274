"""Figure 5 of Finn, Abbeel, Levine 2017: return by gradient step in locomotion, for those tasks that have results.

The runs that it needs are trained and compared by

    python -m maml_rl.experiments.paper.train_runs half-cheetah-vel half-cheetah-dir ant-vel

and, for ant-dir, by `maml-rl train` of ant-dir, ant-dir-pretrained, ant-dir-oracle, ant-dir-random and
`maml-rl compare --tasks paper` of the four runs. All returns are on the paper's own 40 tasks. These commands leave
files in `results`, from which the figure is drawn again by

    python -m maml_rl.experiments.paper.figure5
"""

import sys
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from maml_rl.errors import InputError
from maml_rl.experiments.media.charts import draw_chart, save_figure
from maml_rl.experiments.media.comparison_charts import methods_chart
from maml_rl.experiments.runs.comparison_files import COMPARISON, read_comparison
from maml_rl.experiments.runs.evaluations import file_of

RESULTS = Path("results")
FIGURE = "figure5.png"
TASKS = ("half-cheetah-vel", "half-cheetah-dir", "ant-vel", "ant-dir")  # in the paper's order


def draw_figure5(results: Path = RESULTS) -> Path:
    """Draws the figure from files, and returns where it is.

    Raises:
        FileNotFoundError: If there is no comparison of any of the tasks.
    """
    name = file_of(COMPARISON, "paper")
    found = [results / task / name for task in TASKS if (results / task / name).exists()]
    if not found:
        raise FileNotFoundError(f"{results} has no {name} of {', '.join(TASKS)}: see the top of this script")
    figure = Figure(figsize=(5 * len(found), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, path in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        draw_chart(axes, methods_chart(read_comparison(path)))
    save_figure(figure, results / FIGURE)
    return results / FIGURE


def main() -> None:
    """Runs the script."""
    try:
        print(draw_figure5())
    except (InputError, OSError) as error:
        print(f"figure5: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
